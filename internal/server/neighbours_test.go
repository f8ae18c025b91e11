package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humahttprouter"
	"github.com/julienschmidt/httprouter"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/work"
)

// inMemory is a request from an address, answered in memory.
func inMemory(t *testing.T, h http.Handler, from, method, path string, body io.Reader, headers ...string) answered {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, body)
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return read(w.Result())
}

// TestNeighbours: who has another address of the same network has other jobs and
// other keys.
func TestNeighbours(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	h := r.Handler()
	const one, other, link0, link1 = "[fd00::a]:1", "[fd00::b]:1", "[fe80::a%eth0]:1", "[fe80::a%eth1]:1"
	submit := func(from string) api.Job {
		body, kind := encode(recording("file"))
		a := inMemory(t, h, from, "POST", "/api/v1/jobs", strings.NewReader(body), "Content-Type", kind, "Idempotency-Key", "k")
		a.want(t, http.StatusAccepted)
		return decoded[api.Job](t, a)
	}
	seen := map[string]string{}
	for _, from := range []string{one, other, link0, link1} {
		j := submit(from)
		if by := seen[j.ID]; by != "" {
			t.Errorf("%s gets the job of %s", from, by)
		}
		if seen[j.ID] = from; submit(from).ID != j.ID {
			t.Errorf("%s does not get its own job again", from)
		}
		eventually(t, "the job being done", func() bool {
			return decoded[api.Job](t, inMemory(t, h, from, "GET", "/api/v1/jobs/"+j.ID, nil)).State == "done"
		})
	}
	for id, from := range seen {
		for _, who := range []string{one, other, link0, link1} {
			if who == from {
				continue
			}
			for path, method := range map[string]string{"": "GET", "/transcript": "GET", "/events": "GET", "/cancel": "POST", "/retry": "POST"} {
				theirs := inMemory(t, h, who, method, "/api/v1/jobs/"+id+path, nil)
				theirs.want(t, 404, "unknown_job")
				if nobodys := inMemory(t, h, who, method, "/api/v1/jobs/nobodys"+path, nil); strings.ReplaceAll(nobodys.body, "nobodys", id) != theirs.body {
					t.Errorf("another's job is told apart: %s, %s", theirs.body, nobodys.body)
				}
			}
			inMemory(t, h, who, "DELETE", "/api/v1/jobs/"+id, nil).want(t, 404, "unknown_job")
		}
		inMemory(t, h, from, "GET", "/api/v1/jobs", nil).want(t, 200, id)
		inMemory(t, h, from, "DELETE", "/api/v1/jobs/"+id, nil).want(t, 204)
	}
}

// TestNeighboursShare: of places that are divided they have one share.
func TestNeighboursShare(t *testing.T) {
	r := newRig(t, talks)
	r.Service.Queue = &schedule.Queue{OwnersMost: func() int { return 1 }}
	leave, err := r.Service.Queue.Enter("addr:fd00::")
	if err != nil {
		t.Fatal(err)
	}
	body, kind := encode(recording("file"))
	h := r.Handler()
	send := func(from string) answered {
		return inMemory(t, h, from, "POST", "/v1/audio/transcriptions", strings.NewReader(body), "Content-Type", kind)
	}
	send("[fd00::a]:1").want(t, 429, "queue_full_for_you")
	send("[fd00:0:0:1::a]:1").want(t, 200)
	leave()
	send("[fd00::b]:1").want(t, 200)
}

func TestLongName(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	a := post(t, srv.URL+"/api/v1/jobs", part{"file", "x" + strings.Repeat("ä", 10000), "a recording"})
	a.want(t, 202)
	j := decoded[api.Job](t, a)
	if len(j.Name) != 255 || !utf8.ValidString(j.Name) || !strings.HasPrefix(j.Name, "xää") {
		t.Errorf("a name of %d bytes: %.40q", len(j.Name), j.Name)
	}
	if b := post(t, srv.URL+"/asr", part{"audio_file", strings.Repeat("日", 10000), "a recording"}); b.status != 200 || len(b.header.Get("Content-Disposition")) > 1000 {
		t.Errorf("%d, a header of %d bytes", b.status, len(b.header.Get("Content-Disposition")))
	}
	jobState(t, srv.URL+a.header.Get("Location"), "done")
}

