package component

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"whisper-appliance/internal/fault"
)

// journal is a log that is read back as records.
type journal struct{ bytes.Buffer }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

func (j *journal) records(t *testing.T) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(j.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func fine(context.Context) error { return nil }

// mendable fails until it is mended.
type mendable struct {
	err   atomic.Pointer[fault.Error]
	calls atomic.Int64
}

func (m *mendable) breakWith(code string) {
	m.err.Store(fault.New(fault.Unavailable, code, "it is broken").Try("mend it").Because(io.ErrUnexpectedEOF))
}

func (m *mendable) mend() { m.err.Store(nil) }

func (m *mendable) Start(context.Context) error {
	m.calls.Add(1)
	if f := m.err.Load(); f != nil {
		return f
	}
	return nil
}

func (m *mendable) Check(context.Context) (string, error) {
	if f := m.err.Load(); f != nil {
		return "", f
	}
	return "all right", nil
}

func newRegistry(t *testing.T, log *slog.Logger, list ...Component) *Registry {
	t.Helper()
	r, err := New(list, log, slog.String("slot", "a"), slog.String("unit", "whisper-appliance.service"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func status(t *testing.T, r *Registry, name string, want Status, says string) State {
	t.Helper()
	s, ok := r.State(name)
	if !ok || s.Status != want || !strings.Contains(s.Error, says) {
		t.Errorf("%s is %q, %q; want %q, %q", name, s.Status, s.Error, want, says)
	}
	return s
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		list []Component
		code string
		says string
	}{
		"no name":            {[]Component{{}}, "bad_component", `""`},
		"a name of no label": {[]Component{{Name: "The Engine"}}, "bad_component", "lower-case"},
		"twice":              {[]Component{{Name: "a", Does: "listens"}, {Name: "a", Does: "talks"}}, "component_twice", "one that listens and one that talks"},
		"an unknown need":    {[]Component{{Name: "a", Needs: []string{"b"}}}, "component_unknown", `a needs "b"`},
		"itself":             {[]Component{{Name: "a", Needs: []string{"a"}}}, "component_cycle", "a needs a"},
		"a circle": {[]Component{{Name: "x", Needs: []string{"a"}}, {Name: "a", Needs: []string{"b"}}, {Name: "b", Needs: []string{"c"}}, {Name: "c", Needs: []string{"a"}}},
			"component_cycle", "a needs b needs c needs a"},
		"critical on optional": {[]Component{{Name: "a", Critical: true, Needs: []string{"b"}}, {Name: "b"}}, "component_critical", "critical component a needs b"},
		"on a planned one":     {[]Component{{Name: "a", Needs: []string{"b"}}, {Name: "b", Planned: "comes later"}}, "component_planned", "comes later"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New(c.list, slog.New(slog.DiscardHandler))
			var f *fault.Error
			if r != nil || !errors.As(err, &f) || f.Code != c.code || !strings.Contains(f.Message, c.says) {
				t.Errorf("%v, want %s: %s", err, c.code, c.says)
			}
			if _, err := Graph(c.list, "dot"); err == nil {
				t.Error("it was drawn")
			}
		})
	}
}

// TestStartInParallelByLevel: those of a level start at once, and none before
// what it needs.
func TestStartInParallelByLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		slow := func(name string, d time.Duration) func(context.Context) error {
			return func(context.Context) error {
				time.Sleep(d)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
				return nil
			}
		}
		r := newRegistry(t, slog.New(slog.DiscardHandler),
			Component{Name: "third", Needs: []string{"first", "second"}, Start: slow("third", time.Second)},
			Component{Name: "first", Start: slow("first", 3*time.Second)},
			Component{Name: "second", Start: slow("second", 2*time.Second)})
		if h := r.Health(); h != Degraded {
			t.Errorf("before its start the appliance is %s", h)
		}
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, " "); got != "second first third" {
			t.Errorf("started in the order %s", got)
		}
		if r.Total() != 4*time.Second || r.Health() != Well {
			t.Errorf("took %v in all, health %s", r.Total(), r.Health())
		}
		if s := status(t, r, "first", OK, ""); s.Took != 3*time.Second {
			t.Errorf("took %v", s.Took)
		}
	})
}

// TestOneRecordForEachFailure: the record has what a person needs, once for as
// long as the failure lasts; the end is recorded too.
func TestOneRecordForEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		m := &mendable{}
		m.breakWith("no_ffmpeg")
		r := newRegistry(t, log.logger(), Component{Name: "decoder", Search: []string{"ffmpeg", "decode"}, Start: m.Start, Check: m.Check, Without: "recordings are refused"},
			Component{Name: "spool", Needs: []string{"decoder"}, Start: fine})
		if err := r.Start(t.Context()); err != nil {
			t.Errorf("an optional component keeps from starting: %v", err)
		}
		s := status(t, r, "decoder", Failed, "it is broken: unexpected EOF")
		if s.Code != "no_ffmpeg" || s.Hint != "mend it" || r.Health() != Degraded {
			t.Errorf("%+v, health %s", s, r.Health())
		}
		status(t, r, "spool", Waiting, "needs decoder")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		time.Sleep(10 * time.Minute)
		if got := log.records(t); len(got) != 1 {
			t.Fatalf("%d records of one failure:\n%s", len(got), log.String())
		}
		for key, want := range map[string]any{
			"msg": "component failed", "level": "ERROR", "component": "decoder", "error": "it is broken: unexpected EOF", "code": "no_ffmpeg",
			"hint": "mend it", "search_paths": "ffmpeg:decode", "slot": "a", "unit": "whisper-appliance.service", "message_id": MessageFailed, "stops": "spool",
		} {
			if got := log.records(t)[0][key]; got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
		// With pauses of 1, 2, 4 … 60 s ten minutes have room for this many.
		if n := m.calls.Load(); n < 10 || n > 17 {
			t.Errorf("%d starts in ten minutes", n)
		}
		m.mend()
		time.Sleep(retryMost + 2*leastPause)
		if s := status(t, r, "decoder", OK, ""); s.Note != "all right" {
			t.Errorf("note %q", s.Note)
		}
		status(t, r, "spool", OK, "")
		got := log.records(t)
		if len(got) != 2 || got[1]["msg"] != "component recovered" || got[1]["message_id"] != MessageRecovered {
			t.Errorf("records %v", got)
		}
		cancel()
		<-ended
	})
}

