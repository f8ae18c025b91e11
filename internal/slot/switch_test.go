package slot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

const server = "server.service"

// machine is a systemd with one server, its candidates, and a proc file system.
type machine struct {
	t      *testing.T
	slots  *Slots
	proc   string
	units  map[string]State
	pids   int
	did    []string          // "start next-b", …, what changed something
	fail   map[string]error  // what Start, Restart, … of a unit answer, by "verb unit"
	hangs  map[string]bool   // "verb unit"s that never end, once
	broken map[string]bool   // units that never become active, by unit or "unit of slot"
	wrong  map[string]bool   // units that run another program
	smoke  map[string]error  // by socket's base name
	after  map[string]func() // what happens after "verb unit"
}

func newMachine(t *testing.T) (*machine, *Switch) {
	m := machineOf(t, twoSlots(t), t.TempDir())
	m.launch(server)
	return m, m.swap()
}

// machineOf is a machine on which nothing runs yet.
func machineOf(t *testing.T, s *Slots, proc string) *machine {
	return &machine{t: t, slots: s, proc: proc, units: map[string]State{}, fail: map[string]error{}, hangs: map[string]bool{}, broken: map[string]bool{},
		wrong: map[string]bool{}, smoke: map[string]error{}, after: map[string]func(){}}
}

func (m *machine) swap() *Switch {
	return &Switch{
		Slots: m.slots, Units: m, Service: server, Run: "run", Socket: "api.sock", Proc: m.proc, Settle: 70 * time.Millisecond,
		Next:   func(slot string) (string, string) { return "next-" + slot, "door-" + slot },
		Engine: func(slot string) string { return "engine-" + slot },
		Smoke: func(_ context.Context, socket string) error {
			m.did = append(m.did, "smoke "+filepath.Base(socket))
			return m.smoke[filepath.Base(socket)]
		},
	}
}

// launch starts what the unit's ExecStart names: the link's slot, or its own.
func (m *machine) launch(unit string) {
	dir := m.slots.Current
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		dir = m.slots.Path(name)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	m.pids++
	st := State{Active: "active", PID: m.pids, Invocation: "invocation-" + strconv.Itoa(m.pids)}
	if m.broken[unit] || m.broken[unit+" of "+filepath.Base(dir)] {
		m.units[unit] = State{Active: "activating", Invocation: st.Invocation}
		return
	}
	exe := filepath.Join(dir, ServerPath)
	if m.wrong[unit] {
		exe = filepath.Join(dir, EnginePath)
	}
	at := filepath.Join(m.proc, strconv.Itoa(m.pids))
	must(m.t, os.Mkdir(at, 0o755))
	must(m.t, os.Symlink(exe, filepath.Join(at, "exe")))
	m.units[unit] = st
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		m.units["door-"+name] = State{Active: "active"}
	}
}

func (m *machine) do(ctx context.Context, verb, unit string, effect func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.did = append(m.did, verb+" "+unit)
	if m.hangs[verb+" "+unit] {
		delete(m.hangs, verb+" "+unit)
		<-ctx.Done()
		return ctx.Err()
	}
	effect()
	if f := m.after[verb+" "+unit]; f != nil {
		f()
	}
	return m.fail[verb+" "+unit]
}

func (m *machine) Start(ctx context.Context, unit string) error {
	return m.do(ctx, "start", unit, func() { m.launch(unit) })
}
func (m *machine) Restart(ctx context.Context, unit string) error {
	return m.do(ctx, "restart", unit, func() { m.launch(unit) })
}
func (m *machine) Stop(ctx context.Context, unit string) error {
	return m.do(ctx, "stop", unit, func() { m.units[unit] = State{Active: "inactive", Invocation: m.units[unit].Invocation} })
}
func (m *machine) ResetFailed(context.Context, string) error { return errors.New("not loaded") }
func (m *machine) State(_ context.Context, unit string) (State, error) {
	if err := m.fail["state "+unit]; err != nil {
		return State{}, err
	}
	if st, known := m.units[unit]; known {
		return st, nil
	}
	return State{Active: "inactive"}, nil
}

