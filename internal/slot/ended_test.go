package slot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// fails has every start of the unit, of the slot where one is given, end so.
func (m *machine) fails(verb, unit string, st State) {
	m.fail[verb+" "+unit] = fault.New(fault.Unavailable, "job_failed", "it failed").Try("x")
	m.after[verb+" "+unit] = func() {
		if current, err := m.slots.Serving(); unit == server && (err != nil || current != B) {
			return
		}
		st.Invocation = m.units[unit].Invocation
		m.units[unit] = st
	}
}

// TestHindered: who answers for a unit that does not come up.
func TestHindered(t *testing.T) {
	for _, tt := range []struct {
		result string
		exit   int
		env    bool
	}{
		{"oom-kill", 9, true}, {"resources", 0, true}, {"exit-code", 226, true}, {"exit-code", 217, true}, {"exit-code", 200, true}, {"start-limit-hit", 0, true},
		{"exit-code", 203, false}, {"exit-code", 1, false}, {"exit-code", 199, false}, {"exit-code", 246, false}, {"signal", 11, false}, {"core-dump", 6, false},
		{"watchdog", 6, false}, {"timeout", 15, false}, {"protocol", 0, false}, {"signal", 226, false},
	} {
		t.Run(fmt.Sprintf("%s %d", tt.result, tt.exit), func(t *testing.T) {
			dead := State{Active: "failed", Result: tt.result, Exit: tt.exit}
			m, s := newMachine(t)
			m.fails("start", "next-b", dead)
			_, err := s.To(t.Context(), B)
			code := CandidateFailed
			if tt.env {
				code = UnitHindered
			}
			wantCode(t, err, code)
			if current, _ := serving(t, s.Slots); current != A || m.runs() != A {
				t.Errorf("beside it: current %s, runs %s", current, m.runs())
			}
			for _, cold := range []bool{false, true} {
				if !slices.Contains([]int{0, 1, 9, 226}, tt.exit) {
					break // as these
				}
				m, s := newMachine(t)
				verb := "restart"
				if cold {
					verb, m.units[server] = "start", State{Active: "failed", Result: "oom-kill", Invocation: "old"}
				}
				dead.Active = "activating" // systemd will try again
				m.fails(verb, server, dead)
				_, err := s.To(t.Context(), B)
				wantCode(t, err, RolledBack)
				if got := Caused(err, UnitHindered) != nil; got != tt.env {
					t.Errorf("cold %v: hindered %v: %v", cold, got, err)
				}
				if current, _ := serving(t, s.Slots); current != A || m.runs() != A {
					t.Errorf("cold %v: current %s, runs %s", cold, current, m.runs())
				}
			}
		})
	}
}