// TestAnotherFailureIsRecorded: another cause is another record.
func TestAnotherFailureIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		m := &mendable{}
		r := newRegistry(t, log.logger(), Component{Name: "disk", Critical: true, Check: m.Check})
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		for _, code := range []string{"full", "read_only"} {
			m.breakWith(code)
			time.Sleep(2 * time.Minute)
			status(t, r, "disk", Failed, "broken")
		}
		if r.Health() != Broken || r.Err() == nil {
			t.Errorf("a critical component fails later, and health is %s, %v", r.Health(), r.Err())
		}
		if got := log.records(t); len(got) != 2 || got[0]["code"] != "full" || got[1]["code"] != "read_only" || got[0]["level"] != "ERROR" {
			t.Errorf("records %v", got)
		}
		cancel()
		synctest.Wait()
	})
}

func TestCriticalFailure(t *testing.T) {
	bad := fault.New(fault.Unavailable, "socket_taken", "another server has it").Try("stop it")
	r := newRegistry(t, slog.New(slog.DiscardHandler),
		Component{Name: "doors", Critical: true, Start: func(context.Context) error { return bad }},
		Component{Name: "upstairs", Critical: true, Needs: []string{"doors"}, Start: fine},
		Component{Name: "tls", Start: func(context.Context) error { return io.EOF }})
	err := r.Start(t.Context())
	if !errors.Is(err, bad) || fault.Hint(err) != "stop it" {
		t.Fatalf("%v, hint %q", err, fault.Hint(err))
	}
	for _, says := range []string{"doors: another server has it", "upstairs: needs doors"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
	if strings.Contains(err.Error(), "tls") {
		t.Errorf("%q names an optional component", err)
	}
	if r.Health() != Broken {
		t.Errorf("health %s", r.Health())
	}
	status(t, r, "tls", Failed, "EOF")
}

// TestPanicIsAFailure: of that component alone.
func TestPanicIsAFailure(t *testing.T) {
	r := newRegistry(t, slog.New(slog.DiscardHandler),
		Component{Name: "wild", Start: func(context.Context) error { panic("nothing there") }},
		Component{Name: "calm", Start: fine})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := status(t, r, "wild", Failed, "nothing there"); s.Code != CodePanic || strings.Contains(s.Error, "goroutine") {
		t.Errorf("%+v", s)
	}
	status(t, r, "calm", OK, "")
}

// TestCallThatDoesNotReturn is said, not called a second time, and forgiven
// when it returns after all.
func TestCallThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls, hang atomic.Int64
		hang.Store(1)
		r := newRegistry(t, slog.New(slog.DiscardHandler), Component{Name: "database", Limit: time.Second, Every: 5 * time.Second,
			Check: func(context.Context) (string, error) {
				calls.Add(1)
				if hang.Load() == 1 {
					<-release
				}
				return "", nil
			}})
		began := time.Now()
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the start waited %v", took)
		}
		if s := status(t, r, "database", Failed, "check has not returned in 1s"); s.Code != CodeSlow || s.Hint == "" {
			t.Errorf("%+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		time.Sleep(5 * time.Minute)
		if n := calls.Load(); n != 1 {
			t.Errorf("called %d times while the first had not returned", n)
		}
		hang.Store(0)
		close(release)
		time.Sleep(retryMost + 2*leastPause)
		status(t, r, "database", OK, "")
		cancel()
		synctest.Wait()
	})
}

// TestRecheck: a component that is asked after is looked at now, but not more
// often than once a second.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		r := newRegistry(t, slog.New(slog.DiscardHandler), Component{Name: "models", Every: time.Hour,
			Check: func(context.Context) (string, error) { calls.Add(1); return "", nil }})
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		for range 1000 {
			r.Recheck("models", "nothing")
			time.Sleep(10 * time.Millisecond)
		}
		if n := calls.Load(); n < 9 || n > 12 {
			t.Errorf("looked %d times in 10 s", n)
		}
		cancel()
		synctest.Wait()
	})
}

// TestPlanned: what is not in this version is never started and harms nothing.
func TestPlanned(t *testing.T) {
	r := newRegistry(t, slog.New(slog.DiscardHandler), Component{Name: "updater", Planned: "comes with a later version",
		Start: func(context.Context) error { t.Error("it was started"); return nil }}, Component{Name: "engine"})
	if err := r.Start(t.Context()); err != nil || r.Health() != Well {
		t.Errorf("%v, health %s", err, r.Health())
	}
	if s := status(t, r, "updater", Unavailable, "a later version"); s.Code != CodePlanned {
		t.Errorf("code %s", s.Code)
	}
	status(t, r, "engine", OK, "")
	if _, ok := r.State("nothing"); ok {
		t.Error("there is a component nothing")
	}
}

// TestStopIsNoFailure: what ends with the appliance has not failed.
func TestStopIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var log journal
	r := newRegistry(t, log.logger(), Component{Name: "a", Start: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }})
	r.Start(ctx) //nolint:errcheck // it was stopped
	if log.Len() > 0 {
		t.Errorf("a stop was logged as a failure: %s", log.String())
	}
}