// runs tells which slot's server runs behind the socket.
func (m *machine) runs() string {
	st := m.units[server]
	if st.Active != "active" {
		return st.Active
	}
	exe, err := os.Readlink(filepath.Join(m.proc, strconv.Itoa(st.PID), "exe"))
	if err != nil {
		m.t.Fatal(err)
	}
	return filepath.Base(filepath.Dir(filepath.Dir(exe)))
}

func TestSwitch(t *testing.T) {
	m, s := newMachine(t)
	var steps []string
	s.Progress = func(step, _ string) { steps = append(steps, step) }
	for _, to := range []string{B, A, Golden, B} {
		from, _ := serving(t, s.Slots)
		m.did, steps = nil, nil
		out, err := s.To(t.Context(), to)
		must(t, err)
		if out != (Outcome{From: from, To: to, Overlapped: true}) {
			t.Errorf("outcome %+v", out)
		}
		if current, _ := serving(t, s.Slots); current != to || (to != Golden && m.runs() != to) {
			t.Errorf("current %s, runs %s; want %s", current, m.runs(), to)
		}
		did := fmt.Sprintf("start next-%[1]s, smoke next-%[1]s.sock, restart server.service, stop next-%[1]s, stop door-%[1]s", to)
		if got := strings.Join(m.did, ", "); got != did {
			t.Errorf("did %s\nwant %s", got, did)
		}
		if got, want := strings.Join(steps, " "), "verify start attest smoke activate restart attest stop stop"; got != want {
			t.Errorf("steps %s, want %s", got, want)
		}
	}
}

// TestSwitchFails: every step fails in turn, and something serves afterwards.
func TestSwitchFails(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name    string
		spoil   func(m *machine, s *Switch)
		code    string
		moved   bool   // the link names b afterwards
		runs    string // what the server runs afterwards
		restart int    // how often it was restarted
	}{
		{"no such slot's release", func(m *machine, s *Switch) { os.RemoveAll(s.Slots.Path(B)) }, "no_manifest", false, A, 0},
		{"a wrong byte in it", func(m *machine, s *Switch) { os.Truncate(filepath.Join(s.Slots.Path(B), ServerPath), 3) }, "damaged_release", false, A, 0},
		{"systemd is away", func(m *machine, s *Switch) {
			m.fail["state "+server] = fault.New(fault.Unavailable, "no_systemd", "away").Try("x")
		}, "no_systemd", false, A, 0},
		{"candidate's job fails", func(m *machine, s *Switch) { m.fail["start next-b"] = boom }, "candidate_failed", false, A, 0},
		{"candidate dies after READY", func(m *machine, s *Switch) { m.broken["next-b"] = true }, "candidate_failed", false, A, 0},
		{"candidate runs something else", func(m *machine, s *Switch) { m.wrong["next-b"] = true }, "candidate_failed", false, A, 0},
		{"candidate's smoke", func(m *machine, s *Switch) { m.smoke["next-b.sock"] = boom }, "candidate_failed", false, A, 0},
		{"the link cannot be renamed", func(m *machine, s *Switch) {
			os.MkdirAll(filepath.Join(filepath.Dir(s.Slots.Current), ".current.new", "x"), 0o755)
		}, "rolled_back", false, A, 0},
		{"the new server crashes", func(m *machine, s *Switch) {
			m.broken[server+" of b"], m.fail["restart "+server] = true, boom
		}, "rolled_back", false, A, 2},
		{"the new server hangs", func(m *machine, s *Switch) { m.broken[server+" of b"] = true }, "rolled_back", false, A, 2},
		{"the job's result is wrong", func(m *machine, s *Switch) { m.fail["restart "+server] = boom }, "", true, B, 1},
		{"the old server was not replaced", func(m *machine, s *Switch) {
			was := m.units[server]
			m.after["restart "+server] = func() { m.units[server] = was }
		}, "rolled_back", false, A, 1},
		{"the gate was faster", func(m *machine, s *Switch) {
			m.after["restart "+server] = func() { s.Slots.Activate(A); m.launch(server) }
		}, "rolled_back", false, A, 1},
		{"nothing comes up any more", func(m *machine, s *Switch) { m.broken[server] = true }, "not_serving", false, "activating", 3},
		{"the way back is gone", func(m *machine, s *Switch) {
			m.broken[server+" of b"] = true
			os.RemoveAll(s.Slots.Path(A))
		}, "rolled_back", false, "golden", 2},
		{"the candidate does not stop", func(m *machine, s *Switch) { m.fail["stop next-b"] = boom }, "", true, B, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			tt.spoil(m, s)
			_, err := s.To(t.Context(), B)
			if tt.code == "" {
				must(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
			if current, stable := serving(t, s.Slots); (current == B) != tt.moved || stable != A {
				t.Errorf("current %s, stable %s", current, stable)
			}
			if got := m.runs(); got != tt.runs {
				t.Errorf("the server runs %q, want %q", got, tt.runs)
			}
			restarts := 0
			for _, d := range m.did {
				if d == "restart "+server {
					restarts++
				}
			}
			if restarts != tt.restart {
				t.Errorf("did %v: %d restarts, want %d", m.did, restarts, tt.restart)
			}
			next := m.units["next-b"].Active
			if stays := tt.code == "not_serving"; stays != (next == "active") {
				t.Errorf("the candidate is %q after %v", next, err)
			}
		})
	}
}

