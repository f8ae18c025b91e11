package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// TestQueue: what comes during a trial waits for its end, whatever that is.
func TestQueue(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(w *world)
		from string // what serves before the queued one
	}{{"commit", (*world).proves, "1.1.0"}, {"rollback", (*world).fails, "1.0.0"}} {
		for _, tt := range []struct {
			name string
			want func(w *world) Want
		}{
			{"offer", func(w *world) Want { w.offers("1.2.0"); return Want{Door: deployment.DoorHTTP, Trial: true} }},
			{"tree", func(w *world) Want { return w.deploy("1.2.0") }},
			{"bundle", func(w *world) Want {
				w.offers("1.2.0")
				want := Want{Door: deployment.DoorFile, Bundle: w.bundle("1.2.0"), Trial: true}
				w.set.Sources = nil
				return want
			}},
		} {
			t.Run(tt.name+" behind a "+end.name, func(t *testing.T) {
				w := newWorld(t)
				w.onTrial("1.1.0")
				want := tt.want(w)
				if res := w.apply(want, Queued); res.Behind != "1.1.0" || res.To.Version != "1.2.0" {
					t.Errorf("%+v", res)
				}
				w.stands(slot.B, slot.A, slot.B)
				if s, err := w.u.Status(); err != nil || s.Queued == nil || s.Queued.Version != "1.2.0" || s.State != deployment.Trial {
					t.Errorf("status %+v, %v", s, err)
				}
				if want.Bundle != "" {
					must(t, os.Remove(want.Bundle))
				}
				end.end(w)
				must(t, w.u.takeQueued(cancelledAtTrial(w)))
				st := w.state()
				if st.Step != onTrial || st.Attempt.To.Version != "1.2.0" || st.Attempt.From.Version != end.from || st.Queued != nil || st.Attempt.Door != want.Door {
					t.Errorf("%s of %+v from %+v, queued %+v", st.Step, st.Attempt.To, st.Attempt.From, st.Queued)
				}
			})
		}
	}
}

// cancelledAtTrial is a context for takeQueued that ends before it watches.
func cancelledAtTrial(w *world) context.Context {
	w.u.Site.Look = nil
	return w.t.Context()
}

// TestNotQueued is what has no place behind a trial.
func TestNotQueued(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	w.apply(Want{Trial: true}, OnTrial)
	w.apply(w.deploy("1.1.0"), OnTrial)
	w.apply(Want{}, Already)
	w.apply(Want{Version: "1.1.0"}, Already)
	w.refused(Want{Slot: slot.A}, "trial_running")
	w.refused(Want{Tree: w.other("1.3.0", "riscv64", slot.Contract)}, "wrong_arch")
	w.refused(Want{Version: "7.7.7"}, "no_such_release")
	if st := w.state(); st.Queued != nil || st.Step != onTrial {
		t.Errorf("%s, queued %+v", st.Step, st.Queued)
	}
	w.stands(slot.B, slot.A, slot.B)
}

// TestQueueSurvives a kill before what waited was begun, and a trial somebody
// has begun before it.
func TestQueueSurvives(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.apply(w.deploy("1.2.0"), Queued)
	w.proves()
	if watch, err := w.u.Recover(t.Context(), true); err != nil || !watch {
		t.Errorf("nobody is told to take what waits: %v", err)
	}
	unlock, err := w.u.lock("somebody")
	must(t, err)
	if err := w.u.takeQueued(t.Context()); fault.KindOf(err) != fault.Busy || w.state().Queued == nil {
		t.Errorf("%v, queued %+v", err, w.state().Queued)
	}
	unlock()
	w.u.Site.Look = nil
	must(t, w.u.Watch(t.Context()))
	if st := w.state(); st.Step != onTrial || st.Queued != nil {
		t.Errorf("%s, queued %+v", st.Step, st.Queued)
	}
}

