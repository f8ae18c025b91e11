package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/fault"
)

// window is the i-th window of a second.
func window(i int) Window {
	return Window{Index: i, Start: time.Duration(i) * time.Second, End: time.Duration(i+1) * time.Second, Result: json.RawMessage(fmt.Sprintf(`{"text":"%d"}`, i))}
}

// TestLife follows a job from its upload to its result.
func TestLife(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now, Lease: 10 * time.Second})
		n := New{Owner: "ann", Class: Short, Deadline: c.now().Add(time.Hour), Key: "k", Digest: "d", Name: "talk \u00fc.wav", Media: "a/b.wav",
			MediaSHA256: "ff", Bytes: 5 << 32, Request: json.RawMessage(`{"language":"de"}`)}
		want := Job{Owner: "ann", Class: Short, State: Queued, Created: c.now(), Queued: c.now(), Deadline: n.Deadline, Key: "k", Digest: "d", Name: n.Name,
			Media: n.Media, MediaSHA256: "ff", Bytes: n.Bytes, Request: n.Request}
		j := s.add(t, n)
		want.ID = j.ID
		same(t, s, want)

		c.advance(time.Second)
		w := NewWorker("host")
		s.claimed(t, w)
		want.State, want.Started, want.Attempts, want.Worker, want.LeaseUntil = Running, c.now(), 1, w.ID, c.now().Add(10*time.Second)
		same(t, s, want)

		c.advance(time.Second)
		_, err := s.Plan(ctx, j.ID, w, 4*time.Second, json.RawMessage(`[1,2,3]`))
		must(t, err)
		want.Duration, want.Plan, want.LeaseUntil = 4*time.Second, json.RawMessage(`[1,2,3]`), c.now().Add(10*time.Second)
		same(t, s, want)

		for _, i := range []int{0, 2, 1} {
			c.advance(time.Second)
			canceling, err := s.Window(ctx, j.ID, w, window(i), map[int]string{2: "de"}[i])
			if err != nil || canceling {
				t.Fatal(err, canceling)
			}
		}
		want.WindowsDone, want.Covered, want.Language, want.LeaseUntil = 3, 3*time.Second, "de", c.now().Add(10*time.Second)
		same(t, s, want)
		all, err := s.Windows(ctx, j.ID, 1)
		if err != nil || len(all) != 2 || all[0].Index != 1 || string(all[1].Result) != `{"text":"2"}` || all[1].End != 3*time.Second || !all[0].Stored.Equal(c.now()) {
			t.Errorf("%v, %v", all, err)
		}

		c.advance(time.Second)
		must(t, s.Finish(ctx, j.ID, w, json.RawMessage(`{"text":"012"}`)))
		want.State, want.Ended, want.Result, want.LeaseUntil = Done, c.now(), json.RawMessage(`{"text":"012"}`), time.Time{}
		same(t, s, want)
		if again := s.claimed(t, NewWorker("host")); again.ID != "" {
			t.Error("a job that is done was claimed")
		}
	})
}

