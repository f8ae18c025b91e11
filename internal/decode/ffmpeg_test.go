package decode

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/fault"
)

// tone is five seconds of 440 Hz, the source of all files here.
const tone = "sine=frequency=440:sample_rate=44100:duration=5"

// media has ffmpeg make a file; it skips the test where its encoder is missing.
func media(t testing.TB, name string, args ...string) string {
	t.Helper()
	needFFmpeg(t)
	path := filepath.Join(t.TempDir(), name)
	args = append([]string{"-hide_banner", "-loglevel", "error", "-nostdin", "-y"}, append(args, path)...)
	out, err := exec.Command("ffmpeg", args...).CombinedOutput()
	if bytes.Contains(out, []byte("Unknown encoder")) {
		t.Skip("this ffmpeg lacks the encoder: ", strings.TrimSpace(string(out)))
	}
	if err != nil {
		t.Fatalf("ffmpeg %v: %v\n%s", args, err, out)
	}
	return path
}

func toneFile(t testing.TB, name string, args ...string) string {
	t.Helper()
	return media(t, name, append([]string{"-f", "lavfi", "-i", tone}, args...)...)
}

// decodeAll decodes a file with the real decoder.
func decodeAll(t testing.TB, path string, l Limits) (Info, []float32, error) {
	t.Helper()
	var out bytes.Buffer
	info, err := realDecoder(t).Decode(t.Context(), open(t, path), l, &out)
	pcm := make([]float32, out.Len()/4)
	for i := range pcm {
		pcm[i] = math.Float32frombits(binary.LittleEndian.Uint32(out.Bytes()[4*i:]))
	}
	return info, pcm, err
}

// frequency counts the upward crossings of zero in the middle of pcm.
func frequency(pcm []float32) float64 {
	mid := pcm[len(pcm)/4 : 3*len(pcm)/4]
	n := 0
	for i := 1; i < len(mid); i++ {
		if mid[i-1] < 0 && mid[i] >= 0 {
			n++
		}
	}
	return float64(n) / float64(len(mid)) * audio.SampleRate
}

