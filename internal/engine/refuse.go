package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// linger is how long refuse looks for further connections that wait.
const linger = 50 * time.Millisecond

// refuse answers whoever waits on socket in place of an engine that cannot be
// started: they would wait for ever.
func (l *Launcher) refuse(ctx context.Context, socket *net.UnixListener, reason error) {
	words := reason.Error()
	l.down.Store(&outage{words, time.Now()})
	// Handing the socket to an engine made it blocking, for us too: they share it.
	raw, err := socket.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.SetNonblock(int(fd), true) }) //nolint:errcheck // a socket can be
	}
	if err != nil {
		return // it is closed: nobody waits any more
	}
	defer socket.SetDeadline(time.Time{}) //nolint:errcheck // it is open
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20)) //nolint:errcheck // so that the answer is read
			w.Header().Set("Connection", "close")
			fail(w, &Failure{CodeDown, "no engine can be started: " + words})
		}),
		ReadTimeout: 10 * time.Second,
		ErrorLog:    slog.NewLogLogger(l.Log.Handler(), slog.LevelDebug),
	}
	srv.Serve(waiting{socket}) //nolint:errcheck // ends when nobody waits any more
	finish, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if srv.Shutdown(finish) != nil {
		srv.Close()
	}
}

// waiting gives out the connections that wait and then says it is closed; the
// socket stays open.
type waiting struct{ *net.UnixListener }

func (w waiting) Accept() (net.Conn, error) {
	if err := w.SetDeadline(time.Now().Add(linger)); err != nil {
		return nil, err
	}
	conn, err := w.UnixListener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed
	}
	return conn, err
}

func (w waiting) Close() error { return nil }