func same(t *testing.T, s *Store, want Job) {
	t.Helper()
	if got := s.got(t, want.ID); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestNobodyIsClaimedTwice: several workers of two processes.
func TestNobodyIsClaimedTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		stores := []*Store{p.store(t, Options{}), p.store(t, Options{})}
		const jobs, workers = 200, 8
		for i := range jobs {
			stores[0].add(t, New{Owner: fmt.Sprint(i % 5), Class: Class(i % 4)})
		}
		var mu sync.Mutex
		by := map[string]int{}
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				s, w := stores[i%2], NewWorker(fmt.Sprint(i%2))
				for {
					j, found, err := s.Claim(ctx, w)
					if code(err) == "database_busy" { // nobody else writes without a pause
						continue
					}
					if err != nil || !found {
						if err != nil {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					by[j.ID]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for id, n := range by {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}
		if len(by) != jobs {
			t.Errorf("%d of %d jobs were claimed", len(by), jobs)
		}
	})
}

// TestWhoIsNext: each case queues jobs a second apart and claims all of them.
func TestWhoIsNext(t *testing.T) {
	cases := map[string]struct {
		jobs  []New
		after time.Duration // waited before they are claimed
		want  string
	}{
		"the oldest":          {[]New{{Name: "a"}, {Name: "b"}, {Name: "c"}}, 0, "a b c"},
		"class before age":    {[]New{{Name: "b", Class: Background}, {Name: "l", Class: Long}, {Name: "s", Class: Short}, {Name: "v", Class: Live}}, 0, "v s l b"},
		"owners take turns":   {[]New{{Name: "a1", Owner: "a"}, {Name: "a2", Owner: "a"}, {Name: "a3", Owner: "a"}, {Name: "b1", Owner: "b"}, {Name: "b2", Owner: "b"}}, 0, "a1 b1 a2 b2 a3"},
		"class before turns":  {[]New{{Name: "a1", Owner: "a", Class: Short}, {Name: "a2", Owner: "a", Class: Short}, {Name: "b", Owner: "b"}}, 0, "a1 a2 b"},
		"one grows old":       {[]New{{Name: "old"}, {Name: "new", Class: Long}}, 10*time.Minute - 2*time.Second, "old new"},
		"none above the live": {[]New{{Name: "old", Class: Live}, {Name: "new", Class: Live}, {Name: "b"}}, 10 * time.Hour, "old new b"},
	}
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now, Age: 10 * time.Minute, Lease: 24 * time.Hour})
		for name, k := range cases {
			w := NewWorker("host")
			for _, n := range k.jobs {
				s.add(t, n)
				c.advance(time.Second)
			}
			c.advance(k.after)
			var got []string
			for j := s.claimed(t, w); j.ID != ""; j = s.claimed(t, w) {
				if n, err := s.Ahead(ctx, j.ID); err != nil || n != 0 {
					t.Errorf("%s: %d ahead of one that runs, %v", name, n, err)
				}
				got = append(got, j.Name)
			}
			if strings.Join(got, " ") != k.want {
				t.Errorf("%s: %v, want %s", name, got, k.want)
			}
			running, err := s.List(ctx, Filter{Everyone: true, State: Running})
			must(t, err)
			for _, j := range running {
				must(t, s.Finish(ctx, j.ID, w, nil))
			}
		}
	})
}

func TestAClockThatIsSetBack(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now})
		s.add(t, New{Name: "short", Class: Short})
		c.advance(-10 * 365 * 24 * time.Hour)
		s.add(t, New{Name: "long", Class: Long})
		if j := s.claimed(t, NewWorker("host")); j.Name != "short" {
			t.Errorf("%s was claimed first", j.Name)
		}
	})
}

func TestOnlyTheClassesAskedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		s.add(t, New{Class: Long})
		s.add(t, New{Class: Background})
		if j := s.claimed(t, w, Short, Live); j.ID != "" {
			t.Errorf("class %d was claimed", j.Class)
		}
		if j := s.claimed(t, w, Background, Live); j.Class != Background || j.ID == "" {
			t.Errorf("%v", j)
		}
	})
}

// TestItsOwnAtOnce: a job that is added claimed is nobody else's.
func TestItsOwnAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		j := s.add(t, New{Claim: w})
		if j.State != Running || j.Worker != w.ID || j.Attempts != 1 || j.Started.IsZero() || !j.LeaseUntil.After(j.Started) {
			t.Errorf("%+v", j)
		}
		if other := s.claimed(t, NewWorker("host")); other.ID != "" {
			t.Error("it was claimed by another")
		}
		_, err := s.Window(ctx, j.ID, w, window(0), "")
		must(t, err, s.Finish(ctx, j.ID, w, json.RawMessage(`{}`)))
	})
}

