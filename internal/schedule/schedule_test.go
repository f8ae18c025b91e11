package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"whisper-appliance/internal/fault"
)

func twoLanes(string) bool { return true }

// engine takes as long for a window as it is, and notes what it did.
type engine struct {
	*Queue
	load time.Duration // of a model

	mu    sync.Mutex
	model string
	loads int
	log   []string
	inUse [lanes]int
}

// decode has one window decoded and returns how long it waited for its turn.
func (e *engine) decode(t *testing.T, ask Ask) time.Duration { return e.windows(t, 1, ask) }

// windows has n windows decoded, one after the other, and returns the longest wait.
func (e *engine) windows(t *testing.T, n int, ask Ask) time.Duration {
	return e.while(t, func(done int) bool { return done < n }, ask)
}

// while has windows decoded until more says no.
func (e *engine) while(t *testing.T, more func(done int) bool, ask Ask) (waited time.Duration) {
	var turn *Turn
	for done := 0; more(done); done++ {
		var err error
		asked := time.Now()
		if turn == nil {
			turn, err = e.Take(t.Context(), ask)
		} else {
			turn, err = turn.Next(t.Context(), ask)
		}
		if err != nil {
			t.Error(err)
			return waited
		}
		waited = max(waited, time.Since(asked))
		e.work(t, turn, ask)
	}
	turn.Give()
	return waited
}

// work is one window.
func (e *engine) work(t *testing.T, turn *Turn, ask Ask) {
	e.mu.Lock()
	if e.inUse[turn.Lane()]++; e.inUse[turn.Lane()] > 1 {
		t.Errorf("lane %d is used twice", turn.Lane())
	}
	loads := e.model != ask.Model
	if loads && e.inUse[LongLane]+e.inUse[ShortLane] > 1 {
		t.Error("a model is changed while a window is decoded")
	}
	e.model = ask.Model
	e.log = append(e.log, ask.Job)
	e.mu.Unlock()
	if loads && e.load > 0 {
		time.Sleep(e.load)
		turn.Loaded(e.load)
		e.mu.Lock()
		e.loads++
		e.mu.Unlock()
	}
	time.Sleep(ask.Length)
	e.mu.Lock()
	e.inUse[turn.Lane()]--
	e.mu.Unlock()
}

// start has a window decoded once everybody else has come to rest.
func (e *engine) start(t *testing.T, wg *sync.WaitGroup, ask Ask) {
	wg.Go(func() { e.decode(t, ask) })
	synctest.Wait()
}

func TestHigherClassGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}}
		var wg sync.WaitGroup
		for i, class := range []Class{Long, Background, Long, Short, Live} { // the first begins at once
			e.start(t, &wg, Ask{Class: class, Owner: fmt.Sprint(i), Job: fmt.Sprint(i), Length: time.Second})
		}
		wg.Wait()
		if want := []string{"0", "4", "3", "2", "1"}; !slices.Equal(e.log, want) {
			t.Errorf("order %v, want %v", e.log, want)
		}
	})
}

// TestOwnersShareTheTime: neither many jobs nor long windows bring anybody more
// than a fair share.
func TestOwnersShareTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}}
		had := map[string]time.Duration{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		end := time.Now().Add(10 * time.Minute)
		job := func(owner, name string, length time.Duration) {
			wg.Go(func() {
				e.while(t, func(done int) bool {
					if done > 0 && !time.Now().After(end) { // each has one more under way then
						mu.Lock()
						had[owner] += length
						had[name] += length
						mu.Unlock()
					}
					return time.Now().Before(end)
				}, Ask{Class: Long, Owner: owner, Job: name, Length: length})
			})
		}
		for i := range 10 {
			job("many", fmt.Sprintf("many-%d", i), 3*time.Second)
		}
		job("slow", "slow-1", 20*time.Second)
		job("quick", "quick-1", time.Second)
		job("quick", "quick-2", 7*time.Second)
		wg.Wait()
		for _, owner := range []string{"many", "slow", "quick"} {
			if share := had[owner].Seconds() / 600; share < 0.27 || share > 0.40 {
				t.Errorf("%s had %.0f %% of the time, want a third: %v", owner, 100*share, had)
			}
		}
		if a, b := had["quick-1"], had["quick-2"]; (a - b).Abs() > 20*time.Second {
			t.Errorf("of one owner's jobs one had %v and the other %v", a, b)
		}
	})
}

// TestNewcomerOwesNothing: who comes late neither catches up on the others nor
// waits for what he had before.
func TestNewcomerOwesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}}
		e.windows(t, 100, Ask{Class: Long, Owner: "early", Job: "a", Length: 10 * time.Second})
		var wg sync.WaitGroup
		for _, owner := range []string{"early", "late"} {
			wg.Go(func() { e.windows(t, 10, Ask{Class: Long, Owner: owner, Job: owner, Length: time.Second}) })
		}
		wg.Wait()
		log := e.log[100:]
		for i := 0; i+2 <= len(log); i += 2 {
			if log[i] == log[i+1] {
				t.Fatalf("they do not take turns: %v", log)
			}
		}
	})
}

