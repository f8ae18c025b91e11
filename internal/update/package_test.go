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
		{name: "the same, which could not serve before", version: "1.2.0", was: "1.2.0", before: func(w *world) {
			w.m.Sick = []string{"1.2.0"}
			if _, err := w.u.Apply(t.Context(), Want{Door: deployment.DoorDpkg, Tree: w.u.Slots.Golden, Was: "1.0.0", Trial: true}); err == nil || w.state().Alarm == nil {
				t.Errorf("%v, alarm %+v", err, w.state().Alarm)
			}
			w.m.Sick = nil
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