// TestALeaseRunsOut: two appliances, of which one dies; and what it does when it
// was not dead but asleep.
func TestALeaseRunsOut(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		o := Options{Now: c.now, Lease: time.Minute}
		one, two := p.store(t, o), p.store(t, o)
		dead, alive := NewWorker("one"), NewWorker("two")
		id := one.add(t, New{Class: Long}).ID
		one.claimed(t, dead)
		for i := range 3 {
			_, err := one.Window(ctx, id, dead, window(i), "")
			must(t, err)
		}
		c.advance(59 * time.Second)
		if j := two.claimed(t, alive); j.ID != "" {
			t.Fatal("claimed before the lease was over")
		}
		_, err := one.Renew(ctx, id, dead)
		must(t, err)
		c.advance(59 * time.Second)
		if j := two.claimed(t, alive); j.ID != "" {
			t.Fatal("claimed though the lease was renewed")
		}
		c.advance(2 * time.Second)
		if _, err := one.Window(ctx, id, dead, window(3), ""); err != nil {
			t.Errorf("a slow worker whose job nobody took: %v", err)
		}
		c.advance(61 * time.Second)
		if j := two.claimed(t, alive); j.ID != id || j.Attempts != 2 || j.WindowsDone != 4 {
			t.Fatalf("%+v", j)
		}
		if all, err := two.Windows(ctx, id, 0); err != nil || len(all) != 4 {
			t.Errorf("%d windows, %v", len(all), err)
		}
		lost(t, one, id, dead)
		if _, err := two.Window(ctx, id, alive, window(4), ""); err != nil || two.got(t, id).WindowsDone != 5 {
			t.Error(err)
		}
	})
}

// lost sees that nothing that w does to a job is done.
func lost(t *testing.T, s *Store, id string, w Worker) {
	t.Helper()
	before := s.got(t, id)
	_, err1 := s.Window(ctx, id, w, window(99), "xx")
	_, err2 := s.Renew(ctx, id, w)
	_, err3 := s.Plan(ctx, id, w, 99*time.Second, nil)
	for i, err := range []error{err1, err2, err3, s.Finish(ctx, id, w, json.RawMessage(`1`)), s.Fail(ctx, id, w, Failure{}), s.Requeue(ctx, id, w)} {
		if !errors.Is(err, ErrLost) {
			t.Errorf("%d: %v, want ErrLost", i, err)
		}
	}
	if after := s.got(t, id); !reflect.DeepEqual(before, after) {
		t.Errorf("changed by a worker that does not hold it: %+v", after)
	}
}

func TestAWindowIsStoredOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Claim: w}).ID
		_, err := s.Window(ctx, id, w, window(0), "")
		must(t, err)
		again := window(0)
		again.Result = json.RawMessage(`{"text":"another"}`)
		if _, err := s.Window(ctx, id, w, again, "xx"); !errors.Is(err, ErrStored) {
			t.Errorf("%v", err)
		}
		all, err := s.Windows(ctx, id, 0)
		if j := s.got(t, id); err != nil || len(all) != 1 || string(all[0].Result) != `{"text":"0"}` || j.WindowsDone != 1 || j.Language != "" {
			t.Errorf("%v, %+v, %v", all, j, err)
		}
		// Of eight at once one is stored.
		var wg sync.WaitGroup
		stored := make(chan error, 8)
		for range cap(stored) {
			wg.Go(func() { _, err := s.Window(ctx, id, w, window(1), ""); stored <- err })
		}
		wg.Wait()
		close(stored)
		well := 0
		for err := range stored {
			if err == nil {
				well++
			} else if !errors.Is(err, ErrStored) {
				t.Error(err)
			}
		}
		if j := s.got(t, id); well != 1 || j.WindowsDone != 2 {
			t.Errorf("stored %d times, progress %d", well, j.WindowsDone)
		}
	})
}

// TestFree: a process that starts again takes up what it left, at once.
func TestFree(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now})
		before, after, elsewhere := NewWorker("host"), NewWorker("host"), NewWorker("host2")
		left := s.add(t, New{Claim: before}).ID
		canceled := s.add(t, New{Claim: before}).ID
		mine := s.add(t, New{Claim: after}).ID
		theirs := s.add(t, New{Claim: elsewhere}).ID
		_, err := s.Window(ctx, left, before, window(0), "")
		must(t, err)
		_, err = s.Cancel(ctx, canceled)
		must(t, err)
		freed, err := s.Free(ctx, after)
		must(t, err)
		want := map[string]State{left: Queued, canceled: Canceled, mine: Running, theirs: Running}
		for id, state := range want {
			if j := s.got(t, id); j.State != state {
				t.Errorf("%s, want %s (freed %d)", j.State, state, freed)
			}
		}
		if j := s.claimed(t, after); j.ID != left || j.WindowsDone != 1 {
			t.Errorf("%+v", j)
		}
		lost(t, s, left, before)
	})
}