// TestNothingStarves: one who nobody waits for gets on, under any load.
func TestNothingStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}}
		var wg sync.WaitGroup
		var over atomic.Bool
		for i := range 5 {
			wg.Go(func() {
				e.while(t, func(int) bool { return !over.Load() }, Ask{Class: Short, Owner: fmt.Sprint(i), Job: "short", Length: time.Second})
			})
		}
		began := time.Now()
		e.windows(t, 10, Ask{Class: Background, Owner: "background", Job: "background", Length: 30 * time.Second})
		over.Store(true)
		wg.Wait()
		if took := time.Since(began); took > 10*(3*ageing(Background)+30*time.Second+5*time.Second) {
			t.Errorf("ten windows took %v", took)
		}
	})
}

// TestLongAmongShort: a long recording gets on beside one short one after the
// other, of its own sender and of others, each of which is new.
func TestLongAmongShort(t *testing.T) {
	for _, mine := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			e := &engine{Queue: &Queue{}}
			var wg sync.WaitGroup
			var over atomic.Bool
			for i := range 3 {
				wg.Go(func() {
					for n := 0; !over.Load(); n++ {
						owner := "a"
						if !mine {
							owner = fmt.Sprint(i, n)
						}
						e.decode(t, Ask{Class: Short, Owner: owner, Job: fmt.Sprint(i, n), Length: time.Second})
					}
				})
			}
			waited := e.windows(t, 5, Ask{Class: Long, Owner: "a", Job: "long", Length: 10 * time.Second})
			over.Store(true)
			wg.Wait()
			if most := 2*ageing(Long) + 2*time.Second; waited > most {
				t.Errorf("its own sender's %v: a window waited %v, want %v at most", mine, waited, most)
			}
		})
	}
}

// TestShortLane: a short window is decoded beside a long one, a second short
// one after it, and what is not short or not urgent in the long lane.
func TestShortLane(t *testing.T) {
	for name, c := range map[string]struct {
		ask  Ask
		two  func(string) bool
		wait time.Duration
	}{
		"short":               {Ask{Class: Short, Length: 3 * time.Second}, twoLanes, 0},
		"live":                {Ask{Class: Live, Length: 10 * time.Second}, twoLanes, 0},
		"too long":            {Ask{Class: Short, Length: 11 * time.Second}, twoLanes, 30 * time.Second},
		"not urgent":          {Ask{Class: Long, Length: 3 * time.Second}, twoLanes, 30 * time.Second},
		"no memory for it":    {Ask{Class: Short, Length: 3 * time.Second}, func(string) bool { return false }, 30 * time.Second},
		"nobody said":         {Ask{Class: Short, Length: 3 * time.Second}, nil, 30 * time.Second},
		"another model first": {Ask{Class: Short, Length: 3 * time.Second, Model: "other"}, twoLanes, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &engine{Queue: &Queue{TwoLanes: c.two}}
				var wg sync.WaitGroup
				e.start(t, &wg, Ask{Class: Long, Owner: "a", Job: "long", Model: "one", Length: 30 * time.Second})
				c.ask.Owner = "b"
				if c.ask.Model == "" {
					c.ask.Model = "one"
				}
				if waited := e.decode(t, c.ask); waited != c.wait {
					t.Errorf("it waited %v, want %v", waited, c.wait)
				}
				wg.Wait()
			})
		})
	}
}

// TestTenAtOnce: of ten who come at once none waits longer than the others' time.
func TestTenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{TwoLanes: twoLanes}}
		var wg sync.WaitGroup
		wg.Go(func() { e.windows(t, 3, Ask{Class: Long, Owner: "long", Job: "long", Length: 30 * time.Second}) })
		synctest.Wait()
		for i := range 10 {
			wg.Go(func() {
				if waited := e.decode(t, Ask{Class: Short, Owner: fmt.Sprint(i), Length: time.Second}); waited > 9*time.Second {
					t.Errorf("%d waited %v", i, waited)
				}
			})
		}
		wg.Wait()
	})
}

// TestModelsDoNotThrash: two jobs with a model each spend little on loading,
// and an urgent window of a third is not kept waiting for long.
func TestModelsDoNotThrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}, load: 2 * time.Second}
		began := time.Now()
		var wg sync.WaitGroup
		for _, model := range []string{"a", "b"} {
			wg.Go(func() {
				e.windows(t, 200, Ask{Class: Long, Owner: model, Job: model, Model: model, Length: time.Second})
			})
		}
		time.Sleep(31 * time.Second)
		waited := e.decode(t, Ask{Class: Short, Owner: "c", Job: "c", Model: "c", Length: time.Second})
		wg.Wait()
		if share := float64(e.loads) * 2 / time.Since(began).Seconds(); share > 0.15 {
			t.Errorf("%d loads, %.0f %% of the time", e.loads, 100*share)
		}
		if most := stayForUrgent*2*time.Second + time.Second; waited > most {
			t.Errorf("the urgent one waited %v, want %v at most", waited, most)
		}
		if last := slices.Index(e.log, "b"); last > 25 {
			t.Errorf("the second model came after %d windows of the first", last)
		}
	})
}

