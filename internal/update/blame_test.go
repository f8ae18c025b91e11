package update

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
)

// TestDamageInASlot is the disk's: the same release from another place is good.
func TestDamageInASlot(t *testing.T) {
	for name, asked := range map[string]func(w *world) error{
		"switch": func(w *world) error {
			_, err := w.u.Apply(w.t.Context(), Want{Door: deployment.DoorCLI, Slot: slot.B})
			return err
		},
		"after it was placed": func(w *world) error {
			w.u.Site.Baseline = nil
			w.m.after = nil
			_, err := w.u.Apply(w.t.Context(), w.deploy("1.2.0"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := left(t, idle, slot.A, slot.A, true)
			rot := filepath.Join(w.u.Slots.Path(slot.B), slot.EnginePath)
			if name == "switch" {
				spoil(t, rot)
			}
			swap := w.u.Site.Switch
			w.u.Site.Switch = func(tell func(step, text string)) *slot.Switch {
				sw := swap(func(step, text string) {
					if step == slot.StepVerify && name != "switch" {
						spoil(t, rot)
					}
					tell(step, text)
				})
				return sw
			}
			wantCode(t, asked(w), "damaged_release")
			if r := w.last(1); r.Blame != deployment.Environment || len(w.state().Banned) > 0 {
				t.Errorf("blame %s, quarantine %+v", r.Blame, w.state().Banned)
			}
			w.stands(slot.A, slot.A, slot.A)
		})
	}
}

// TestWhoMovedTheLink: only what the gate has taken back is the release's fault.
func TestWhoMovedTheLink(t *testing.T) {
	for _, mark := range []bool{true, false} {
		w := newWorld(t)
		w.onTrial("1.1.0")
		w.u.Site.TakenBack = func(name string) bool {
			if name != slot.B {
				t.Errorf("asked for %s", name)
			}
			return mark
		}
		must(t, w.u.Slots.Activate(slot.A))
		w.m.launch(server)
		_, err := w.u.Recover(t.Context(), false)
		must(t, err)
		w.stands(slot.A, slot.A, slot.A)
		st, r := w.state(), w.last(1)
		if (len(st.Banned) == 1) != mark || (st.Held == "1.1.0") == mark || (r.Blame == deployment.Candidate) != mark || (r.Reason == "gate") != mark {
			t.Errorf("mark %v: held %q, quarantine %+v, %s, %s", mark, st.Held, st.Banned, r.Reason, r.Blame)
		}
	}
}

// TestStateNotRead: a disk that does not answer is no state that is lost.
func TestStateNotRead(t *testing.T) {
	for _, file := range []string{stateFile, stateBefore} {
		t.Run(file, func(t *testing.T) {
			w := left(t, onTrial, slot.B, slot.A, true)
			must(t, w.u.save(w.state()))
			path := filepath.Join(w.u.Dir, file)
			must(t, os.Rename(path, path+".kept"))
			must(t, os.Mkdir(path, 0o755)) // it can be opened, and not be read
			if file == stateBefore {
				must(t, os.WriteFile(filepath.Join(w.u.Dir, stateFile), []byte("{"), 0o644))
			}
			_, err := w.u.Recover(t.Context(), false)
			wantCode(t, err, "state_unread")
			must(t, os.Remove(path))
			must(t, os.Rename(path+".kept", path))
			w.stands(slot.B, slot.A, slot.B)
			if st := w.state(); file == stateFile && (st.Step != onTrial || st.Alarm != nil) {
				t.Errorf("%s, alarm %+v", st.Step, st.Alarm)
			}
		})
	}
}

// TestBannedUnderAnotherName: what is refused once unpacked is not fetched again
// and again.
func TestBannedUnderAnotherName(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.u.Site.Evidence = func(context.Context, string, time.Time) error { asked++; return nil }
	w.offers("1.1.0")
	m, err := slot.Read(w.tree("1.1.0"))
	must(t, err)
	st := w.state()
	st.ban(deployment.Quarantine{Version: "1.1.0", Digest: m.Digest(), Artefact: "another", Says: "it crashes", At: w.u.Now()})
	must(t, w.u.save(st))
	w.set.Automatic, w.set.Window = "install", ""
	for n := range 3 {
		if _, err := w.u.Auto(t.Context()); (err != nil) != (n == 0) {
			t.Errorf("try %d: %v", n, err)
		}
	}
	w.last(1)
	if asked > 0 {
		t.Error("evidence is kept of what was refused")
	}
	if n, err := w.u.Unquarantine("1.1.0"); err != nil || n != 2 {
		t.Errorf("%d pardoned, %v", n, err)
	}
	w.apply(Want{Trial: true}, OnTrial)
}

// TestEvidenceByRecord: the newest stays though the clock was wrong, and of those
// before it the newest.
func TestEvidenceByRecord(t *testing.T) {
	w := newWorld(t)
	w.u.Site.Evidence = func(_ context.Context, dir string, _ time.Time) error {
		return os.WriteFile(filepath.Join(dir, "journal"), nil, 0o600)
	}
	var names []string
	for n := range mostBundles + 3 { // the clock runs backwards
		st := w.state()
		names = append(names, fmt.Sprintf("%02d", 50-n))
		st.Attempt = deployment.Record{Transaction: names[n], Blame: deployment.Candidate}
		must(t, w.u.finish(st, deployment.RolledBack))
		if _, err := os.Stat(w.last(n + 1).Bundle); err != nil {
			t.Errorf("of the newest: %v", err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(w.u.Dir, evidenceDir))
	must(t, err)
	for _, e := range entries {
		if !slices.Contains(names[3:], e.Name()) {
			t.Errorf("%s is kept", e.Name())
		}
	}
	if len(entries) != mostBundles {
		t.Errorf("%d are kept", len(entries))
	}
}

// TestRefusedIsBetterThanNothing: what is quarantined serves where no other does.
func TestRefusedIsBetterThanNothing(t *testing.T) {
	w := newWorld(t)
	must(t, os.RemoveAll(w.u.Slots.Golden))
	w.offers("1.1.0")
	w.apply(Want{Trial: true}, OnTrial)
	digest := w.u.release(slot.A).Digest
	st := w.state()
	st.ban(deployment.Quarantine{Version: "1.0.0", Digest: digest, Says: "it was slow", At: w.u.Now()})
	must(t, w.u.save(st))
	w.fails()
	w.stands(slot.A, slot.A, slot.A)
	if st := w.state(); st.banned(digest, "") != nil || st.Alarm == nil || st.Alarm.Code != "refused_serves" || len(st.Banned) != 1 {
		t.Errorf("quarantine %+v, alarm %+v", st.Banned, st.Alarm)
	}
}

// TestSystemdAwayAtTakeOver: the link goes back and no further, and the server as
// soon as systemd answers.
func TestSystemdAwayAtTakeOver(t *testing.T) {
	w := newWorld(t)
	n := w.counts()
	w.m.after = func(verb, unit string) { w.m.Down = w.m.Down || verb+unit == "restart"+server }
	_, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
	wantCode(t, err, slot.SystemdAway)
	if current, committed := w.u.links(); current != slot.A || committed != slot.A || w.state().Step != rollingBack || *n != 1 {
		t.Errorf("current %s, stable %s, %s, watched %d times", current, committed, w.state().Step, *n)
	}
	w.m.after, w.m.Down = nil, false
	_, err = w.u.Recover(t.Context(), false)
	must(t, err)
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
	if r := w.last(1); r.Outcome != deployment.RolledBack || r.Blame != deployment.Environment || r.Reason != slot.SystemdAway || len(w.state().Banned) > 0 {
		t.Errorf("%+v", r)
	}
}
