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
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Launcher stands in for systemd's socket activation where there is no
// systemd: it holds the engine's listening socket and starts an engine when
// somebody connects and none runs. The socket outlives every engine, so a
// request that comes while one ends waits for the next.
type Launcher struct {
	Program []string // command line; the socket is its descriptor 3, LISTEN_FDS=1
	Socket  string   // path, made anew
	Stderr  io.Writer
	Log     *slog.Logger

	pid atomic.Int64
}

// PID is the running engine's process id, 0 where none runs.
func (l *Launcher) PID() int { return int(l.pid.Load()) }

// backoff is the pause before an engine is started again after a crash: a
// broken one must not eat the machine. It is forgotten after a good minute.
const (
	backoffLeast = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// Listen makes the socket. It must be called once, before Run; from then on a
// client can connect.
func (l *Launcher) Listen() (net.Listener, error) {
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
	defer listener.Close()
	unixListener, ok := listener.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("engine socket: %T is no Unix listener", listener)
	}
	file, err := unixListener.File()
	if err != nil {
		return fmt.Errorf("engine socket: %w", err)
	}
	defer file.Close()
	pause := backoffLeast
	for {
		if err := waitReadable(ctx, file); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("engine socket: %w", err)
		}
		started := time.Now()
		err := l.runOne(ctx, file)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || time.Since(started) > time.Minute {
			pause = backoffLeast
		}
		if err != nil {
			l.Log.Error("engine ended", "error", err, "after", time.Since(started), "restart_in", pause)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			pause = min(2*pause, backoffMost)
		}
	}
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
	cmd := exec.CommandContext(ctx, l.Program[0], l.Program[1:]...)
	cmd.Stdin, cmd.Stderr = lifeline, l.Stderr
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_PID=self", "LISTEN_FDNAMES=engine")
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
	return cmd.Wait()
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
