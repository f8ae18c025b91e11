package update

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
)

// configured is what dpkg's script asks for, with the version that was configured
// before; golden is the package's by now.
func (w *world) configured(version, was string) Want {
	w.t.Helper()
	must(w.t, os.RemoveAll(w.u.Slots.Golden))
	tree(w.t, w.u.Slots.Golden, version)
	return Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Was: was, Trial: true}
}

// TestPackageAgain: a package that is configured again switches nothing but what
// is damaged; a newer one is left where an update has brought what is newer still;
// an older one is what its administrator wants.
func TestPackageAgain(t *testing.T) {
	damaged := func(w *world) {
		must(t, os.WriteFile(filepath.Join(w.u.Slots.Path(slot.B), "VERSION"), []byte("x\n"), 0o644))
	}
	crashes := func(w *world) {
		w.m.Units[server] = slot.State{Active: "activating", Result: "exit-code", Exit: 1, Invocation: "again"}
	}
	for _, tt := range []struct {
		name, version, was string
		before             func(w *world) // after version 1.1.0 was committed in slot b
		outcome, serves    string
		left               string
	}{
		{name: "the same", version: "1.0.0", was: "1.0.0", outcome: Already, serves: "1.1.0", left: "as it was"},
		{name: "the same, damaged", version: "1.0.0", was: "1.0.0", before: damaged, outcome: OnTrial, serves: "1.0.0"},
		{name: "the same, and nothing serves", version: "1.0.0", was: "1.0.0", before: func(w *world) {
			must(t, os.RemoveAll(w.u.Slots.Path(slot.A)))
			must(t, os.RemoveAll(w.u.Slots.Path(slot.B)))
			must(t, os.Remove(w.u.Slots.Current))
			must(t, os.Remove(w.u.Slots.Stable))
			w.m.Units = map[string]slot.State{}
		}, outcome: deployment.Committed, serves: "1.0.0"},
		{name: "the same, and what serves crashes", version: "1.0.0", was: "1.0.0", before: crashes, outcome: OnTrial, serves: "1.0.0"},
		{name: "the same, and nobody has asked yet", version: "1.0.0", was: "1.0.0", before: func(w *world) {
			w.m.Units[server] = slot.State{Active: "inactive", Result: "success"}
		}, outcome: Already, serves: "1.1.0", left: "as it was"},
		{name: "newer, and what serves crashes", version: "1.0.5", was: "1.0.0", before: crashes, outcome: OnTrial, serves: "1.0.5"},
		{name: "the same, which could not serve before", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.m.Sick = []string{"1.2.0"}
			if _, err := w.u.Apply(t.Context(), Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Was: "1.0.0", Trial: true}); err == nil || w.state().Alarm == nil {
				t.Errorf("%v, alarm %+v", err, w.state().Alarm)
			}
			w.m.Sick = nil
		}, outcome: OnTrial, serves: "1.2.0"},
		{name: "the same, and what serves is older", version: "1.2.0", was: "1.2.0", outcome: OnTrial, serves: "1.2.0"},
		{name: "the same, which somebody went back from", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.keeps(func(st *state) { st.Held = "1.2.0" })
		}, outcome: Already, serves: "1.1.0", left: "as it was"},
		{name: "the same, and what serves is pinned", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.keeps(func(st *state) { st.Pinned = "1.1.0" })
		}, outcome: Already, serves: "1.1.0", left: "as it was"},
		{name: "the same, held, and something is wrong", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.keeps(func(st *state) {
				st.Held, st.Alarm = "1.2.0", &deployment.Problem{Code: "current_mended", Message: "x"}
			})
		}, outcome: OnTrial, serves: "1.2.0"},
		{name: "the same, which a trial ended badly for", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.keeps(func(st *state) { st.Alarm = &deployment.Problem{Code: slot.Unwell, Message: "x"} })
		}, outcome: OnTrial, serves: "1.2.0"},
		{name: "newer, and older than what serves", version: "1.0.5", was: "1.0.0", outcome: Already, serves: "1.1.0", left: "newer than the package's 1.0.5"},
		{name: "newer, and what serves is damaged", version: "1.0.5", was: "1.0.0", before: damaged, outcome: OnTrial, serves: "1.0.5"},
		{name: "newer", version: "1.2.0", was: "1.0.0", outcome: OnTrial, serves: "1.2.0"},
		{name: "older", version: "1.0.5", was: "1.0.9", outcome: OnTrial, serves: "1.0.5"},
		{name: "the first", version: "1.0.5", outcome: OnTrial, serves: "1.0.5"},
		{name: "the same version of another build", version: "1.1.0", was: "1.1.0", before: func(w *world) {
			must(t, os.RemoveAll(w.u.Slots.Golden))
			treeOf(t, w.u.Slots.Golden, slot.Info{Version: "1.1.0", Commit: "beef", Arch: runtime.GOARCH, Contract: slot.Contract})
		}, outcome: OnTrial, serves: "1.1.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.onTrial("1.1.0")
			w.proves()
			records, err := deployment.Records(w.u.Dir, 0)
			must(t, err)
			want := w.configured(tt.version, tt.was)
			if tt.before != nil {
				tt.before(w)
			}
			res := w.apply(want, tt.outcome)
			if serving, _ := w.u.links(); w.u.release(serving).Version != tt.serves || !strings.Contains(res.Left, tt.left) || (res.Left == "") != (tt.left == "") {
				t.Errorf("%s serves; %+v", w.u.release(serving).Version, res)
			}
			if now, err := deployment.Records(w.u.Dir, 0); tt.left != "" && (err != nil || len(now) != len(records) || w.state().Floor != "1.1.0") {
				t.Errorf("records %+v, %v, floor %s", now, err, w.state().Floor)
			}
		})
	}
}

