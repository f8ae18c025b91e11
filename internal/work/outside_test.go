package work

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/webhook"
)

// outsideSecret is what webhooks are signed with.
const outsideSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

// reach lets a desk fetch from and tell servers of the test's.
func (r *rig) reach(t *testing.T, hosts ...string) *rig {
	t.Helper()
	secret := filepath.Join(r.dir, "secret")
	if err := os.WriteFile(secret, []byte(outsideSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	places := func(field string) *outbound.Places {
		return &outbound.Places{Field: field, Redirects: 1, Hosts: func() []string { return hosts },
			Networks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }}
	}
	r.From = places("url")
	r.Webhooks = &webhook.Sender{Places: places("webhook"), Secret: func() string { return secret }}
	r.Event = func(j job.Job) ([]byte, error) {
		return json.Marshal(map[string]string{"id": j.ID, "state": string(j.State)})
	}
	return r
}

// outside is a server that the desk goes to.
func outside(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func hostOf(srv *httptest.Server) string { return srv.Listener.Addr().String() }

// from is a wish for a recording that is elsewhere.
func (r *rig) from(t *testing.T, url string) Wish {
	t.Helper()
	w := r.wish(t, "a", "")
	w.Job.Audio, w.Job.Name, w.URL = nil, NameOf(url), url
	return w
}

// TestJobFromURL comes to the same text as one that was sent.
func TestJobFromURL(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "345") })
	r := newRig(t).reach(t, hostOf(srv))
	want, err := r.Service.Run(t.Context(), r.wish(t, "a", "345").Job, ignore)
	if err != nil {
		t.Fatal(err)
	}
	j := r.submit(t, r.from(t, srv.URL+"/talks/one.wav?token=1"))
	if j.Name != "one.wav" || j.Bytes != 0 || j.Media != "" || r.recordings(t) != 0 {
		t.Errorf("submitted: %+v", j)
	}
	r.start(t)
	got, err := r.Attend(t.Context(), j.ID, ignore)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	eventually(t, "the recording being removed", func() bool { return r.recordings(t) == 0 })
	if j := r.await(t, j.ID, job.Done); j.Bytes != 3 || len(j.MediaSHA256) != 64 || j.Media != "" {
		t.Errorf("done: %+v", j)
	}
}

// TestURLsThatFail: what is the sender's mistake fails the job at once, with words.
func TestURLsThatFail(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			io.WriteString(w, "3456789")
		case "/away":
			http.Redirect(w, r, "http://127.0.0.2:1/", http.StatusFound)
		case "/bad":
			io.WriteString(w, "!")
		case "/empty":
		default:
			http.NotFound(w, r)
		}
	})
	r := newRig(t).reach(t, hostOf(srv))
	r.Largest = func() int64 { return 5 }
	r.start(t)
	for path, code := range map[string]string{
		"/none": "url_refused", "/large": "url_too_large", "/away": "redirect_not_allowed", "/empty": "empty_url", "/bad": "undecodable",
	} {
		j := r.submit(t, r.from(t, srv.URL+path))
		if j = r.await(t, j.ID, job.Failed); j.Failure.Code != code || j.Attempts != 1 {
			t.Errorf("%s: %+v", path, j.Failure)
		}
		if err := r.Delete(t.Context(), j.ID); err != nil {
			t.Error(err)
		}
	}
	if n := r.recordings(t); n != 0 {
		t.Errorf("%d recordings are left", n)
	}
	_, _, err := r.Submit(t.Context(), r.from(t, "https://elsewhere.test/a.wav"))
	wantFault(t, err, fault.Forbidden, "host_not_allowed")
	w := r.wish(t, "a", "3")
	w.Webhook = "https://elsewhere.test/"
	_, _, err = r.Submit(t.Context(), w)
	wantFault(t, err, fault.Forbidden, "host_not_allowed")
	_, err = r.Await(w, 3)
	wantFault(t, err, fault.Forbidden, "host_not_allowed")
	r.From, r.Webhooks = nil, nil
	_, _, err = r.Submit(t.Context(), w)
	wantFault(t, err, fault.Forbidden, "outbound_off")
	_, _, err = r.Submit(t.Context(), r.from(t, srv.URL))
	wantFault(t, err, fault.Forbidden, "outbound_off")
}

