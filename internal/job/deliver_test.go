package job

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// due claims what is due, and gives it; its ID is "" where nothing is.
func (s *Store) due(t testing.TB, w Worker) Delivery {
	t.Helper()
	v, found, err := s.ClaimDelivery(ctx, w, 99)
	if err != nil || found != (v.ID != "") {
		t.Fatalf("claim of a delivery: %v, found %v", err, found)
	}
	return v
}

// told is the last delivery of a job.
func (s *Store) told(t testing.TB, id string) Delivery {
	t.Helper()
	last, err := s.Deliveries(ctx, id, "none")
	must(t, err)
	return last[id]
}

// TestEveryEndIsTold: each way in which a job ends stores a delivery with it, and
// the end of a job without a webhook stores none.
func TestEveryEndIsTold(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now, Lease: time.Minute}), NewWorker("host")
		running := func(webhook string) string { return s.add(t, New{Claim: w, Webhook: webhook, Media: "m"}).ID }
		ends := map[string]struct {
			id   string
			end  func(id string) error
			want State
		}{
			"done":   {running("u"), func(id string) error { return s.Finish(ctx, id, w, json.RawMessage(`{}`)) }, Done},
			"failed": {running("u"), func(id string) error { return s.Fail(ctx, id, w, Failure{Code: "x"}) }, Failed},
			"queued and canceled": {s.add(t, New{Webhook: "u"}).ID, func(id string) error {
				_, err := s.Cancel(ctx, id)
				return err
			}, Canceled},
			"canceled in its work": {running("u"), func(id string) error {
				_, err := s.Cancel(ctx, id)
				return errors.Join(err, s.Requeue(ctx, id, w))
			}, Canceled},
			"failed when it was canceled": {running("u"), func(id string) error {
				_, err := s.Cancel(ctx, id)
				return errors.Join(err, s.Fail(ctx, id, w, Failure{Code: "x"}))
			}, Canceled},
			"too late": {s.add(t, New{Webhook: "u", Deadline: c.now().Add(time.Second)}).ID, func(string) error {
				c.advance(2 * time.Second)
				_, _, err := s.Claim(ctx, w, Live)
				return err
			}, Failed},
		}
		silent := running("")
		must(t, s.Finish(ctx, silent, w, nil))
		returned := running("u")
		must(t, s.Requeue(ctx, returned, w))
		for _, id := range []string{silent, returned} {
			if v := s.told(t, id); v.ID != "" {
				t.Errorf("told: %+v", v)
			}
		}
		for name, k := range ends {
			must(t, k.end(k.id))
			v := s.told(t, k.id)
			if v.Event != k.want || v.State != Sending || v.URL != "u" || v.Job != k.id || !strings.HasPrefix(v.ID, "msg_") || !v.Created.Equal(c.now()) || v.Attempts != 0 {
				t.Errorf("%s: %+v", name, v)
			}
			if j := s.got(t, k.id); j.State != k.want || j.Webhook != "u" {
				t.Errorf("%s: %+v", name, j)
			}
		}
		seen := map[string]bool{}
		for v := s.due(t, w); v.ID != ""; v = s.due(t, w) {
			seen[v.Job] = true
			must(t, s.Attempted(ctx, v.ID, w, Attempt{State: Delivered}))
		}
		if len(seen) != len(ends) {
			t.Errorf("%d of %d ends were told", len(seen), len(ends))
		}
	})
}