// TestSwitchStopsTheEngineLeftBehind: an engine that still idles in the slot
// that is switched to is the one of the release before.
func TestSwitchStopsTheEngineLeftBehind(t *testing.T) {
	old := State{Active: "active", PID: 99, Invocation: "old"}
	for _, tt := range []struct {
		name  string
		leave func(m *machine)
		did   string // the first of it
		code  string
		stays bool // the old engine runs on
	}{
		{"it idles", func(*machine) {}, "stop engine-b, start next-b", "", false},
		{"its job's result is wrong", func(m *machine) { m.fail["stop engine-b"] = errors.New("boom") }, "stop engine-b, start next-b", "", false},
		{"it waits to be started again", func(m *machine) { m.units["engine-b"] = State{Active: "activating", Invocation: "old"} }, "stop engine-b, start next-b", "", false},
		{"somebody starts it anew", func(m *machine) {
			m.after["stop engine-b"] = func() { m.units["engine-b"] = State{Active: "active", PID: 100, Invocation: "new"} }
		}, "stop engine-b, start next-b", "", false},
		{"it has failed", func(m *machine) { m.units["engine-b"] = State{Active: "failed"} }, "start next-b, smoke next-b.sock", "", false},
		{"it does not stop", func(m *machine) { m.after["stop engine-b"] = func() { m.units["engine-b"] = old } }, "stop engine-b", CandidateFailed, true},
		{"nothing serves", func(m *machine) { m.units[server] = State{Active: "inactive"} }, "stop engine-b, start " + server, "", false},
		{"nothing serves, it does not stop", func(m *machine) {
			m.units[server] = State{Active: "inactive"}
			m.after["stop engine-b"] = func() { m.units["engine-b"] = old }
		}, "stop engine-b", "engine_stays", true},
		{"it serves", func(m *machine) { must(t, m.slots.Activate(B)); m.launch(server) }, "", "", true},
		{"it serves as soon as a killed run is ended", func(m *machine) { must(t, m.slots.Activate(B)) }, "start next-b", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			m.units["engine-a"], m.units["engine-b"] = old, old
			tt.leave(m)
			_, err := s.To(t.Context(), B)
			if tt.code == "" {
				must(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
			if did := strings.Join(m.did, ", "); !strings.HasPrefix(did, tt.did) || tt.did == "" && did != "" {
				t.Errorf("did %s; want %s first", did, tt.did)
			}
			if m.units["engine-a"] != old || (m.units["engine-b"] == old) != tt.stays {
				t.Errorf("engines: a %+v, b %+v", m.units["engine-a"], m.units["engine-b"])
			}
			if current, _ := serving(t, s.Slots); (current == B) != (tt.code == "") {
				t.Errorf("current %s after %v", current, err)
			}
		})
	}
}

// TestSwitchCandidateHangs: that a question ran out of its time is its failure; a
// deadline that came before that is nobody's.
func TestSwitchCandidateHangs(t *testing.T) {
	given := fault.New(fault.Unavailable, TooSlow, "it took more than was given").Try("give it more")
	for _, tt := range []struct {
		name     string
		patience time.Duration
		within   time.Duration
		hangs    string
		cause    error
		code     string
		word     string
	}{
		{"in its smoke", 20 * time.Millisecond, time.Minute, "", nil, CandidateFailed, "did not pass within 20ms"},
		{"in its smoke, to the deadline", time.Minute, 150 * time.Millisecond, "", nil, TooSlow, "deadline"},
		{"in its start", time.Minute, 150 * time.Millisecond, "start next-b", nil, TooSlow, "deadline"},
		{"in its start, and the caller has a word for it", time.Minute, 150 * time.Millisecond, "start next-b", given, TooSlow, "more than was given"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, s := newMachine(t)
			m.hangs[tt.hangs], s.Patience = true, tt.patience
			s.Smoke = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
			ctx, cancel := context.WithTimeoutCause(t.Context(), tt.within, tt.cause)
			defer cancel()
			_, err := s.To(ctx, B)
			wantCode(t, err, tt.code)
			if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), tt.word) || tt.cause == nil && !strings.Contains(err.Error(), "the release before serves on") {
				t.Errorf("error %v", err)
			}
			if current, _ := serving(t, s.Slots); current != A || m.runs() != A || m.units["next-b"].Active == "active" {
				t.Errorf("current %s, runs %s, candidate %s", current, m.runs(), m.units["next-b"].Active)
			}
		})
	}
}

