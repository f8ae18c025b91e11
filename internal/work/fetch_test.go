package work

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
)

// claim gives a job to a desk that is not started.
func (r *rig) claim(t *testing.T) job.Job {
	t.Helper()
	j, found, err := r.Store.Claim(t.Context(), r.Self)
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	return j
}

// TestFetchIsGivenUp: a recording is asked for a few times, whatever is missing.
func TestFetchIsGivenUp(t *testing.T) {
	for code, c := range map[string]struct {
		lacks func(r *rig)
		path  string
	}{
		"jobs_full":         {func(r *rig) { r.Limits = func() job.Limits { return job.Limits{Bytes: 4} } }, "/known"},
		"disk_full":         {func(r *rig) { r.free = func(string) (int64, error) { return 1 << 20, nil } }, "/known"},
		"place_unreachable": {func(*rig) {}, "/503"},
	} {
		t.Run(code, func(t *testing.T) {
			var asked atomic.Int64
			srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.URL.Path == "/503" {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				io.WriteString(w, "345")
			})
			r := newRig(t).reach(t, hostOf(srv))
			r.pause = time.Microsecond
			r.submit(t, r.wish(t, "a", "33")) // has not ended, so it goes for nobody
			r.claim(t)
			j := r.submit(t, r.from(t, srv.URL+c.path))
			c.lacks(r)
			r.start(t)
			if j := r.await(t, j.ID, job.Failed); j.Failure.Code != code || asked.Load() != triesOfFetch {
				t.Errorf("%+v, asked %d times", j.Failure, asked.Load())
			}
			if n := r.recordings(t); n > 1 {
				t.Errorf("%d recordings are left", n)
			}
		})
	}
}

// TestNoRoomForMore: a recording of unknown size ends before the disk does.
func TestNoRoomForMore(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	r := newRig(t).reach(t, hostOf(srv))
	r.pause = time.Microsecond
	room := int64(1 << 40)
	var looks atomic.Int64
	r.free = func(string) (int64, error) {
		if looks.Add(1)%3 == 0 {
			return 1 << 20, nil
		}
		return room, nil
	}
	r.start(t)
	j := r.await(t, r.submit(t, r.from(t, srv.URL+"/a.wav")).ID, job.Failed)
	if j.Failure.Code != "disk_full" || strings.Contains(j.Failure.Message, "MiB") {
		t.Errorf("%+v", j.Failure)
	}
}

// TestRestsLeaveTheirPlaces: jobs that wait until they may ask again keep nobody
// else's recording away.
func TestRestsLeaveTheirPlaces(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "3")
	})
	r := newRig(t).reach(t, hostOf(srv))
	var held []string
	for i := range fetchesAtOnce {
		w := r.from(t, srv.URL+"/away")
		w.Job.Owner = string(rune('a' + i))
		held = append(held, r.submit(t, w).ID)
	}
	r.start(t)
	for _, id := range held {
		eventually(t, "the job being held up", func() bool {
			p, _ := r.Progress(id)
			return p.Held != ""
		})
	}
	w := r.from(t, srv.URL+"/here")
	w.Job.Owner = "z"
	r.await(t, r.submit(t, w).ID, job.Done)
}

// TestSlowFetch: all tries have one time.
func TestSlowFetch(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	r := newRig(t).reach(t, hostOf(srv))
	r.From.Longest = 50 * time.Millisecond
	r.start(t)
	if j := r.await(t, r.submit(t, r.from(t, srv.URL+"/a.wav")).ID, job.Failed); j.Failure.Code != "url_too_slow" {
		t.Errorf("%+v", j.Failure)
	}
}

// TestSizeEvictsNobody: what a server says of a recording has no other go before it
// is here.
func TestSizeEvictsNobody(t *testing.T) {
	release := make(chan bool)
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "3")
		io.WriteString(w, "3")
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "45")
	})
	r := newRig(t).reach(t, hostOf(srv)).start(t)
	old := r.submit(t, r.wish(t, "a", "3!"))
	r.await(t, old.ID, job.Failed)
	r.Limits = func() job.Limits { return job.Limits{Bytes: 4} }
	j := r.submit(t, r.from(t, srv.URL+"/a.wav"))
	eventually(t, "the first byte", func() bool {
		p, _ := r.Progress(j.ID)
		return p.Fetched == 1
	})
	r.await(t, old.ID, job.Failed)
	close(release)
	r.await(t, j.ID, job.Done)
	_, err := r.Store.Get(t.Context(), old.ID)
	wantFault(t, err, fault.NotFound, "unknown_job")
}

