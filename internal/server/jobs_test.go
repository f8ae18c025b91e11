package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/database"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/work"
)

// withDesk gives the rig jobs, on a desk that is set up so.
func (r *rig) withDesk(t *testing.T, set ...func(*work.Desk)) *rig {
	t.Helper()
	dir := t.TempDir()
	db, err := database.Open(t.Context(), database.Options{File: filepath.Join(dir, "jobs.db")})
	if err != nil {
		t.Fatal(err)
	}
	recordings, uploads := filepath.Join(dir, "recordings"), filepath.Join(dir, "uploads")
	for _, d := range []string{recordings, uploads} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	desk := &work.Desk{
		Store: job.NewStore(db, job.Options{}), Service: r.Service, Self: job.NewWorker("test"), Dir: recordings,
		Inbox: &inbox.Inbox{Dir: uploads, Log: r.Log, Free: func(string) (int64, error) { return 8 << 30, nil }},
		Proc:  string(filepath.Separator) + "proc", Log: r.Log,
	}
	for _, f := range set {
		f(desk)
	}
	r.Desk = func() *work.Desk { return desk }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- desk.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantOnlyJobs(t, desk)
		db.Close()
	})
	return r
}

// wantOnlyJobs checks that there are no recordings but those of jobs that may
// need them still.
func wantOnlyJobs(t *testing.T, desk *work.Desk) {
	t.Helper()
	eventually(t, "the recordings without a job being removed", func() bool {
		left, err := os.ReadDir(desk.Dir)
		known, storeErr := desk.Store.Media(context.Background())
		return err == nil && storeErr == nil && len(left) == len(known)
	})
}

func decoded[T any](t *testing.T, a answered) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// jobState waits until a job is in a state.
func jobState(t *testing.T, url, state string, headers ...string) api.JobDetail {
	t.Helper()
	var j api.JobDetail
	eventually(t, "the job being "+state, func() bool {
		j = decoded[api.JobDetail](t, do(t, "GET", url, nil, headers...))
		return j.State == state
	})
	return j
}

func TestJob(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	a := post(t, srv.URL+"/api/v1/jobs", recording("file"))
	a.want(t, http.StatusAccepted, `"state":"queued"`, `"priority":"normal"`)
	at := srv.URL + a.header.Get("Location")
	accepted := decoded[api.Job](t, a)
	if !strings.HasSuffix(at, "/api/v1/jobs/"+accepted.ID) {
		t.Errorf("Location %s of %s", at, accepted.ID)
	}
	j := jobState(t, at, "done")
	if j.Text != whole || len(j.Segments) != 3 || j.Percent != 100 || j.Language != "de" || j.Model != "tiny" || j.Ended.IsZero() {
		t.Errorf("done: %+v", j)
	}
	do(t, "GET", at+"/transcript", nil).want(t, 200, whole)
	do(t, "GET", at+"/transcript?format=srt", nil).want(t, 200, "00:00:00,000 --> ", "Part 2, äöü.")
	do(t, "GET", at+"/transcript?format=x", nil).want(t, 400, "unknown_format", `"field":"format"`)
	do(t, "GET", at+"/events", nil).want(t, 200, "event: job\n", `"state":"done"`, "id: 1\nevent: segment\n", "id: 3\n", "event: done\n", whole)
	tail := do(t, "GET", at+"/events", nil, "Last-Event-ID", "2")
	if tail.want(t, 200, "id: 3\n", "event: done\n"); strings.Contains(tail.body, "id: 2\n") {
		t.Errorf("what the client has is sent again: %s", tail.body)
	}
	do(t, "POST", at+"/cancel", nil).want(t, 409, "job_ended")
	do(t, "POST", at+"/retry", nil).want(t, 409, "job_done")
	list := decoded[api.JobList](t, do(t, "GET", srv.URL+"/api/v1/jobs?state=done", nil))
	if len(list.Jobs) != 1 || list.Jobs[0].ID != accepted.ID || list.Next != "" {
		t.Errorf("list: %+v", list)
	}
	do(t, "DELETE", at, nil).want(t, 204)
	do(t, "GET", at, nil).want(t, 404, "unknown_job")
	do(t, "GET", at+"/events", nil).want(t, 404, "unknown_job")
}