// TestSwitchDeadline: once the link moves there is time, however little the
// caller had left; that systemd used it up is no candidate's failure, and the way
// back has time of its own.
func TestSwitchDeadline(t *testing.T) {
	for _, verb := range []string{"restart ", "start "} {
		m, s := newMachine(t)
		if verb == "start " {
			m.units[server] = State{Active: "inactive"}
		}
		m.hangs[verb+server], s.Through = true, 100*time.Millisecond
		_, err := s.To(t.Context(), B)
		wantCode(t, err, RolledBack)
		if Caused(err, TooSlow) == nil {
			t.Errorf("%s: it is the candidate's: %v", verb, err)
		}
		if current, _ := serving(t, s.Slots); current != A || m.runs() != A || m.units["next-b"].Active == "active" {
			t.Errorf("%s: current %s, runs %s, candidate %s", verb, current, m.runs(), m.units["next-b"].Active)
		}
		m, s = newMachine(t)
		if verb == "start " {
			m.units[server] = State{Active: "inactive"}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		m.after[verb+server] = func() { <-ctx.Done() } // it takes until the caller has no time left
		_, err = s.To(ctx, B)
		cancel()
		if current, _ := serving(t, s.Slots); err != nil || current != B || m.runs() != B {
			t.Errorf("%s: %v, current %s, runs %s", verb, err, current, m.runs())
		}
	}
}

// TestSwitchCanceled: until the link moves nothing has happened; then it goes through.
func TestSwitchCanceled(t *testing.T) {
	for at, goesThrough := range map[string]bool{"start next-b": false, "smoke": false, "restart " + server: true} {
		m, s := newMachine(t)
		ctx, cancel := context.WithCancel(t.Context())
		m.after[at] = cancel
		if at == "smoke" {
			s.Smoke = func(ctx context.Context, _ string) error { cancel(); <-ctx.Done(); return ctx.Err() }
		}
		_, err := s.To(ctx, B)
		cancel()
		current, _ := serving(t, s.Slots)
		if goesThrough {
			if err != nil || current != B || m.runs() != B {
				t.Errorf("after %s: %v, current %s, runs %s", at, err, current, m.runs())
			}
		} else if !errors.Is(err, context.Canceled) || current != A || m.runs() != A {
			t.Errorf("after %s: %v, current %s, runs %s", at, err, current, m.runs())
		}
		if next := m.units["next-b"].Active; next == "active" {
			t.Errorf("after %s the candidate still runs", at)
		}
	}
}

// TestSwitchNotSure: what stands against a switch at the last moment is no fault
// of the candidate's.
func TestSwitchNotSure(t *testing.T) {
	m, s := newMachine(t)
	no := fault.New(fault.NoSpace, "disk_full", "the disk is full")
	s.Sure = func() error {
		if m.units["next-b"].Active != "active" {
			t.Error("it is asked too early")
		}
		return no
	}
	_, err := s.To(t.Context(), B)
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != "disk_full" {
		t.Errorf("error %v", err)
	}
	if current, _ := serving(t, s.Slots); current != A || m.runs() != A || m.units["next-b"].Active == "active" {
		t.Errorf("current %s, runs %s, candidate %s", current, m.runs(), m.units["next-b"].Active)
	}
}

// TestSwitchOfAServerThatDoesNotRun: there is nothing to overlap with.
func TestSwitchOfAServerThatDoesNotRun(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name  string
		spoil func(m *machine, s *Switch)
		code  string
		runs  string
	}{
		{"well", func(*machine, *Switch) {}, "", B},
		{"crashes", func(m *machine, _ *Switch) { m.broken[server+" of b"] = true }, "rolled_back", A},
		{"does not answer", func(m *machine, _ *Switch) { m.smoke["api.sock"] = boom }, "rolled_back", A},
		{"nothing served before", func(m *machine, s *Switch) {
			os.Remove(s.Slots.Current)
			os.Remove(s.Slots.Stable)
			os.Remove(s.Slots.Path(Golden))
			m.broken[server] = true
		}, "not_serving", "activating"},
	} {
		for _, state := range []string{"inactive", "failed"} {
			m, s := newMachine(t)
			m.units[server] = State{Active: state, Invocation: "old"}
			tt.spoil(m, s)
			out, err := s.To(t.Context(), B)
			if tt.code == "" {
				must(t, err)
			} else {
				wantCode(t, err, tt.code)
			}
			if out.Overlapped || m.runs() != tt.runs || slices.Contains(m.did, "start next-b") {
				t.Errorf("%s, %s: runs %s, did %v, %+v", tt.name, state, m.runs(), m.did, out)
			}
		}
	}
	m, s := newMachine(t)
	m.units[server] = State{Active: "inactive"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.To(ctx, B); !errors.Is(err, context.Canceled) || m.runs() != "inactive" {
		t.Errorf("cancelled before: %v, %s", err, m.runs())
	}
}

// TestSwitchGoesOn: where a run was killed, the next one finds what it left.
func TestSwitchGoesOn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave func(m *machine, s *Switch)
		did   string
		out   Outcome
	}{
		{"with the candidate running", func(m *machine, _ *Switch) { m.launch("next-b") },
			"stop next-b, stop door-b, start next-b, smoke next-b.sock, restart server.service, stop next-b, stop door-b", Outcome{From: A, To: B, Overlapped: true}},
		{"after the link moved", func(m *machine, s *Switch) { m.launch("next-b"); s.Slots.Activate(B) },
			"stop next-b, stop door-b, start next-b, smoke next-b.sock, restart server.service, stop next-b, stop door-b", Outcome{From: B, To: B, Overlapped: true}},
		{"after the server took over", func(m *machine, s *Switch) { m.launch("next-b"); s.Slots.Activate(B); m.launch(server) },
			"stop next-b, stop door-b", Outcome{From: B, To: B, Already: true}},
		{"after all", func(m *machine, s *Switch) { s.Slots.Activate(B); m.launch(server) },
			"", Outcome{From: B, To: B, Already: true}},
		{"with the other slot's candidate running", func(m *machine, _ *Switch) { m.launch("next-a") },
			"stop next-a, stop door-a, start next-b, smoke next-b.sock, restart server.service, stop next-b, stop door-b", Outcome{From: A, To: B, Overlapped: true}},
		{"with both", func(m *machine, s *Switch) {
			m.launch("next-a")
			m.launch("next-b")
			s.Slots.Activate(B)
			m.launch(server)
		},
			"stop next-a, stop door-a, stop next-b, stop door-b", Outcome{From: B, To: B, Already: true}},
		{"with a candidate and no server", func(m *machine, _ *Switch) { m.launch("next-a"); m.units[server] = State{Active: "failed"} },
			"stop next-a, stop door-a, start server.service, smoke api.sock", Outcome{From: A, To: B}},
	} {
		m, s := newMachine(t)
		tt.leave(m, s)
		out, err := s.To(t.Context(), B)
		if got := strings.Join(m.did, ", "); err != nil || out != tt.out || got != tt.did {
			t.Errorf("%s: %v, %+v, did %s", tt.name, err, out, got)
		}
		if m.runs() != B || m.units["next-a"].Active == "active" || m.units["next-b"].Active == "active" {
			t.Errorf("%s: runs %s, candidates %s, %s", tt.name, m.runs(), m.units["next-a"].Active, m.units["next-b"].Active)
		}
	}
	// The link had moved, and the new one does not come up: stable is the way back.
	m, s := newMachine(t)
	must(t, s.Slots.Activate(B))
	m.broken[server+" of b"] = true
	_, err := s.To(t.Context(), B)
	wantCode(t, err, "rolled_back")
	if m.runs() != A {
		t.Errorf("runs %s", m.runs())
	}
}

