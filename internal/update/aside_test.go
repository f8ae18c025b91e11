package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// slowLine is a source at the end of a slow line: it gives nothing before it is told to.
type slowLine struct {
	asked chan struct{} // closed when the artefact is asked for
	give  chan struct{} // closed to have it
	ended chan ended    // how the update came out
}

type ended struct {
	res Result
	err error
}

// downloads begins an update to 1.1.0, which waits for its source.
func (w *world) downloads(want Want) *slowLine {
	w.t.Helper()
	return w.downloadsBy(w.t.Context(), func(ctx context.Context) (Result, error) { return w.u.Apply(ctx, want) })
}

// downloadsBy begins work that downloads 1.1.0.
func (w *world) downloadsBy(ctx context.Context, work func(context.Context) (Result, error)) *slowLine {
	w.t.Helper()
	w.offers("1.1.0")
	w.set.Sources = []string{"https://slow.example/r"}
	l := &slowLine{asked: make(chan struct{}), give: make(chan struct{}), ended: make(chan ended, 1)}
	w.u.Fetch = func(ctx context.Context, o Order, progress func(int64)) error {
		must(w.t, os.RemoveAll(w.u.Fetched))
		must(w.t, os.CopyFS(w.u.Fetched, os.DirFS(w.repo())))
		if o.Target == "" {
			return nil
		}
		progress(7)
		close(l.asked)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.give:
		}
		progress(8)
		return nil
	}
	go func() {
		res, err := work(ctx)
		l.ended <- ended{res, err}
	}()
	select {
	case <-l.asked:
	case e := <-l.ended:
		w.t.Fatalf("it never asked: %+v, %v", e.res, e.err)
	}
	return l
}

// TestDownloadWithoutTheLock: while an update waits for its source, what does not
// touch slots goes on, what does is refused at once or ends it, and it is seen.
func TestDownloadWithoutTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.u.Site.Restart = func(ctx context.Context) (string, error) { return w.m.swap(nil).Again(ctx) }
	var begun string
	l := w.downloads(Want{Door: deployment.DoorHTTP, Trial: true, Begun: func(transaction string) { begun = transaction }})
	s, err := w.u.Status()
	if err != nil || s.State != deployment.Updating || s.Phase != deployment.Fetch || s.Progress.Done != 7 || s.PID != os.Getpid() || s.Transaction != begun || begun == "" {
		t.Errorf("status %+v, %v; begun %q", s, err, begun)
	}
	_, err = w.u.Pin("1.1.0")
	must(t, err)
	automatic := "off"
	must(t, w.u.SetPolicy(deployment.DoorCLI, deployment.PolicyChange{Automatic: &automatic}))
	if _, err := w.u.Restart(t.Context()); err != nil {
		t.Errorf("restart: %v", err)
	}
	if s, err := w.u.Status(); err != nil || s.Phase != deployment.Fetch || s.PID != os.Getpid() {
		t.Errorf("after a pin the status is %+v, %v", s, err)
	}
	for what, do := range map[string]func() error{
		"another update": func() error { _, err := w.u.Apply(t.Context(), Want{Trial: true}); return err },
		"a look":         func() error { _, err := w.u.Check(t.Context()); return err },
		"a download":     func() error { _, err := w.u.Download(t.Context(), ""); return err },
		"a recovery":     func() error { _, err := w.u.Recover(t.Context(), false); return err },
		"a scrub":        func() error { _, err := w.u.Scrub(t.Context(), nil); return err },
		"a commit":       func() error { _, err := w.u.Commit(t.Context()); return err },
	} {
		if began, err := time.Now(), do(); fault.KindOf(err) != fault.Busy || time.Since(began) > time.Second {
			t.Errorf("%s: %v after %v", what, err, time.Since(began))
		}
	}
	close(l.give)
	if e := <-l.ended; e.err != nil || e.res.Outcome != OnTrial || e.res.Transaction != begun {
		t.Errorf("%+v, %v", e.res, e.err)
	}
	w.stands(slot.B, slot.A, slot.B)
	if st := w.state(); st.Pinned != "1.1.0" {
		t.Errorf("pinned %q", st.Pinned)
	}
	w.noOrders()
}

// noOrders fails where something of a download without the lock is left.
func (w *world) noOrders() {
	w.t.Helper()
	for _, pattern := range []string{filepath.Join(w.u.Run, haltPrefix+"*"), filepath.Join(w.u.Run, cancelFile), filepath.Join(w.u.Dir, asideFile)} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			w.t.Errorf("%v is left", left)
		}
	}
}

