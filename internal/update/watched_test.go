package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// counts has the world count how often somebody is asked to watch.
func (w *world) counts() *int {
	n := new(int)
	w.u.Site.Watch = func(context.Context) error { *n++; return nil }
	return n
}

// TestArmedIsWatched: whoever began the switch died after the link moved, and
// whoever watches finds it.
func TestArmedIsWatched(t *testing.T) {
	w := left(t, armed, slot.B, slot.A, true)
	if watch, err := w.u.Trial(); err != nil || !watch {
		t.Errorf("nobody watches: %v", err)
	}
	w.u.Site.Look = func(context.Context, bool) (trial.Sample, error) {
		s := good(1)
		s.Watchdog = 1
		return s, nil
	}
	must(t, w.u.Watch(t.Context()))
	w.stands(slot.A, slot.A, slot.A)
	if r := w.last(1); r.Reason != trial.ReasonWatchdog {
		t.Errorf("%+v", r)
	}
}

// TestSwitchGoesOn: while somebody switches whoever watches waits.
func TestSwitchGoesOn(t *testing.T) {
	w := left(t, armed, slot.B, slot.A, true)
	unlock, err := w.u.lock("an update")
	must(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.u.Watch(ctx); !errors.Is(err, context.DeadlineExceeded) || w.state().Step != armed {
		t.Errorf("%v, %s", err, w.state().Step)
	}
}

// TestWatchIsAskedFor by every verb that meets a trial, and by the timer.
func TestWatchIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		verb func(w *world) error
	}{
		{"timer, though the policy is off", func(w *world) error {
			w.set.Automatic = "off"
			_, err := w.u.Auto(w.t.Context())
			return err
		}},
		{"scrub", func(w *world) error { _, err := w.u.Scrub(w.t.Context(), nil); return err }},
		{"apply", func(w *world) error { _, err := w.u.Apply(w.t.Context(), w.deploy("1.2.0")); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := left(t, armed, slot.B, slot.A, true)
			n := w.counts()
			must(t, tt.verb(w))
			if *n != 1 || w.state().Step != onTrial {
				t.Errorf("asked %d times, %s", *n, w.state().Step)
			}
		})
	}
}

// TestWatchedThoughNotWrittenDown: a trial that begins on a failing disk has its
// judge all the same.
func TestWatchedThoughNotWrittenDown(t *testing.T) {
	w := newWorld(t)
	n := w.counts()
	path := filepath.Join(w.u.Dir, stateFile)
	w.m.after = func(verb, unit string) {
		if verb+unit == "restart"+server { // nothing can be renamed over a directory
			must(t, os.Rename(path, path+".kept"))
			must(t, os.Mkdir(path, 0o755))
		}
	}
	if res, err := w.u.Apply(t.Context(), w.deploy("1.1.0")); err == nil || res.Outcome != OnTrial || *n != 1 {
		t.Errorf("%+v, %v, asked %d times", res, err, *n)
	}
	must(t, os.Remove(path))
	must(t, os.Rename(path+".kept", path))
	w.m.after = nil
	if watch, err := w.u.Recover(t.Context(), false); err != nil || !watch || w.state().Step != onTrial {
		t.Errorf("%v, %s", err, w.state().Step)
	}
}

// TestRollbackNeverGoesForward: the other slot may hold what somebody has left.
func TestRollbackNeverGoesForward(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.proves()
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	must(t, err)
	for range 2 {
		_, err = w.u.Rollback(t.Context(), deployment.DoorCLI)
		wantCode(t, err, "nothing_before")
		w.stands(slot.A, slot.A, slot.A)
		must(t, w.u.Unpin())
	}
	w.onTrial("1.2.0")
	_, err = w.u.Rollback(t.Context(), deployment.DoorCLI) // of the trial
	must(t, err)
	_, err = w.u.Rollback(t.Context(), deployment.DoorCLI)
	wantCode(t, err, "nothing_before")
	w.stands(slot.A, slot.A, slot.A)
}

// TestArmedWhileStopped: what was never seen to run has proved nothing.
func TestArmedWhileStopped(t *testing.T) {
	w := left(t, armed, slot.B, slot.A, true)
	w.m.Idle, w.m.Units[server] = "the appliance is stopped", slot.State{Active: "inactive"}
	_, err := w.u.Recover(t.Context(), false)
	must(t, err)
	w.stands(slot.B, slot.A, "inactive")
	if st := w.state(); st.Step != onTrial {
		t.Errorf("step %s", st.Step)
	}
}

// TestGoodIsNotForEver: a verdict that could not be carried out is judged anew.
func TestGoodIsNotForEver(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	st := w.state()
	judge := trial.New(st.Baseline, rulesOf(w.set), st.Credit)
	look := func(s trial.Sample) bool {
		w.u.Site.Look = func(context.Context, bool) (trial.Sample, error) { return s, nil }
		over, err := w.u.look(t.Context(), st.Attempt.Transaction, judge, 0)
		must(t, err)
		return over
	}
	for n := range 10 {
		if look(good(n)) {
			t.Fatal("it is good already")
		}
	}
	unlock, err := w.u.lock("a download")
	must(t, err)
	if v := look(good(10)); v {
		t.Fatal("it ended without the lock")
	}
	unlock()
	s := good(11)
	s.Watchdog = 1
	if !look(s) {
		t.Error("the trial goes on")
	}
	w.stands(slot.A, slot.A, slot.A)
	if r := w.last(1); r.Outcome != deployment.RolledBack {
		t.Errorf("%+v", r)
	}
}
