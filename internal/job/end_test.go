package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

func TestCancel(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now, Lease: time.Minute}), NewWorker("host")
		running := func() string { return s.add(t, New{Claim: w, Media: "m"}).ID }
		cancel := func(id string, want State, canceling bool) {
			t.Helper()
			for range 2 { // asked again it is the same
				if j, err := s.Cancel(ctx, id); err != nil || j.State != want || j.Canceling != canceling {
					t.Errorf("%s, canceling %v, %v", j.State, j.Canceling, err)
				}
			}
		}
		state := func(id string, want State) {
			t.Helper()
			if j := s.got(t, id); j.State != want || j.Canceling || j.Ended.IsZero() || j.Failure != nil {
				t.Errorf("%+v, want %s", j, want)
			}
		}
		queued := s.add(t, New{}).ID
		cancel(queued, Canceled, false)
		state(queued, Canceled)

		seen := running()
		cancel(seen, Running, true)
		byWindow, err := s.Window(ctx, seen, w, window(0), "")
		must(t, err)
		byBeat, err := s.Renew(ctx, seen, w)
		must(t, err)
		if !byWindow || !byBeat {
			t.Errorf("its worker is not told: %v, %v", byWindow, byBeat)
		}
		must(t, s.Requeue(ctx, seen, w))
		state(seen, Canceled)

		failing := running()
		cancel(failing, Running, true)
		must(t, s.Fail(ctx, failing, w, Failure{Code: "broke_off"}))
		state(failing, Canceled)

		finishing := running()
		cancel(finishing, Running, true)
		must(t, s.Finish(ctx, finishing, w, json.RawMessage(`{}`)))
		state(finishing, Done)
		if _, err := s.Cancel(ctx, finishing); code(err) != "job_ended" || fault.KindOf(err) != fault.Conflict {
			t.Errorf("one that is done: %v", err)
		}

		dead, unseen := running(), running()
		c.advance(2 * time.Minute)
		_, err = s.Renew(ctx, unseen, w)
		must(t, err)
		cancel(dead, Canceled, false) // its worker's lease has run out
		cancel(unseen, Running, true)
		c.advance(2 * time.Minute)
		if j := s.claimed(t, w); j.ID != "" {
			t.Errorf("a canceled job was claimed: %+v", j)
		}
		state(unseen, Canceled)
	})
}

func TestRequeueKeepsThePlace(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now}), NewWorker("host")
		first := s.add(t, New{Claim: w}).ID
		c.advance(time.Second)
		s.add(t, New{})
		_, err := s.Window(ctx, first, w, window(0), "")
		must(t, err, s.Requeue(ctx, first, w))
		if j := s.got(t, first); j.State != Queued || !j.Ended.IsZero() || !j.LeaseUntil.IsZero() {
			t.Errorf("%+v", j)
		}
		lost(t, s, first, w)
		if j := s.claimed(t, w); j.ID != first || j.WindowsDone != 1 || j.Attempts != 2 {
			t.Errorf("%+v", j)
		}
	})
}

func TestDeadline(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now, Lease: 10 * time.Minute}), NewWorker("host")
		soon := c.now().Add(time.Minute)
		waiting := s.add(t, New{Deadline: soon, Media: "m"}).ID
		held := s.add(t, New{Deadline: soon, Claim: w}).ID
		open := s.add(t, New{}).ID
		c.advance(2 * time.Minute)
		if j := s.claimed(t, w); j.ID != open {
			t.Errorf("%+v", j)
		}
		if j := s.got(t, waiting); j.State != Failed || j.Failure.Code != "deadline_passed" || j.Failure.Kind != fault.Unavailable {
			t.Errorf("%+v", j)
		}
		if j := s.got(t, held); j.State != Running {
			t.Errorf("one that is worked on: %s", j.State)
		}
		if j, err := s.Retry(ctx, waiting); err != nil || !j.Deadline.IsZero() || s.claimed(t, w).ID != waiting {
			t.Errorf("%+v, %v", j, err)
		}
	})
}

func TestRetry(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now}), NewWorker("host")
		id := s.add(t, New{Claim: w, Media: "m"}).ID
		_, err := s.Window(ctx, id, w, window(0), "en")
		must(t, err)
		if _, err := s.Retry(ctx, id); code(err) != "job_not_ended" {
			t.Errorf("running: %v", err)
		}
		must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
		c.advance(time.Hour)
		j, err := s.Retry(ctx, id)
		if err != nil || j.State != Queued || !j.Queued.Equal(c.now()) || !j.Ended.IsZero() || j.Failure != nil || j.WindowsDone != 1 || j.Language != "en" {
			t.Errorf("%+v, %v", j, err)
		}
		s.claimed(t, w)
		must(t, s.Finish(ctx, id, w, nil))
		if _, err := s.Retry(ctx, id); code(err) != "job_done" {
			t.Errorf("done: %v", err)
		}
		gone := s.add(t, New{Media: "m2"}).ID
		_, err = s.Cancel(ctx, gone)
		must(t, err)
		if media, err := s.DropMedia(ctx, gone); err != nil || media != "m2" {
			t.Errorf("%s, %v", media, err)
		}
		if _, err := s.Retry(ctx, gone); code(err) != "media_gone" {
			t.Errorf("without its recording: %v", err)
		}
	})
}

