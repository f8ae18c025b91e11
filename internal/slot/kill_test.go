//go:build faults

package slot

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
)

// killings are runs of child that are killed: one of each, at each of the steps.
func killings() []killing {
	return []killing{
		{"place", []string{"slot.copied", "slot.read_back", "slot.cleared", "slot.placed", "slot.activated", "slot.committed"}, B},
		{"switch", []string{"slot.overlapped", "slot.smoked", "slot.activated", "slot.restarted"}, B},
		{"cold switch", []string{"slot.activated"}, B},
		{"failing switch", []string{"slot.overlapped", "slot.smoked", "slot.activated", "slot.restarted", "slot.rolling_back", "slot.back"}, A},
		{"failing cold switch", []string{"slot.activated", "slot.rolling_back"}, A},
	}
}

type killing struct {
	what  string
	steps []string
	ends  string // what serves when the run after the killed one has ended
}

// TestKilledAtEveryStep kills a run at each of its steps: what serves is whole
// at once, and the next run ends what the killed one began.
func TestKilledAtEveryStep(t *testing.T) {
	if home := os.Getenv("SLOT_TEST_HOME"); home != "" {
		child(t, home)
		return
	}
	for _, k := range killings() {
		for _, step := range k.steps {
			t.Run(k.what+" at "+step, func(t *testing.T) { k.at(t, step) })
		}
	}
}

func (k killing) at(t *testing.T, step string) {
	s := twoSlots(t)
	home, from := filepath.Dir(s.Dir), newer(t)
	m := standing(t, home)
	if m.launch(server); k.what == "cold switch" || k.what == "failing cold switch" {
		m.units[server] = State{Active: "inactive"}
	}
	m.keep()
	faults := filepath.Join(t.TempDir(), "faults")
	write(t, faults, step+" crash\n", 0o600)
	run := func() ([]byte, error) {
		c := exec.Command(os.Args[0], "-test.run=^TestKilledAtEveryStep$")
		c.Env = append(os.Environ(), "WHISPER_APPLIANCE_FAULTS="+faults, "SLOT_TEST_HOME="+home, "SLOT_TEST_FROM="+from, "SLOT_TEST_WHAT="+k.what)
		return c.CombinedOutput()
	}
	var exit *exec.ExitError
	if out, err := run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the run was not killed: %v\n%s", err, out)
	}
	current, stable := serving(t, s)
	for _, name := range []string{current, stable} {
		if diffs, _, err := Verify(t.Context(), s.Path(name), Check{}); err != nil || len(diffs) > 0 {
			t.Errorf("slot %s, which a link names: %v, %v", name, diffs, err)
		}
	}
	if out, err := run(); err != nil {
		t.Fatalf("the run after it: %v\n%s", err, out)
	}
	k.ended(t, s, home)
}

// ended fails where anything is not as a run that nobody killed leaves it.
func (k killing) ended(t *testing.T, s *Slots, home string) {
	nothingLeft(t, s)
	sound(t, s, A, "9.0.0+dev")
	if k.what == "place" {
		sound(t, s, B, "9.2.0+dev")
	}
	if current, stable := serving(t, s); current != k.ends || stable != k.ends {
		t.Errorf("current %s, stable %s; want %s", current, stable, k.ends)
	}
	m := standing(t, home)
	if k.what != "place" && m.runs() != k.ends {
		t.Errorf("the server runs %s, want %s", m.runs(), k.ends)
	}
	for _, unit := range []string{"next-a", "door-a", "next-b", "door-b"} {
		if m.units[unit].Active == "active" {
			t.Errorf("%s still runs", unit)
		}
	}
}

// child does what is to be killed.
func child(t *testing.T, home string) {
	m := standing(t, home)
	s, what := m.slots, os.Getenv("SLOT_TEST_WHAT")
	if what == "place" {
		if current, _ := serving(t, s); current == A {
			_, err := s.Place(t.Context(), os.Getenv("SLOT_TEST_FROM"), B, nil)
			must(t, err)
		}
		must(t, s.Activate(B))
		must(t, s.Commit(B))
		return
	}
	m.broken[server+" of b"] = what == "failing switch" || what == "failing cold switch"
	_, err := m.swap().To(t.Context(), B)
	m.keep()
	if m.broken[server+" of b"] {
		wantCode(t, err, RolledBack)
		return
	}
	must(t, err)
	must(t, s.Commit(B))
}

// standing is the machine in home, which outlives those who switch it: what it
// runs is in a file after each thing that was done to a unit.
func standing(t *testing.T, home string) *machine {
	proc := filepath.Join(home, "proc")
	must(t, os.MkdirAll(proc, 0o755))
	m := machineOf(t, &Slots{Dir: filepath.Join(home, "slots"), Current: filepath.Join(home, "current"), Stable: filepath.Join(home, "stable")}, proc)
	if data, err := os.ReadFile(filepath.Join(proc, "units")); err == nil {
		must(t, json.Unmarshal(data, &m.units))
	}
	for _, st := range m.units {
		m.pids = max(m.pids, st.PID)
	}
	processes, err := os.ReadDir(proc)
	must(t, err)
	m.pids = max(m.pids, len(processes))
	for _, verb := range []string{"start ", "restart ", "stop "} {
		for _, unit := range []string{server, "next-a", "door-a", "next-b", "door-b"} {
			m.after[verb+unit] = m.keep
		}
	}
	return m
}

func (m *machine) keep() {
	data, err := json.Marshal(m.units)
	must(m.t, err)
	must(m.t, os.WriteFile(filepath.Join(m.proc, "units"), data, 0o600))
}

// TestEveryFaultPointIsTriggered holds the steps above against the source.
func TestEveryFaultPointIsTriggered(t *testing.T) {
	var killed []string
	for _, k := range killings() {
		killed = append(killed, k.steps...)
	}
	files, err := filepath.Glob("*.go")
	must(t, err)
	here, found := regexp.MustCompile(`faultpoint\.Here\("(.*)"\)`), 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		for _, m := range here.FindAllSubmatch(data, -1) {
			if found++; !slices.Contains(killed, string(m[1])) {
				t.Errorf("%s: nothing is killed at %s", file, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d fault points were found: does the test still look?", found)
	}
}
