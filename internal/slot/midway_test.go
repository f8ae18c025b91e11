package slot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// TestEndsByItself: a candidate that ends as if somebody had stopped it is no
// good, unless the server is stopped as well.
func TestEndsByItself(t *testing.T) {
	ended := func(m *machine) {
		m.units["next-b"] = State{Active: "inactive", Result: "success", Invocation: m.units["next-b"].Invocation}
	}
	for name, end := range map[string]func(m *machine, s *Switch){
		"once it is ready": func(m *machine, _ *Switch) { m.after["start next-b"] = func() { ended(m) } },
		"and is forgotten": func(m *machine, _ *Switch) { m.after["start next-b"] = func() { delete(m.units, "next-b"); ended(m) } },
		"while it is asked": func(m *machine, s *Switch) {
			s.Smoke = func(context.Context, string) error { ended(m); return errors.New("nobody there") }
		},
		"and nobody knows of the server": func(m *machine, _ *Switch) {
			m.after["start next-b"] = func() { ended(m); m.fail["state "+server] = errors.New("away") }
		},
	} {
		m, s := newMachine(t)
		end(m, s)
		_, err := s.To(t.Context(), B)
		wantCode(t, err, CandidateFailed)
		if Caused(err, NeverBegun, UnitHindered, Stopped) != nil || isStopped(err) {
			t.Errorf("%s: it is not its failure: %v", name, err)
		}
		if current, _ := serving(t, s.Slots); current != A || m.runs() != A {
			t.Errorf("%s: current %s, runs %s", name, current, m.runs())
		}
		if stopping := (State{Active: "deactivating"}); name == "once it is ready" {
			m, s := newMachine(t)
			m.after["start next-b"] = func() { ended(m); m.units[server] = stopping }
			_, err := s.To(t.Context(), B)
			wantCode(t, err, Stopped)
		}
	}
}

// TestStoppedAndStarted: who stops the server in mid-switch and starts it again
// has started what the link named then, which nobody has judged.
func TestStoppedAndStarted(t *testing.T) {
	gone := fault.New(fault.Unavailable, "job_canceled", "another job took its place").Try("x")
	start := func(m *machine) { // and it takes its time
		m.launch(server)
		st := m.units[server]
		st.Active = "activating"
		m.units[server] = st
	}
	for _, cold := range []bool{false, true} {
		m, s := newMachine(t)
		verb := "restart "
		if cold {
			verb, m.units[server] = "start ", State{Active: "inactive"}
		}
		n := 0
		m.after[verb+server] = func() {
			if n++; n == 1 {
				start(m)
				m.fail[verb+server] = gone
			} else {
				delete(m.fail, verb+server)
			}
		}
		_, err := s.To(t.Context(), B)
		wantCode(t, err, Stopped)
		if current, stable := serving(t, s.Slots); fault.KindOf(err) != fault.Canceled || current != A || stable != A || m.runs() != A {
			t.Errorf("cold %v: %v, current %s, stable %s, runs %s", cold, err, current, stable, m.runs())
		}
	}
}

// TestStartedOnTheWayBack: a server that is started while the link goes back may
// run either.
func TestStartedOnTheWayBack(t *testing.T) {
	m, s := onTrialOf(t)
	stopped := State{Active: "inactive", Result: "success", Invocation: m.units[server].Invocation}
	m.units[server] = stopped
	s.Refused = func(Manifest) error {
		if m.units[server] == stopped {
			m.launch(server) // the link names b still
		}
		return nil
	}
	out, err := s.Back(t.Context(), B, A)
	if current, _ := serving(t, s.Slots); err != nil || out.To != A || current != A || m.runs() != A {
		t.Errorf("%+v, %v, current %s, runs %s", out, err, current, m.runs())
	}
}