// TestEnds: of several runs of a unit one that ended by itself is enough, and
// what was before does not count.
func TestEnds(t *testing.T) {
	boom := errors.New("boom")
	for name, tt := range map[string]struct {
		runs []State
		env  bool
	}{
		"none":                  {nil, false},
		"killed for memory":     {[]State{{Result: "success"}, {Result: "oom-kill"}, {Result: "success"}}, true},
		"and crashed":           {[]State{{Result: "oom-kill"}, {Result: "signal"}}, false},
		"before it was started": {[]State{{Result: "oom-kill", Invocation: "old"}}, false},
		"started too often":     {[]State{{Result: "start-limit-hit", Invocation: "old"}}, true},
	} {
		e := ends{before: "old"}
		for _, st := range tt.runs {
			e.note(st)
		}
		if got := e.explain("u", boom); (Caused(got, UnitHindered) != nil) != tt.env || !errors.Is(got, boom) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestStopped: what its administrator stops in the middle stays stopped, the link
// is where it was, and the candidate cannot answer for it.
func TestStopped(t *testing.T) {
	down := func(m *machine, unit string) {
		m.units[unit] = State{Active: "inactive", Result: "success", Invocation: m.units[unit].Invocation}
	}
	gone := fault.New(fault.Unavailable, "job_canceled", "another job took its place").Try("x")
	for name, stop := range map[string]func(m *machine, s *Switch){
		"the candidate's start": func(m *machine, _ *Switch) {
			m.fail["start next-b"] = gone
			m.after["start next-b"] = func() { m.units["next-b"] = State{Active: "inactive", Result: "success"} }
		},
		"the server and the candidate": func(m *machine, _ *Switch) {
			m.after["start next-b"] = func() {
				m.units["next-b"] = State{Active: "inactive", Result: "success"} // and systemd has forgotten it
				down(m, server)
			}
		},
		"the server and the candidate in its smoke": func(m *machine, s *Switch) {
			s.Smoke = func(context.Context, string) error {
				down(m, "next-b")
				down(m, server)
				return errors.New("nobody there")
			}
		},
		"the server's restart": func(m *machine, _ *Switch) {
			m.fail["restart "+server] = gone
			was := m.units[server]
			m.after["restart "+server] = func() { m.units[server] = was; down(m, server) }
		},
		"the server": func(m *machine, _ *Switch) { m.after["restart "+server] = func() { down(m, server) } },
		"the server on its way back": func(m *machine, _ *Switch) {
			m.broken[server+" of b"] = true
			restarts := 0
			m.after["restart "+server] = func() {
				if restarts++; restarts == 2 {
					down(m, server)
				}
			}
		},
		"the server's cold start": func(m *machine, _ *Switch) {
			m.units[server] = State{Active: "inactive"}
			m.after["start "+server] = func() { down(m, server) }
		},
		"the server in its smoke": func(m *machine, s *Switch) {
			m.units[server] = State{Active: "inactive"}
			s.Smoke = func(context.Context, string) error { down(m, server); return errors.New("nobody there") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newMachine(t)
			stop(m, s)
			_, err := s.To(t.Context(), B)
			wantCode(t, err, Stopped)
			if fault.KindOf(err) != fault.Canceled {
				t.Errorf("kind %v", fault.KindOf(err))
			}
			if current, stable := serving(t, s.Slots); current != A || stable != A {
				t.Errorf("current %s, stable %s", current, stable)
			}
			if strings.Contains(name, "the server") && m.runs() != "inactive" || m.units["next-b"].Active == "active" {
				t.Errorf("the server is %s, the candidate %s, did %v", m.runs(), m.units["next-b"].Active, m.did)
			}
		})
	}
}

// TestBackOfAStoppedServer moves the link alone; one that is stopped meanwhile is
// not started again.
func TestBackOfAStoppedServer(t *testing.T) {
	m, s := onTrialOf(t)
	stopped := State{Active: "inactive", Result: "success", Invocation: m.units[server].Invocation}
	m.units[server] = stopped
	out, err := s.Back(t.Context(), B, A)
	if current, _ := serving(t, s.Slots); err != nil || out.To != A || current != A || len(m.did) > 0 {
		t.Errorf("%+v, %v, current %s, did %v", out, err, current, m.did)
	}
	m, s = onTrialOf(t)
	m.after["restart "+server] = func() { stopped.Invocation = "next"; m.units[server] = stopped }
	out, err = s.Back(t.Context(), B, A)
	wantCode(t, err, Stopped)
	if current, _ := serving(t, s.Slots); out.To != A || current != A || !slices.Equal(m.did, []string{"restart " + server}) {
		t.Errorf("%+v, current %s, did %v", out, current, m.did)
	}
}

// TestUnwell: a way back that comes up and does not answer is no better than one
// that does not come up, unless there is no other.
func TestUnwell(t *testing.T) {
	deaf := errors.New("deaf")
	for _, tt := range []struct {
		name  string
		sick  []string // slots whose server does not answer
		spoil func(m *machine)
		to    string
		code  string // of Back
	}{
		{"the slot before", []string{A}, func(*machine) {}, Golden, ""},
		{"all", []string{A, Golden}, func(*machine) {}, A, Unwell},
		{"all that come up", []string{A}, func(m *machine) { m.broken[server+" of golden"] = true }, A, Unwell},
		{"it comes to itself", []string{A, Golden}, func(m *machine) {
			n := 0
			m.after["restart "+server] = func() {
				if current, _ := m.slots.Serving(); current == Golden {
					n++
				} else if n > 0 {
					m.smoke = nil // the second time
				}
			}
		}, A, ""},
	} {
		for _, trial := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, trial %v", tt.name, trial), func(t *testing.T) {
				m, s := newMachine(t)
				if trial {
					m, s = onTrialOf(t)
				}
				m.smoke["api.sock"] = deaf
				tt.spoil(m)
				s.Smoke = func(_ context.Context, socket string) error {
					if m.units["next-b"].Active == "active" && socket == "api.sock" {
						t.Error("the candidate may answer in its stead")
					}
					if socket == "api.sock" && slices.Contains(tt.sick, m.runs()) {
						return m.smoke[socket]
					}
					return nil
				}
				if trial {
					out, err := s.Back(t.Context(), B, A)
					if out.To != tt.to || tt.code == "" && err != nil {
						t.Errorf("%+v, %v", out, err)
					} else if tt.code != "" {
						wantCode(t, err, tt.code)
					}
				} else {
					m.broken[server+" of b"] = true
					_, err := s.To(t.Context(), B)
					wantCode(t, err, RolledBack)
					if (Caused(err, Unwell) != nil) != (tt.code == Unwell) {
						t.Errorf("%v", err)
					}
				}
				if current, _ := serving(t, s.Slots); current != tt.to || m.runs() != tt.to {
					t.Errorf("current %s, runs %s, did %v", current, m.runs(), m.did)
				}
			})
		}
	}
}

