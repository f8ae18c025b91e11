package work

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
)

// withInbox gives a rig's desk an inbox.
func (r *rig) withInbox(t *testing.T) *rig {
	t.Helper()
	dir := filepath.Join(r.dir, "uploads")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Inbox = &inbox.Inbox{Dir: dir, Log: slog.New(slog.DiscardHandler), Free: func(string) (int64, error) { return 1 << 40, nil }}
	return r
}

// arrived is the id of an upload, of which so much is here.
func (r *rig) arrived(t *testing.T, key, whole, here string) string {
	t.Helper()
	w := r.wish(t, "ann", "")
	w.Key, w.Deadline = key, time.Now().Add(time.Hour)
	u, err := r.Await(w, int64(len(whole)))
	if err == nil {
		err = r.Inbox.Create(u)
	}
	if err == nil {
		_, err = r.Inbox.Write(u.ID, 0, strings.NewReader(here))
	}
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}

// TestAdopt: an upload that is whole becomes one job, with all that was asked for.
func TestAdopt(t *testing.T) {
	r := newRig(t).withInbox(t)
	id := r.arrived(t, "", "34", "34")
	got, err := r.Adopt(t.Context(), id)
	if err != nil || got != id {
		t.Fatalf("%q, %v; want the upload's own id", got, err)
	}
	j, err := r.Store.Get(t.Context(), id)
	if err != nil || j.Owner != "ann" || j.Name != "test.wav" || j.Class != job.Long || j.Deadline.IsZero() || j.Bytes != 2 || j.Media == "" {
		t.Errorf("%+v, %v", j, err)
	}
	r.start(t)
	if j := r.await(t, id, job.Done); j.WindowsDone != 2 {
		t.Errorf("%+v", j)
	}
	if got, err := r.Adopt(t.Context(), id); got != id || err != nil {
		t.Errorf("again: %q, %v", got, err)
	}
	part := r.arrived(t, "", "34", "3")
	if _, err := r.Adopt(t.Context(), part); err == nil {
		t.Error("half an upload became a job")
	}
	_, err = r.Adopt(t.Context(), "none")
	wantFault(t, err, fault.NotFound, "unknown_upload")
}

// TestAdoptInterrupted goes through the moments at which a crash may come
// between the last byte and the answer: there is one job afterwards, it has its
// recording, and nothing is left over.
func TestAdoptInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		until func(t *testing.T, r *rig, id string)
		state job.State
	}{
		"before anything": {func(*testing.T, *rig, string) {}, job.Queued},
		"with the recording linked": {func(t *testing.T, r *rig, id string) {
			if err := os.Link(filepath.Join(r.Inbox.Dir, id), filepath.Join(r.Dir, id)); err != nil {
				t.Fatal(err)
			}
		}, job.Queued},
		"with the job stored":   {stored, job.Queued},
		"with the job begun":    {func(t *testing.T, r *rig, id string) { stored(t, r, id); claimed(t, r, id) }, job.Running},
		"with the job canceled": {func(t *testing.T, r *rig, id string) { stored(t, r, id); canceledBy(t, r, id) }, job.Canceled},
		"with what became of it noted": {func(t *testing.T, r *rig, id string) {
			copied, err := os.ReadFile(filepath.Join(r.Inbox.Dir, id))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Adopt(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(r.Inbox.Dir, id), copied, 0o644); err != nil {
				t.Fatal(err)
			}
		}, job.Queued},
	} {
		for _, key := range []string{"", "a key"} {
			t.Run(name+" "+key, func(t *testing.T) {
				r := newRig(t).withInbox(t)
				id := r.arrived(t, key, "34", "34")
				c.until(t, r, id)
				next := rigIn(t, r.dir).withInbox(t)
				if err := next.adoptAll(t.Context()); err != nil {
					t.Fatal(err)
				}
				all, err := next.Store.List(t.Context(), job.Filter{Everyone: true})
				if err != nil || len(all) != 1 || all[0].ID != id || all[0].State != c.state || all[0].Media == "" {
					t.Fatalf("jobs %+v, %v", all, err)
				}
				if got, err := os.ReadFile(filepath.Join(next.Dir, all[0].Media)); string(got) != "34" || err != nil {
					t.Errorf("its recording is %q, %v", got, err)
				}
				if u, err := next.Inbox.Get(id); err != nil || u.Job != id {
					t.Errorf("the upload is %+v, %v", u, err)
				}
				if n := next.recordings(t); n != 1 {
					t.Errorf("%d recordings", n)
				}
			})
		}
	}
}