// TestSwitchBetweenTheSameProgram: two slots with the same bytes are two slots.
func TestSwitchBetweenTheSameProgram(t *testing.T) {
	m, s := newMachine(t)
	_, err := s.Slots.Place(t.Context(), s.Slots.Golden, B, nil)
	must(t, err)
	one, err := os.ReadFile(filepath.Join(s.Slots.Path(A), ServerPath))
	must(t, err)
	two, err := os.ReadFile(filepath.Join(s.Slots.Path(B), ServerPath))
	must(t, err)
	if !bytes.Equal(one, two) {
		t.Fatal("the programs differ")
	}
	must(t, s.Slots.Activate(B)) // as left by a killed run: the server still runs a's
	out, err := s.To(t.Context(), B)
	if err != nil || out.Already || m.runs() != B {
		t.Errorf("%v, %+v, runs %s", err, out, m.runs())
	}
}

func TestAttest(t *testing.T) {
	m, s := newMachine(t)
	name, manifest, err := s.Slots.Attest(t.Context(), m.proc, m.units[server].PID, ServerPath)
	if err != nil || name != A || manifest.Version != "9.0.0+dev" {
		t.Errorf("server: %q of %s, %v", name, manifest.Version, err)
	}
	at := filepath.Join(m.proc, "77")
	must(t, os.Mkdir(at, 0o755))
	must(t, os.Symlink(filepath.Join(s.Slots.Path(B), "lib/engine/ld.so"), filepath.Join(at, "exe")))
	must(t, os.Symlink("/", filepath.Join(at, "root")))
	write(t, filepath.Join(at, "maps"), "7f00-7f01 r--p 00000000 fe:00 12 /lib/libc.so.6\n7f01-7f02 r-xp 00000000 fe:00 13 "+
		filepath.Join(s.Slots.Path(B), EnginePath)+"\n7f02-7f03 rw-p 0 00:00 0\n", 0o644)
	name, _, err = s.Slots.Attest(t.Context(), m.proc, 77, EnginePath)
	if err != nil || name != B {
		t.Errorf("engine: %q, %v", name, err)
	}
	write(t, filepath.Join(s.Slots.Path(B), EnginePath), "another", 0o755)
	if name, _, err = s.Slots.Attest(t.Context(), m.proc, 77, EnginePath); err != nil || name != "" {
		t.Errorf("a changed engine: %q, %v", name, err)
	}
	_, _, err = s.Slots.Attest(t.Context(), m.proc, 4711, ServerPath)
	wantCode(t, err, "not_attested")
}
