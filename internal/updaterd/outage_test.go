package updaterd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

func wantUnreachable(t *testing.T, err error) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Unavailable || f.Code != CodeUnreachable || f.Hint == "" {
		t.Errorf("%v (%+v), want %s with a hint", err, f, CodeUnreachable)
	}
}

func TestNoBus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	if _, err := Dial(t.Context(), socket); err == nil {
		t.Error("dialled nothing")
	}
	c := &Client{Socket: socket}
	for _, q := range questions() {
		_, err := q.ask(t.Context(), c)
		wantUnreachable(t, err)
	}
	wantUnreachable(t, c.Reachable(t.Context()))
	wantUnreachable(t, c.Watch(t.Context(), func(deployment.Status) {}))
	s := &Server{Socket: socket, Handler: &fake{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	s.Publish(sample()) // waits for nobody
	cancel()
	wg.Wait()
}

func TestNobodyHasTheName(t *testing.T) {
	b := newBus(t, open)
	c := client(t, b)
	_, err := c.Check(t.Context())
	wantUnreachable(t, err)
	wantUnreachable(t, c.Reachable(t.Context()))
	s := serve(t, b)
	if err := c.Reachable(t.Context()); err != nil {
		t.Error(err)
	}
	// A second updater waits for the first one's end.
	second := &Server{Socket: b.socket, Handler: &fake{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if had, err := second.attend(t.Context()); err == nil || had {
		t.Error("two have the name")
	}
	s.stop()
	wantUnreachable(t, c.Reachable(t.Context()))
}

// TestBusRestarts: server and client outlive the bus, and find each other
// again; what changed in between is seen.
func TestBusRestarts(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	s.Publish(deployment.Status{State: deployment.Idle, Message: "one"})
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var seen []string
	saw := func(what string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) > 0 && seen[len(seen)-1] == what
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Watch(ctx, func(st deployment.Status) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, st.Message)
		}); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	eventually(t, "the first status", saw("one"))
	for _, message := range []string{"two", "three"} {
		b.stop()
		eventually(t, "the loss of the name", func() bool { return !s.Owned() })
		_, err := c.Check(t.Context())
		wantUnreachable(t, err)
		s.Publish(deployment.Status{State: deployment.Idle, Message: message})
		b.start(t)
		eventually(t, "the name again", s.Owned)
		if _, err := c.Check(t.Context()); err != nil {
			t.Errorf("after the restart: %v", err)
		}
		eventually(t, message, saw(message))
	}
	s.Publish(deployment.Status{State: deployment.Idle, Message: "four"})
	eventually(t, "a signal after the restart", saw("four"))
}

// TestStopAnswers: a stop lets those who have asked have their answers, and
// gives the name up first.
func TestStopAnswers(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	begun := make(chan struct{})
	s.set(nil, func(ctx context.Context, _ string) { close(begun); <-ctx.Done() })
	type result struct {
		answer string
		err    error
	}
	results := make(chan result, 1)
	go func() {
		answer, err := c.Restart(context.Background())
		results <- result{answer, err}
	}()
	<-begun
	if s.Idle() != 0 {
		t.Error("idle with a call under way")
	}
	s.stop()
	if r := <-results; r.err != nil || r.answer != "answer to Restart" {
		t.Errorf("%+v", r)
	}
	_, err := c.Check(t.Context())
	wantUnreachable(t, err)
}

// TestHungBus: a bus that has stopped answering costs nobody more than his own
// limit, and the updater no time at all.
func TestHungBus(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer b.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it is killed next
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	for range 100 {
		s.Publish(sample())
	}
	_, err := c.Check(ctx)
	wantUnreachable(t, err)
	_, err = Dial(ctx, b.socket)
	wantUnreachable(t, err)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestFlood: whoever sends more than is answered is not read any further; the
// updater keeps a bounded number of calls and goes on answering afterwards.
func TestFlood(t *testing.T) {
	b := newBus(t, open)
	s, conn := serve(t, b), raw(t, b)
	release := make(chan struct{})
	s.set(nil, func(context.Context, string) { <-release })
	const many = 5 * mostCalls
	done := make(chan *dbus.Call, many)
	for range many {
		conn.Object(Name, Path).Go(Interface+".Cancel", 0, done)
	}
	eventually(t, "a full house", func() bool { return s.count() == mostCalls })
	if n := s.count(); n > mostCalls {
		t.Errorf("%d calls at once", n)
	}
	close(release)
	for range many {
		if call := <-done; call.Err != nil {
			t.Fatal(call.Err)
		}
	}
	eventually(t, "quiet", func() bool { return s.Idle() > 0 })
}

// sameSerial gives every message the same serial.
type sameSerial struct{}

func (sameSerial) GetSerial() uint32   { return 7 }
func (sameSerial) RetireSerial(uint32) {}

// TestCallsOfOneName: calls that cannot be told apart and want no answer leave
// the updater as it was, whether they go well, fail or mean nothing.
func TestCallsOfOneName(t *testing.T) {
	b := newBus(t, open)
	s, c := serve(t, b), client(t, b)
	conn, err := dial(t.Context(), b.socket, dbus.WithSerialGenerator(sameSerial{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const many = 3 * mostCalls
	for _, round := range []struct {
		method string
		seen   bool
		fail   error
	}{{"Cancel", true, nil}, {"Cancel", true, errors.New("no")}, {"Nonsense", false, nil}} {
		before := s.count()
		release := make(chan struct{})
		s.set(round.fail, func(context.Context, string) { <-release })
		for range many {
			conn.Object(Name, Path).Go(Interface+"."+round.method, dbus.FlagNoReplyExpected, nil)
		}
		if round.seen {
			eventually(t, "a full house", func() bool { return s.count() == before+mostCalls })
		}
		close(release)
		if round.seen {
			eventually(t, "the end of "+round.method, func() bool { return s.count() == before+many && s.Idle() > 0 })
		}
		s.set(nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := c.Cancel(ctx); err != nil {
			t.Fatalf("after %d calls of %s: %v", many, round.method, err)
		}
		cancel()
	}
}
