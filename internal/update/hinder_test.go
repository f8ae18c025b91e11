package update

import (
	"context"
	"os"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// automatic has the timer install what is on offer.
func (w *world) automatic(versions ...string) {
	w.t.Helper()
	w.offers(versions...)
	w.set.Automatic, w.set.Window = "install", ""
}

// TestHinderedIsHeld: what the machine keeps from serving is not tried for ever,
// and once where the server is restarted for it.
func TestHinderedIsHeld(t *testing.T) {
	t.Parallel()
	killed := slot.State{Active: "failed", Result: "oom-kill", Exit: 9}
	for _, tt := range []struct {
		name, unit, current string
		tries               int
	}{
		{"beside the server", "next-b", slot.A, mostHindered},
		{"in its place", server, slot.B, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.automatic("1.1.0")
			w.becomes(tt.unit, tt.current, killed)
			for n := range mostHindered + 2 {
				if _, err := w.u.Auto(t.Context()); (err != nil) != (n < tt.tries) {
					t.Errorf("look %d: %v", n, err)
				}
			}
			w.last(tt.tries)
			st := w.state()
			if st.Held != "1.1.0" || st.Hold.Door != "" || st.Hold.At.IsZero() || len(st.Banned) != 0 {
				t.Errorf("held %q, %+v, quarantine %+v", st.Held, st.Hold, st.Banned)
			}
			must(t, w.u.Unpin())
			if _, err := w.u.Auto(t.Context()); err == nil {
				t.Error("it is not tried again")
			}
			w.last(tt.tries + 1)
			w.m.after = nil
			w.offers("1.2.0")
			if res, err := w.u.Auto(t.Context()); err != nil || res.Outcome != OnTrial {
				t.Errorf("what is newer came to %q, %v", res.Outcome, err)
			}
		})
	}
}

// TestHinderedInARow alone counts, of one release; and by hand holds nothing.
func TestHinderedInARow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	byHand := func(version string) Want {
		want := w.deploy(version)
		want.Door = deployment.DoorCLI
		return want
	}
	spoil := func() { w.becomes("next-b", slot.A, slot.State{Active: "failed", Result: "oom-kill"}) }
	for range mostHindered - 1 {
		spoil()
		w.refused(byHand("1.1.0"), slot.UnitHindered)
	}
	w.refused(byHand("1.2.0"), slot.UnitHindered)
	w.refused(byHand("1.1.0"), slot.UnitHindered)
	if st := w.state(); st.Held != "" || st.Hindered.Times != 1 {
		t.Errorf("held %q, %+v", st.Held, st.Hindered)
	}
	w.m.after = nil
	w.onTrial("1.1.0")
	w.proves()
	if st := w.state(); st.Hindered.Times != 0 {
		t.Errorf("%+v", st.Hindered)
	}
	w.becomes(server, slot.A, slot.State{Active: "failed", Result: "oom-kill"})
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	wantCode(t, err, slot.RolledBack)
	if st := w.state(); st.Held != "" {
		t.Errorf("the way back, %s, is held", st.Held)
	}
	w.m.after = nil
	if _, err := w.u.Rollback(t.Context(), deployment.DoorCLI); err != nil {
		t.Errorf("the second try: %v", err)
	}
}

// TestRecoveryInAnothersTime: that the caller's time is over says nothing of the
// release that was being recovered.
func TestRecoveryInAnothersTime(t *testing.T) {
	t.Parallel()
	w := left(t, armed, slot.A, slot.A, true)
	point(t, w.u.Slots.Current, slot.B) // and the server still runs what is in a
	swap := w.u.Site.Switch
	w.slow("start", "next-b")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond,
		fault.New(fault.Unavailable, slot.TooSlow, "it took more than that").Try("give it more"))
	defer cancel()
	_, err := w.u.Apply(ctx, w.deploy("1.2.0"))
	wantCode(t, err, slot.TooSlow)
	if st, current := w.state(), must1(w.u.Slots.Serving()); st.Step != armed || st.Held != "" || current != slot.B {
		t.Errorf("%s, held %q, current %s", st.Step, st.Held, current)
	}
	w.u.Site.Switch = swap
	_, err = w.u.Recover(t.Context(), false)
	must(t, err)
	w.stands(slot.B, slot.A, slot.B)
	if st := w.state(); st.Step != onTrial {
		t.Errorf("%s", st.Step)
	}
}