// TestDelivery follows one from its job's end to its own.
func TestDelivery(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w, other := p.store(t, Options{Now: c.now, Lease: time.Minute}), NewWorker("host"), NewWorker("elsewhere")
		id := s.add(t, New{Claim: w, Webhook: "https://a.test/\x00"}).ID
		must(t, s.Finish(ctx, id, w, nil))
		v := s.due(t, w)
		if v.Job != id || v.Attempts != 1 || strings.Contains(v.URL, "\x00") {
			t.Errorf("claimed: %+v", v)
		}
		if again := s.due(t, other); again.ID != "" {
			t.Errorf("claimed twice: %+v", again)
		}
		if err := s.Attempted(ctx, v.ID, other, Attempt{State: Delivered}); !errors.Is(err, ErrLost) {
			t.Errorf("by another worker: %v", err)
		}
		must(t, s.Attempted(ctx, v.ID, w, Attempt{State: Sending, Again: 30 * time.Second, Error: "it answers 500"}))
		if got := s.told(t, id); got.State != Sending || got.Error != "it answers 500" || !got.Due.Equal(c.now().Add(30*time.Second)) || !got.Ended.IsZero() {
			t.Errorf("put off: %+v", got)
		}
		c.advance(29 * time.Second)
		if again := s.due(t, w); again.ID != "" {
			t.Errorf("claimed before it is due: %+v", again)
		}
		c.advance(time.Second)
		if again := s.due(t, other); again.ID != v.ID || again.Attempts != 2 {
			t.Errorf("again: %+v", again)
		}
		c.advance(59 * time.Second)
		if again := s.due(t, w); again.ID != "" {
			t.Errorf("claimed under another's lease: %+v", again)
		}
		c.advance(time.Second) // who has it has died
		if again := s.due(t, w); again.ID != v.ID || again.Attempts != 3 {
			t.Errorf("after a death: %+v", again)
		}
		if err := s.Attempted(ctx, v.ID, other, Attempt{State: Delivered}); !errors.Is(err, ErrLost) {
			t.Errorf("one that was thought dead: %v", err)
		}
		must(t, s.Attempted(ctx, v.ID, w, Attempt{State: Sending, None: true}))
		if again := s.due(t, w); again.ID != v.ID || again.Attempts != 3 {
			t.Errorf("after an attempt that does not count: %+v", again)
		}
		must(t, s.Attempted(ctx, v.ID, w, Attempt{State: GivenUp, Error: "gone"}))
		if got := s.told(t, id); got.State != GivenUp || got.Ended.IsZero() || got.ID != v.ID {
			t.Errorf("given up: %+v", got)
		}
		c.advance(100 * time.Hour)
		if again := s.due(t, w); again.ID != "" {
			t.Errorf("claimed after its end: %+v", again)
		}
		if err := s.Attempted(ctx, v.ID, w, Attempt{State: Delivered}); !errors.Is(err, ErrLost) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// TestDeliveriesOfTheDead are due as soon as the next run of their instance begins.
func TestDeliveriesOfTheDead(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, dead, other := p.store(t, Options{Now: c.now}), NewWorker("host"), NewWorker("elsewhere")
		for _, w := range []Worker{dead, other} {
			must(t, s.Finish(ctx, s.add(t, New{Claim: w, Webhook: "u"}).ID, w, nil))
		}
		first, second := s.due(t, dead), s.due(t, other)
		_, err := s.Free(ctx, NewWorker("host"))
		must(t, err)
		if v := s.due(t, other); v.ID != first.ID || v.Attempts != 2 {
			t.Errorf("freed %+v, want %s", v, first.ID)
		}
		if v := s.due(t, other); v.ID != "" {
			t.Errorf("%s is another's: %+v", second.ID, v)
		}
		c.advance(-10 * 365 * 24 * time.Hour) // the machine learns another time
		must(t, s.Attempted(ctx, second.ID, other, Attempt{State: Sending}))
		if v := s.due(t, other); v.ID != second.ID {
			t.Errorf("after the clock was set back: %+v", v)
		}
	})
}

// TestSuperseded: what a job that is tried again would have told is not told, and
// its new end is.
func TestSuperseded(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Claim: w, Webhook: "u", Media: "m"}).ID
		must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
		failed := s.due(t, w)
		_, err := s.Retry(ctx, id)
		must(t, err)
		if err := s.Attempted(ctx, failed.ID, w, Attempt{State: Sending}); !errors.Is(err, ErrLost) {
			t.Errorf("one that is out of date: %v", err)
		}
		if v := s.told(t, id); v.ID != "" || s.due(t, w).ID != "" {
			t.Errorf("%+v", v)
		}
		s.claimed(t, w)
		must(t, s.Finish(ctx, id, w, nil))
		if v := s.due(t, w); v.Event != Done || v.ID == failed.ID {
			t.Errorf("its new end: %+v", v)
		}
	})
}

// TestDeletedWithItsJob: nothing is told of a job that is gone.
func TestDeletedWithItsJob(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Claim: w, Webhook: "u"}).ID
		must(t, s.Finish(ctx, id, w, nil))
		_, err := s.Delete(ctx, id)
		must(t, err)
		if v := s.due(t, w); v.ID != "" || s.told(t, id).ID != "" {
			t.Errorf("%+v", v)
		}
	})
}

