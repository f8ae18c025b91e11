package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	interval = 4 * time.Second
	limit    = 10 * time.Second
)

// manager is a service manager that kills who says nothing for so long.
type manager struct {
	mu    sync.Mutex
	signs int64
	last  time.Time
	err   error
}

func (m *manager) notify(state string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return false, m.err
	}
	if state == "WATCHDOG=1" {
		m.signs++
		m.last = time.Now()
	}
	return true, nil
}

// count is how many signs of life came.
func (m *manager) count() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.signs
}

// kills reports whether the manager, with a WatchdogSec of 2.5 intervals, would kill now.
func (m *manager) kills() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.last) > interval*5/2
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// guarded runs a guard, in a bubble of its own time, while story is told.
func guarded(t *testing.T, story func(t *testing.T, g *Guard, m *manager, log *journal), probes ...Probe) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g, m, log := &Guard{}, &manager{}, &journal{}
		for _, p := range probes {
			g.Add(p)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go g.Run(ctx, interval, m.notify, slog.New(slog.NewTextHandler(log, nil)))
		story(t, g, m, log)
		cancel()
		time.Sleep(24 * time.Hour) // what hangs comes back
		synctest.Wait()
	})
}

// TestIdleIsFed: nothing to do is no reason to be killed.
func TestIdleIsFed(t *testing.T) {
	guarded(t, func(t *testing.T, g *Guard, m *manager, log *journal) {
		for range 100 {
			time.Sleep(interval)
			if m.kills() {
				t.Fatal("an idle process is killed")
			}
		}
		s := g.Status()
		if s.Sent < 100 || s.Sent != m.count() || !s.Listening || s.Interval != interval || s.Last.IsZero() || log.String() != "" {
			t.Errorf("%d signs, %+v, %s", m.count(), s, log)
		}
	})
}

// TestCallThatDoesNotReturn ends in the kill, and the log says why, once.
func TestCallThatDoesNotReturn(t *testing.T) {
	guarded(t, func(t *testing.T, g *Guard, m *manager, log *journal) {
		end := g.Begin("store a window", limit)
		time.Sleep(limit)
		if m.kills() || len(g.Overdue()) > 0 {
			t.Errorf("overdue before its time: %v", g.Overdue())
		}
		time.Sleep(limit + interval*5/2)
		if !m.kills() {
			t.Error("it is fed although a call hangs")
		}
		if got := g.Overdue(); len(got) != 1 || got[0] != "store a window" {
			t.Errorf("overdue %q", got)
		}
		said := log.String()
		if strings.Count(said, "does not return") != 1 || !strings.Contains(said, `call="store a window"`) ||
			!strings.Contains(said, "TestCallThatDoesNotReturn") || !strings.Contains(said, MessageOverdue) {
			t.Errorf("the log says %s", said)
		}
		if len(said) > 4*maxStacks {
			t.Errorf("%d bytes in the log", len(said))
		}
		end()
		end()
		time.Sleep(interval + time.Second)
		if s := g.Status(); m.kills() || s.Withheld == 0 || s.Calls != 0 || s.Overdue != nil {
			t.Errorf("it returned after all: killed %t, %+v", m.kills(), s)
		}
	})
}

// TestErrorsDoNotCount: a call that fails has returned.
func TestErrorsDoNotCount(t *testing.T) {
	database := func(context.Context) {} // whatever it was answered
	guarded(t, func(t *testing.T, g *Guard, m *manager, _ *journal) {
		for range 50 {
			end := g.Begin("a full disk", limit)
			time.Sleep(limit / 2)
			end()
			if m.kills() {
				t.Fatal("killed for an error")
			}
		}
	}, Probe{Name: "database", Limit: limit, Ask: database},
		Probe{Name: "it panics", Limit: limit, Ask: func(context.Context) { panic("no such table") }},
		Probe{Name: "slow", Limit: limit, Ask: func(ctx context.Context) { time.Sleep(limit - time.Second) }})
}

func TestLoop(t *testing.T) {
	guarded(t, func(t *testing.T, g *Guard, m *manager, log *journal) {
		beat, end := g.Loop("scheduler", limit)
		for range 20 {
			time.Sleep(limit - time.Second)
			beat()
			if m.kills() {
				t.Fatal("killed although the loop comes round")
			}
		}
		time.Sleep(limit + interval*7/2)
		if !m.kills() || strings.Count(log.String(), "call=scheduler") != 1 {
			t.Errorf("a loop that stands still is fed: %s", log)
		}
		beat()
		time.Sleep(interval + time.Second)
		if m.kills() {
			t.Error("killed though it goes on")
		}
		end()
		beat()
		time.Sleep(5 * limit)
		if m.kills() {
			t.Error("killed for a loop that has ended")
		}
	})
}

// TestDeadlock: a probe that takes a lock which nobody gives back, whatever its
// context says.
func TestDeadlock(t *testing.T) {
	guarded(t, func(t *testing.T, g *Guard, m *manager, log *journal) {
		time.Sleep(limit + interval*7/2)
		if !m.kills() || len(g.Overdue()) != 1 || g.Overdue()[0] != "turns" {
			t.Errorf("overdue %q", g.Overdue())
		}
		time.Sleep(time.Hour)
		if n := g.Status().Calls; n != 1 {
			t.Errorf("%d probes under way: it was asked again", n)
		}
		if time.Sleep(limit); m.count() > 3 {
			t.Errorf("%d signs", m.count())
		}
	}, Probe{Name: "turns", Limit: limit, Ask: func(context.Context) { time.Sleep(2 * time.Hour) }})
}

// TestNobodyListens: without a service manager all goes on, and an error of
// telling it is logged once.
func TestNobodyListens(t *testing.T) {
	guarded(t, func(t *testing.T, g *Guard, m *manager, log *journal) {
		m.mu.Lock()
		m.err = errors.New("no such socket")
		m.mu.Unlock()
		time.Sleep(10 * interval)
		if s := g.Status(); s.Listening || strings.Count(log.String(), "no such socket") != 1 {
			t.Errorf("%+v, %s", s, log)
		}
	})
}

func TestNilGuard(t *testing.T) {
	var g *Guard
	g.Begin("x", 0)()
	beat, end := g.Loop("x", 0)
	beat()
	end()
	if g.Overdue() != nil || g.Status().Calls != 0 {
		t.Error("nobody knows something")
	}
}

func BenchmarkBegin(b *testing.B) {
	g := &Guard{}
	for b.Loop() {
		g.Begin("call", time.Second)()
	}
}