func must1(name string, err error) string {
	if err != nil {
		return err.Error()
	}
	return name
}

// TestMarkIsForgotten before a release could earn one; where it cannot be the
// release is not started.
func TestMarkIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mark := map[string]bool{slot.B: true} // of a release that is there no more
	w.u.Site.TakenBack = func(name string) bool { return mark[name] }
	w.u.Site.ForgetTaken = func(name string) error {
		if st := w.state(); st.Step != preparing {
			t.Errorf("the mark is removed when the state is %s", st.Step)
		}
		delete(mark, name)
		return nil
	}
	w.onTrial("1.1.0")
	must(t, w.u.Slots.Activate(slot.A)) // by hand
	w.m.launch(server)
	_, err := w.u.Recover(t.Context(), false)
	must(t, err)
	if r, st := w.last(1), w.state(); r.Reason != "link_moved" || len(st.Banned) != 0 {
		t.Errorf("%s, quarantine %+v", r.Reason, st.Banned)
	}
	w.u.Site.ForgetTaken = func(string) error { return os.ErrPermission }
	started := w.m.Started
	if _, err := w.u.Apply(t.Context(), w.deploy("1.2.0")); err == nil || w.m.Started != started {
		t.Errorf("%v", err)
	}
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
}

// TestGoldenBeforeCutOff: the server follows, and somebody is told, wherever the
// run was cut off.
func TestGoldenBeforeCutOff(t *testing.T) {
	t.Parallel()
	w := left(t, idle, slot.Golden, slot.Golden, true)
	tree(t, w.u.Slots.GoldenBefore, "0.9.0")
	st := w.state()
	st.ban(deployment.Quarantine{Version: "1.0.0", Digest: w.u.release(slot.Golden).Digest, Says: "it crashes", At: w.u.Now()})
	must(t, w.u.save(st))
	ctx, cut := context.WithCancel(t.Context())
	swap := w.u.Site.Switch
	w.u.Site.Switch = func(tell func(step, text string)) *slot.Switch {
		if st := w.state(); st.Alarm == nil || st.Alarm.Code != "current_mended" {
			t.Errorf("the link has moved, and the alarm is %+v", st.Alarm)
		}
		cut()
		return swap(tell)
	}
	w.u.Recover(ctx, false) //nolint:errcheck // it is cut off
	if v := w.m.version(w.m.where(server)); v != "0.9.0" {
		t.Fatalf("golden is %s", v)
	}
	w.u.Site.Switch = swap
	started := w.m.Started
	_, err := w.u.Recover(t.Context(), false)
	must(t, err)
	if w.m.Started != started+1 {
		t.Errorf("the server was started %d times", w.m.Started-started)
	}
	w.again(t, false, 0)
}

// TestWaysOutOfTrouble are taken though a unit was edited.
func TestWaysOutOfTrouble(t *testing.T) {
	t.Parallel()
	edited := func(string) error {
		return fault.New(fault.Conflict, slot.UnitEdited, "it is Type=simple").Try("take it out of x.conf")
	}
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.proves()
	w.shipped(edited)
	if res, err := w.u.Rollback(t.Context(), deployment.DoorCLI); err != nil || res.Outcome != deployment.Committed {
		t.Errorf("a rollback came to %q, %v", res.Outcome, err)
	}
	w.stands(slot.A, slot.A, slot.A)
	w.refused(w.deploy("1.2.0"), slot.UnitEdited)
	w = left(t, armed, slot.A, slot.A, true)
	point(t, w.u.Slots.Current, slot.B) // and the server still runs what is in a
	w.shipped(edited)
	_, err := w.u.Recover(t.Context(), false)
	must(t, err)
	w.stands(slot.B, slot.A, slot.B)
}