// TestOlderReleaseEndsAJob: it knows of no deliveries, and the next claim makes up
// for it.
func TestOlderReleaseEndsAJob(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Claim: w, Webhook: "u"}).ID
		must(t, s.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE jobs SET state = 'done', ended = 5, lease_until = 0 WHERE id = $1", id)
			return err
		}))
		s.claimed(t, w)
		if v := s.due(t, w); v.Job != id || v.Event != Done {
			t.Errorf("%+v", v)
		}
	})
}

// TestOlderReleaseRetriesAJob: what tells of its end before is told no more, and
// its new end is.
func TestOlderReleaseRetriesAJob(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		c := newClock()
		s, w := p.store(t, Options{Now: c.now}), NewWorker("host")
		older := func(set string, id string) {
			must(t, s.db.Write(ctx, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "UPDATE jobs SET "+set+" WHERE id = $1", id)
				return err
			}))
		}
		id := s.add(t, New{Claim: w, Webhook: "u", Media: "m"}).ID
		must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
		failed := s.told(t, id)
		older("state = 'queued', ended = 0", id)
		if v := s.due(t, w); v.ID != "" {
			t.Errorf("told of a job that goes on: %+v", v)
		}
		c.advance(time.Second)
		older(fmt.Sprintf("state = 'done', ended = %d", c.now().UnixMilli()), id)
		s.claimed(t, w)
		v := s.due(t, w)
		if v.Event != Done || v.ID == failed.ID || s.due(t, w).ID != "" {
			t.Errorf("its new end: %+v", v)
		}
		must(t, s.Attempted(ctx, v.ID, w, Attempt{State: Delivered}))
		s.claimed(t, w)
		if v := s.due(t, w); v.ID != "" {
			t.Errorf("told again: %+v", v)
		}
		must(t, s.db.Read(ctx, func(tx *sql.Tx) error {
			var n int
			err := tx.QueryRowContext(ctx, "SELECT count(*) FROM deliveries").Scan(&n)
			if n != 1 {
				t.Errorf("%d deliveries are kept", n)
			}
			return err
		}))
	})
}

// TestOlderReleaseKnowsNoURL: what it has failed for lack of a recording goes on
// where the next release begins.
func TestOlderReleaseKnowsNoURL(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		fail := func(n New, code string) string {
			n.Claim = w
			id := s.add(t, n).ID
			must(t, s.Fail(ctx, id, w, Failure{Code: code}))
			return id
		}
		lost := fail(New{Source: "u", Key: "k"}, "recording_gone")
		later := s.add(t, New{Source: "u", Key: "k", Class: Background}).ID
		others := []string{fail(New{Source: "u"}, "url_refused"), fail(New{Media: "m"}, "recording_gone"), fail(New{Source: "u", Media: "m"}, "recording_gone")}
		freed, err := s.Free(ctx, NewWorker("host"))
		if j := s.got(t, lost); err != nil || freed != 1 || j.State != Queued || j.Failure != nil || !j.Ended.IsZero() {
			t.Errorf("freed %d, %v: %+v", freed, err, j)
		}
		for _, id := range others {
			if j := s.got(t, id); j.State != Failed {
				t.Errorf("%+v", j)
			}
		}
		if j := s.got(t, later); j.Key != "k" {
			t.Errorf("%+v", j)
		}
	})
}

// TestOneOwnerHoldsNoOtherUp: deliveries of an owner whose receiver does not answer.
func TestOneOwnerHoldsNoOtherUp(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w, other := p.store(t, Options{}), NewWorker("host"), NewWorker("elsewhere")
		for range 4 {
			must(t, s.Finish(ctx, s.add(t, New{Owner: "slow", Claim: w, Webhook: "u"}).ID, w, nil))
		}
		quick := s.add(t, New{Owner: "quick", Claim: w, Webhook: "u"}).ID
		must(t, s.Finish(ctx, quick, w, nil))
		claim := func(w Worker) string {
			v, _, err := s.ClaimDelivery(ctx, w, 2)
			must(t, err)
			return v.Job
		}
		if first, second := claim(w), claim(w); first == quick || second != quick {
			t.Errorf("first %s, then %s, want %s", first, second, quick)
		}
		if claim(w) == "" || claim(w) != "" {
			t.Error("an owner has not two places, and no more")
		}
		if claim(other) == "" {
			t.Error("the places of one worker count for another")
		}
	})
}