// TestJobUnderWay shows, follows and stops a job that runs, beside one that waits.
func TestJobUnderWay(t *testing.T) {
	reached, release := make(chan bool, 9), make(chan bool)
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		if n == 1 {
			reached <- true
			select {
			case <-release:
			case <-ctx.Done():
				return engine.Done{}, context.Cause(ctx)
			}
		}
		return talks(ctx, n, req, observe)
	}).withDesk(t, func(d *work.Desk) { d.AtOnce = func() int { return 1 } })
	srv := r.start(t)
	first := srv.URL + post(t, srv.URL+"/api/v1/jobs", recording("file")).header.Get("Location")
	<-reached
	a := post(t, srv.URL+"/api/v1/jobs", recording("file"), part{name: "priority", value: "background"}, part{name: "deadline", value: "1h"})
	a.want(t, 202, `"priority":"background"`, `"ahead":0`)
	second := srv.URL + a.header.Get("Location")
	j := jobState(t, first, "running")
	if j.Text != "Part 0, äöü." || j.Done <= 0 || j.Percent <= 0 || j.Percent >= 100 || j.Phase != "recognising" {
		t.Errorf("running: %+v", j)
	}
	do(t, "GET", first+"/transcript", nil).want(t, 409, "job_not_done", "wait for it")
	do(t, "DELETE", first, nil).want(t, 409, "job_running")
	events := make(chan answered)
	go func() { events <- do(t, "GET", first+"/events", nil) }()
	do(t, "POST", first+"/cancel", nil).want(t, 200)
	jobState(t, first, "canceled")
	(<-events).want(t, 200, "event: error\n", "canceled")
	if a := do(t, "GET", first+"/transcript", nil); strings.Contains(a.body, "wait for it") {
		t.Errorf("nothing will come of it: %s", a.body)
	} else {
		a.want(t, 409, "job_not_done", "canceled", "/retry")
	}
	jobState(t, second, "done")
	close(release)
	do(t, "POST", first+"/retry", nil).want(t, 200, `"state":"queued"`)
	if j := jobState(t, first, "done"); j.Attempts != 2 || len(j.Segments) != 3 {
		t.Errorf("again: %+v", j)
	}
}

// TestJobsOfOthers are not there, but for administrators.
func TestJobsOfOthers(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	body, kind := encode(recording("file"))
	mine := do(t, "POST", srv.URL+"/api/v1/jobs", strings.NewReader(body), "Content-Type", kind, "Authorization", "Bearer wa_user")
	at := srv.URL + mine.header.Get("Location")
	jobState(t, at, "done", "Authorization", "Bearer wa_user")
	for path, method := range map[string]string{"": "GET", "/transcript": "GET", "/events": "GET", "/cancel": "POST", "/retry": "POST"} {
		do(t, method, at+path, nil).want(t, 404, "unknown_job")
	}
	do(t, "DELETE", at, nil).want(t, 404, "unknown_job")
	do(t, "GET", srv.URL+"/api/v1/jobs?all=true", nil).want(t, 403, "insufficient_scope")
	if list := decoded[api.JobList](t, do(t, "GET", srv.URL+"/api/v1/jobs", nil)); len(list.Jobs) != 0 {
		t.Errorf("others' jobs are listed: %+v", list)
	}
	for _, key := range []string{"wa_user", "wa_admin"} {
		do(t, "GET", at, nil, "Authorization", "Bearer "+key).want(t, 200, "key:user")
	}
	do(t, "GET", srv.URL+"/api/v1/jobs?all=true", nil, "Authorization", "Bearer wa_admin").want(t, 200, "key:user")
}