// TestDownloadEnds for who cancels it, and for what needs no source.
func TestDownloadEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do      func(w *world) error
		code    string
		outcome string
		serves  string
		records int
	}{
		"cancel": {func(w *world) error {
			res, err := w.u.Cancel(t.Context(), deployment.DoorCLI)
			if err == nil && !res.Asked {
				err = errors.New("nobody was asked")
			}
			return err
		}, "canceled", deployment.Canceled, slot.A, 1},
		"dpkg": {func(w *world) error { w.apply(w.deploy("1.2.0"), OnTrial); return nil }, "yielded", deployment.Canceled, slot.B, 1},
		"a file": {func(w *world) error {
			w.apply(Want{Door: deployment.DoorFile, Bundle: w.bundle("1.1.0"), Trial: true}, OnTrial)
			return nil
		}, "yielded", deployment.Canceled, slot.B, 1},
		"switch": {func(w *world) error {
			tree(t, w.u.Slots.Path(slot.B), "0.9.0")
			w.apply(Want{Door: deployment.DoorCLI, Slot: slot.B, Trial: true}, OnTrial)
			return nil
		}, "yielded", deployment.Canceled, slot.B, 1},
		"rollback": {func(w *world) error {
			_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
			if hasCode(err, "nothing_before") { // it got as far as to look
				err = nil
			}
			return err
		}, "yielded", deployment.Canceled, slot.A, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.u.Site.Evidence = func(context.Context, string, time.Time) error { t.Error("evidence is gathered"); return nil }
			l := w.downloads(Want{Door: deployment.DoorHTTP, Trial: true})
			if err := tt.do(w); err != nil {
				t.Error(err)
			}
			wantCode(t, (<-l.ended).err, tt.code)
			if r := w.last(tt.records); r.Outcome != tt.outcome || r.At != deployment.Fetch || r.To.Version != "1.1.0" || len(w.state().Banned) != 0 {
				t.Errorf("record %+v", r)
			}
			if serving, _ := w.u.links(); serving != tt.serves {
				t.Errorf("slot %s serves", serving)
			}
			w.noOrders()
		})
	}
}

// TestDownloadOvertaken: the world is not the one that the update was planned for.
func TestDownloadOvertaken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(w *world)
		code      string
		records   int
	}{
		"another version is pinned": {func(w *world) { _, err := w.u.Pin("1.0.0"); must(t, err) }, "pinned", 1},
		"it is held": {func(w *world) {
			must(t, w.u.change("a test", func(st *state) error { st.Held = "1.1.0"; return nil }))
		}, "held", 1},
		"it is quarantined": {func(w *world) {
			index, err := w.u.Trust.Trusted()
			must(t, err)
			must(t, w.u.change("a test", func(st *state) error {
				st.ban(deployment.Quarantine{Version: "1.1.0", Artefact: index.Offers[0].SHA256, Says: "it crashes"})
				return nil
			}))
		}, "quarantined", 1},
		"another release serves": {func(w *world) { tree(t, w.u.Slots.Path(slot.B), "0.9.0"); must(t, w.u.Slots.Activate(slot.B)) }, "overtaken", 1},
		"its state is gone":      {func(w *world) { must(t, os.RemoveAll(filepath.Join(w.u.Dir, stateFile))) }, "overtaken", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			l := w.downloads(Want{Door: deployment.DoorTimer, Trial: true})
			tt.meanwhile(w)
			close(l.give)
			wantCode(t, (<-l.ended).err, tt.code)
			all, err := deployment.Records(w.u.Dir, 0)
			if err != nil || len(all) != tt.records {
				t.Errorf("records %+v, %v", all, err)
			}
			if slots, err := w.u.Slots.Idle(); tt.code != "overtaken" && (err != nil || slots != slot.B) {
				t.Errorf("idle %s, %v", slots, err)
			}
			w.noOrders()
		})
	}
}

// TestDownloadKilled: nobody minds a lock that a killed update has set aside.
func TestDownloadKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	st := w.state()
	st.Step, st.Attempt = preparing, deployment.Record{Transaction: "t", Kind: kindUpdate, From: w.u.release(slot.A)}
	must(t, w.u.save(st))
	must(t, os.WriteFile(filepath.Join(w.u.Dir, asideFile), []byte("update, process 1"), 0o600))
	if _, err := w.u.Recover(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if r := w.last(1); r.Outcome != deployment.Aborted || r.Reason != "interrupted" {
		t.Errorf("%+v", r)
	}
	w.idles()
	w.noOrders()
}
