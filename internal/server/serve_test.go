package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
)

// serving is a server under Serve.
type serving struct {
	addr  string
	stop  context.CancelFunc
	ended <-chan error
}

func serve(t *testing.T, r *rig, drain time.Duration) serving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, drain, l) }()
	t.Cleanup(func() {
		stop()
		l.Close()
	})
	return serving{l.Addr().String(), stop, ended}
}

// connection is a client's, kept.
type connection struct {
	net.Conn
	r *bufio.Reader
}

func (s serving) dial(t *testing.T) connection {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
	return connection{c, bufio.NewReader(c)}
}

// get asks over the connection; close tells whether the server will end it.
func (c connection) get(t *testing.T, path string) (a answered, close bool) {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	return c.answer(t)
}

func (c connection) answer(t *testing.T) (a answered, close bool) {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return read(resp), resp.Close
}

func (c connection) post(path string, parts ...part) {
	form, kind := encode(parts...)
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, kind, len(form), form)
}

// TestServe runs what takes as long as the grace, side by side.
func TestServe(t *testing.T) {
	noLeaks(t)
	for name, test := range map[string]func(*testing.T){"drains": serveDrains, "cuts off": serveCutsOff, "listener fails": listenerFails} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// serveDrains: what was accepted is answered, nothing new is accepted.
func serveDrains(t *testing.T) {
	gate := make(chan error, 3)
	r := oneOfMany(t, gated(gate))
	s := serve(t, r, 10*time.Second)
	idle, another, working, streaming := s.dial(t), s.dial(t), s.dial(t), s.dial(t)
	for _, c := range []connection{idle, another} {
		if a, close := c.get(t, "/readyz"); a.status != 200 || close {
			t.Errorf("before: %d, close %v", a.status, close)
		}
	}
	working.post("/v1/audio/transcriptions", recording("file"))
	eventually(t, "the engine's first window", func() bool { r.engine.mu.Lock(); defer r.engine.mu.Unlock(); return r.engine.n == 1 })
	streaming.post("/api/v1/transcriptions", recording("file"))
	eventually(t, "the second request", func() bool { return r.Service.Waiting() == 1 })
	s.stop()
	eventually(t, "the closed port", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	// Connections that lay idle when the stop came still get their answer.
	if a, close := idle.get(t, "/readyz"); a.status != 503 || !close || !strings.Contains(a.body, "stopping") {
		t.Errorf("readyz: %d, close %v, %s", a.status, close, a.body)
	}
	if a, close := another.get(t, "/livez"); a.status != 200 || !close {
		t.Errorf("livez: %d, close %v", a.status, close)
	}
	go func() {
		for range 6 {
			gate <- nil
		}
	}()
	a, close := working.answer(t)
	if a.want(t, 200, "Part"); !close && a.header.Get("Connection") == "" {
		t.Log("the connection of a request from before the stop is closed a little later")
	}
	if b, _ := streaming.answer(t); b.status != 200 || !strings.Contains(b.body, "event: done") {
		t.Errorf("the stream: %d %q", b.status, b.body)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// serveCutsOff: the stop has an end, also where a request has none.
func serveCutsOff(t *testing.T) {
	left := make(chan error, 1)
	r := oneOfMany(t, func(ctx context.Context, _ int, _ engine.WindowRequest, _ func(engine.Event)) (engine.Done, error) {
		<-ctx.Done()
		left <- ctx.Err()
		return engine.Done{}, context.Cause(ctx)
	})
	s := serve(t, r, 50*time.Millisecond)
	c := s.dial(t)
	c.post("/transcribe", recording("audio"))
	eventually(t, "the engine's window", func() bool { r.engine.mu.Lock(); defer r.engine.mu.Unlock(); return r.engine.n == 1 })
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	<-left
	if _, err := http.ReadResponse(c.r, nil); err == nil {
		t.Error("the client got an answer")
	}
}

// listenerFails: a listener that breaks ends the server with its error.
func listenerFails(t *testing.T) {
	r := oneOfMany(t, talks)
	good, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the listener broke")
	err = r.Serve(t.Context(), time.Second, good, &brokenListener{Listener: good, err: broken})
	if !errors.Is(err, broken) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", good.Addr().String()); err == nil {
		t.Error("the other listener is open")
	}
}

type brokenListener struct {
	net.Listener
	err error
}

func (b *brokenListener) Accept() (net.Conn, error) { return nil, b.err }
func (b *brokenListener) Close() error              { return nil }

// logged collects what is logged.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestPanics: one costs its request alone, and the log has it in full.
func TestPanics(t *testing.T) {
	for name, c := range map[string]struct {
		h      http.HandlerFunc
		status int  // 0 = the connection breaks
		log    bool // with the stack
	}{
		"before the header": {func(http.ResponseWriter, *http.Request) { panic("a bug") }, 500, true},
		"after the header": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			io.WriteString(w, "half") //nolint:errcheck // a test
			panic("a bug")
		}, 0, true},
		"on purpose": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, false},
		"by mistake": {func(_ http.ResponseWriter, q *http.Request) { _ = q.Header.Values("None")[0] }, 500, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, talks)
			var log logged
			r.Log = slog.New(slog.NewTextHandler(&log, nil))
			srv := httptest.NewUnstartedServer(r.guard(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path == "/bug" {
					c.h(w, q)
				}
			})))
			srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			srv.Start()
			t.Cleanup(srv.Close)
			resp, err := http.DefaultTransport.RoundTrip(httptest.NewRequestWithContext(t.Context(), "GET", srv.URL+"/bug", nil))
			switch {
			case err == nil:
				a := read(resp)
				if a.err == nil && a.status != c.status || strings.Contains(a.body, "bug") || a.err != nil && c.status != 0 {
					t.Errorf("%d %q %v", a.status, a.body, a.err)
				}
			case c.status != 0:
				t.Error(err)
			}
			if got := strings.Contains(log.String(), "panic") && strings.Contains(log.String(), "serve_test.go"); got != c.log {
				t.Errorf("the log: %q", log.String())
			}
			do(t, "GET", srv.URL+"/fine", nil).want(t, 200)
			if n := r.active.Load(); n != 0 {
				t.Errorf("%d requests under way", n)
			}
		})
	}
}

// TestMissingPartsAreSaid: the server serves without a part, says at its start
// what it lacks, one warning a part, and refuses what needs it.
func TestMissingPartsAreSaid(t *testing.T) {
	r := oneOfMany(t, talks)
	r.conf.Models.Default = "base"
	r.Programs = []string{filepath.Join(t.TempDir(), "no-such-decoder")}
	var log logged
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := serve(t, r, time.Second)
	c := s.dial(t)
	if a, _ := c.get(t, "/health"); a.status != 503 || !strings.Contains(a.body, "base is not installed") || !strings.Contains(a.body, "no-such-decoder") {
		t.Errorf("health: %d, %s", a.status, a.body)
	}
	c.post("/v1/audio/transcriptions", recording("file"))
	if a, _ := c.answer(t); a.status != 503 || !strings.Contains(a.body, "models pull base") {
		t.Errorf("a recording: %d, %s", a.status, a.body)
	}
	if n := strings.Count(log.String(), "level=WARN msg=\"not ready"); n != 2 {
		t.Errorf("%d warnings, want one for each of the two parts:\n%s", n, log.String())
	}
	s.stop()
	<-s.ended
}