// TestModelNobodyNeeds makes way at once.
func TestModelNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}, load: 10 * time.Second}
		e.decode(t, Ask{Model: "a", Length: time.Second})
		if waited := e.decode(t, Ask{Model: "b", Length: time.Second}); waited != 0 {
			t.Errorf("it waited %v", waited)
		}
	})
}

func TestLeavingTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Queue: &Queue{}}
		var wg sync.WaitGroup
		e.start(t, &wg, Ask{Class: Long, Owner: "a", Job: "a", Length: 10 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := e.Take(ctx, Ask{Class: Short, Owner: "b", Job: "b"})
			left <- err
		}()
		synctest.Wait()
		e.start(t, &wg, Ask{Class: Long, Owner: "c", Job: "c", Length: time.Second})
		for job, want := range map[string]int{"a": 0, "b": 1, "c": 2, "nobody": 0} {
			if n := e.Ahead(job); n != want {
				t.Errorf("%d are before %s, want %d", n, job, want)
			}
		}
		if n := e.Waiting(); n != 2 {
			t.Errorf("%d wait, want 2", n)
		}
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		wg.Wait()
		if e.Waiting() != 0 || e.owners.open != 0 || len(e.owners.accounts) != 0 {
			t.Errorf("something is left: %d waiting, %+v", e.Waiting(), e.owners)
		}
	})
}

// TestTurnsUnderCancellation gives turns and cancels waiters at the same
// moment, many times: none may be lost, and no lane be out twice.
func TestTurnsUnderCancellation(t *testing.T) {
	q := &Queue{TwoLanes: twoLanes}
	var holders [lanes]atomic.Int32
	var taken atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(40))*time.Microsecond)
				turn, err := q.Take(ctx, Ask{Class: Class(i % 4), Owner: fmt.Sprint(i), Model: fmt.Sprint(i / 6), Length: time.Second})
				if err == nil {
					if n := holders[turn.Lane()].Add(1); n != 1 {
						t.Errorf("%d are in lane %d", n, turn.Lane())
					}
					taken.Add(1)
					holders[turn.Lane()].Add(-1)
					turn.Give()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if taken.Load() == 0 || q.Waiting() != 0 || q.busy() {
		t.Errorf("%d turns were taken, %d wait", taken.Load(), q.Waiting())
	}
}

func TestCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for two, want := range map[bool]bool{true: false, false: true} {
			e := &engine{Queue: &Queue{TwoLanes: func(string) bool { return two }}}
			if e.Crowded(Long) {
				t.Error("nobody was there")
			}
			e.decode(t, Ask{Class: Short, Owner: "a", Job: "a", Length: 11 * time.Second})
			if got := e.Crowded(Long); got != want || e.Crowded(Short) {
				t.Errorf("with two lanes %v: crowded %v", two, got)
			}
			time.Sleep(crowdedFor)
			if e.Crowded(Long) {
				t.Error("it stays crowded")
			}
		}
	})
}

// TestNoRoom: where the engine has no memory for the short lane, there is none
// for a while.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &Queue{TwoLanes: twoLanes}
		ask := Ask{Class: Short, Length: time.Second}
		for i, want := range []Lane{ShortLane, LongLane, ShortLane} {
			turn, err := q.Take(t.Context(), ask)
			if err != nil || turn.Lane() != want {
				t.Fatalf("turn %d: %v, %v", i, turn, err)
			}
			if i == 0 {
				turn.NoRoom()
			} else {
				time.Sleep(oneLaneFor + 1)
			}
			turn.Give()
		}
	})
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &Queue{Most: func() int { return 3 }, OwnersMost: func() int { return 2 }}
		enter := func(owner string) func() {
			leave, err := q.Enter(owner)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		leaveA, leaveB := enter("a"), enter("a")
		wantRefused(t, q, "a", "queue_full_for_you", time.Second)
		enter("b")
		wantRefused(t, q, "c", "queue_full", time.Second)
		time.Sleep(time.Minute)
		leaveA() // three were inside for a minute: one leaves every 20 s
		enter("c")
		wantRefused(t, q, "d", "queue_full", 20*time.Second)
		time.Sleep(24 * time.Hour)
		for leaveB(); q.Inside() < 3; {
			enter("a")
		}
		wantRefused(t, q, "d", "queue_full", againMost)
		open := &Queue{}
		for range 1000 {
			if _, err := open.Enter("a"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func wantRefused(t *testing.T, q *Queue, owner, code string, after time.Duration) {
	t.Helper()
	_, err := q.Enter(owner)
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Busy || f.Code != code || f.After != after || f.Hint == "" {
		t.Errorf("got %+v, want %s and another try after %v", err, code, after)
	}
}
