package update

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// TestOrdersOfTheDead are obeyed by nobody, and removed.
func TestOrdersOfTheDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, prefix := range []string{haltPrefix, yieldPrefix} {
		must(t, os.WriteFile(filepath.Join(w.u.Run, prefix+"123"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(w.u.Run, "."+prefix+"123"), nil, 0o600))
	}
	if w.u.takeOrder(yieldPrefix + "*") {
		t.Error("it is obeyed")
	}
	l := w.downloads(Want{Door: deployment.DoorTimer, Trial: true})
	for left := 1; left > 0; { // the update looks for orders while it waits
		all, err := filepath.Glob(filepath.Join(w.u.Run, haltPrefix+"*"))
		must(t, err)
		select {
		case e := <-l.ended:
			t.Fatalf("it ended: %v", e.err)
		default:
			left = len(all)
		}
	}
	close(l.give)
	if e := <-l.ended; e.err != nil || e.res.Outcome != OnTrial {
		t.Errorf("%+v, %v", e.res, e.err)
	}
	w.noOrders()
	if left, err := filepath.Glob(filepath.Join(w.u.Run, ".*-123")); err != nil || len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	path, takeBack, err := w.u.give(haltPrefix)
	must(t, err)
	if !w.u.takeOrder(haltPrefix+"*") || w.u.takeOrder(haltPrefix+"*") {
		t.Error("an order of one who lives is not obeyed, or twice")
	}
	takeBack()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", path, err)
	}
}

// TestQueuedWaitsAgain where it was ended for what does not wait, or with its
// process; not where somebody cancelled it.
func TestQueuedWaitsAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end   func(w *world, stop func())
		waits bool
	}{
		"a switch comes": {func(w *world, _ func()) {
			tree(t, w.u.Slots.Path(slot.B), "0.9.0")
			w.apply(Want{Door: deployment.DoorCLI, Slot: slot.B, Trial: true}, OnTrial)
		}, true},
		"its process ends": {func(_ *world, stop func()) { stop() }, true},
		"it is cancelled":  {func(w *world, _ func()) { _, err := w.u.Cancel(t.Context(), deployment.DoorCLI); must(t, err) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			st := w.state()
			st.Queued = &queued{Door: deployment.DoorHTTP, Version: "1.1.0", Behind: "1.0.5"}
			must(t, w.u.save(st))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			l := w.downloadsBy(ctx, func(ctx context.Context) (Result, error) { return Result{}, w.u.takeQueued(ctx) })
			if w.state().Queued != nil {
				t.Error("it waits still")
			}
			tt.end(w, stop)
			if e := <-l.ended; e.err == nil {
				t.Error("it was installed")
			}
			if q := w.state().Queued; (q != nil) != tt.waits || q != nil && (q.Version != "1.1.0" || q.Door != deployment.DoorHTTP) {
				t.Errorf("queued %+v", q)
			}
		})
	}
}

// TestDownloadsHoldNoLock: what is brought for later, or for the end of a trial,
// leaves the lock to others as an update does.
func TestDownloadsHoldNoLock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trial bool
		do    func(ctx context.Context, w *world) (Result, error)
		want  string
	}{
		"for later": {false, func(ctx context.Context, w *world) (Result, error) {
			o, err := w.u.Download(ctx, "")
			if err != nil {
				return Result{}, err
			}
			return Result{Outcome: o.Version}, nil
		}, "1.1.0"},
		"for the end of a trial": {true, func(ctx context.Context, w *world) (Result, error) {
			return w.u.Apply(ctx, Want{Door: deployment.DoorHTTP, Version: "1.1.0", Trial: true})
		}, Queued},
	} {
		for _, end := range []string{"", "commit", "rollback"} {
			if end != "" && !tt.trial {
				continue
			}
			t.Run(name+" "+end, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				if tt.trial {
					w.onTrial("1.0.5")
				}
				l := w.downloadsBy(t.Context(), func(ctx context.Context) (Result, error) { return tt.do(ctx, w) })
				_, err := w.u.Pin("1.1.0")
				must(t, err)
				if _, err := w.u.Check(t.Context()); fault.KindOf(err) != fault.Busy {
					t.Errorf("a look beside it: %v", err)
				}
				switch end {
				case "commit":
					_, err = w.u.Commit(t.Context())
				case "rollback":
					_, err = w.u.Rollback(t.Context(), deployment.DoorCLI)
				}
				must(t, err)
				close(l.give)
				e, st := <-l.ended, w.state()
				if st.Pinned != "1.1.0" {
					t.Errorf("pinned %q", st.Pinned)
				}
				switch {
				case end != "":
					wantCode(t, e.err, "yielded")
					if st.Step != idle || st.Queued != nil {
						t.Errorf("%s, queued %+v", st.Step, st.Queued)
					}
				case e.err != nil || e.res.Outcome != tt.want || st.Check.Fetched == "" || (st.Queued != nil) != tt.trial:
					t.Errorf("%+v, %v; fetched %q, queued %+v", e.res, e.err, st.Check.Fetched, st.Queued)
				}
				w.noOrders()
			})
		}
	}
}
