//go:build e2e && faults

package matrix

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/update"
	"whisper-appliance/tests/faults/supervise"
)

// TestExtra are the rows beside the table. The GPU that is gone is no row here:
// no release of this project uses one yet.
func TestExtra(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		do   func(*world)
		fast bool
	}{
		{"read-only disk", (*world).readOnly, true},
		{"failing disk", (*world).failingDisk, false},
		{"no inodes", (*world).noInodes, true},
		{"no inodes in the trial", (*world).noInodesInTrial, false},
		{"new server killed for memory", (*world).killedForMemory, true},
		{"container stopped in mid-trial", (*world).stoppedInTrial, true},
		{"three boots in a trial", (*world).threeBoots, false},
		{"dpkg in mid-transaction", (*world).dpkgMeanwhile, false},
		{"dpkg in a trial", (*world).dpkgInTrial, true},
		{"network lost after fetch", (*world).offline, false},
		{"bit-rot in the idle slot", (*world).rotIdle, false},
		{"bit-rot in the serving slot", (*world).rotServing, false},
		{"rollback target missing", (*world).targetMissing, false},
		{"rollback target damaged, nobody at work", (*world).nothingBefore, false},
		{"a unit the admin edited", (*world).edited, false},
	} {
		if fast() && !c.fast {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			here := *w
			here.TB = t
			here.fresh()
			c.do(&here)
			if !t.Failed() {
				noteLine("extra\t%s", c.name)
			}
		})
	}
}

// readOnly: each disk in turn takes no writes; the update is refused with its
// reason, and goes through when it does again.
func (w *world) readOnly() {
	for _, d := range []interface{ ReadOnly(on bool) error }{w.home, w.state} {
		end := w.load()
		must(w, d.ReadOnly(true))
		exit, output := w.do("update " + next)
		if exit == 0 || !strings.Contains(output, "mounted read-only") {
			w.Errorf("exit %d: %s", exit, output)
		}
		if got := w.serves(); got != first {
			w.Errorf("%s serves", got)
		}
		must(w, d.ReadOnly(false))
		w.settle()
		w.stands(first)
		w.unharmed(end(), "")
	}
	w.mustDo("update " + next)
	w.stands(next)
}

// failingDisk: the updater's disk stops answering in the trial. What serves goes
// on serving, and after the next boot all goes on.
func (w *world) failingDisk() {
	job := w.begin("update "+next, "update.on_trial "+pause)
	job.at("update.on_trial", func() { must(w, w.state.Cut()) })
	w.until(700*time.Millisecond, job.over)
	if got := w.serves(); got != next {
		w.Errorf("%s serves", got)
	}
	job.kill()
	w.sup.PowerOff()
	must(w, w.home.Revive(), w.state.Revive())
	w.neverBroken()
	w.boot()
	w.settle()
	if letter := w.came(next); letter != "F" && letter != "M" {
		w.Errorf("it came to %s", letter)
	}
}

// noInodes: no file can be made any more.
func (w *world) noInodes() {
	end := w.load()
	must(w, w.home.FillInodes(0))
	exit, output := w.do("update " + next)
	if exit == 0 || !strings.Contains(output, "code no_inodes") {
		w.Errorf("exit %d: %s", exit, output)
	}
	must(w, w.home.Unfill())
	w.settle()
	if letter := w.came(next); letter != "O" {
		w.Errorf("it came to %s", letter)
	}
	w.unharmed(end(), "")
	w.mustDo("update " + next)
}

// noInodesInTrial: nor is one needed for the way back.
func (w *world) noInodesInTrial() {
	job := w.begin("update "+fails, "update.on_trial "+pause)
	job.at("update.on_trial", func() { must(w, w.home.FillInodes(0), w.state.FillInodes(0)) })
	if !w.until(10*time.Second, func() bool { return w.serves() == first }) {
		w.Errorf("%s serves", w.serves())
	}
	must(w, w.home.Unfill(), w.state.Unfill())
	job.end()
	w.settle()
	if letter := w.came(fails); letter != "B" && letter != "BP" {
		w.Errorf("it came to %s", letter)
	}
}

// killedForMemory: the kernel's SIGKILL stands in for its killing for memory;
// there is no memory controller to make it do so.
func (w *world) killedForMemory() {
	end := w.load()
	job := w.begin("update "+next, "update.on_trial "+pause)
	job.at("update.on_trial", func() {
		p, err := os.FindProcess(w.unit(supervise.Service).PID)
		must(w, err)
		must(w, p.Kill())
	})
	job.end()
	if letter := w.came(next); letter != "B" && letter != "BP" {
		w.Errorf("it came to %s", letter)
	}
	w.unharmed(end(), "hurts")
}

// inTrial is an updater in a trial, with some credit, that is ended.
func (w *world) inTrial() {
	w.Helper()
	w.Trial = 5 * time.Second
	job := w.begin("update " + next)
	if !w.until(20*time.Second, func() bool {
		st, err := w.stateFile()
		return err == nil && st.Step == "trial" && st.Credit.Samples > 3 || job.over()
	}) || job.over() {
		_, output := job.end()
		w.Fatalf("there is no trial: %s", output)
	}
	job.kill()
}

// stoppedInTrial: everything is stopped, and started again.
func (w *world) stoppedInTrial() {
	w.inTrial()
	before := w.readable()
	w.sup.PowerOff()
	w.boot()
	st := w.readable()
	if st.Step != "trial" || st.TriesLeft != before.TriesLeft-1 || st.Credit.Samples < before.Credit.Samples {
		w.Errorf("%+v, before %+v", st, before)
	}
	if got := w.serves(); got != next {
		w.Errorf("%s serves", got)
	}
	w.Trial = trialTime
	w.mustDo("watch")
	if letter := w.came(next); letter != "F" && letter != "M" {
		w.Errorf("it came to %s", letter)
	}
}

