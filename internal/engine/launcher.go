package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Launcher stands in for systemd's socket activation where there is no
// systemd: it holds the engine's listening socket and starts an engine when
// somebody connects and none runs. The socket outlives every engine, so a
// request that comes while one ends waits for the next. Where no engine can be
// started it answers for it, with the reason.
type Launcher struct {
	Program []string // command line; the socket is its descriptor 3, LISTEN_FDS=1
	Socket  string   // path, made anew
	Env     []string // variables for the engine, beside the few that it inherits
	Stderr  io.Writer
	Log     *slog.Logger

	lock *flock.Flock
	pid  atomic.Int64
	down atomic.Pointer[outage]
}

// outage is why an engine could not be started, and when that was last seen.
type outage struct {
	reason string
	at     time.Time
}

// remembered is how long an outage counts: nobody may try again for as long as
// health tells clients not to, and so only time can take the word back.
const remembered = 30 * time.Second

// ErrTaken means that another process holds the socket.
var ErrTaken = errors.New("another process holds the engine's socket")

// backoff is the pause before an engine is started again after a crash: a
// broken one must not eat the machine. It is forgotten after a good minute.
const (
	backoffLeast = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// patience is how many engines may fail at their start, one after the other,
// while the same connection waits, and quick what counts as failing at the start.
const (
	patience = 3
	quick    = 5 * time.Second
)

// PID is the running engine's process id, 0 where none runs.
func (l *Launcher) PID() int { return int(l.pid.Load()) }

// Down is why the last engine could not be started, "" where that is not known
// or was a while ago.
func (l *Launcher) Down() string {
	if o := l.down.Load(); o != nil && time.Since(o.at) < remembered {
		return o.reason
	}
	return ""
}

// Kill ends the running engine at once: it no longer answers.
func (l *Launcher) Kill() {
	if pid := l.PID(); pid != 0 {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it has gone by itself
	}
}

// Listen makes the socket. It must be called once, before Run; from then on a
// client can connect. The error is ErrTaken where another launcher lives: its
// socket is left alone.
func (l *Launcher) Listen() (net.Listener, error) {
	l.lock = flock.New(l.Socket + ".lock")
	if ok, err := l.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("engine socket: %w", err)
	} else if !ok {
		return nil, ErrTaken
	}
	listener, err := l.listen()
	if err != nil {
		l.lock.Unlock() //nolint:errcheck // the error at hand says more
	}
	return listener, err
}

func (l *Launcher) listen() (net.Listener, error) {
	if err := os.Remove(l.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("engine socket: %w", err)
	}
	listener, err := net.Listen("unix", l.Socket)
	if err != nil {
		return nil, fmt.Errorf("engine socket: %w", err)
	}
	if err := os.Chmod(l.Socket, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("engine socket: %w", err)
	}
	return listener, nil
}

// Run starts engines as they are needed until ctx ends, and returns when the
// last one has gone. It closes the listener.
func (l *Launcher) Run(ctx context.Context, listener net.Listener) error {
	defer l.lock.Unlock() //nolint:errcheck // the process's end unlocks it, too
	defer listener.Close()
	socket, ok := listener.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("engine socket: %T is no Unix listener", listener)
	}
	file, err := socket.File()
	if err != nil {
		return fmt.Errorf("engine socket: %w", err)
	}
	defer file.Close()
	pause, failures := backoffLeast, 0
	for {
		if err := waitReadable(ctx, file); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("engine socket: %w", err)
		}
		started := time.Now()
		err := l.runOne(ctx, file)
		took := time.Since(started)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || took > quick:
			l.down.Store(nil)
			failures = 0
		default:
			failures++
		}
		if err == nil || took > time.Minute {
			pause = backoffLeast
		}
		if err == nil {
			continue
		}
		l.Log.Error("engine ended", "error", err, "after", took, "restart_in", pause)
		if failures >= patience || hopeless(err) {
			l.refuse(ctx, socket, err)
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, backoffMost)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// hopeless tells an end that the next engine would only repeat: the program is
// not there, or it says that its command line or its surroundings are wrong.
func hopeless(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return true // it could not even be started
	}
	return slices.Contains([]int{64, 78, 126, 127}, exit.ExitCode())
}

// runOne runs an engine to its end.
func (l *Launcher) runOne(ctx context.Context, socket *os.File) error {
	// The engine reads its standard input to the end and then exits: it never
	// outlives a server that was killed.
	lifeline, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	var words lastLine
	cmd := exec.CommandContext(ctx, l.Program[0], l.Program[1:]...)
	cmd.Stdin, cmd.Stderr = lifeline, &words
	if l.Stderr != nil {
		cmd.Stderr = io.MultiWriter(l.Stderr, &words)
	}
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = slices.Concat(inherited(), l.Env, []string{"LISTEN_FDS=1", "LISTEN_PID=self", "LISTEN_FDNAMES=engine"})
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Start()
	lifeline.Close()
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	l.pid.Store(int64(cmd.Process.Pid))
	defer l.pid.Store(0)
	l.Log.Debug("engine started", "pid", cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w%s", err, words.after())
	}
	return nil
}

// spinCount is that of the engine's unit: threads that spin for long while they wait
// take the processor from those they wait for, where others want it, too.
const spinCount = "GOMP_SPINCOUNT=1000"

// inherited are the variables of ours that an engine has a use for; keys and
// the service manager's socket are not among them. Of a name that is there twice
// the last one counts.
func inherited() []string {
	env := []string{spinCount}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name == "PATH" || name == "LANG" || name == "TZ" || strings.HasPrefix(name, "OMP_") || strings.HasPrefix(name, "GOMP_") || strings.HasPrefix(name, "GGML_") {
			env = append(env, v)
		}
	}
	return env
}

// lastLine keeps the last line that was written to it: a program that ends
// badly says why there.
type lastLine struct{ line string }

func (w *lastLine) Write(p []byte) (int, error) {
	if lines := strings.Split(strings.TrimRight(string(p), "\n"), "\n"); lines[len(lines)-1] != "" {
		w.line = lines[len(lines)-1]
	}
	return len(p), nil
}

func (w *lastLine) after() string {
	if w.line == "" {
		return ""
	}
	return ": " + w.line
}

// waitReadable returns when a connection waits on socket, or ctx's error. It
// accepts nothing. (Go's own poller would do, but a listener's RawConn refuses
// Read, so this is poll with a pipe that ctx closes: one parked thread.)
func waitReadable(ctx context.Context, socket *os.File) error {
	ended, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	stop := context.AfterFunc(ctx, func() { end.Close() })
	defer func() {
		if stop() {
			end.Close()
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(socket.Fd()), Events: unix.POLLIN}, {Fd: int32(ended.Fd())}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// InheritedPID turns LISTEN_PID=self, which the Launcher sets because it
// cannot know the id of a process that it has yet to start, into what the
// socket activation protocol wants.
func InheritedPID() error {
	if os.Getenv("LISTEN_PID") == "self" {
		return os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	return nil
}