// TestTake: keeping a recording may be done again after a write whose answer got
// lost, and what is not the job's in the end goes.
func TestTake(t *testing.T) {
	r := newRig(t).reach(t, "a.test")
	r.init()
	r.submit(t, r.from(t, "https://a.test/a.wav"))
	j := r.claim(t)
	f := r.wish(t, "a", "345").Job.Audio
	stranger := rigIn(t, r.dir)
	stranger.init()
	fetched := job.Recording{Bytes: 3}
	for range 2 {
		if err := stranger.take(t.Context(), &j, f, &fetched); err == nil || r.recordings(t) != 1 {
			t.Fatalf("%v; %d recordings", err, r.recordings(t))
		}
	}
	must(0, r.remove(fetched.Media)) // as the sweep does
	fetched = job.Recording{Bytes: 3}
	for range 2 {
		if err := r.take(t.Context(), &j, f, &fetched); err != nil || r.recordings(t) != 1 {
			t.Errorf("%v; %d recordings", err, r.recordings(t))
		}
		j = must(r.Store.Get(t.Context(), j.ID))
	}
	if j.Media != fetched.Media {
		t.Errorf("the job's recording is %q, kept was %q", j.Media, fetched.Media)
	}
}

// TestLogKnowsHosts: paths of addresses may be what lets somebody in.
func TestLogKnowsHosts(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "3") })
	var log bytes.Buffer
	r := newRig(t).reach(t, hostOf(srv))
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	r.start(t)
	w := r.from(t, srv.URL+"/confidential-a/confidential-b.wav?confidential-c")
	w.Webhook = srv.URL + "/confidential-d"
	r.telling(t, r.submit(t, w).ID, job.Delivered)
	r.end()
	if strings.Contains(log.String(), "confidential") || !strings.Contains(log.String(), hostOf(srv)) {
		t.Errorf("logged:\n%s", log.String())
	}
}

// TestKeyAfterTheListChanged: what was accepted is joined, what is new is refused.
func TestKeyAfterTheListChanged(t *testing.T) {
	r := newRig(t).reach(t, "a.test")
	w := r.from(t, "https://a.test/a.wav")
	w.Key = "k"
	first := r.submit(t, w)
	r.reach(t, "b.test")
	if j, joined, err := r.Submit(t.Context(), w); err != nil || !joined || j.ID != first.ID {
		t.Errorf("%+v, %v, %v", j, joined, err)
	}
	for _, change := range []func(*Wish){func(w *Wish) { w.Key = "other" }, func(w *Wish) { w.Key = "" }, func(w *Wish) { w.URL += "?b" }} {
		other := w
		change(&other)
		_, _, err := r.Submit(t.Context(), other)
		wantFault(t, err, fault.Forbidden, "host_not_allowed")
	}
}

// TestFailedWriteFetchesOnce: the recording of a job that could not be noted with it
// is fetched once, and left to the sweep: the write may have been done all the same.
func TestFailedWriteFetchesOnce(t *testing.T) {
	var asked atomic.Int64
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, "3")
	})
	r := newRig(t).reach(t, hostOf(srv))
	j := r.submit(t, r.from(t, srv.URL+"/a.wav"))
	r.exec(t, "CREATE TRIGGER refuse BEFORE UPDATE OF media ON jobs BEGIN SELECT RAISE(ABORT, 'no'); END")
	r.start(t)
	r.await(t, j.ID, job.Failed)
	if asked.Load() != 1 || r.recordings(t) != 1 {
		t.Errorf("asked %d times, %d recordings are left", asked.Load(), r.recordings(t))
	}
}

// TestWake: who has waited fetches again when there is a place, and goes all the
// same where nobody waits for it any more.
func TestWake(t *testing.T) {
	p := &places{ended: make(chan struct{}, 1), fetching: fetchesAtOnce, resting: 2}
	back := make(chan bool)
	go func() {
		(&place{in: p, away: true}).wake(t.Context())
		back <- true
	}()
	gone, leave := context.WithCancel(t.Context())
	leave()
	(&place{in: p, away: true}).wake(gone)
	if p.fetches(0, 0); p.fetching != fetchesAtOnce+1 || p.resting != 1 {
		t.Errorf("%d fetch, %d wait", p.fetching, p.resting)
	}
	select {
	case <-back:
		t.Error("it fetches without a place")
	default:
	}
	p.fetches(-2, 0)
	if <-back; p.fetching != fetchesAtOnce || p.resting != 0 {
		t.Errorf("%d fetch, %d wait", p.fetching, p.resting)
	}
}