// TestURLThatComesLater: a server that is away for a moment fails no job.
func TestURLThatComesLater(t *testing.T) {
	var asked atomic.Int64
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "3")
	})
	r := newRig(t).reach(t, hostOf(srv)).start(t)
	j := r.submit(t, r.from(t, srv.URL+"/a.wav"))
	eventually(t, "the job being held up", func() bool {
		p, here := r.Progress(j.ID)
		return here && strings.Contains(p.Held, "503")
	})
	r.await(t, j.ID, job.Done)
	if n := asked.Load(); n != 2 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestFetchesOnce: a job whose recording is here goes on without asking for it
// again; one that was interrupted before asks anew.
func TestFetchesOnce(t *testing.T) {
	var asked atomic.Int64
	half, release := make(chan bool), make(chan bool)
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "3")
		io.WriteString(w, "3")
		if asked.Add(1) == 1 {
			w.(http.Flusher).Flush()
			close(half)
			<-release
			return
		}
		io.WriteString(w, "45")
	})
	defer close(release)
	r := newRig(t).reach(t, hostOf(srv))
	j := r.submit(t, r.from(t, srv.URL+"/a.wav"))
	r.start(t)
	<-half
	eventually(t, "the progress of a fetch", func() bool {
		p, _ := r.Progress(j.ID)
		return p.Update.Phase == Fetching && p.Fetched == 1 && p.Size == 3
	})
	r.end()
	if j := r.await(t, j.ID, job.Queued); j.Media != "" || r.recordings(t) != 0 {
		t.Errorf("half of a recording was kept: %+v", j)
	}
	second := rigIn(t, r.dir).reach(t, hostOf(srv))
	reached := make(chan bool)
	second.engine.hold = holdAt(1, reached)
	second.start(t)
	<-reached
	second.end()
	if j := r.await(t, j.ID, job.Queued); j.Media == "" || j.WindowsDone != 1 || r.recordings(t) != 1 {
		t.Errorf("after a window: %+v", j)
	}
	if err := second.sweep(t.Context(), must(second.Store.Media(t.Context()))); err != nil || r.recordings(t) != 1 {
		t.Errorf("the recording was swept: %v", err)
	}
	third := rigIn(t, r.dir).start(t) // goes nowhere
	if j := third.await(t, j.ID, job.Done); j.Attempts != 3 || asked.Load() != 2 || third.engine.windows() != 2 {
		t.Errorf("%+v; asked %d times, %d windows", j, asked.Load(), third.engine.windows())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestSlowServerHoldsNobodyUp: jobs whose recordings are here are done while those
// of a server that does not answer fill every place for fetching.
func TestSlowServerHoldsNobodyUp(t *testing.T) {
	var asked atomic.Int64
	release := make(chan bool)
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-release:
			io.WriteString(w, "3")
		case <-r.Context().Done():
		}
	})
	r := newRig(t).reach(t, hostOf(srv))
	r.AtOnce = func() int { return 1 }
	var slow []string
	for range fetchesAtOnce {
		for _, owner := range []string{"a", "b"} {
			w := r.from(t, srv.URL+"/a.wav")
			w.Job.Owner = owner
			slow = append(slow, r.submit(t, w).ID)
		}
	}
	r.start(t)
	eventually(t, "as many fetches as there may be", func() bool { return asked.Load() == fetchesAtOnce })
	for range 2 {
		r.await(t, r.submit(t, r.wish(t, "b", "3")).ID, job.Done)
	}
	if n := asked.Load(); n != fetchesAtOnce {
		t.Errorf("%d fetches at once", n)
	}
	close(release)
	for _, id := range slow {
		r.await(t, id, job.Done)
	}
}

// TestCancelWhileFetching ends the transfer.
func TestCancelWhileFetching(t *testing.T) {
	reached, gone := make(chan bool), make(chan bool)
	srv := outside(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(reached)
		<-r.Context().Done()
		close(gone)
	})
	r := newRig(t).reach(t, hostOf(srv)).start(t)
	j := r.submit(t, r.from(t, srv.URL+"/a.wav"))
	<-reached
	if _, err := r.Cancel(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	r.await(t, j.ID, job.Canceled)
	<-gone
}

