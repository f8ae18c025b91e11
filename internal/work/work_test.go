package work

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// TestJobIsDone: what was submitted is done, comes to the same text as without a
// store, and the recording is gone then.
func TestJobIsDone(t *testing.T) {
	r := newRig(t)
	direct, err := r.Service.Run(t.Context(), r.wish(t, "a", "345").Job, ignore)
	if err != nil || len(direct.Segments) != 3 {
		t.Fatalf("%+v, %v", direct, err)
	}
	j := r.submit(t, r.wish(t, "a", "345"))
	if r.recordings(t) != 1 || j.Bytes != 3 || j.State != job.Queued {
		t.Errorf("submitted: %+v, %d recordings", j, r.recordings(t))
	}
	r.start(t)
	var segments []transcript.Segment
	got, err := r.Attend(t.Context(), j.ID, func(u transcribe.Update) { segments = append(segments, u.Segments...) })
	if err != nil || !reflect.DeepEqual(got, direct) || !reflect.DeepEqual(segments, direct.Segments) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, direct)
	}
	eventually(t, "the recording being removed", func() bool { return r.recordings(t) == 0 })
	if j := r.await(t, j.ID, job.Done); j.WindowsDone != 3 || j.Duration != direct.Duration || j.Language != "en" || j.Media != "" {
		t.Errorf("done: %+v", j)
	}
}

// TestGoesOnWhereItWas ends the desk in the middle of a job, at each window; the
// next one comes to the same text and decodes no window twice but that one.
func TestGoesOnWhereItWas(t *testing.T) {
	whole := newRig(t)
	want, err := whole.Service.Run(t.Context(), whole.wish(t, "a", "23456").Job, ignore)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		r := newRig(t)
		reached := make(chan bool)
		r.engine.hold = func(ctx context.Context, i int) error {
			if i < n {
				return nil
			}
			close(reached)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		j := r.submit(t, r.wish(t, "a", "23456"))
		r.start(t)
		<-reached
		r.end()
		if j := r.await(t, j.ID, job.Queued); j.WindowsDone != n {
			t.Errorf("%d windows are stored, want %d", j.WindowsDone, n)
		}
		next := rigIn(t, r.dir).start(t)
		got, err := next.Attend(t.Context(), j.ID, ignore)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after %d windows: got %+v, %v", n, got, err)
		}
		if decoded := next.engine.windows(); decoded != 5-n {
			t.Errorf("after %d windows %d were decoded, want %d", n, decoded, 5-n)
		}
	}
}

// TestTwoDesksDoNotMeet: the second waits until the first has ended, and frees
// what that has left.
func TestTwoDesksDoNotMeet(t *testing.T) {
	first := newRig(t).start(t)
	done := first.submit(t, first.wish(t, "a", "2"))
	first.await(t, done.ID, job.Done)
	second := rigIn(t, first.dir)
	j := second.submit(t, second.wish(t, "a", "3"))
	second.start(t)
	first.await(t, j.ID, job.Done)
	if n := second.engine.windows(); n != 0 {
		t.Errorf("both work: %d windows", n)
	}
	first.end()
	j = second.submit(t, second.wish(t, "a", "3"))
	second.await(t, j.ID, job.Done)
}