// keeps changes the state.
func (w *world) keeps(alter func(st *state)) {
	w.t.Helper()
	st := w.state()
	alter(st)
	must(w.t, w.u.save(st))
}

// TestReinstallMends: the slot of the package's own release rots, what served before
// serves in its place, and the alarm says what to do: it helps.
func TestReinstallMends(t *testing.T) {
	w := newWorld(t)
	w.apply(w.configured("2.0.0", "1.0.0"), OnTrial)
	w.proves()
	must(t, os.RemoveAll(filepath.Join(w.u.Slots.Path(slot.B), slot.ManifestName)))
	_, err := w.u.Recover(t.Context(), true)
	must(t, err)
	if serving, _ := w.u.links(); serving != slot.A || w.state().Alarm == nil || !strings.Contains(w.state().Alarm.Hint, "apt reinstall") {
		t.Fatalf("slot %s serves, alarm %+v", serving, w.state().Alarm)
	}
	w.apply(w.configured("2.0.0", "2.0.0"), OnTrial)
	w.proves()
	if serving, _ := w.u.links(); w.u.release(serving).Version != "2.0.0" || w.state().Alarm != nil {
		t.Errorf("%s serves, alarm %+v", w.u.release(serving).Version, w.state().Alarm)
	}
}

// TestPackageDuringTrial: the one that is configured again disturbs nobody; a newer
// one waits, and is left where the trial has brought what is newer still.
func TestPackageDuringTrial(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	want := w.configured("1.0.0", "1.0.0")
	unlock, err := w.u.lock("somebody")
	must(t, err)
	if res := w.apply(want, Already); res.Left == "" || w.state().Queued != nil {
		t.Errorf("%+v, queued %+v", res, w.state().Queued)
	}
	unlock()
	w.apply(w.configured("1.0.5", "1.0.0"), Queued)
	w.proves()
	must(t, w.u.takeQueued(t.Context()))
	w.stands(slot.B, slot.B, slot.B)
	w.idles()
	if r := w.last(2); r.To.Version != "1.0.5" || r.Outcome != deployment.Canceled || r.Reason != "left" || r.Says == "" || w.state().Queued != nil {
		t.Errorf("%+v, queued %+v", r, w.state().Queued)
	}
}

// TestPackageDuringDownload: to be configured again ends no download.
func TestPackageDuringDownload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.downloads(Want{Door: deployment.DoorHTTP, Trial: true})
	w.apply(w.configured("1.0.0", "1.0.0"), Already)
	close(l.give)
	if e := <-l.ended; e.err != nil || e.res.Outcome != OnTrial {
		t.Errorf("%+v, %v", e.res, e.err)
	}
}