func TestFormats(t *testing.T) {
	video := []string{"-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=5", "-map", "0:a", "-map", "1:v"}
	with := func(a ...string) []string { return append(append([]string{}, video...), a...) }
	tests := []struct {
		name string
		args []string
		want Info // Format is a part of it
	}{
		{"a.mp3", nil, Info{Format: "mp3", Codec: "mp3", SampleRate: 44100, Channels: 1}},
		{"index_last.m4a", []string{"-c:a", "aac"}, Info{Format: "m4a", Codec: "aac", SampleRate: 44100, Channels: 1}},
		{"video.mp4", with("-c:v", "mpeg4", "-c:a", "aac"), Info{Format: "mp4", Codec: "aac", SampleRate: 44100, Channels: 1, HasVideo: true}},
		{"a.ogg", []string{"-c:a", "libvorbis"}, Info{Format: "ogg", Codec: "vorbis", SampleRate: 44100, Channels: 1}},
		{"a.opus", []string{"-c:a", "libopus"}, Info{Format: "ogg", Codec: "opus", SampleRate: 48000, Channels: 1}},
		{"a.webm", []string{"-c:a", "libopus"}, Info{Format: "webm", Codec: "opus", SampleRate: 48000, Channels: 1}},
		{"a.flac", nil, Info{Format: "flac", Codec: "flac", SampleRate: 44100, Channels: 1}},
		{"telephone.wav", []string{"-ar", "8000", "-c:a", "pcm_mulaw"}, Info{Format: "wav", Codec: "pcm_mulaw", SampleRate: 8000, Channels: 1}},
		{"studio.wav", []string{"-ar", "96000", "-ac", "2", "-c:a", "pcm_s24le"}, Info{Format: "wav", Codec: "pcm_s24le", SampleRate: 96000, Channels: 2}},
		{"index_first.m4a", []string{"-c:a", "aac", "-movflags", "+faststart"}, Info{Format: "m4a", Codec: "aac", SampleRate: 44100, Channels: 1}},
		{"fragments.mp4", []string{"-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"}, Info{Format: "mp4", Codec: "aac", SampleRate: 44100, Channels: 1}},
		{"video.mkv", with("-c:v", "mpeg4", "-c:a", "flac"), Info{Format: "matroska", Codec: "flac", SampleRate: 44100, Channels: 1, HasVideo: true}},
		{"video.avi", with("-c:v", "mpeg4", "-c:a", "mp3"), Info{Format: "avi", Codec: "mp3", SampleRate: 44100, Channels: 1, HasVideo: true}},
		{"video.ts", with("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"), Info{Format: "mpegts", Codec: "mp2", SampleRate: 44100, Channels: 1, HasVideo: true}},
		{"surround.flac", []string{"-ac", "6"}, Info{Format: "flac", Codec: "flac", SampleRate: 44100, Channels: 6}},
		{"a.aac", []string{"-c:a", "aac"}, Info{Format: "aac", Codec: "aac", SampleRate: 44100, Channels: 1}},
		{"a.aiff", nil, Info{Format: "aiff", Codec: "pcm_s16be", SampleRate: 44100, Channels: 1}},
		{"a.caf", nil, Info{Format: "caf", Codec: "pcm_s16be", SampleRate: 44100, Channels: 1}},
		{"a.au", nil, Info{Format: "au", Codec: "pcm_s16be", SampleRate: 44100, Channels: 1}},
		{"a.wma", nil, Info{Format: "asf", Codec: "wmav2", SampleRate: 44100, Channels: 1}},
		{"a.w64", nil, Info{Format: "w64", Codec: "pcm_s16le", SampleRate: 44100, Channels: 1}},
		{"a.ac3", nil, Info{Format: "ac3", Codec: "ac3", SampleRate: 44100, Channels: 1}},
		{"a.amr", []string{"-ar", "8000", "-c:a", "libopencore_amrnb"}, Info{Format: "amr", Codec: "amrnb", SampleRate: 8000, Channels: 1}},
		{"a.tta", nil, Info{Format: "tta", Codec: "tta", SampleRate: 44100, Channels: 1}},
		{"a.wv", nil, Info{Format: "wv", Codec: "wavpack", SampleRate: 44100, Channels: 1}},
		{"no_extension", []string{"-f", "mp3"}, Info{Format: "mp3", Codec: "mp3", SampleRate: 44100, Channels: 1}},
	}
	const usual = 9 // the first rows: what people send every day
	for i, tt := range tests {
		if testing.Short() && i >= usual {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			info, pcm, err := decodeAll(t, toneFile(t, tt.name, tt.args...), Limits{MaxDuration: time.Hour, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(info.Format, tt.want.Format) {
				t.Errorf("format %q, want %q in it", info.Format, tt.want.Format)
			}
			if info.Codec != tt.want.Codec || info.SampleRate != tt.want.SampleRate || info.Channels != tt.want.Channels || info.HasVideo != tt.want.HasVideo {
				t.Errorf("got %+v, want %+v", info, tt.want)
			}
			if math.Abs(info.Duration.Seconds()-5) > 0.15 || pcmDuration(int64(len(pcm)*4)) != info.Duration {
				t.Errorf("%v in %d samples, want 5 s", info.Duration, len(pcm))
			}
			if f := frequency(pcm); math.Abs(f-440) > 3 {
				t.Errorf("a tone of %.0f Hz, want 440", f)
			}
			if info.Note != "" {
				t.Errorf("note on a whole file: %s", info.Note)
			}
		})
	}
}

// TestTimesFollowTheVideo: sound that begins two seconds into a video keeps its place.
func TestTimesFollowTheVideo(t *testing.T) {
	path := media(t, "late.mp4", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=5:duration=7",
		"-itsoffset", "2", "-f", "lavfi", "-i", tone, "-c:v", "mpeg4", "-c:a", "aac")
	info, pcm, err := decodeAll(t, path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	first := 0
	for first < len(pcm) && math.Abs(float64(pcm[first])) < 0.01 {
		first++
	}
	if at := pcmDuration(int64(first * 4)); math.Abs(at.Seconds()-2) > 0.1 || math.Abs(info.Duration.Seconds()-7) > 0.2 {
		t.Errorf("sound from %v in %v, want 2 s in 7 s", at, info.Duration)
	}
}

// TestCover: a picture of the record is no video.
func TestCover(t *testing.T) {
	cover := media(t, "c.png", "-f", "lavfi", "-i", "color=size=64x64:duration=0.1", "-frames:v", "1")
	info, _, err := decodeAll(t, toneFile(t, "a.mp3", "-i", cover, "-map", "0", "-map", "1", "-disposition:v", "attached_pic"), Limits{})
	if err != nil || info.HasVideo || info.Codec != "mp3" {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestSilentAndEmptySound(t *testing.T) {
	info, pcm, err := decodeAll(t, media(t, "silent.wav", "-f", "lavfi", "-i", "anullsrc=r=44100:d=2"), Limits{})
	if err != nil || info.Duration != 2*time.Second || info.Note != "" {
		t.Fatalf("silent: %+v, %v", info, err)
	}
	for i, v := range pcm {
		if v != 0 {
			t.Fatalf("sample %d of silence is %v", i, v)
		}
	}
	info, pcm, err = decodeAll(t, media(t, "none.wav", "-f", "lavfi", "-i", "anullsrc=r=44100", "-t", "0"), Limits{})
	if err != nil || info.Duration != 0 || len(pcm) != 0 || info.Codec != "pcm_s16le" {
		t.Errorf("no samples: %+v, %v", info, err)
	}
}

// part is a file's beginning.
func part(t testing.TB, path string, share float64) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, raw[:int(float64(len(raw))*share)], 0o444); err != nil {
		t.Fatal(err)
	}
	return cut
}

func TestCutFiles(t *testing.T) {
	for _, name := range []string{"a.mp3", "a.flac", "a.w64"} {
		info, _, err := decodeAll(t, part(t, toneFile(t, name), 0.5), Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s := info.Duration.Seconds(); s < 2 || s > 3 || !strings.Contains(info.Note, "ends early") {
			t.Errorf("%s: %.2f s, note %q; want half of 5 s and a note", name, s, info.Note)
		}
	}
	_, _, err := decodeAll(t, part(t, toneFile(t, "a.mp4", "-c:a", "aac"), 0.5), Limits{})
	wantFault(t, err, CodeTruncated)
}

func TestRefusedFiles(t *testing.T) {
	noise := make([]byte, 100_000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	prose := []byte(strings.Repeat("This is no sound at all, whatever its name may say.\n", 400))
	hls := "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"
	tests := []struct {
		name, code string
		content    []byte
	}{
		{"empty.wav", CodeEmptyFile, nil},
		{"text.mp3", CodeUndecodable, prose},
		{"one byte", CodeUndecodable, []byte("x")},
		{"noise.mp3", CodeUndecodable, noise},
		{"cut in the header.wav", CodeTruncated, []byte("RIFF\x00\x10\x00\x00WAVEfmt ")},
		{"page.html", CodeUndecodable, []byte("<!DOCTYPE html><html><body>404</body></html>")},
		{"subtitles.srt", CodeUndecodable, []byte("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nWorld\n")},
		{"list.m3u8", CodeForbiddenFormat, []byte(strings.ReplaceAll(hls, "%s", "/etc/passwd"))},
		{"list.mp3", CodeForbiddenFormat, []byte(strings.ReplaceAll(hls, "%s", "file:///etc/passwd"))},
		{"concat.txt", CodeForbiddenFormat, []byte("ffconcat version 1.0\nfile '/etc/passwd'\n")},
		{"list.pls", CodeForbiddenFormat, []byte("[playlist]\nFile1=/etc/passwd\nNumberOfEntries=1\n")},
		{"dash.mpd", CodeForbiddenFormat, []byte(`<?xml version="1.0"?><MPD type="static"><Period/></MPD>`)},
		{"session.sdp", CodeForbiddenFormat, []byte("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n")},
		{"picture.svg", CodeUndecodable, []byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var n counter
			_, err := realDecoder(t).Decode(t.Context(), file(t, tt.content), Limits{Timeout: 20 * time.Second}, &n)
			f := wantFault(t, err, tt.code)
			if n > 0 || f.Field != "file" || f.Hint == "" || f.Kind == fault.Internal {
				t.Errorf("%d bytes of sound and %+v", n, f)
			}
		})
	}
	for name, args := range map[string][]string{
		"picture.png": {"-f", "lavfi", "-i", "color=size=64x64:duration=0.1", "-frames:v", "1"},
		"mute.mp4":    {"-f", "lavfi", "-i", "color=size=64x64:duration=1", "-c:v", "mpeg4"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := decodeAll(t, media(t, name, args...), Limits{})
			wantFault(t, err, CodeNoAudioStream)
		})
	}
}

// TestNoConnectionIsMade: neither the sniffing nor ffmpeg follows a URL.
func TestNoConnectionIsMade(t *testing.T) {
	var visits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer server.Close()
	server.Config.ConnState = func(net.Conn, http.ConnState) { visits.Add(1) }
	for _, list := range []string{
		"#EXTM3U\n#EXTINF:10,\n%s/a.mp3\n#EXT-X-ENDLIST\n",
		"\x00\n#EXTM3U\n#EXTINF:10,\n%s/a.mp3\n",
		"ffconcat version 1.0\nfile '%s/a.mp3'\n",
		"%s/a.mp3\n",
		"<asx version=\"3\"><entry><ref href=\"%s\"/></entry></asx>",
	} {
		content := strings.ReplaceAll(list, "%s", server.URL)
		if _, err := realDecoder(t).Decode(t.Context(), file(t, []byte(content)), Limits{Timeout: 20 * time.Second}, io.Discard); err == nil {
			t.Errorf("%q was decoded", content)
		}
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("%d visits", n)
	}
}

func TestLimits(t *testing.T) {
	path := toneFile(t, "a.flac")
	_, _, err := decodeAll(t, path, Limits{MaxDuration: 4 * time.Second})
	if f := wantFault(t, err, CodeTooLong); f.Kind != fault.TooLarge || !strings.Contains(f.Message, "4s") {
		t.Errorf("the limit is not named: %+v", f)
	}
	if _, _, err = decodeAll(t, path, Limits{MaxDuration: 5 * time.Second}); err != nil {
		t.Errorf("five seconds are more than five seconds: %v", err)
	}
	_, _, err = decodeAll(t, path, Limits{Timeout: time.Millisecond})
	wantFault(t, err, CodeTimeout)
	if _, _, err = decodeAll(t, path, Limits{Memory: 100 << 20}); fault.KindOf(err) != fault.Internal && fault.KindOf(err) != fault.TooLarge {
		t.Errorf("with 100 MiB of address space: %v", err)
	}
	d := realDecoder(t)
	d.Program = append(d.Program, "--ffmpeg", "no-such-ffmpeg")
	_, err = d.Decode(t.Context(), open(t, path), Limits{}, io.Discard)
	if f := wantFault(t, err, CodeDecoderMissing); !strings.Contains(f.Hint, "apt install ffmpeg") {
		t.Errorf("hint %q", f.Hint)
	}
}

// stuckSink stops the decoder in its middle, as a slow disk does.
type stuckSink struct {
	reached chan struct{}
	release chan struct{}
	stuck   bool
}

func newStuckSink() *stuckSink {
	return &stuckSink{reached: make(chan struct{}), release: make(chan struct{})}
}

func (s *stuckSink) Write(p []byte) (int, error) {
	if !s.stuck {
		s.stuck = true
		close(s.reached)
		<-s.release
	}
	return len(p), nil
}

// midway starts a long decode and returns when ffmpeg is at work: the pids of
// decoder and ffmpeg, and a function that lets go and returns the error.
func midway(t *testing.T, ctx context.Context) (decoder, ffmpeg int, finish func() error) {
	t.Helper()
	path := media(t, "long.wav", "-f", "lavfi", "-i", "sine=duration=120")
	d, in, sink, result := realDecoder(t), open(t, path), newStuckSink(), make(chan error, 1)
	go func() {
		_, err := d.Decode(ctx, in, Limits{}, sink)
		result <- err
	}()
	select {
	case <-sink.reached:
	case err := <-result:
		t.Fatalf("ended before its first samples: %v", err)
	}
	own := children(t, os.Getpid())
	if len(own) != 1 {
		t.Fatalf("children %v, want the decoder alone", own)
	}
	theirs := children(t, own[0])
	if len(theirs) != 1 {
		t.Fatalf("the decoder's children %v, want ffmpeg alone", theirs)
	}
	return own[0], theirs[0], func() error { close(sink.release); return <-result }
}

// wantDead waits for the kernel to have carried out what was asked.
func wantDead(t *testing.T, pids ...int) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			select {
			case <-deadline:
				t.Fatalf("process %d still runs", pid)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	if left := children(t, os.Getpid()); len(left) > 0 {
		t.Errorf("not reaped: %v", left)
	}
}

func TestDecoderKilledMidway(t *testing.T) {
	decoder, ffmpeg, finish := midway(t, t.Context())
	syscall.Kill(decoder, syscall.SIGKILL)
	f := wantFault(t, finish(), CodeDecoderDied)
	if f.Kind != fault.Internal || !strings.Contains(f.Error(), "signal: killed") {
		t.Errorf("got %v", f)
	}
	wantDead(t, decoder, ffmpeg)
}

func TestFFmpegKilledMidway(t *testing.T) {
	decoder, ffmpeg, finish := midway(t, t.Context())
	syscall.Kill(ffmpeg, syscall.SIGKILL)
	wantFault(t, finish(), CodeDecoderDied)
	wantDead(t, decoder, ffmpeg)
}

func TestCanceledMidway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	before := len(openFDs(t))
	decoder, ffmpeg, finish := midway(t, ctx)
	cancel()
	wantFault(t, finish(), CodeCanceled)
	wantDead(t, decoder, ffmpeg)
	if after := len(openFDs(t)); after > before+1 { // the input is closed by the test's end
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TestClientGoesAway: without a word, as when the server is killed. Nobody
// signals the decoder then, and under systemd nobody reaps it for us.
func TestClientGoesAway(t *testing.T) {
	path := media(t, "long.wav", "-f", "lavfi", "-i", "sine=duration=120")
	p, err := realDecoder(t).start()
	if err != nil {
		t.Fatal(err)
	}
	if err := sendRequest(p.conn, open(t, path), Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readFrame(p.conn, make([]byte, maxFrame)); err != nil {
		t.Fatal(err)
	}
	ffmpeg := children(t, p.cmd.Process.Pid)
	p.conn.Close()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(grace): // sooner, or it could not kill ffmpeg and merely stopped waiting for it
		p.kill()
		t.Fatal("the decoder still runs")
	}
	wantDead(t, ffmpeg...)
}

// TestDescriptorForWriting: a server that hands over a descriptor with which
// it can write gives no right to write away, and its offset does not matter.
func TestDescriptorForWriting(t *testing.T) {
	path := toneFile(t, "a.flac")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Seek(0, io.SeekEnd)
	os.Remove(path) // a spool file may have no name
	var n counter
	info, err := realDecoder(t).Decode(t.Context(), f, Limits{}, &n)
	if err != nil || info.Duration != 5*time.Second {
		t.Errorf("%+v, %v", info, err)
	}
	if info.Sandbox.Level() == "full" && info.Sandbox.Landlock == 0 {
		t.Error("a full sandbox without landlock")
	}
}