func TestCancel(t *testing.T) {
	r := newRig(t)
	reached := make(chan bool)
	r.engine.hold = func(ctx context.Context, n int) error {
		if n > 0 {
			return nil
		}
		close(reached)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	waiting := r.submit(t, r.wish(t, "a", "3"))
	if j, err := r.Cancel(t.Context(), waiting.ID); err != nil || j.State != job.Canceled {
		t.Errorf("one that waits: %+v, %v", j, err)
	}
	running := r.submit(t, r.wish(t, "a", "34"))
	r.start(t)
	<-reached
	if err := r.Delete(t.Context(), running.ID); fault.KindOf(err) != fault.Conflict {
		t.Errorf("one that runs is deleted: %v", err)
	}
	if _, err := r.Cancel(t.Context(), running.ID); err != nil {
		t.Fatal(err)
	}
	r.await(t, running.ID, job.Canceled)
	_, err := r.Attend(t.Context(), running.ID, ignore)
	wantFault(t, err, fault.Canceled, "canceled")
	if _, err := r.Retry(t.Context(), running.ID); err != nil {
		t.Fatal(err)
	}
	r.await(t, running.ID, job.Done)
	for _, id := range []string{waiting.ID, running.ID} {
		if err := r.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if n := r.recordings(t); n != 0 {
		t.Errorf("%d recordings are left", n)
	}
	_, err = r.Attend(t.Context(), running.ID, ignore)
	wantFault(t, err, fault.NotFound, "unknown_job")
}

func TestFailures(t *testing.T) {
	r := newRig(t).start(t)
	bad := r.submit(t, r.wish(t, "a", "!"))
	_, err := r.Attend(t.Context(), bad.ID, ignore)
	wantFault(t, err, fault.Unsupported, "undecodable")
	if r.recordings(t) != 1 {
		t.Error("the recording is gone, and the job cannot be tried again")
	}
	gone := r.submit(t, r.wish(t, "a", "!"))
	r.await(t, gone.ID, job.Failed)
	if err := os.Remove(filepath.Join(r.Dir, gone.Media)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Retry(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	_, err = r.Attend(t.Context(), gone.ID, ignore)
	wantFault(t, err, fault.Internal, "recording_gone")
	r.engine.hold = func(context.Context, int) error { panic("a bug in our own code") }
	bug := r.submit(t, r.wish(t, "a", "3"))
	_, err = r.Attend(t.Context(), bug.ID, ignore)
	wantFault(t, err, fault.Internal, "internal_error")
}

// TestWhatPassesIsTriedAgain: an engine that is down for a moment fails no job.
func TestWhatPassesIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.engine.hold = func(_ context.Context, n int) error {
		if n == 1 {
			return &engine.Failure{Code: engine.CodeDown, Message: "it cannot be started"}
		}
		return nil
	}
	j := r.submit(t, r.wish(t, "a", "345"))
	r.start(t)
	r.await(t, j.ID, job.Done)
	if n := r.engine.windows(); n != 4 {
		t.Errorf("%d windows were asked for, want 3 and the one that failed", n)
	}
}

// TestPoison: a job that ends the server each time is given up; tried again, it
// has as many tries as before.
func TestPoison(t *testing.T) {
	r := newRig(t)
	j := r.submit(t, r.wish(t, "a", "3"))
	crash := func(times int) {
		t.Helper()
		for range times {
			gone := job.NewWorker("test")
			if _, found, err := r.Store.Claim(t.Context(), gone); err != nil || !found {
				t.Fatal(found, err)
			}
			if _, err := r.Store.Free(t.Context(), r.Self); err != nil {
				t.Fatal(err)
			}
		}
	}
	crash(poisonous + 1)
	r.start(t)
	_, err := r.Attend(t.Context(), j.ID, ignore)
	wantFault(t, err, fault.Internal, "job_interrupted")
	r.end()
	if _, err := r.Store.Retry(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	crash(poisonous)
	next := rigIn(t, r.dir).start(t)
	next.await(t, j.ID, job.Done)
}

// TestRequestWithoutKey leaves nothing behind, and needs no database.
func TestRequestWithoutKey(t *testing.T) {
	r := newRig(t)
	got, err := r.Do(t.Context(), r.wish(t, "a", "234"), ignore)
	if err != nil || len(got.Segments) != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	list, err := r.Store.List(t.Context(), job.Filter{Everyone: true})
	if err != nil || len(list) != 0 || r.recordings(t) != 0 {
		t.Errorf("left: %v, %v, %d recordings", list, err, r.recordings(t))
	}
	if err := r.db.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Do(t.Context(), r.wish(t, "a", "23"), ignore); err != nil || len(got.Segments) != 2 {
		t.Errorf("without a database: %+v, %v", got, err)
	}
}

// TestKey: requests with one key are one job, whose result stays; who leaves
// does not end it.
func TestKey(t *testing.T) {
	r := newRig(t).start(t)
	reached, release := make(chan bool), make(chan bool)
	var once sync.Once
	r.engine.hold = func(context.Context, int) error {
		once.Do(func() { close(reached) })
		<-release
		return nil
	}
	keyed := func(windows string) Wish {
		w := r.wish(t, "a", windows)
		w.Key = "key"
		return w
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	first := keyed("345")
	go func() {
		_, err := r.Do(ctx, first, ignore)
		left <- err
	}()
	<-reached
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves gets %v", err)
	}
	var wg sync.WaitGroup
	var texts atomic.Int32
	for range 3 {
		w := keyed("345")
		wg.Go(func() {
			got, err := r.Do(t.Context(), w, ignore)
			if err != nil || len(got.Segments) != 3 {
				t.Errorf("got %+v, %v", got, err)
				return
			}
			texts.Add(1)
		})
	}
	close(release)
	wg.Wait()
	again, err := r.Do(t.Context(), keyed("345"), ignore)
	if err != nil || len(again.Segments) != 3 || texts.Load() != 3 || r.engine.windows() != 3 {
		t.Errorf("%+v, %v; %d of 3 have it after %d windows", again, err, texts.Load(), r.engine.windows())
	}
	_, err = r.Do(t.Context(), keyed("4"), ignore)
	wantFault(t, err, fault.Conflict, "idempotency_key_reused")
	if n := r.recordings(t); n != 0 {
		t.Errorf("%d recordings are left", n)
	}
}

// TestPlaces: what there is no place for is refused, and jobs that have failed
// make room for new ones.
func TestPlaces(t *testing.T) {
	r := newRig(t)
	r.Limits = func() job.Limits { return job.Limits{Bytes: 10} }
	r.Most = func() int { return 4 }
	failed := r.submit(t, r.wish(t, "a", "33333"))
	if _, err := r.Cancel(t.Context(), failed.ID); err != nil {
		t.Fatal(err)
	}
	first := r.submit(t, r.wish(t, "a", "3333"))
	_, _, err := r.Submit(t.Context(), r.wish(t, "a", "3333333"))
	wantFault(t, err, fault.NoSpace, "jobs_full")
	if _, err := r.Store.Get(t.Context(), failed.ID); err != nil {
		t.Errorf("one went in vain: %v", err)
	}
	r.submit(t, r.wish(t, "a", "333333"))
	if _, err := r.Store.Get(t.Context(), failed.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the one that has ended is still there: %v", err)
	}
	_, _, err = r.Submit(t.Context(), r.wish(t, "a", ""))
	wantFault(t, err, fault.Busy, "queue_full_for_you")
	r.submit(t, r.wish(t, "b", ""))
	r.submit(t, r.wish(t, "b", ""))
	_, _, err = r.Submit(t.Context(), r.wish(t, "c", ""))
	wantFault(t, err, fault.Busy, "queue_full")
	if n := r.recordings(t); n != 4 {
		t.Errorf("%d recordings, want those of four jobs", n)
	}
	r.start(t)
	r.await(t, first.ID, job.Done)
}

// TestTidy removes jobs that are too many with their recordings, and recordings
// without a job once they are old.
func TestTidy(t *testing.T) {
	r := newRig(t)
	r.Limits = func() job.Limits { return job.Limits{Jobs: 1} }
	for range 3 {
		j := r.submit(t, r.wish(t, "a", "3"))
		if _, err := r.Cancel(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
	}
	old, fresh := filepath.Join(r.Dir, uuid.NewString()), filepath.Join(r.Dir, uuid.NewString())
	alien := filepath.Join(r.Dir, "grandmother-1987.wav")
	for _, path := range []string{old, fresh, alien} {
		if err := os.WriteFile(path, []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{old, alien} {
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-2*orphaned)); err != nil {
			t.Fatal(err)
		}
	}
	r.start(t)
	eventually(t, "one job and its recording being left, with the one that is new", func() bool {
		list, err := r.Store.List(t.Context(), job.Filter{Everyone: true})
		return err == nil && len(list) == 1 && r.recordings(t) == 3
	})
	for _, path := range []string{fresh, alien} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestStop: jobs that nobody waits for are given back at once, those that
// somebody waits for are done to their end.
func TestStop(t *testing.T) {
	r := newRig(t)
	begun, release := make(chan bool, 9), make(chan bool)
	r.engine.hold = func(ctx context.Context, n int) error {
		begun <- true
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.start(t)
	alone := r.submit(t, r.wish(t, "a", "3"))
	<-begun
	awaited := make(chan error, 1)
	w := r.wish(t, "b", "4")
	w.Key = "key"
	go func() {
		_, err := r.Do(t.Context(), w, ignore)
		awaited <- err
	}()
	var keyed job.Job
	eventually(t, "the request's job", func() bool {
		list, err := r.Store.List(t.Context(), job.Filter{Owner: "b"})
		if err != nil || len(list) == 0 {
			return false
		}
		keyed = list[0]
		return keyed.State == job.Running
	})
	r.Stop()
	r.await(t, alone.ID, job.Queued)
	close(release)
	if err := <-awaited; err != nil {
		t.Error(err)
	}
	r.await(t, keyed.ID, job.Done)
	if j := r.await(t, alone.ID, job.Queued); j.Crashes != 0 {
		t.Errorf("a stop counts as a crash: %+v", j)
	}
}

// TestShortNeedsNoPlace: a request with a key is begun at once, however many
// jobs are being done.
func TestShortNeedsNoPlace(t *testing.T) {
	r := newRig(t)
	begun, release := make(chan bool, 9), make(chan bool)
	r.Service.Queue.TwoLanes = func(string) bool { return true }
	r.engine.hold = func(ctx context.Context, n int) error {
		if n == 0 {
			begun <- true
			<-release
		}
		return nil
	}
	r.AtOnce = func() int { return 1 }
	r.start(t)
	long := r.submit(t, r.wish(t, "a", "9999"))
	<-begun
	w := r.wish(t, "b", "3")
	w.Key, w.Job.Class = "key", schedule.Short
	if _, err := r.Do(t.Context(), w, ignore); err != nil {
		t.Error(err)
	}
	close(release)
	r.await(t, long.ID, job.Done)
}

// TestDeadline ends a job that runs past it.
func TestDeadline(t *testing.T) {
	r := newRig(t)
	r.engine.hold = func(ctx context.Context, n int) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	w := r.wish(t, "a", "3")
	w.Deadline = time.Now().Add(300 * time.Millisecond)
	j := r.submit(t, w)
	r.start(t)
	_, err := r.Attend(t.Context(), j.ID, ignore)
	wantFault(t, err, fault.Unavailable, "deadline_passed")
}

// TestEndedIsTold counts what is done and what fails, not what is cancelled.
func TestEndedIsTold(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	var told []string
	r.Ended = func(j transcribe.Job, _ time.Duration, result *transcript.Transcript, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s %v %v", j.Model, result != nil, err != nil))
	}
	cancelled := r.submit(t, r.wish(t, "a", "3"))
	if _, err := r.Cancel(t.Context(), cancelled.ID); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	r.await(t, r.submit(t, r.wish(t, "a", "3")).ID, job.Done)
	r.await(t, r.submit(t, r.wish(t, "a", "!")).ID, job.Failed)
	r.end()
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(told) != "[tiny true false tiny false true]" || r.Active() != 0 {
		t.Errorf("told %v, %d under way", told, r.Active())
	}
}