// TestSpent: a job that is done and has kept its recording is told of, others
// need theirs.
func TestSpent(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		s.add(t, New{Media: "queued"})
		running, failed := s.add(t, New{Claim: w, Media: "running"}).ID, s.add(t, New{Claim: w, Media: "failed"}).ID
		canceled, done := s.add(t, New{Media: "canceled"}).ID, s.add(t, New{Claim: w, Media: "done"}).ID
		_, err := s.Cancel(ctx, canceled)
		must(t, err, s.Fail(ctx, failed, w, Failure{Code: "f"}), s.Finish(ctx, done, w, nil))
		if ids, err := s.Spent(ctx); err != nil || !slices.Equal(ids, []string{done}) {
			t.Errorf("%v, %v; want %s", ids, err, done)
		}
		if media, err := s.DropMedia(ctx, done); err != nil || media != "done" {
			t.Errorf("%s, %v", media, err)
		}
		if ids, err := s.Spent(ctx); err != nil || len(ids) != 0 {
			t.Errorf("afterwards: %v, %v", ids, err)
		}
		if all, err := s.Media(ctx); err != nil || !slices.Equal(all, []string{"canceled", "failed", "queued", "running"}) {
			t.Errorf("%v, %v", all, err)
		}
		must(t, s.Finish(ctx, running, w, nil))
	})
}

func TestDeleteAndMedia(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now, Lease: time.Minute}), NewWorker("host")
		running, queued, third := s.add(t, New{Claim: w, Media: "r", Bytes: 7}).ID, s.add(t, New{Media: "q"}).ID, s.add(t, New{Media: "a"}).ID
		_, err := s.Window(ctx, running, w, window(0), "")
		must(t, err)
		if all, err := s.Media(ctx); err != nil || !slices.Equal(all, []string{"a", "q", "r"}) {
			t.Errorf("%v, %v", all, err)
		}
		if _, err := s.Delete(ctx, running); code(err) != "job_running" {
			t.Errorf("running: %v", err)
		}
		_, err = s.Cancel(ctx, running)
		must(t, err)
		if _, err := s.Delete(ctx, running); code(err) != "job_running" || !strings.Contains(err.Error(), "being cancelled") || strings.Contains(fault.Hint(err), "cancel it") {
			t.Errorf("running, with a cancel asked for: %v", err)
		}
		if _, err := s.DropMedia(ctx, queued); code(err) != "job_not_ended" {
			t.Errorf("queued: %v", err)
		}
		if r, err := s.Delete(ctx, queued); err != nil || r != (Removed{ID: queued, Media: "q"}) {
			t.Errorf("%v, %v", r, err)
		}
		c.advance(2 * time.Minute)
		if r, err := s.Delete(ctx, running); err != nil || r != (Removed{ID: running, Media: "r", Bytes: 7}) {
			t.Errorf("whose worker is gone: %v, %v", r, err)
		}
		if all, err := s.Windows(ctx, running, 0); err != nil || len(all) != 0 {
			t.Errorf("windows are left: %v, %v", all, err)
		}
		if all, err := s.List(ctx, Filter{Everyone: true}); err != nil || len(all) != 1 || all[0].ID != third {
			t.Errorf("%v, %v", all, err)
		}
	})
}

// TestCrashes counts the workers that went without a word, up to the next window.
func TestCrashes(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now, Lease: time.Minute})
		id := s.add(t, New{}).ID
		want := func(n int) {
			t.Helper()
			if j := s.got(t, id); j.Crashes != n {
				t.Errorf("%d crashes, want %d", j.Crashes, n)
			}
		}
		first := NewWorker("host")
		s.claimed(t, first)
		must(t, s.Requeue(ctx, id, first))
		want(0)
		s.claimed(t, first)
		second := NewWorker("host")
		if _, err := s.Free(ctx, second); err != nil {
			t.Fatal(err)
		}
		want(1)
		s.claimed(t, second)
		c.advance(2 * time.Minute)
		if _, found, err := s.Claim(ctx, second); found || err != nil {
			t.Errorf("it claims what it holds: %v", err)
		}
		third := NewWorker("other")
		s.claimed(t, third)
		want(2)
		_, err := s.Window(ctx, id, third, window(0), "")
		must(t, err)
		want(0)
		c.advance(2 * time.Minute)
		s.claimed(t, second)
		want(1)
		_, err = s.Fetched(ctx, id, second, Recording{Media: "m"})
		must(t, err)
		want(0)
	})
}

