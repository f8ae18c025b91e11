//go:build faults

package update

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
)

// killing is a run that is killed, and how the appliance stands once it was
// settled.
type killing struct {
	what    string // see child
	at      []string
	serves  string
	step    step
	outcome string // of the last record, "" = none
	banned  bool
}

func killings() []killing {
	before := []string{"update.plan", "update.reserve", "update.fetch", "update.verify", "update.stage", "slot.copied", "update.publish",
		"slot.read_back", "slot.cleared", "slot.placed", "update.preflight", "update.arm", "update.overlap", "slot.overlapped", "slot.smoked"}
	return []killing{
		{"offer", before, slot.A, idle, deployment.Aborted, false},
		{"offer", []string{"slot.activated", "slot.restarted", "update.on_trial"}, slot.B, onTrial, "", false},
		{"tree", []string{"update.stage", "slot.copied", "slot.read_back", "slot.cleared", "slot.placed", "update.publish"}, slot.A, idle, deployment.Aborted, false},
		{"good", []string{"update.committing"}, slot.B, onTrial, "", false},
		{"good", []string{"slot.committed", "update.link_committed", "update.ended", "update.recorded", "update.cleaning"}, slot.B, idle, deployment.Committed, false},
		{"bad", []string{"update.rolling_back", "slot.rolling_back", "slot.activated", "slot.back", "update.ended", "update.recorded", "update.cleaning"},
			slot.A, idle, deployment.RolledBack, true},
		{"no take-over", []string{"slot.activated", "slot.restarted", "slot.rolling_back"}, slot.A, idle, deployment.RolledBack, true},
		{"no take-over", []string{"slot.back"}, slot.A, idle, deployment.Aborted, false},
		{"no take-over", []string{"update.ended", "update.recorded"}, slot.A, idle, deployment.RolledBack, true},
		{"back", []string{"update.plan", "update.arm", "slot.overlapped"}, slot.B, idle, deployment.Aborted, false},
		{"back", []string{"slot.activated", "slot.restarted", "update.committing", "slot.committed", "update.link_committed", "update.ended"},
			slot.A, idle, deployment.Committed, false},
	}
}

const killHome = "UPDATE_TEST_HOME"

// TestKilledAtEveryStep kills a run at each of its steps, and then starts the
// updater anew, or the machine: what serves is whole at every moment, and what
// was begun comes to one end.
func TestKilledAtEveryStep(t *testing.T) {
	if home := os.Getenv(killHome); home != "" {
		child(t, openWorld(t, home), os.Getenv("UPDATE_TEST_WHAT"))
		return
	}
	for _, k := range killings() {
		for _, at := range k.at {
			for _, boot := range []bool{false, true} {
				name := k.what + " at " + at
				if boot {
					name += ", and the machine"
				}
				t.Run(name, func(t *testing.T) { k.kill(t, at, boot) })
			}
		}
	}
}

func (k killing) kill(t *testing.T, at string, boot bool) {
	w := newWorld(t)
	w.offers("1.1.0")
	w.tree("1.1.0")
	k.prepare(w)
	w.m.keep()
	faults := filepath.Join(w.home, "faults")
	must(t, os.WriteFile(faults, []byte(at+" crash\n"), 0o600))
	c := exec.Command(os.Args[0], "-test.run=^TestKilledAtEveryStep$")
	c.Env = append(os.Environ(), "WHISPER_APPLIANCE_FAULTS="+faults, killHome+"="+w.home, "UPDATE_TEST_WHAT="+k.what)
	var exit *exec.ExitError
	if out, err := c.CombinedOutput(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the run was not killed: %v\n%s", err, out)
	}
	w = openWorld(t, w.home)
	current, stable := w.u.links()
	for _, name := range []string{current, stable} {
		if err := w.u.whole(t.Context(), name, false); err != nil {
			t.Errorf("slot %q, which a link names: %v", name, err)
		}
	}
	if _, err := readState(filepath.Join(w.u.Dir, stateFile)); err != nil {
		t.Error(err)
	}
	if boot {
		w.restart("boot 2")
	}
	_, err := w.u.Recover(t.Context(), boot)
	must(t, err)
	if boot {
		w.m.launch(server)
	}
	k.settled(w, boot)
	if t.Failed() {
		return
	}
	k.goesOn(w)
}