// TestHangsToTheDeadline: a candidate that has had its time to start cannot hide
// behind the end of its caller's.
func TestHangsToTheDeadline(t *testing.T) {
	for _, tt := range []struct {
		name   string
		enough time.Duration
		left   State // by the start that was cut off; the invocation is added
		code   string
	}{
		{"long enough", time.Millisecond, State{Active: "activating", PID: 7}, CandidateFailed},
		{"not long enough", time.Hour, State{Active: "activating", PID: 7}, TooSlow},
		{"before its program", time.Millisecond, State{Active: "activating"}, TooSlow},
		{"its unit's own limit", time.Hour, State{Active: "deactivating", Result: "timeout"}, CandidateFailed},
		{"of another start", time.Millisecond, State{Active: "activating", PID: 7, Invocation: "before"}, TooSlow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			s.Enough = tt.enough
			m.units["next-b"] = State{Active: "failed", Invocation: "before"}
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
			defer cancel()
			m.fail["start next-b"] = context.DeadlineExceeded
			m.after["start next-b"] = func() {
				if tt.left.Invocation == "" {
					tt.left.Invocation = m.units["next-b"].Invocation
				}
				m.units["next-b"] = tt.left
				<-ctx.Done()
			}
			_, err := s.To(ctx, B)
			wantCode(t, err, tt.code)
			if current, _ := serving(t, s.Slots); current != A || m.runs() != A || m.units["next-b"].Active != "inactive" {
				t.Errorf("current %s, runs %s, candidate %+v", current, m.runs(), m.units["next-b"])
			}
		})
	}
}

// twoGoldens has a server on trial from b, nothing in a, and the releases of two
// packages: 9.0.0 and 8.9.0 before it.
func twoGoldens(t *testing.T) (*machine, *Switch) {
	m, s := onTrialOf(t)
	must(t, os.RemoveAll(s.Slots.Path(A)))
	s.Slots.GoldenBefore = filepath.Join(filepath.Dir(s.Slots.Golden), "golden.old")
	release(t, s.Slots.GoldenBefore, "8.9.0+dev")
	return m, s
}

// golden is what the slot golden leads to.
func golden(t *testing.T, s *Slots) string {
	t.Helper()
	at, err := os.Readlink(s.Path(Golden))
	must(t, err)
	return filepath.Base(at)
}

// TestTwoGoldens: the package's release and the one before are two ways back,
// though they have one name.
func TestTwoGoldens(t *testing.T) {
	deaf := errors.New("deaf")
	for _, tt := range []struct {
		name    string
		broken  string   // of the two
		sick    []string // likewise
		refused []string // versions
		to      string
		code    string
	}{
		{"the newer is unwell, the older does not come up", "golden.old", []string{"golden"}, nil, "golden", Unwell},
		{"the newer does not come up", "golden", nil, nil, "golden.old", ""},
		{"both are unwell", "", []string{"golden", "golden.old"}, nil, "golden", Unwell},
		{"the newer is unwell", "", []string{"golden"}, nil, "golden.old", ""},
		{"the newer is unwell, the older refused", "", []string{"golden"}, []string{"8.9.0+dev"}, "golden", Unwell},
		{"the newer is refused, the older does not come up", "golden.old", nil, []string{"9.0.0+dev"}, "golden", ""},
		{"the newer is refused and unwell, the older does not come up", "golden.old", []string{"golden"}, []string{"9.0.0+dev"}, "golden", Unwell},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := twoGoldens(t)
			if tt.broken != "" {
				m.broken[server+" of "+tt.broken] = true
			}
			s.Smoke = func(context.Context, string) error {
				if slices.Contains(tt.sick, m.runs()) {
					return deaf
				}
				return nil
			}
			s.Refused = func(m Manifest) error {
				if slices.Contains(tt.refused, m.Version) {
					return errors.New("quarantined")
				}
				return nil
			}
			out, err := s.Back(t.Context(), B, A)
			if tt.code == "" {
				must(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
			if current, _ := serving(t, s.Slots); out.To != Golden || current != Golden || m.runs() != tt.to || golden(t, s.Slots) != tt.to {
				t.Errorf("%+v, current %s, which is %s, runs %s", out, current, golden(t, s.Slots), m.runs())
			}
		})
	}
}

// TestUnwellNoMore: what came up before and does not any more leaves it to what
// is refused.
func TestUnwellNoMore(t *testing.T) {
	m, s := twoGoldens(t)
	s.Refused = func(m Manifest) error {
		if m.Version == "8.9.0+dev" {
			return errors.New("quarantined")
		}
		return nil
	}
	s.Smoke = func(context.Context, string) error {
		if m.runs() == "golden" {
			m.broken[server+" of golden"] = true
			m.units[server] = State{Active: "activating", Invocation: "crashed"}
			return errors.New("deaf")
		}
		if m.runs() == "activating" {
			return errors.New("nobody there")
		}
		return nil
	}
	out, err := s.Back(t.Context(), B, A)
	if current, _ := serving(t, s.Slots); err != nil || out.To != Golden || current != Golden || m.runs() != "golden.old" {
		t.Errorf("%+v, %v, current %s, runs %s", out, err, current, m.runs())
	}
}
