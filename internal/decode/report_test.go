package decode

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const videoReport = `[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from '/dev/fd/3':
[info]   Metadata:
[info]     title           : first line
[info]                     : Stream #0:0: Audio: fake, 1 Hz, mono
[info]   Duration: 01:02:03.45, start: 0.000000, bitrate: 184 kb/s
[info]   Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 160x120 (default)
[info]   Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 48000 Hz, 5.1(side), fltp, 68 kb/s (default)
[info]   Stream #0:2[0x3](fra): Audio: ac3, 44100 Hz, stereo, fltp
[info] Stream mapping:
[info]   Stream #0:1 -> #0:0 (aac (native) -> pcm_f32le (native))
[info] Output #0, f32le, to 'pipe:1':
[info]   Stream #0:0(und): Audio: pcm_f32le, 16000 Hz, mono, flt, 512 kb/s (default)
`

func TestReportReadsStreams(t *testing.T) {
	for _, piece := range []int{1, 7, 1000} { // however the pipe splits it
		var s report
		for rest := videoReport; rest != ""; {
			n := min(piece, len(rest))
			s.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		want := Info{Format: "mov,mp4,m4a,3gp,3g2,mj2", Codec: "aac", SampleRate: 48000, Channels: 6, HasVideo: true}
		if s.info != want {
			t.Errorf("pieces of %d: got %+v, want %+v", piece, s.info, want)
		}
		if want := time.Hour + 2*time.Minute + 3450*time.Millisecond; s.declared != want {
			t.Errorf("declared %v, want %v", s.declared, want)
		}
	}
}

func TestReportIsBounded(t *testing.T) {
	var s report
	s.Write([]byte(strings.Repeat("x", 1<<20)))
	if len(s.line) > maxLine {
		t.Errorf("an endless line takes %d bytes", len(s.line))
	}
	for range 1000 {
		s.Write([]byte("\n[mp3 @ 0x1] [error] Header missing"))
	}
	if len(s.errors) > maxErrors {
		t.Errorf("%d errors kept", len(s.errors))
	}
}

func TestChannels(t *testing.T) {
	for layout, want := range map[string]int{
		"mono": 1, "stereo": 2, "downmix": 2, "2.1": 3, "quad": 4, "5.1(side)": 6, "7.1": 8, "3 channels": 3,
		"12 channels (FL+FR)": 12, "unheard of": 0,
	} {
		if got := channels(layout); got != want {
			t.Errorf("%q: %d, want %d", layout, got, want)
		}
	}
}

const opened = "[info] Input #0, mp3, from '/dev/fd/3':\n"

func TestVerdict(t *testing.T) {
	const sound = "[info]   Stream #0:0: Audio: mp3, 16000 Hz, mono, fltp, 24 kb/s\n"
	const tenSeconds = "[info]   Duration: 00:00:10.00, start: 0.0\n"
	refused := func(format string) string {
		return fmt.Sprintf("[%s @ 0x55] [error] Format not on whitelist 'wav'\n", format)
	}
	one := errors.New("exit status 1")
	tests := []struct {
		name    string
		said    string
		seconds float64
		exited  error
		code    string // "" = accepted
		note    bool
	}{
		{"whole", opened + tenSeconds + sound, 10, nil, "", false},
		{"no sample", opened + sound, 0, nil, "", false},
		{"nothing of ten seconds", opened + tenSeconds + sound, 0, nil, CodeTruncated, false},
		{"half of it", opened + tenSeconds + sound, 5, nil, "", true},
		{"half of a guess", "[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n" + opened + tenSeconds + sound, 5, nil, "", false},
		{"broken tag at the end", opened + tenSeconds + sound + "[error] Error while decoding stream #0:0: Invalid data\n", 9.9, nil, "", false},
		{"broken packet, part is there", opened + tenSeconds + sound + "[mp3 @ 0x1] [error] stream 0, offset 0x9: partial file\n", 9.5, nil, "", true},
		{"error after a second", opened + sound, 1, one, "", true},
		{"error at once", opened + sound, 0.5, one, CodeUndecodable, false},
		{"no index", "[mov @ 0x1] [error] moov atom not found\n[error] /dev/fd/3: Invalid data found\n", 0, one, CodeTruncated, false},
		{"garbage", "[error] /dev/fd/3: Invalid data found\n", 0, one, CodeUndecodable, false},
		{"no sound", opened + "[info]   Stream #0:0: Video: h264, yuv420p\n[fatal] Stream map '0:a:0' matches no streams.\n", 0, one, CodeNoAudioStream, false},
		{"picture", refused("png_pipe"), 0, one, CodeNoAudioStream, false},
		{"playlist", refused("hls"), 0, one, CodeForbiddenFormat, false},
		{"concat", refused("concat"), 0, one, CodeForbiddenFormat, false},
		{"subtitles", refused("srt"), 0, one, CodeUndecodable, false},
		{"not allowed to read", "[error] /dev/fd/3: Permission denied\n", 0, one, CodeDecoderFailed, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s report
			s.Write([]byte(tt.said))
			info, err := s.verdict(int64(tt.seconds*bytesPerSecond), tt.exited)
			var f *failure
			if errors.As(err, &f); tt.code == "" && err != nil || tt.code != "" && (f == nil || f.Code != tt.code) {
				t.Fatalf("got %v, want code %q", err, tt.code)
			}
			if (info.Note != "") != tt.note {
				t.Errorf("note %q, want one: %v", info.Note, tt.note)
			}
		})
	}
}

func TestRefusePlaylist(t *testing.T) {
	for head, refused := range map[string]bool{
		"#EXTM3U\n/etc/passwd":                            true,
		"\ufeff\r\n#extm3u":                               true,
		"ffconcat version 1.0\nfile x":                    true,
		"[playlist]\nFile1=http://x":                      true,
		"http://radio/stream.mp3\n":                       true,
		"<?xml version=\"1.0\"?>\n<MPD xmlns=\"x\">":      true,
		"<ASX version=\"3.0\">":                           true,
		"<?xml version=\"1.0\"?><playlist version=\"1\">": true,
		"RIFF\x00\x00\x00\x00WAVE":                        false,
		"some prose that mentions <playlist> and #EXTM3U": false,
		"":                                    false,
		"<html><body>not found</body></html>": false,
		"ID3\x03\x00\x00\x00\x00\x00\x00#EXTM3U in a title": false,
	} {
		err := refusePlaylist(strings.NewReader(head))
		if (err != nil) != refused {
			t.Errorf("%q: %v, want refused %v", head, err, refused)
		}
	}
}