func TestIdempotency(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		stores := []*Store{p.store(t, Options{}), p.store(t, Options{})}
		s, w := stores[0], NewWorker("host")
		const adders = 16
		var wg sync.WaitGroup
		ids := make(chan string, adders)
		for i := range adders {
			wg.Go(func() {
				j, _, err := stores[i%2].Add(ctx, New{Owner: "ann", Key: "key", Digest: "d", Claim: NewWorker(fmt.Sprint(i))})
				if err != nil {
					t.Error(err)
				}
				ids <- j.ID
			})
		}
		wg.Wait()
		first := <-ids
		for range adders - 1 {
			if id := <-ids; id != first {
				t.Errorf("%s beside %s", id, first)
			}
		}
		_, _, err := s.Add(ctx, New{Owner: "ann", Key: "key", Digest: "another"})
		if code(err) != "idempotency_key_reused" || fault.KindOf(err) != fault.Conflict {
			t.Errorf("another request: %v", err)
		}
		for _, k := range []struct {
			n    New
			want bool
		}{
			{New{Owner: "ann", Key: "key", Digest: "d"}, true}, {New{Owner: "ann", Key: "key", Digest: "another"}, false},
			{New{Owner: "bob", Key: "key", Digest: "d"}, false}, {New{Owner: "ann", Digest: "d"}, false},
		} {
			if j, found, err := s.Same(ctx, k.n); err != nil || found != k.want || found && j.ID != first {
				t.Errorf("%+v: found %v, %v", k.n, found, err)
			}
		}
		s.add(t, New{Owner: "bob", Key: "key", Digest: "another"})
		s.add(t, New{Owner: "ann", Digest: "d"})
		s.add(t, New{Owner: "ann", Digest: "d"})

		holder := Worker{ID: s.got(t, first).Worker}
		must(t, s.Finish(ctx, first, holder, json.RawMessage(`{"text":"x"}`)))
		if j, joined, err := s.Add(ctx, New{Owner: "ann", Key: "key", Digest: "d", Claim: w}); err != nil || !joined || string(j.Result) != `{"text":"x"}` {
			t.Errorf("one that is done: %v, %v, %v", j, joined, err)
		}
		for _, bad := range []string{strings.Repeat("x", 256), "a\x00", "\xff"} {
			if _, _, err := s.Add(ctx, New{Key: bad}); code(err) != "bad_idempotency_key" {
				t.Errorf("%.5q: %v", bad, err)
			}
		}
	})
}

// TestAKeyIsFreeAfterAFailure, and then belongs to the later job.
func TestAKeyIsFreeAfterAFailure(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		n := New{Owner: "ann", Key: "key", Digest: "d", Media: "m", Claim: w}
		first := s.add(t, n)
		must(t, s.Fail(ctx, first.ID, w, FailureOf(fault.New(fault.Unsupported, "bad_audio", "no sound in it").Try("send another file"))))
		f := s.got(t, first.ID).Failure
		if f == nil || f.Fault().Code != "bad_audio" || f.Fault().Kind != fault.Unsupported || f.Hint != "send another file" {
			t.Errorf("%+v", f)
		}
		second := s.add(t, n)
		if _, err := s.Retry(ctx, first.ID); code(err) != "idempotency_key_reused" {
			t.Errorf("retry: %v", err)
		}
		must(t, s.Fail(ctx, second.ID, w, FailureOf(errors.New("secret path"))))
		if f := s.got(t, second.ID).Failure; f.Code != "internal_error" || strings.Contains(f.Message, "secret") {
			t.Errorf("%+v", f)
		}
		if j, err := s.Retry(ctx, first.ID); err != nil || j.State != Queued || j.Failure != nil {
			t.Errorf("%+v, %v", j, err)
		}
	})
}