func TestJobPages(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	for range 5 {
		jobState(t, srv.URL+post(t, srv.URL+"/api/v1/jobs", recording("file")).header.Get("Location"), "done")
	}
	seen := map[string]bool{}
	pages := 0
	for next := ""; pages == 0 || next != ""; pages++ {
		list := decoded[api.JobList](t, do(t, "GET", srv.URL+"/api/v1/jobs?limit=2&before="+next, nil))
		for _, j := range list.Jobs {
			seen[j.ID] = true
		}
		next = list.Next
	}
	if len(seen) != 5 || pages != 3 {
		t.Errorf("%d jobs on %d pages, want 5 on 3", len(seen), pages)
	}
}

// TestBadJobs: what cannot be done is refused before it is a job.
func TestBadJobs(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	for _, c := range []struct {
		field, value, code string
	}{
		{"priority", "high", "priority is"},
		{"deadline", "yesterday", "deadline is"},
		{"deadline", "2001-01-01T00:00:00Z", "deadline is"},
		{"deadline", "-5m", "deadline is"},
		{"words", "maybe", "words is"},
		{"task", "sing", "task is"},
		{"temperature", "7", "temperature is"},
		{"stream", "true", "unknown_field"},
	} {
		post(t, srv.URL+"/api/v1/jobs", recording("file"), part{name: c.field, value: c.value}).want(t, 400, c.code)
	}
	post(t, srv.URL+"/api/v1/jobs", recording("file"), part{name: "model", value: "unknown-model"}).want(t, 404, "model_not_found")
	for _, path := range []string{"?state=odd", "?limit=0", "?limit=x"} {
		do(t, "GET", srv.URL+"/api/v1/jobs"+path, nil).want(t, 422)
	}
	if list := decoded[api.JobList](t, do(t, "GET", srv.URL+"/api/v1/jobs", nil)); len(list.Jobs) != 0 {
		t.Errorf("jobs were made: %+v", list)
	}
	bad := post(t, srv.URL+"/api/v1/jobs", part{name: "file", file: "a.wav", value: "bad"})
	at := srv.URL + bad.header.Get("Location")
	if j := jobState(t, at, "failed"); j.Error == nil || j.Error.Hint == "" {
		t.Errorf("failed: %+v", j)
	}
	do(t, "GET", at+"/events", nil).want(t, 200, "event: error\n", "not sound")
	do(t, "DELETE", at, nil).want(t, 204)
	r.Desk = nil
	post(t, srv.URL+"/api/v1/jobs", recording("file")).want(t, 503, "no_database", "/v1/audio/transcriptions")
	do(t, "GET", srv.URL+"/api/v1/jobs", nil).want(t, 503, "no_database")
}

// TestIdempotencyKey: a request that is sent again with its key is one job, at
// every door that transcribes.
func TestIdempotencyKey(t *testing.T) {
	var windows atomic.Int32
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		windows.Add(1)
		return talks(ctx, n, req, observe)
	}).withDesk(t)
	srv := r.start(t)
	for i, path := range []string{"/v1/audio/transcriptions", "/api/v1/jobs"} {
		windows.Store(0)
		var locations []string
		for range 3 {
			body, kind := encode(recording("file"))
			a := do(t, "POST", srv.URL+path, strings.NewReader(body), "Content-Type", kind, "Idempotency-Key", fmt.Sprint("key ", i))
			if a.status != 200 && a.status != 202 {
				t.Fatalf("%s: %d %s", path, a.status, a.body)
			}
			if locations = append(locations, a.header.Get("Location")); a.status == 202 {
				jobState(t, srv.URL+locations[0], "done")
			}
		}
		if n := windows.Load(); n != 3 || locations[0] != locations[2] {
			t.Errorf("%s: %d windows, jobs %v", path, n, locations)
		}
		body, kind := encode(recording("file"), part{name: "prompt", value: "another"})
		do(t, "POST", srv.URL+path, strings.NewReader(body), "Content-Type", kind, "Idempotency-Key", fmt.Sprint("key ", i)).
			want(t, 409, "idempotency_key_reused")
	}
}
