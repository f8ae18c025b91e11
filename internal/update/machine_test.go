package update

import (
	"context"
	"encoding/json"
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
	"whisper-appliance/internal/slot"
)

const server = "server"

// machine is a systemd with one server and its candidates, and a proc file
// system. It is in a file, so that it outlives a process that is killed.
type machine struct {
	t     *testing.T
	slots *slot.Slots
	file  string
	proc  string
	after func(verb, unit string) // nil, or what happens once a unit was changed

	Units   map[string]slot.State
	Crash   []string // "next 1.1.0", "server 1.1.0": units that never become active while they run that version
	Sick    []string // versions that do not pass the smoke test
	Idle    string   // why no server is to be started
	Down    bool     // systemd does not answer
	Started int      // how often the server was started
}

func openMachine(t *testing.T, slots *slot.Slots, home string) *machine {
	m := &machine{t: t, slots: slots, file: filepath.Join(home, "proc/machine"), proc: filepath.Join(home, "proc"), Units: map[string]slot.State{}}
	if data, err := os.ReadFile(m.file); err == nil {
		must(t, json.Unmarshal(data, m))
	}
	return m
}

func (m *machine) keep() {
	data, err := json.Marshal(m)
	must(m.t, err)
	must(m.t, os.WriteFile(m.file, data, 0o600))
}

func (m *machine) swap(tell func(step, text string)) *slot.Switch {
	return &slot.Switch{
		Slots: m.slots, Units: m, Service: server, Run: "run", Socket: "api.sock", Proc: m.proc, Settle: 30 * time.Millisecond, Progress: tell,
		Next:   func(name string) (string, string) { return "next-" + name, "door-" + name },
		Engine: func(name string) string { return "engine-" + name },
		Smoke: func(_ context.Context, socket string) error {
			unit := server
			if name := filepath.Base(socket); name != "api.sock" {
				unit = strings.TrimSuffix(name, ".sock")
			}
			if v := m.version(m.where(unit)); slices.Contains(m.Sick, v) {
				return fmt.Errorf("%s hears nothing", v)
			}
			return nil
		},
	}
}

// where is the tree that a unit's ExecStart names.
func (m *machine) where(unit string) string {
	dir := m.slots.Current
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		dir = m.slots.Path(name)
	}
	dir, err := filepath.EvalSymlinks(dir)
	must(m.t, err)
	return dir
}

func (m *machine) version(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	must(m.t, err)
	return strings.TrimSpace(string(data))
}

func (m *machine) launch(unit string) {
	m.t.Helper()
	dir := m.where(unit)
	kind, _, _ := strings.Cut(unit, "-")
	if unit == server {
		m.Started++
	}
	entries, err := os.ReadDir(m.proc)
	must(m.t, err)
	pid := len(entries) + 100
	st := slot.State{Active: "active", PID: pid, Invocation: "invocation " + strconv.Itoa(pid)}
	at := filepath.Join(m.proc, strconv.Itoa(pid))
	must(m.t, os.Mkdir(at, 0o755))
	if slices.Contains(m.Crash, kind+" "+m.version(dir)) {
		m.Units[unit] = slot.State{Active: "activating", Invocation: st.Invocation}
		return
	}
	must(m.t, os.Symlink(filepath.Join(dir, slot.ServerPath), filepath.Join(at, "exe")))
	m.Units[unit] = st
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		m.Units["door-"+name] = slot.State{Active: "active"}
	}
	m.keep()
}

func (m *machine) away() error {
	if m.Down {
		return fault.New(fault.Unavailable, "no_systemd", "systemd does not answer").Try("systemctl status")
	}
	return nil
}

func (m *machine) do(ctx context.Context, verb, unit string, effect func()) error {
	if err := errors.Join(ctx.Err(), m.away()); err != nil {
		return err
	}
	effect()
	m.keep()
	if m.after != nil {
		m.after(verb, unit)
	}
	return nil
}

func (m *machine) Start(ctx context.Context, unit string) error {
	return m.do(ctx, "start", unit, func() { m.launch(unit) })
}
func (m *machine) Restart(ctx context.Context, unit string) error {
	return m.do(ctx, "restart", unit, func() { m.launch(unit) })
}
func (m *machine) Stop(ctx context.Context, unit string) error {
	return m.do(ctx, "stop", unit, func() { m.Units[unit] = slot.State{Active: "inactive"} })
}
func (m *machine) ResetFailed(context.Context, string) error { return m.away() }
func (m *machine) State(_ context.Context, unit string) (slot.State, error) {
	if st, known := m.Units[unit]; known {
		return st, m.away()
	}
	return slot.State{Active: "inactive"}, m.away()
}

// runs is the slot whose server runs, or how the server is.
func (m *machine) runs() string {
	m.t.Helper()
	st := m.Units[server]
	if st.Active != "active" {
		return st.Active
	}
	exe, err := os.Readlink(filepath.Join(m.proc, strconv.Itoa(st.PID), "exe"))
	must(m.t, err)
	name := filepath.Base(filepath.Dir(filepath.Dir(exe)))
	return name
}