// TestForgetSlots keeps what was decided, and the record.
func TestForgetSlots(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0", "1.2.0")
	w.onTrial("1.1.0")
	w.fails()
	w.onTrial("1.3.0")
	w.proves()
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	must(t, err)
	if _, err := w.u.Download(t.Context(), "1.2.0"); !hasCode(err, "downgrade") {
		t.Fatal(err)
	}
	_, err = w.u.Pin("1.2.0")
	must(t, err)
	w.onTrial("1.4.0")
	w.apply(w.deploy("1.5.0"), Queued)
	before := w.state()
	must(t, w.u.ForgetSlots(t.Context()))
	records, err := deployment.Records(w.u.Dir, 1)
	must(t, err)
	if r := records[0]; r.To.Version != "1.4.0" || r.Outcome != deployment.Canceled || r.Blame != deployment.Operator || r.At != deployment.OnTrial || r.Says == "" {
		t.Errorf("the trial ended as %+v", r)
	}
	for _, file := range []string{stateFile, stateBefore} {
		st, err := readState(filepath.Join(w.u.Dir, file))
		must(t, err)
		if st.Floor != before.Floor || st.Floor == "" || st.Pinned != "1.2.0" || st.Held != before.Held || st.Held == "" || st.Hold != before.Hold || len(st.Banned) != 1 {
			t.Errorf("%s: what was decided is %+v", file, st)
		}
		if st.Step != idle || st.Attempt.Transaction != "" || st.Queued != nil || st.Before != "" || st.Alarm != nil || st.Check.Fetched != "" {
			t.Errorf("%s: it knows of slots: %+v", file, st)
		}
	}
	if _, err := os.Stat(w.u.artefacts()); !os.IsNotExist(err) {
		t.Errorf("artefacts stay: %v", err)
	}
	// It is installed again.
	must(t, os.RemoveAll(filepath.Join(w.home, "opt")))
	w.m.Units = map[string]slot.State{}
	w.apply(w.configured("1.4.0", "1.4.0"), deployment.Committed)
	if st := w.state(); st.Pinned != "1.2.0" || len(st.Banned) != 1 || st.Held != before.Held {
		t.Errorf("%+v", st)
	}
}

// TestForgetSlotsWhile: wherever an update stands when the package is removed, the
// record has its end, once, and no slot is looked at.
func TestForgetSlotsWhile(t *testing.T) {
	for _, tt := range []struct {
		step            step
		current, stable string
		outcome         string
		at              deployment.Phase
		blame           string
	}{
		{idle, slot.A, slot.A, "", "", ""},
		{preparing, slot.A, slot.A, deployment.Canceled, deployment.Plan, deployment.Operator},
		{armed, slot.B, slot.A, deployment.Canceled, deployment.TakeOver, deployment.Operator},
		{onTrial, slot.B, slot.A, deployment.Canceled, deployment.OnTrial, deployment.Operator},
		{onTrial, missing, missing, deployment.Canceled, deployment.OnTrial, deployment.Operator},
		{onTrial, slot.B, slot.B, deployment.Committed, "", ""},
		{rollingBack, slot.B, slot.A, deployment.RolledBack, deployment.OnTrial, deployment.Candidate},
	} {
		t.Run(string(tt.step)+" "+tt.current+tt.stable, func(t *testing.T) {
			w := left(t, tt.step, tt.current, tt.stable, true)
			for _, name := range []string{slot.A, slot.B} {
				must(t, os.Remove(filepath.Join(w.u.Slots.Path(name), slot.ServerPath)))
			}
			must(t, w.u.ForgetSlots(t.Context()))
			must(t, w.u.ForgetSlots(t.Context()))
			w.idles()
			if current, stable := w.u.links(); tt.current != missing && (current != tt.current || stable != tt.stable) {
				t.Errorf("the links were moved to %s and %s", current, stable)
			}
			if w.state().Alarm != nil {
				t.Errorf("alarm %+v", w.state().Alarm)
			}
			if tt.outcome == "" {
				return
			}
			if r := w.last(1); r.Outcome != tt.outcome || r.At != tt.at || r.Blame != tt.blame {
				t.Errorf("%s at %q, %s", r.Outcome, r.At, r.Blame)
			}
		})
	}
}

// TestForgetSlotsHold: that a package was removed in a trial is no decision against
// the release, as a rollback by hand is.
func TestForgetSlotsHold(t *testing.T) {
	for door, held := range map[deployment.Door]string{deployment.DoorDpkg: "", deployment.DoorCLI: "1.1.0"} {
		w := newWorld(t)
		w.onTrial("1.1.0")
		_, err := w.u.Cancel(t.Context(), door)
		must(t, err)
		must(t, w.u.ForgetSlots(t.Context()))
		if st := w.state(); st.Held != held || (st.Hold == hold{}) != (held == "") {
			t.Errorf("by %s: %q is held, %+v", door, st.Held, st.Hold)
		}
	}
}