// TestAwayOnTheWayBack: once systemd is away nothing else is tried, though it
// answers again by then, and the link is at the first way back.
func TestAwayOnTheWayBack(t *testing.T) {
	away := fault.New(fault.Unavailable, "no_systemd", "the connection broke").Try("x")
	m, s := onTrialOf(t)
	was := m.units[server]
	m.fail["restart "+server] = away
	m.after["restart "+server] = func() { m.units[server] = was }
	_, err := s.Back(t.Context(), B, A)
	wantCode(t, err, SystemdAway)
	if current, _ := serving(t, s.Slots); current != A || !slices.Equal(m.did, []string{"restart " + server}) {
		t.Errorf("for a moment: current %s, did %v", current, m.did)
	}
	m, s = onTrialOf(t)
	m.broken[server+" of a"] = true
	n := 0
	m.after["restart "+server] = func() {
		if n++; n == 2 {
			m.fail["state "+server] = away
		}
	}
	_, err = s.Back(t.Context(), B, A)
	wantCode(t, err, SystemdAway)
	if current, _ := serving(t, s.Slots); current != A || n != 2 || !strings.Contains(err.Error(), "names slot a") {
		t.Errorf("at the second: current %s after %d, %v", current, n, err)
	}
}

// TestShipped: a unit that an administrator has changed is told before anything
// is touched, and where that comes too late what was moved goes back.
func TestShipped(t *testing.T) {
	edited := fault.New(fault.Conflict, UnitEdited, "it is Type=simple").Try("take it out of x.conf")
	for _, tt := range []struct {
		name string
		unit string
		from string // what has to be done for it to be found
		code string
	}{
		{"the server's, before", server, "", UnitEdited},
		{"the candidate's, before", "next-b", "", UnitEdited},
		{"the candidate's, meanwhile", "next-b", "start next-b", UnitEdited},
		{"the server's, meanwhile", server, "restart " + server, RolledBack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			s.Shipped = func(_ context.Context, unit string) error {
				if unit == tt.unit && (tt.from == "" || slices.Contains(m.did, tt.from)) {
					return edited
				}
				return nil
			}
			_, err := s.To(t.Context(), B)
			wantCode(t, err, tt.code)
			if Caused(err, UnitEdited) == nil || !strings.Contains(fault.Hint(err), "x.conf") {
				t.Errorf("%v: %s", err, fault.Hint(err))
			}
			if current, _ := serving(t, s.Slots); current != A || m.runs() != A || tt.from == "" && len(m.did) > 0 {
				t.Errorf("current %s, runs %s, did %v", current, m.runs(), m.did)
			}
		})
	}
	for _, tt := range []struct {
		name   string
		runs   string // how the server is before
		wayOut bool
	}{{"a way out", "active", true}, {"the server has failed", "failed", false}, {"the server is stopped", "inactive", false}} {
		m, s := newMachine(t)
		if tt.runs != "active" {
			m.units[server] = State{Active: tt.runs, Result: "exit-code", Invocation: "old"}
		}
		var told []string
		s.Progress = func(_, text string) { told = append(told, text) }
		s.Shipped = func(context.Context, string) error { return edited }
		s.WayOut = tt.wayOut
		if err := s.AsShipped(t.Context(), B); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		out, err := s.To(t.Context(), B)
		if current, _ := serving(t, s.Slots); err != nil || out.To != B || current != B || m.runs() != B {
			t.Errorf("%s: %+v, %v, current %s, runs %s", tt.name, out, err, current, m.runs())
		}
		if !slices.Contains(told, edited.Error()) {
			t.Errorf("%s: nobody is told: %q", tt.name, told)
		}
	}
	m, s := newMachine(t)
	s.Shipped = func(context.Context, string) error { return edited }
	if out, err := s.To(t.Context(), A); err != nil || !out.Already || m.runs() != A {
		t.Errorf("where there is nothing to do: %+v, %v", out, err)
	}
}

