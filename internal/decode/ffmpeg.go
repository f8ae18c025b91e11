package decode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/internal/audio"
)

// formats is what ffmpeg may open: containers and streams that hold sound.
// Whatever names other files (playlists, concat, DASH, SDP), makes pictures
// into streams or synthesizes is left out.
const formats = "aac,ac3,adx,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dss,dts,dtshd,eac3,flac,flv,ircam," +
	"loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rso,sox,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"

// ffmpeg is one run of it.
type ffmpeg struct {
	program string
	fdDir   string
	limits  Limits
}

// childFD is the input's descriptor number in ffmpeg: the first of exec.Cmd.ExtraFiles.
const childFD = "3"

// overrun is decoded beyond the limit, to see that there is more.
const overrun = time.Second

// args: the sound starts where the file's clock does and gaps in it become
// silence (aresample), or the times of a video's text would be off.
func (r *ffmpeg) args() []string {
	rate := strconv.Itoa(audio.SampleRate)
	a := []string{"-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info",
		"-protocol_whitelist", "file,pipe", "-format_whitelist", formats,
		"-threads", "1", "-vn", "-sn", "-dn", "-i", filepath.Join(r.fdDir, childFD),
		"-map", "0:a:0", "-map_metadata", "-1", "-filter_threads", "1", "-af", "aresample=" + rate + ":async=1:first_pts=0",
		"-ac", "1", "-ar", rate}
	if d := r.limits.MaxDuration; d > 0 {
		a = append(a, "-t", fmt.Sprintf("%.3f", (d+overrun).Seconds()))
	}
	return append(a, "-f", "f32le", "pipe:1")
}

// decode runs ffmpeg on in and copies its sound to sink.
//
// All of it stays on one thread: the signal at the parent's death is bound to
// the thread that forks, and landlock lets none but this one kill the child,
// as each thread got a domain of its own.
func (r *ffmpeg) decode(ctx context.Context, in *os.File, sink io.Writer) (Info, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var said report
	cmd := exec.Command(r.program, r.args()...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.ExtraFiles = []*os.File{in}
	cmd.Stderr = &said
	cmd.WaitDelay = grace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Info{}, err
	}
	if err := cmd.Start(); err != nil {
		return Info{}, fmt.Errorf("start ffmpeg: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { out.Close() }) // ends the copying
	total, copied := r.copy(sink, out)
	stop()
	exited := reap(ctx, cmd, copied != nil)
	switch {
	case ctx.Err() != nil:
		return Info{}, stopped(ctx)
	case copied != nil:
		return Info{}, copied
	}
	return said.verdict(total, exited)
}

// reap waits for cmd to end, and kills it where that is due. The killing is
// done on the caller's thread.
func reap(ctx context.Context, cmd *exec.Cmd, kill bool) error {
	if kill {
		cmd.Process.Kill()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		cmd.Process.Kill()
		return <-ended
	}
}

// copy moves the PCM until it ends or is more than allowed.
func (r *ffmpeg) copy(sink io.Writer, out io.Reader) (total int64, err error) {
	buf := make([]byte, maxFrame)
	for {
		n, readErr := io.ReadFull(out, buf)
		total += int64(n)
		if r.limits.exceededBy(total) {
			return total, fail(CodeTooLong, "more than %v", r.limits.MaxDuration)
		}
		if n > 0 {
			if _, err := sink.Write(buf[:n]); err != nil {
				return total, fmt.Errorf("write samples: %w", err)
			}
		}
		if readErr != nil { // the exit status says whether this is the end or a crash
			return total, nil
		}
	}
}

// verdict says what became of the file: total bytes of PCM and the way ffmpeg ended.
func (s *report) verdict(total int64, exited error) (Info, error) {
	info := s.info
	info.Duration = pcmDuration(total)
	if f := s.killed(exited); f != nil {
		return Info{}, f
	}
	const enough = bytesPerSecond // what is shorter is not worth the doubt
	switch {
	case exited == nil && total == 0 && s.lost(0):
		return Info{}, fail(CodeTruncated, "%s", s.why())
	case exited == nil, total >= enough:
		if exited != nil || s.lost(info.Duration) {
			info.Note = s.endsEarly(info.Duration)
		}
		return info, nil
	}
	return Info{}, s.refusal()
}

// loaderFailed is the exit status when a library of ffmpeg's is missing or
// does not fit into memory.
const loaderFailed = 127

// killed names the limit that ended ffmpeg, if one did.
func (s *report) killed(exited error) *failure {
	var exit *exec.ExitError
	if !errors.As(exited, &exit) {
		return nil
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	switch {
	case s.outOfMemory():
		return fail(CodeMemory, "%s", s.why())
	case ok && status.ExitStatus() == loaderFailed:
		return fail(CodeDecoderFailed, "ffmpeg cannot start: %s", s.why())
	case !ok || !status.Signaled():
		return nil
	case status.Signal() == syscall.SIGXCPU:
		return fail(CodeTimeout, "ffmpeg used up its CPU time")
	}
	return fail(CodeDecoderDied, "ffmpeg: %v: %s", exit, s.why())
}

// refusePlaylist looks at the first bytes for the lists that people do send.
// ffmpeg would refuse most of them by format; this gives all one answer.
func refusePlaylist(in io.ReaderAt) error {
	head := make([]byte, 1024)
	n, err := in.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the file: %w", err)
	}
	text := strings.ToLower(strings.TrimLeft(string(head[:n]), "\ufeff \t\r\n"))
	for _, start := range []string{"#extm3u", "ffconcat version", "[playlist]", "[reference]", "rtsptext", "http://", "https://", "file://", "rtsp://"} {
		if strings.HasPrefix(text, start) {
			return fail(CodeForbiddenFormat, "starts with %q", start)
		}
	}
	if !strings.HasPrefix(text, "<") {
		return nil
	}
	for _, tag := range []string{"<mpd", "<asx", "<smil", "<playlist", "<?wpl", "<smoothstreamingmedia"} {
		if strings.Contains(text, tag) {
			return fail(CodeForbiddenFormat, "holds %q", tag)
		}
	}
	return nil
}