// TestCancel of what can be cancelled, and of nothing.
func TestCancel(t *testing.T) {
	t.Run("nothing", func(t *testing.T) {
		_, err := newWorld(t).u.Cancel(t.Context(), deployment.DoorCLI)
		wantCode(t, err, "nothing_to_cancel")
	})
	t.Run("the queue", func(t *testing.T) {
		w := newWorld(t)
		w.onTrial("1.1.0")
		w.apply(w.deploy("1.2.0"), Queued)
		res, err := w.u.Cancel(t.Context(), deployment.DoorCLI)
		if err != nil || res.Outcome != deployment.Canceled || w.state().Queued != nil || w.state().Step != onTrial {
			t.Errorf("%+v, %v, %+v", res, err, w.state().Queued)
		}
	})
	for _, phase := range []string{"rehearsal", "candidate"} {
		t.Run("the "+phase, func(t *testing.T) {
			w := newWorld(t)
			order := func(ctx context.Context) error {
				if _, err := w.u.Cancel(t.Context(), deployment.DoorHTTP); err != nil {
					t.Error(err)
				}
				<-ctx.Done()
				return fmt.Errorf("it was asked to stop: %w", context.Cause(ctx))
			}
			if phase == "rehearsal" {
				w.u.Site.Rehearse = func(ctx context.Context, _ string, _ slot.Manifest) (trial.Finding, error) {
					return trial.Finding{}, order(ctx)
				}
			} else {
				swap := w.u.Site.Switch
				w.u.Site.Switch = func(tell func(step, text string)) *slot.Switch {
					sw := swap(tell)
					sw.Smoke = func(ctx context.Context, _ string) error { return order(ctx) }
					return sw
				}
			}
			res, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
			wantCode(t, err, "canceled")
			if res.Outcome != deployment.Canceled {
				t.Errorf("outcome %s", res.Outcome)
			}
			w.stands(slot.A, slot.A, slot.A)
			w.idles()
			if r := w.last(1); r.Outcome != deployment.Canceled || r.Blame != deployment.Operator || len(w.state().Banned) != 0 {
				t.Errorf("record %+v", r)
			}
			if _, err := os.Stat(filepath.Join(w.u.Run, cancelFile)); !errors.Is(err, os.ErrNotExist) {
				t.Error("the order stays")
			}
		})
	}
	t.Run("by its caller", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		w.u.Site.Rehearse = func(context.Context, string, slot.Manifest) (trial.Finding, error) {
			cancel()
			return trial.Finding{}, nil
		}
		_, err := w.u.Apply(ctx, w.deploy("1.1.0"))
		wantCode(t, err, "canceled")
		w.stands(slot.A, slot.A, slot.A)
		w.idles()
	})
	t.Run("too late", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		w.m.after = func(verb, unit string) {
			if verb+unit == "restart"+server {
				cancel()
			}
		}
		if res, err := w.u.Apply(ctx, w.deploy("1.1.0")); err != nil || res.Outcome != OnTrial {
			t.Errorf("%+v, %v", res, err)
		}
		w.stands(slot.B, slot.A, slot.B)
	})
	t.Run("in time", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if _, err := w.u.Apply(ctx, w.deploy("1.1.0")); err == nil {
			t.Error("no error")
		}
		w.stands(slot.A, slot.A, slot.A)
	})
}

// TestQueueReplaced: what waits gives its place only to what somebody asks for,
// and the record tells of it.
func TestQueueReplaced(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.apply(w.deploy("1.2.0"), Queued)
	w.offers("1.3.0")
	if res := w.apply(Want{Door: deployment.DoorTimer, Trial: true, Auto: true}, Queued); res.To.Version != "1.2.0" || w.state().Queued.Version != "1.2.0" {
		t.Errorf("%+v, queued %+v", res, w.state().Queued)
	}
	if res := w.apply(w.deploy("1.2.0"), Queued); res.Replaced != "" {
		t.Errorf("%+v", res)
	}
	if res := w.apply(Want{Door: deployment.DoorHTTP, Trial: true}, Queued); res.To.Version != "1.3.0" || res.Replaced != "1.2.0" {
		t.Errorf("%+v", res)
	}
	if r := w.last(1); r.To.Version != "1.2.0" || r.Door != deployment.DoorDpkg || r.Outcome != deployment.Canceled || r.Reason != "replaced" || r.Says == "" {
		t.Errorf("%+v", r)
	}
	if st := w.state(); st.Step != onTrial || st.Queued == nil || st.Queued.Auto {
		t.Errorf("%s, queued %+v", st.Step, st.Queued)
	}
}

// TestQueuedByItself: what nobody asked for stays out where it is held by then.
func TestQueuedByItself(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.offers("1.2.0")
	w.apply(Want{Door: deployment.DoorTimer, Trial: true, Auto: true}, Queued)
	w.proves()
	st := w.state()
	st.Held = "1.2.0"
	must(t, w.u.save(st))
	wantCode(t, errors.Unwrap(w.u.takeQueued(cancelledAtTrial(w))), "held")
	w.stands(slot.B, slot.B, slot.B)
}

// TestCancelTooLate: from the switch on, and while something goes on that nobody
// cancels, it is said so.
func TestCancelTooLate(t *testing.T) {
	t.Run("the take-over", func(t *testing.T) {
		w := newWorld(t)
		w.m.after = func(verb, unit string) {
			if verb+unit == "restart"+server {
				_, err := w.u.Cancel(t.Context(), deployment.DoorHTTP)
				wantCode(t, err, "not_cancellable")
			}
		}
		w.apply(w.deploy("1.1.0"), OnTrial)
	})
	t.Run("a rollback", func(t *testing.T) {
		w := newWorld(t)
		w.onTrial("1.1.0")
		w.m.after = func(verb, unit string) {
			_, err := w.u.Cancel(t.Context(), deployment.DoorHTTP)
			wantCode(t, err, "not_cancellable")
		}
		w.fails()
		w.stands(slot.A, slot.A, slot.A)
	})
	t.Run("a download", func(t *testing.T) {
		w := newWorld(t)
		unlock, err := w.u.lock("a download")
		must(t, err)
		defer unlock()
		ctx, stop := w.u.cancellable(t.Context())
		defer stop()
		if res, err := w.u.Cancel(t.Context(), deployment.DoorHTTP); err != nil || !res.Asked {
			t.Errorf("%+v, %v", res, err)
		}
		<-ctx.Done()
	})
}