// TestEngineAstray: the engine of a slot has that slot's files in its memory, as
// they are now, and no other slot's.
func TestEngineAstray(t *testing.T) {
	for _, tt := range []struct {
		name string
		path func(s *Slots) string
		code string
	}{
		{"its own", func(s *Slots) string { return filepath.Join(s.Path(B), EnginePath) }, ""},
		{"the system's", func(*Slots) string { return "/lib/libc.so.6" }, ""},
		{"another's", func(s *Slots) string { return filepath.Join(s.Path(A), "lib/engine/ld.so") }, CandidateFailed},
		{"the package's", func(s *Slots) string { return filepath.Join(s.Golden, "lib/engine/ld.so") }, CandidateFailed},
		{"its own before", func(s *Slots) string { return filepath.Join(s.Path(B), EnginePath) + " (deleted)" }, CandidateFailed},
		{"a deleted file of nobody's", func(*Slots) string { return "/tmp/x (deleted)" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			write(t, filepath.Join(m.proc, "99", "maps"), "7f00-7f01 r--p 00000000 fe:00 12\n7f01-7f02 r-xp 00000000 fe:00 13 "+tt.path(s.Slots)+"\n", 0o644)
			m.after["start next-b"] = func() { m.units["engine-b"] = State{Active: "active", PID: 99, Invocation: "e"} }
			_, err := s.To(t.Context(), B)
			if tt.code == "" {
				must(t, err)
				return
			}
			wantCode(t, err, tt.code)
			if Caused(err, "engine_astray") == nil {
				t.Errorf("%v", err)
			}
		})
	}
	m, s := newMachine(t)
	m.units["engine-b"] = State{Active: "active", PID: 98, Invocation: "e"}
	if err := s.attestEngine(t.Context(), B); err != nil {
		t.Errorf("one that has gone: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(m.proc, "98", "maps"), 0o755))
	if err := s.attestEngine(t.Context(), B); err != nil {
		t.Errorf("one that cannot be read: %v", err)
	}
	m.fail["state engine-b"] = errors.New("away")
	if err := s.attestEngine(t.Context(), B); err == nil {
		t.Error("nothing is known, and all is well")
	}
}

// TestLinkStays: a disk that takes no link is no candidate's failure.
func TestLinkStays(t *testing.T) {
	_, s := newMachine(t)
	must(t, os.MkdirAll(filepath.Join(filepath.Dir(s.Slots.Current), ".current.new", "x"), 0o755))
	_, err := s.To(t.Context(), B)
	wantCode(t, err, RolledBack)
	if Caused(err, LinkStays) == nil {
		t.Errorf("%v", err)
	}
}
