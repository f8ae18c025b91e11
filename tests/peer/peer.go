// Package peer runs whisper.cpp's own programs, as Debian packages them, so
// that the appliance can be compared with them. They live in a root of their
// own that peer.sh makes; entering it needs the right to chroot. The package
// trusts that root, and writes its directory wa: copies of models and clips.
package peer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/internal/durable"
)

const (
	inbox      = "wa"             // where models and clips lie in the root
	startLimit = 60 * time.Second // until whisper-server answers, its model read
	stopLimit  = 10 * time.Second
	pollEvery  = 10 * time.Millisecond
)

// Peer is a root with whisper.cpp's programs in it.
type Peer struct{ Root string }

// Open checks that the programs are there and that we may enter. The error
// says what to run.
func Open(root string) (Peer, error) {
	if _, err := os.Stat(filepath.Join(root, "versions")); err != nil {
		return Peer{}, fmt.Errorf("find the peer: %w; run tests/peer/peer.sh as root first", err)
	}
	if os.Geteuid() != 0 {
		return Peer{}, errors.New("entering the peer needs root, for chroot: run this with sudo")
	}
	return Peer{Root: root}, nil
}

// Version is whisper.cpp's, as Debian counts it.
func (p Peer) Version() (string, error) {
	data, err := os.ReadFile(filepath.Join(p.Root, "versions"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, version, _ := strings.Cut(strings.TrimSpace(line), " "); name == "libwhisper1" {
			return version, nil
		}
	}
	return "", fmt.Errorf("the peer in %s names no version of libwhisper1; make it anew with tests/peer/peer.sh", p.Root)
}

// command runs a program of the root. A file outside of it is put into it by
// bring first.
func (p Peer) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "chroot", append([]string{p.Root, program}, args...)...)
}

// bring copies a file into the root, unless it is there as it is, and gives
// its path in there.
func (p Peer) bring(path string) (string, error) {
	inside := filepath.Join(inbox, filepath.Base(path))
	copied := filepath.Join(p.Root, inside)
	src, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return "", err
	}
	if old, err := os.Stat(copied); err == nil && old.Size() == info.Size() && old.ModTime().Equal(info.ModTime()) {
		return inside, nil
	}
	if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
		return "", err
	}
	err = durable.Write(copied, 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
	if err != nil {
		return "", err
	}
	return inside, os.Chtimes(copied, info.ModTime(), info.ModTime())
}

// Cost is what a run of a program took, reading the model included.
type Cost struct {
	Took, CPU time.Duration
	Peak      int64 // bytes resident at most
}

// CLI has whisper-cli transcribe a WAV file and gives its text as it stands,
// and what that took. args are further
// options of whisper-cli, such as "-l", "de".
func (p Peer) CLI(ctx context.Context, model, wav string, args ...string) (text string, cost Cost, err error) {
	inModel, err := p.bring(model)
	if err != nil {
		return "", cost, fmt.Errorf("copy %s to the peer: %w", filepath.Base(model), err)
	}
	inWAV, err := p.bring(wav)
	if err != nil {
		return "", cost, fmt.Errorf("copy %s to the peer: %w", filepath.Base(wav), err)
	}
	// -nt would leave the times away, but in decoding too, not in print alone.
	cmd := p.command(ctx, "whisper-cli", append([]string{"-m", inModel, "-f", inWAV, "-np"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return "", cost, fmt.Errorf("whisper-cli on %s: %w\n%s", filepath.Base(wav), err, &stderr)
	}
	cost = Cost{Took: time.Since(start), CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		cost.Peak = usage.Maxrss << 10
	}
	return segmentText(stdout.String()), cost, nil
}

// times is what whisper-cli prints before the text of each segment.
var times = regexp.MustCompile(`(?m)^\[[0-9:.]+ --> [0-9:.]+\]  `)

// segmentText joins the text of printed segments, which begin with a space of
// their own where the language has spaces.
func segmentText(printed string) string {
	return strings.TrimSpace(strings.ReplaceAll(times.ReplaceAllString(printed, ""), "\n", ""))
}

// Server is a whisper-server that answers.
type Server struct {
	URL     string        // of its transcription door
	PID     int           // its process id
	Started time.Duration // from the start of the process to its first answer, the model read

	cmd   *exec.Cmd
	ended chan struct{} // closed when it has gone
	err   error         // how it went; read after ended
}

// Server starts whisper-server with a model and waits until it answers. It
// lives until Stop or the end of ctx. args are further options.
func (p Peer) Server(ctx context.Context, model string, args ...string) (*Server, error) {
	inside, err := p.bring(model)
	if err != nil {
		return nil, fmt.Errorf("copy %s to the peer: %w", filepath.Base(model), err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	l.Close() // whisper-server takes the port over
	if err != nil {
		return nil, err
	}
	address := "http://" + net.JoinHostPort(host, port)
	var log bytes.Buffer // read when the process has ended
	s := &Server{URL: address + "/inference", ended: make(chan struct{})}
	s.cmd = p.command(ctx, "whisper-server", append([]string{"-m", inside, "--host", host, "--port", port}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	start := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start whisper-server: %w", err)
	}
	s.PID = s.cmd.Process.Pid // chroot becomes the program, it has no child
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	if err := s.wait(ctx, address); err != nil {
		s.cmd.Process.Kill() //nolint:errcheck // it has gone already
		<-s.ended
		return nil, fmt.Errorf("start whisper-server: %w\n%s", err, &log)
	}
	s.Started = time.Since(start)
	return s, nil
}

// wait polls until the server answers anything.
func (s *Server) wait(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended at once: %w", cmp.Or(s.err, errors.New("exit status 0")))
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, ctx.Err())
		case <-tick.C:
		}
	}
}

// Stop ends the server and waits until it is gone.
func (s *Server) Stop() {
	s.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it has gone already
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		s.cmd.Process.Kill() //nolint:errcheck // it has gone already
		<-s.ended
	}
}