// TestRoomForWhatIsFetched: recordings of jobs that have failed go for it.
func TestRoomForWhatIsFetched(t *testing.T) {
	srv := outside(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "345") })
	r := newRig(t).reach(t, hostOf(srv))
	r.Limits = func() job.Limits { return job.Limits{Bytes: 4} }
	r.start(t)
	old := r.submit(t, r.wish(t, "a", "3!"))
	r.await(t, old.ID, job.Failed)
	r.await(t, r.submit(t, r.from(t, srv.URL+"/a.wav")).ID, job.Done)
	_, err := r.Store.Get(t.Context(), old.ID)
	wantFault(t, err, fault.NotFound, "unknown_job")
}

// TestKeyWithURL: the same again is the same job, and another place is another one.
func TestKeyWithURL(t *testing.T) {
	r := newRig(t).reach(t, "a.test")
	w := r.from(t, "https://a.test/a.wav")
	w.Key = "k"
	first := r.submit(t, w)
	j, joined, err := r.Submit(t.Context(), w)
	if err != nil || !joined || j.ID != first.ID {
		t.Errorf("%+v, %v, %v", j, joined, err)
	}
	for _, change := range []func(*Wish){
		func(w *Wish) { w.URL += "?b" }, func(w *Wish) { w.Webhook = "https://a.test/" }, func(w *Wish) { w.Job.Asked = "other" },
	} {
		other := w
		change(&other)
		_, _, err := r.Submit(t.Context(), other)
		wantFault(t, err, fault.Conflict, "idempotency_key_reused")
	}
}

// childVariable and hostVariable have a process of this test do the jobs in a
// directory, until it is killed.
const (
	childVariable = "WA_TEST_WORK_CHILD"
	hostVariable  = "WA_TEST_WORK_HOST"
)

// TestChild is that process.
func TestChild(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		rigIn(t, dir).reach(t, os.Getenv(hostVariable)).start(t)
		<-t.Context().Done() // it is killed before
	}
}

// child starts it, and gives what kills it.
func child(t *testing.T, dir, host string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+dir, hostVariable+"="+host)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			errors.Join(cmd.Process.Kill(), cmd.Wait()) //nolint:errcheck // it was killed
		}
	}
	t.Cleanup(kill)
	return kill
}

// TestKilled: a process is killed while it fetches, and while it tells; the next
// one does both anew, and the receiver knows the message again.
func TestKilled(t *testing.T) {
	half := make(chan bool, 1)
	var asked atomic.Int64
	to := newReceiver(t)
	mux := http.NewServeMux()
	mux.Handle("/hook", to.Config.Handler)
	mux.HandleFunc("/talk.wav", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "3")
		if asked.Add(1) == 1 {
			w.(http.Flusher).Flush()
			half <- true
			<-r.Context().Done()
			return
		}
		io.WriteString(w, "4")
	})
	srv := outside(t, mux.ServeHTTP)
	r := newRig(t).reach(t, hostOf(srv))
	w := r.from(t, srv.URL+"/talk.wav")
	w.Webhook = srv.URL + "/hook"
	j := r.submit(t, w)
	kill := child(t, r.dir, hostOf(srv))
	<-half
	kill()
	kill = child(t, r.dir, hostOf(srv))
	first := <-to.got
	kill()
	to.left(t)
	if j := r.await(t, j.ID, job.Done); j.Attempts != 2 || j.WindowsDone != 2 {
		t.Errorf("done: %+v", j)
	}
	child(t, r.dir, hostOf(srv))
	to.answer <- http.StatusOK
	if again := <-to.got; again.Get("webhook-id") != first.Get("webhook-id") {
		t.Errorf("another message: %v", again)
	}
	if v := r.telling(t, j.ID, job.Delivered); v.Attempts != 2 {
		t.Errorf("delivered: %+v", v)
	}
	var result transcript.Transcript
	if err := json.Unmarshal(must(r.Store.Get(t.Context(), j.ID)).Result, &result); err != nil || len(result.Segments) != 2 || asked.Load() != 2 {
		t.Errorf("%+v, %v; asked %d times", result, err, asked.Load())
	}
}

// holdAt has an engine decode n windows, tell so and do no more.
func holdAt(n int, reached chan<- bool) func(context.Context, int) error {
	return func(ctx context.Context, i int) error {
		if i < n {
			return nil
		}
		close(reached)
		<-ctx.Done()
		return context.Cause(ctx)
	}
}
