package decode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"
)

// requestWait is how long a client may take to say what it wants.
const requestWait = 10 * time.Second

// Worker is the decoder's end. A process does one decode and ends: what
// Confine takes away does not come back.
type Worker struct {
	FFmpeg string // the program: a name to find in PATH, or a path
	FDDir  string // the directory where a process finds its own descriptors by number

	// Confine takes from this process and its children every right that
	// program does not need to decode in within the limits. It returns in
	// opened anew for reading alone; the caller closes both.
	Confine func(in *os.File, program string, l Limits) (*os.File, Sandbox, error)
}

// Serve answers the one request that comes through conn, and closes it. What
// is wrong with the file is told to the client and is no error here; a client
// that goes away ends the work.
func (w *Worker) Serve(ctx context.Context, conn *net.UnixConn) error {
	var watch sync.WaitGroup
	defer watch.Wait()
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(requestWait)); err != nil {
		return err
	}
	in, l, err := receiveRequest(conn)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if l.Timeout > 0 { // a client that does not read must not keep this process
		if err := conn.SetWriteDeadline(time.Now().Add(l.Timeout + grace)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch.Go(func() {
		conn.Read(make([]byte, 1)) // the client says no more: this returns when it is gone
		cancel()
	})
	info, err := w.decode(ctx, in, l, pcmFrames{conn})
	return answer(conn, info, err)
}

// answer sends the last frame.
func answer(conn io.Writer, info Info, err error) error {
	if err == nil {
		return writeJSON(conn, frameDone, info)
	}
	var f *failure
	if !errors.As(err, &f) {
		f = fail(CodeDecoderFailed, "%v", err)
	}
	return writeJSON(conn, frameError, f)
}

func writeJSON(w io.Writer, kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, payload)
}

// decode returns a *failure where the file or ffmpeg is to blame.
func (w *Worker) decode(ctx context.Context, in *os.File, l Limits, sink io.Writer) (Info, error) {
	program, err := exec.LookPath(w.FFmpeg)
	if err != nil {
		return Info{}, fail(CodeDecoderMissing, "%v", err)
	}
	in, sandbox, err := w.Confine(in, program, l)
	if err != nil {
		return Info{}, fmt.Errorf("confine: %w", err)
	}
	defer in.Close()
	if err := refusePlaylist(in); err != nil {
		return Info{}, err
	}
	if l.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.Timeout, fail(CodeTimeout, "ffmpeg was still at work"))
		defer cancel()
	}
	run := ffmpeg{program: program, fdDir: w.FDDir, limits: l}
	info, err := run.decode(ctx, in, sink)
	info.Sandbox = sandbox
	return info, err
}