// untouched is a body that nobody should read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// bounded gives the rig a desk that keeps so many bytes.
func (r *rig) bounded(bytes int64) {
	was := r.Desk()
	desk := &work.Desk{Store: was.Store, Service: was.Service, Self: was.Self, Dir: was.Dir, Proc: was.Proc, Log: was.Log,
		Limits: func() job.Limits { return job.Limits{Bytes: bytes} }}
	r.Desk = func() *work.Desk { return desk }
}

// TestRefusedUnread: what cannot become a job is refused before it is sent.
func TestRefusedUnread(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	r.bounded(1 << 20)
	full := false
	r.Free = func(dir string) (int64, error) {
		if full && dir == r.Desk().Dir {
			return 1 << 19, nil
		}
		return 1 << 40, nil
	}
	h := r.Handler()
	for _, c := range []struct {
		path, key    string
		length       int64
		full         bool
		status       int
		code, saying string
	}{
		{"/api/v1/jobs", strings.Repeat("k", 256), -1, false, 400, "bad_idempotency_key", "255"},
		{"/v1/audio/transcriptions", strings.Repeat("k", 256), -1, false, 400, "bad_idempotency_key", "255"},
		{"/api/v1/jobs", "", 1 << 30, false, 413, "too_large_for_jobs", "[jobs] disk"},
		{"/v1/audio/transcriptions", "k", 1 << 30, false, 413, "too_large_for_jobs", "[jobs] disk"},
		{"/api/v1/jobs", "", 1 << 20, true, 507, "disk_full", "directory of [jobs]"},
		{"/inference", "k", 1 << 20, true, 507, "disk_full", "directory of [jobs]"},
	} {
		full = c.full
		req := httptest.NewRequestWithContext(t.Context(), "POST", c.path, untouched{t})
		req.RemoteAddr, req.ContentLength = "127.0.0.1:1", c.length
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		if c.key != "" {
			req.Header.Set("Idempotency-Key", c.key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if a := read(w.Result()); a.header.Get("Connection") != "close" {
			t.Errorf("%s: the body is waited for", c.path)
		} else {
			a.want(t, c.status, c.code, c.saying)
		}
	}
	full = true
	srv := r.start(t)
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 200, whole) // is not kept
	full = false
	r.bounded(5)
	a := post(t, srv.URL+"/api/v1/jobs", recording("file"))
	a.want(t, 413, "too_large_for_jobs")
	if strings.Contains(a.body, "wait until") {
		t.Errorf("told to wait: %s", a.body)
	}
}

// TestKeyTellsHowSure: a request with a key says what one without says, also
// when it is sent again.
func TestKeyTellsHowSure(t *testing.T) {
	r := newRig(t, speaks("de", 0.96875)).withDesk(t)
	srv := r.start(t)
	for path, c := range map[string]struct {
		field string
		more  []part
	}{
		"/detect-language": {field: "audio_file"},
		"/inference":       {field: "file", more: []part{{name: "response_format", value: "verbose_json"}}},
	} {
		parts := append([]part{recording(c.field)}, c.more...)
		plain := post(t, srv.URL+path, parts...)
		plain.want(t, 200, "0.96875")
		for range 2 {
			body, kind := encode(parts...)
			a := do(t, "POST", srv.URL+path, strings.NewReader(body), "Content-Type", kind, "Idempotency-Key", path)
			if a.want(t, 200); a.body != plain.body {
				t.Errorf("%s with a key: %s\nwithout %s", path, a.body, plain.body)
			}
		}
	}
}

// TestFollowing: one caller follows so many jobs, whatever the updates' page has
// open; a HEAD follows none.
func TestFollowing(t *testing.T) {
	r, _ := updating(t)
	hold := make(chan bool)
	r.engine.answer = heldBy(hold)
	r.withDesk(t)
	srv := r.start(t)
	at := srv.URL + post(t, srv.URL+"/api/v1/jobs", recording("file")).header.Get("Location")
	for _, path := range []string{at + "/events", srv.URL + "/api/v1/updates/events"} {
		if a := do(t, "HEAD", path, nil); a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD: %d %v", a.status, a.header)
		}
	}
	var leave []func()
	for range followsOfOne {
		l, err := r.follows.enter("addr:127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	a := do(t, "GET", at+"/events", nil)
	a.want(t, 429, "too_many_streams", "16 jobs", "GET /api/v1/jobs/ID")
	if a.header.Get("Retry-After") == "" || strings.Contains(a.body, "updates") {
		t.Errorf("%v %s", a.header, a.body)
	}
	if l, err := r.follows.enter("key:other"); err != nil {
		t.Errorf("another caller: %v", err)
	} else {
		l()
	}
	if r.watching.streams != 0 {
		t.Errorf("%d streams of updates are counted", r.watching.streams)
	}
	for _, l := range leave {
		l()
	}
	if len(r.follows.by) != 0 {
		t.Errorf("left: %v", r.follows.by)
	}
	close(hold)
	do(t, "GET", at+"/events", nil).want(t, 200, "event: done\n")
}

// TestTypedDoorSaysWhen: what is refused for its number says when to come again.
func TestTypedDoorSaysWhen(t *testing.T) {
	r := newRig(t, talks)
	h := r.typedDoor(func() error { return fault.New(fault.Busy, "busy", "too many") })
	if a := inMemory(t, h, "127.0.0.1:1", "GET", "/x", nil); a.status != 429 || a.header.Get("Retry-After") != "10" {
		t.Errorf("%d %v", a.status, a.header)
	}
	h = r.typedDoor(func() error { return fault.New(fault.NotFound, "none", "none") })
	if a := inMemory(t, h, "127.0.0.1:1", "GET", "/x", nil); a.status != 404 || a.header.Get("Retry-After") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// TestJudgedOnce: a door knows what was granted, and whether its caller
// administers.
func TestJudgedOnce(t *testing.T) {
	r := newRig(t, talks)
	for key, admin := range map[string]bool{"": false, "wa_user": false, "wa_admin": true} {
		var got auth.Access
		h := r.streamDoor(func(_ http.ResponseWriter, req *http.Request) error {
			got = accessOf(req.Context())
			return nil
		})
		headers := []string{}
		if key != "" {
			headers = []string{"Authorization", "Bearer " + key}
		}
		inMemory(t, h, "127.0.0.1:1", "GET", "/x", nil, headers...).want(t, 200)
		if got.Admin != admin || !got.Addr.IsValid() {
			t.Errorf("%q: %+v", key, got)
		}
	}
}

// TestSegmentOnTheWire: the keys are what clients know.
func TestSegmentOnTheWire(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	const keys = `{"start_ns":0,"end_ns":2000000000,"text":" Part 0, äöü.","words":[{"start_ns":0,"end_ns":1000000000,"text":" Part 0, äöü.","prob":0.5}],` +
		`"tokens":[1],"avg_logprob":-0.25,"no_speech_prob":0,"compression_ratio":`
	post(t, srv.URL+"/api/v1/transcriptions", recording("file"), part{name: "words", value: "yes"}).want(t, 200, "event: segment\ndata: "+keys)
	at := srv.URL + post(t, srv.URL+"/api/v1/jobs", recording("file")).header.Get("Location")
	jobState(t, at, "done")
	do(t, "GET", at, nil).want(t, 200, keys)
	do(t, "GET", at+"/events", nil).want(t, 200, "data: "+keys)
	r.Service.Decoder = toneDecoder{sound(-5)}
	at = srv.URL + post(t, srv.URL+"/api/v1/jobs", recording("file")).header.Get("Location")
	jobState(t, at, "done")
	do(t, "GET", at, nil).want(t, 200, `"segments":[]`)
}

// doorsOf is a router with doors of its own.
func (r *rig) doorsOf() (doors, http.Handler) {
	r.meter()
	setHumaError()
	router := httprouter.New()
	return doors{s: r.Server, api: humahttprouter.New(router, huma.DefaultConfig("test", "1"))}, router
}

// typedDoor is one at /x that fails as h says.
func (r *rig) typedDoor(h func() error) http.Handler {
	d, router := r.doorsOf()
	typed(d, needNothing, huma.Operation{Method: http.MethodGet, Path: "/x", OperationID: "x"},
		func(context.Context, *struct{}) (*struct{}, error) { return nil, h() })
	return router
}

// streamDoor is one at /x for whom may transcribe.
func (r *rig) streamDoor(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	d, router := r.doorsOf()
	d.stream(auth.Transcribe, huma.Operation{Method: http.MethodGet, Path: "/x", OperationID: "x"}, h)
	return router
}

// heldBy talks once hold is closed.
func heldBy(hold chan bool) engineFunc {
	return func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		select {
		case <-hold:
			return talks(ctx, n, req, observe)
		case <-ctx.Done():
			return engine.Done{}, context.Cause(ctx)
		}
	}
}