func TestOddTexts(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s := p.store(t, Options{})
		j := s.add(t, New{Owner: "a\x00b", Name: "\xff\xfe.wav", Media: "m'; DROP TABLE jobs; --"})
		if got := s.got(t, j.ID); got.Owner != "a\uFFFDb" || !strings.HasSuffix(got.Name, ".wav") || got.Media != "m'; DROP TABLE jobs; --" {
			t.Errorf("%+v", got)
		}
		if all, err := s.List(ctx, Filter{Owner: "a\x00b"}); err != nil || len(all) != 1 {
			t.Errorf("%v, %v", all, err)
		}
		for _, id := range []string{"", "none", "\x00", "\xff", "' OR 1=1"} {
			_, err1 := s.Get(ctx, id)
			_, err2 := s.Cancel(ctx, id)
			_, err3 := s.Retry(ctx, id)
			_, err4 := s.Delete(ctx, id)
			_, err5 := s.DropMedia(ctx, id)
			for i, err := range []error{err1, err2, err3, err4, err5} {
				if code(err) != "unknown_job" || fault.Hint(err) == "" {
					t.Errorf("%d of %q: %v", i, id, err)
				}
			}
			if _, err := s.Renew(ctx, id, NewWorker("x")); !errors.Is(err, ErrLost) {
				t.Errorf("renew of %q: %v", id, err)
			}
			n, err := s.Ahead(ctx, id)
			if all, err2 := s.Windows(ctx, id, 0); err != nil || err2 != nil || n != 0 || len(all) != 0 {
				t.Errorf("%q: %d, %v, %v, %v", id, n, err, all, err2)
			}
		}
	})
}

func TestCount(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		s.add(t, New{})
		s.add(t, New{Claim: w})
		s.add(t, New{Claim: w})
		must(t, s.Finish(ctx, s.add(t, New{Claim: w}).ID, w, nil))
		of, err := s.Count(ctx)
		if err != nil || of[Queued] != 1 || of[Running] != 2 || of[Done] != 1 || of[Failed] != 0 {
			t.Errorf("%v, %v", of, err)
		}
	})
}

func TestList(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		var ids []string
		for i := range 7 {
			ids = append(ids, s.add(t, New{Owner: []string{"ann", ""}[i%2], Request: json.RawMessage(`{}`)}).ID)
		}
		slices.Reverse(ids)
		var got []string
		for before := ""; ; before = got[len(got)-1] {
			page, err := s.List(ctx, Filter{Everyone: true, Limit: 3, Before: before})
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, j := range page {
				got = append(got, j.ID)
				if j.Request != nil {
					t.Error("a list has what may be long")
				}
			}
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%v, want %v", got, ids)
		}
		s.claimed(t, w)
		for _, k := range []struct {
			f    Filter
			want int
		}{{Filter{Owner: "ann"}, 4}, {Filter{}, 3}, {Filter{Owner: "bob"}, 0}, {Filter{Everyone: true, State: Running}, 1}, {Filter{Owner: "ann", State: Queued}, 3}, {Filter{Owner: "", State: Queued, Limit: 2}, 2}} {
			if page, err := s.List(ctx, k.f); err != nil || len(page) != k.want {
				t.Errorf("%+v: %d, %v", k.f, len(page), err)
			}
		}
	})
}

func TestAhead(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s := p.store(t, Options{Now: c.now})
		var ids []string
		for _, class := range []Class{Long, Short, Background, Long} {
			ids = append(ids, s.add(t, New{Class: class}).ID)
			c.advance(time.Second)
		}
		for i, want := range []int{1, 0, 3, 2} {
			if n, err := s.Ahead(ctx, ids[i]); err != nil || n != want {
				t.Errorf("%d ahead of number %d, want %d (%v)", n, i, want, err)
			}
		}
	})
}

// TestAnIdOfItsOwn: a job whose id its caller made is stored once, whatever has
// come of it since, and whatever key it has.
func TestAnIdOfItsOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s := p.store(t, Options{})
		for _, key := range []string{"", "k"} {
			n := New{ID: uuid.Must(uuid.NewV7()).String(), Owner: "ann", Key: key, Digest: "d", Media: "m"}
			if j := s.add(t, n); j.ID != n.ID {
				t.Fatalf("id %s, want %s", j.ID, n.ID)
			}
			for _, state := range []State{Queued, Canceled} {
				if state == Canceled {
					_, err := s.Cancel(ctx, n.ID)
					must(t, err)
				}
				if j, joined, err := s.Add(ctx, n); err != nil || !joined || j.ID != n.ID || j.State != state {
					t.Errorf("again: %+v, joined %v, %v", j, joined, err)
				}
			}
		}
	})
}