// stored makes the job and notes nothing of it.
func stored(t *testing.T, r *rig, id string) {
	t.Helper()
	info, data := filepath.Join(r.Inbox.Dir, id+".info"), filepath.Join(r.Inbox.Dir, id)
	before, err := os.ReadFile(info)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Adopt(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(info, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(r.Dir, id), data); err != nil {
		t.Fatal(err)
	}
}

func claimed(t *testing.T, r *rig, id string) {
	t.Helper()
	if j, found, err := r.Store.Claim(t.Context(), r.Self); err != nil || !found || j.ID != id {
		t.Fatal(j, found, err)
	}
}

func canceledBy(t *testing.T, r *rig, id string) {
	t.Helper()
	if _, err := r.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptedAfterItsEnd: a job that is done has no use for its recording, though
// the upload was not yet settled.
func TestAdoptedAfterItsEnd(t *testing.T) {
	r := newRig(t).withInbox(t)
	id := r.arrived(t, "", "3", "3")
	stored(t, r, id)
	r.start(t)
	r.await(t, id, job.Done)
	eventually(t, "the upload being settled, with nothing left", func() bool {
		if got, err := r.Adopt(t.Context(), id); err != nil || got != id {
			t.Fatal(got, err)
		}
		return r.recordings(t) == 0
	})
}

// TestDeskAdopts what was whole when the server ended, and nobody asked for.
func TestDeskAdopts(t *testing.T) {
	r := newRig(t).withInbox(t)
	id, part := r.arrived(t, "", "34", "34"), r.arrived(t, "", "34", "3")
	r.start(t)
	eventually(t, "the job", func() bool { _, err := r.Store.Get(t.Context(), id); return err == nil })
	r.await(t, id, job.Done)
	if u, err := r.Inbox.Get(part); err != nil || u.Job != "" {
		t.Errorf("half an upload: %+v, %v", u, err)
	}
}

// TestSweepAndUploads: a recording that is as old as its upload is not taken for
// nobody's while that becomes a job, or when it just has.
func TestSweepAndUploads(t *testing.T) {
	r := newRig(t).withInbox(t)
	id := r.arrived(t, "", "34", "34")
	old := time.Now().Add(-2 * orphaned)
	if err := os.Chtimes(filepath.Join(r.Inbox.Dir, id), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(r.Inbox.Dir, id), filepath.Join(r.Dir, id)); err != nil {
		t.Fatal(err)
	}
	unlock, ok := r.Inbox.TryLock(id)
	if !ok {
		t.Fatal("not locked")
	}
	sweep := func(want int, when string) {
		t.Helper()
		if err := r.sweep(t.Context(), nil); err != nil || r.recordings(t) != want {
			t.Errorf("%s: %d recordings, %v; want %d", when, r.recordings(t), err, want)
		}
	}
	sweep(1, "while it becomes a job")
	unlock()
	if _, err := r.Adopt(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	sweep(1, "when it just has")
	if _, err := r.Store.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	sweep(0, "when nobody needs it")
}

// TestSweepAfterTheEnd: the recording of an upload's job that is done is swept,
// where what should have removed it was interrupted.
func TestSweepAfterTheEnd(t *testing.T) {
	r := newRig(t).withInbox(t)
	id := r.arrived(t, "", "3", "3")
	if _, err := r.Adopt(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	eventually(t, "the job being done, without its recording", func() bool { return r.await(t, id, job.Done).Media == "" && r.recordings(t) == 0 })
	again, old := filepath.Join(r.Dir, id), time.Now().Add(-2*orphaned)
	if err := errors.Join(os.WriteFile(again, []byte("3"), 0o644), os.Chtimes(again, old, old)); err != nil {
		t.Fatal(err)
	}
	if err := r.sweep(t.Context(), nil); err != nil || r.recordings(t) != 0 {
		t.Errorf("%d recordings, %v", r.recordings(t), err)
	}
}

// TestDropSpent: what was interrupted between the end of a job and the removal of
// its recording is made good when the next server begins.
func TestDropSpent(t *testing.T) {
	r := newRig(t)
	j := r.submit(t, r.wish(t, "ann", "3"))
	claimed(t, r, j.ID)
	if err := r.Store.Finish(t.Context(), j.ID, r.Self, json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	if r.recordings(t) != 1 {
		t.Fatal("the recording went with the job")
	}
	next := rigIn(t, r.dir).start(t)
	eventually(t, "the recording being removed", func() bool { return next.recordings(t) == 0 })
	if j := next.await(t, j.ID, job.Done); j.Media != "" {
		t.Errorf("the job still names %s", j.Media)
	}
}

// TestAdoptRefused: an upload that cannot become a job expires as others do.
func TestAdoptRefused(t *testing.T) {
	r := newRig(t).withInbox(t)
	first, second := r.arrived(t, "k", "34", "34"), r.arrived(t, "k", "56", "56")
	if _, err := r.Adopt(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	before, err := r.Inbox.Get(second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Adopt(t.Context(), second)
	wantFault(t, err, fault.Conflict, "idempotency_key_reused")
	if err := r.adoptAll(t.Context()); err != nil {
		t.Error(err)
	}
	if after, err := r.Inbox.Get(second); err != nil || after.Job != "" || !after.Active.Equal(before.Active) {
		t.Errorf("%+v, %v", after, err)
	}
}