func TestWaiting(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s := p.store(t, Options{})
		for _, owner := range []string{"ann", "ann", "bob"} {
			s.add(t, New{Owner: owner})
		}
		s.add(t, New{Owner: "ann", Claim: NewWorker("host")})
		for owner, want := range map[string]int{"ann": 2, "bob": 1, "": 0} {
			if mine, all, err := s.Waiting(ctx, owner); err != nil || mine != want || all != 3 {
				t.Errorf("%q: %d of %d, %v", owner, mine, all, err)
			}
		}
	})
}

func TestRecordings(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		want := func(all, ended int64) {
			t.Helper()
			if a, e, err := s.Recordings(ctx); err != nil || a != all || e != ended {
				t.Errorf("%d bytes, %d of them of ended jobs, %v; want %d and %d", a, e, err, all, ended)
			}
		}
		want(0, 0)
		s.add(t, New{Media: "a", Bytes: 100})
		done := s.add(t, New{Media: "b", Bytes: 1 << 40, Claim: w}).ID
		want(1<<40+100, 0)
		must(t, s.Finish(ctx, done, w, nil))
		want(1<<40+100, 1<<40)
		_, err := s.DropMedia(ctx, done)
		must(t, err)
		want(100, 0)
	})
}

func TestExpire(t *testing.T) {
	// Ten jobs of 10 bytes that ended an hour apart, the last one now; number 3
	// has no recording any more; and two that have not ended.
	cases := []struct {
		limits Limits
		want   []int
	}{
		{Limits{}, nil},
		{Limits{Age: 7 * time.Hour}, []int{0, 1, 2}},
		{Limits{Jobs: 8}, []int{0, 1}},
		{Limits{Jobs: 10}, nil},
		{Limits{Bytes: 50}, []int{0, 1, 2, 4}},
		{Limits{Bytes: 90}, nil},
		{Limits{Age: 8 * time.Hour, Jobs: 7, Bytes: 10}, []int{0, 1, 2, 4, 5, 6, 7, 8}},
		{Limits{Age: time.Nanosecond}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	}
	onBoth(t, func(t *testing.T, p place) {
		for _, k := range cases {
			c := newClock()
			s, w := p.store(t, Options{Now: c.now}), NewWorker("host")
			s.add(t, New{Media: "x", Bytes: 1000})
			s.add(t, New{Media: "x", Bytes: 1000, Claim: w})
			var ids []string
			for i := range 10 {
				id := s.add(t, New{Media: fmt.Sprint("m", i), Bytes: 10, Claim: w}).ID
				must(t, s.Finish(ctx, id, w, nil))
				ids = append(ids, id)
				if i < 9 {
					c.advance(time.Hour)
				}
			}
			_, err := s.DropMedia(ctx, ids[3])
			must(t, err)
			removed, err := s.Expire(ctx, k.limits)
			var got []int
			for _, r := range removed {
				i := slices.Index(ids, r.ID)
				if i != 3 && r.Media != fmt.Sprint("m", i) || r.Bytes != 10 {
					t.Errorf("%+v", r)
				}
				got = append(got, i)
			}
			slices.Sort(got)
			if err != nil || !slices.Equal(got, k.want) {
				t.Errorf("%+v: %v, want %v (%v)", k.limits, got, k.want, err)
			}
			if again, err := s.Expire(ctx, k.limits); err != nil || len(again) != 0 {
				t.Errorf("%+v again: %v, %v", k.limits, again, err)
			}
			clear(t, s)
		}
	})
}

// TestRoomSparesWhatIsToBeTold: the recording goes, and the job once its end is told.
func TestRoomSparesWhatIsToBeTold(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Media: "m", Bytes: 10, Webhook: "u", Claim: w}).ID
		must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
		removed, err := s.Expire(ctx, Limits{Bytes: 1})
		if err != nil || !slices.Equal(removed, []Removed{{id, "m", 10}}) || s.got(t, id).Media != "" {
			t.Errorf("%+v, %v", removed, err)
		}
		if again, err := s.Expire(ctx, Limits{Bytes: 1}); err != nil || len(again) != 0 || s.due(t, w).Job != id {
			t.Errorf("again: %+v, %v", again, err)
		}
		removed, err = s.Expire(ctx, Limits{Age: time.Nanosecond})
		if err != nil || len(removed) != 1 || s.told(t, id).ID != "" {
			t.Errorf("what is too old: %+v, %v", removed, err)
		}
	})
}

// clear removes every job.
func clear(t *testing.T, s *Store) {
	t.Helper()
	all, err := s.List(ctx, Filter{Everyone: true})
	must(t, err)
	for _, j := range all {
		if j.State == Running {
			must(t, s.Requeue(ctx, j.ID, Worker{ID: j.Worker}))
		}
		_, err := s.Delete(ctx, j.ID)
		must(t, err)
	}
}