// TestNoDeliveryIsClaimedTwice: several senders of two processes.
func TestNoDeliveryIsClaimedTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		stores, w := []*Store{p.store(t, Options{}), p.store(t, Options{})}, NewWorker("host")
		const jobs = 60
		for range jobs {
			must(t, stores[0].Finish(ctx, stores[0].add(t, New{Claim: w, Webhook: "u"}).ID, w, nil))
		}
		var mu sync.Mutex
		by := map[string]int{}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				s, w := stores[i%2], NewWorker("host")
				for {
					v, found, err := s.ClaimDelivery(ctx, w, 99)
					if code(err) == "database_busy" {
						continue
					}
					if err != nil {
						t.Error(err)
					}
					if err != nil || !found {
						return
					}
					mu.Lock()
					by[v.ID]++
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
			t.Errorf("%d of %d were claimed", len(by), jobs)
		}
	})
}

// TestOneOwnerFetchesNotAll: one whose server is slow leaves places to others.
func TestOneOwnerFetchesNotAll(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		for range 4 {
			s.add(t, New{Owner: "slow", Source: "u", Class: Short})
		}
		s.add(t, New{Owner: "quick", Source: "u"})
		var got []string
		for range 4 {
			j, _, err := s.ClaimFetching(ctx, w, 2)
			must(t, err)
			got = append(got, j.Owner)
		}
		if want := []string{"slow", "slow", "quick", ""}; !slices.Equal(got, want) {
			t.Errorf("claimed those of %q, want %q", got, want)
		}
	})
}

// TestFetched: the recording of a job that came without one becomes the job's,
// under its lease alone, and a job that failed without one may be tried again.
func TestFetched(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		s, w := p.store(t, Options{}), NewWorker("host")
		id := s.add(t, New{Claim: w, Source: "https://a.test/b.wav"}).ID
		if _, err := s.Fetched(ctx, id, NewWorker("host"), Recording{Media: "x"}); !errors.Is(err, ErrLost) {
			t.Errorf("by another worker: %v", err)
		}
		must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
		if j, err := s.Retry(ctx, id); err != nil || j.Source != "https://a.test/b.wav" {
			t.Errorf("%+v, %v", j, err)
		}
		if j, found, err := s.ClaimFetching(ctx, w, 0); found || err != nil {
			t.Errorf("claimed as one whose recording is here: %+v, %v", j, err)
		}
		s.claimed(t, w)
		canceling, err := s.Fetched(ctx, id, w, Recording{Media: "m", SHA256: "ff", Bytes: 5 << 32})
		if j := s.got(t, id); err != nil || canceling || j.Media != "m" || j.MediaSHA256 != "ff" || j.Bytes != 5<<32 {
			t.Errorf("%+v, %v", j, err)
		}
		must(t, s.Requeue(ctx, id, w))
		if j, found, err := s.ClaimFetching(ctx, w, 0); !found || err != nil || j.ID != id {
			t.Errorf("with its recording here it is not claimed: %v", err)
		}
		all, ended, err := s.Recordings(ctx)
		if err != nil || all != 5<<32 || ended != 0 {
			t.Errorf("%d, %d, %v", all, ended, err)
		}
		_, err = s.Cancel(ctx, id)
		must(t, err)
		if canceling, err := s.Fetched(ctx, id, w, Recording{Media: "m", Bytes: 1}); err != nil || !canceling {
			t.Errorf("its worker is not told: %v, %v", canceling, err)
		}
	})
}

// TestRetryOfAnotherRecording: what was heard of a recording that is gone is not
// gone on with in one that a URL gives now.
func TestRetryOfAnotherRecording(t *testing.T) {
	onBoth(t, func(t *testing.T, p place) {
		for name, planned := range map[string]bool{"before it was heard": false, "in the midst of it": true} {
			s, w := p.store(t, Options{}), NewWorker("host")
			id := s.add(t, New{Source: "https://a.test/a.wav"}).ID
			s.claimed(t, w)
			_, err := s.Fetched(ctx, id, w, Recording{Media: "a", SHA256: "ff", Bytes: 3})
			must(t, err)
			if planned {
				_, err := s.Plan(ctx, id, w, time.Second, json.RawMessage(`[1]`))
				must(t, err)
			}
			must(t, s.Fail(ctx, id, w, Failure{Code: "x"}))
			_, err = s.DropMedia(ctx, id)
			must(t, err)
			if _, err := s.Retry(ctx, id); (code(err) == "media_gone") != planned || !planned && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_, err = s.Cancel(ctx, id)
			if !planned {
				must(t, err)
			}
		}
	})
}