// threeBoots: a release under which the machine does not stay up is taken back.
func (w *world) threeBoots() {
	w.inTrial()
	for range 3 {
		w.sup.PowerOff()
		w.boot()
	}
	if r := w.last(); r.Reason != "tries_exhausted" || w.serves() != first {
		w.Errorf("%s: %s serves", r.Reason, w.serves())
	}
	w.stands(first)
}

// dpkgMeanwhile: the package's script comes in the middle of a transaction. It is
// turned away at once, and what it brought can be installed afterwards.
func (w *world) dpkgMeanwhile() {
	job := w.begin("update "+next, "update.publish "+pause)
	met := job.at("update.publish", func() {
		r := w.begin("deploy " + w.tree(after))
		if exit, output := r.end(); exit != exitBusy {
			w.Errorf("exit %d: %s", exit, output)
		}
	})
	if exit, output := job.end(); !met || exit != 0 {
		w.Fatalf("met %v, %d: %s", met, exit, output)
	}
	w.stands(next)
	w.mustDo("deploy " + w.tree(after))
	w.stands(after)
}

// dpkgInTrial: what the package brings waits for the end of the trial, and is
// installed then; nobody else takes its place.
func (w *world) dpkgInTrial() {
	w.inTrial()
	w.Trial = trialTime
	exit, output := w.do("deploy " + w.tree(after))
	if exit != 0 || !strings.Contains(output, "outcome "+update.Queued) {
		w.Errorf("exit %d: %s", exit, output)
	}
	if got := w.serves(); got != next {
		w.Errorf("%s serves", got)
	}
	w.settle()
	w.stands(after)
}

// offline: what was fetched is installed though the source has gone.
func (w *world) offline() {
	job := w.begin("update "+next, "update.verify "+pause)
	job.at("update.verify", func() { w.source.lose() })
	if exit, output := job.end(); exit != 0 {
		w.Errorf("exit %d: %s", exit, output)
	}
	w.stands(next)
	w.fresh()
	w.mustDo("download " + next)
	w.source.lose()
	w.mustDo("update " + next)
	w.stands(next)
}

func (s *source) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
}

// rotIdle: a byte of the slot that is kept for a rollback changes by itself. The
// scrub finds it and brings the whole release anew.
func (w *world) rotIdle() {
	w.mustDo("update " + next)
	w.mustDo("update " + after)
	w.stands(after) // a holds after, b next
	w.flip(filepath.Join(w.Home, "slots/b/share/doc/README"))
	if w.versionIn(slot.B) != "" {
		w.Fatal("nothing was changed")
	}
	exit, output := w.do("scrub")
	var found []update.Scrubbed
	if at := strings.Index(output, "[{"); at < 0 || json.NewDecoder(strings.NewReader(output[at:])).Decode(&found) != nil || exit != 0 {
		w.Fatalf("exit %d: %s", exit, output)
	}
	for _, s := range found {
		if (s.Slot == slot.B) != (s.Healed != "") {
			w.Errorf("%+v", s)
		}
	}
	if got := w.versionIn(slot.B); got != next {
		w.Errorf("b holds %q", got)
	}
	w.mustDo("rollback")
	w.stands(next)
}

// rotServing: the one that serves is an alarm, and goes on serving.
func (w *world) rotServing() {
	w.flip(filepath.Join(w.Home, "slots/a/share/doc/README"))
	w.do("scrub")
	if st := w.readable(); st.Alarm == nil || st.Alarm.Code != "slot_damaged" {
		w.Errorf("alarm %+v", st.Alarm)
	}
	if got := w.serves(); got != first {
		w.Errorf("%s serves", got)
	}
	// An update is the way out of it.
	w.mustDo("update " + next)
	w.stands(next)
}

// targetMissing: the slot to go back to has gone in the trial.
func (w *world) targetMissing() {
	job := w.begin("update "+fails, "update.on_trial "+pause)
	job.at("update.on_trial", func() { must(w, os.RemoveAll(w.slots.Path(slot.A))) })
	job.end()
	w.settle()
	if letter := w.came(fails); letter != "golden" {
		w.Errorf("it came to %s", letter)
	}
	if st := w.readable(); st.Alarm == nil {
		w.Error("nobody is told")
	}
}

// nothingBefore: a rollback that somebody asks for and that has no whole target
// is refused, and what serves goes on.
func (w *world) nothingBefore() {
	w.mustDo("update " + next)
	w.flip(filepath.Join(w.Home, "slots/a/share/doc/README"))
	end := w.load()
	if exit, output := w.do("rollback"); exit == 0 || !strings.Contains(output, "code nothing_before") {
		w.Errorf("exit %d: %s", exit, output)
	}
	w.stands(next)
	w.unharmed(end(), "")
}

// edited: an administrator's change keeps the server of any release from
// starting anew; the candidate shows it beforehand, and what serves goes on.
func (w *world) edited() {
	end := w.load()
	w.sup.Break(true)
	exit, output := w.do("update " + next)
	w.sup.Break(false)
	if exit == 0 {
		w.Errorf("it went through: %s", output)
	}
	w.settle()
	if letter := w.came(next); letter != "O" && letter != "OQ" {
		w.Errorf("it came to %s", letter)
	}
	w.unharmed(end(), "")
}