// prepare brings w to where the run begins.
func (k killing) prepare(w *world) {
	switch k.what {
	case "good", "bad", "back":
		w.onTrial("1.1.0")
	case "no take-over":
		w.m.Crash = []string{"server 1.1.0"}
	}
	if k.what == "back" {
		w.proves()
	}
}

// child is the run that is killed.
func child(t *testing.T, w *world, what string) {
	switch what {
	case "offer":
		w.apply(Want{Trial: true}, OnTrial)
	case "tree":
		w.apply(w.deploy("1.1.0"), OnTrial)
	case "good":
		w.proves()
	case "bad":
		w.fails()
	case "no take-over":
		w.refused(w.deploy("1.1.0"), slot.RolledBack)
	case "back":
		_, err := w.u.Rollback(context.Background(), deployment.DoorCLI)
		must(t, err)
	}
}

// settled fails the test where the appliance is not as the killing says. At boot
// nobody has seen the server of a switch yet: it is on trial where it may be.
func (k killing) settled(w *world, boot bool) {
	t := w.t
	if boot && k.what == "no take-over" && w.state().Step == onTrial {
		w.fails() // it does not come up, as the watch finds
	}
	stable := k.serves
	if k.step == onTrial {
		stable = slot.A
	}
	w.stands(k.serves, stable, k.serves)
	st := w.state()
	if st.Step != k.step {
		t.Errorf("step %s, want %s", st.Step, k.step)
	}
	all, err := deployment.Records(w.u.Dir, 0)
	must(t, err)
	records := 0
	if k.outcome != "" {
		records = 1
	}
	if k.what == "back" {
		records++
	}
	if len(all) != records || records > 0 && all[0].Outcome != k.outcome && (k.outcome != "") {
		t.Errorf("records %+v, want %d and %s", all, records, k.outcome)
	}
	if (len(st.Banned) > 0) != k.banned {
		t.Errorf("quarantine %+v", st.Banned)
	}
	w.tidy()
	w.again(t, boot, records)
}

// goesOn takes the appliance to the end of what was begun: nothing is in the
// way of another try.
func (k killing) goesOn(w *world) {
	w.t.Helper()
	w.m.Crash = nil
	if _, err := w.u.Unquarantine(""); err != nil {
		w.t.Fatal(err)
	}
	switch serving, _ := w.u.links(); {
	case k.step == onTrial:
		w.proves()
	case serving == slot.A && k.what != "back":
		w.apply(Want{Trial: true}, OnTrial)
		w.proves()
	default:
		w.apply(w.deploy("1.2.0"), OnTrial)
		w.proves()
	}
	serving, stable := w.u.links()
	w.stands(serving, serving, stable)
	w.idles()
}

// TestEveryFaultPointIsTriggered holds the killings against the sources.
func TestEveryFaultPointIsTriggered(t *testing.T) {
	var killed []string
	for _, k := range killings() {
		killed = append(killed, k.at...)
	}
	here, found := regexp.MustCompile(`faultpoint\.Here\("([^"]*)"\)`), 0
	for _, pattern := range []string{"*.go", "../slot/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			must(t, err)
			for _, m := range here.FindAllSubmatch(data, -1) {
				if found++; !slices.Contains(killed, string(m[1])) {
					t.Errorf("%s: nothing is killed at %s", file, m[1])
				}
			}
		}
	}
	for _, p := range deployment.Phases()[:9] {
		if !slices.Contains(killed, "update."+string(p)) {
			t.Errorf("nothing is killed at the beginning of %s", p)
		}
	}
	if found < 15 {
		t.Errorf("%d fault points were found: does the test still look?", found)
	}
}
