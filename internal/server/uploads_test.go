package server

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/work"
)

// tus sends a request of the protocol; headers come by name and value, "" leaves one out.
func tus(t *testing.T, method, url string, body io.Reader, headers ...string) answered {
	t.Helper()
	all := map[string]string{"Tus-Resumable": "1.0.0"}
	if method == "PATCH" {
		all["Content-Type"] = "application/offset+octet-stream"
	}
	for i := 0; i < len(headers); i += 2 {
		all[headers[i]] = headers[i+1]
	}
	var flat []string
	for name, value := range all {
		if value != "" {
			flat = append(flat, name, value)
		}
	}
	return do(t, method, url, body, flat...)
}

// meta is Upload-Metadata of names and values.
func meta(pairs ...string) string {
	var all []string
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, pairs[i]+" "+base64.StdEncoding.EncodeToString([]byte(pairs[i+1])))
	}
	return strings.Join(all, ", ")
}

// begin creates an upload and gives its address.
func begin(t *testing.T, url string, size int, headers ...string) string {
	t.Helper()
	a := tus(t, "POST", url+"/api/v1/uploads", nil, append([]string{"Upload-Length", strconv.Itoa(size)}, headers...)...)
	a.want(t, http.StatusCreated)
	if !strings.HasPrefix(a.header.Get("Location"), "/api/v1/uploads/") {
		t.Fatalf("Location %q", a.header.Get("Location"))
	}
	return url + a.header.Get("Location")
}

// talk is a recording of n bytes that tells of any place whether it is right.
func talk(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d ", i)
	}
	return b.Bytes()[:n]
}

func TestUpload(t *testing.T) {
	noLeaks(t)
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	sent := talk(1000)
	at := begin(t, srv.URL, len(sent), "Upload-Metadata", meta("filename", "a/talk ü.wav", "language", "de", "words", "true", "priority", "background"))
	head := tus(t, "HEAD", at, nil)
	head.want(t, 200)
	for name, want := range map[string]string{"Upload-Offset": "0", "Upload-Length": "1000", "Cache-Control": "no-store", "Tus-Resumable": "1.0.0",
		"Upload-Metadata": strings.ReplaceAll(meta("filename", "a/talk ü.wav", "language", "de", "priority", "background", "words", "true"), ", ", ",")} {
		if got := head.header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	first := tus(t, "PATCH", at, bytes.NewReader(sent[:400]), "Upload-Offset", "0")
	first.want(t, 204)
	expires, err := http.ParseTime(first.header.Get("Upload-Expires"))
	if first.header.Get("Upload-Offset") != "400" || first.header.Get("Job-ID") != "" || err != nil || time.Until(expires) < 23*time.Hour {
		t.Errorf("after the first piece: %v", first.header)
	}
	if u := decoded[api.Upload](t, tus(t, "GET", at, nil)); u.Offset != 400 || u.Bytes != 1000 || u.Job != "" || u.Fields["language"] != "de" {
		t.Errorf("half: %+v", u)
	}
	last := tus(t, "PATCH", at, bytes.NewReader(sent[400:]), "Upload-Offset", "400")
	last.want(t, 204)
	id := last.header.Get("Job-ID")
	if last.header.Get("Job-Location") != "/api/v1/jobs/"+id || id == "" || last.header.Get("Upload-Offset") != "1000" {
		t.Fatalf("after the last piece: %v", last.header)
	}
	j := jobState(t, srv.URL+"/api/v1/jobs/"+id, "done")
	if j.Name != "talk ü.wav" || j.Bytes != 1000 || j.Priority != "background" || j.Text != whole {
		t.Errorf("the job: %+v", j)
	}
	if lang := r.engine.request().Language; lang != "de" {
		t.Errorf("language %q", lang)
	}
	again := tus(t, "HEAD", at, nil)
	if again.want(t, 200); again.header.Get("Job-ID") != id || again.header.Get("Upload-Offset") != "1000" {
		t.Errorf("later: %v", again.header)
	}
	tus(t, "DELETE", at, nil).want(t, 204)
	tus(t, "HEAD", at, nil).want(t, 404)
	do(t, "GET", srv.URL+"/api/v1/jobs/"+id, nil).want(t, 200)
	wantInbox(t, r, 0)
}

// wantInbox checks how many files the inbox has.
func wantInbox(t *testing.T, r *rig, want int) {
	t.Helper()
	left, err := os.ReadDir(r.Desk().Inbox.Dir)
	if names := len(left) - 1; err != nil || names != want { // the locks' file beside
		t.Errorf("the inbox holds %v, %v; want %d", left, err, want)
	}
}

// TestTusProtocol is what the protocol asks for, and what we do of it.
func TestTusProtocol(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	r.conf.Server.MaxUpload = 5000
	srv := r.start(t)
	all := srv.URL + "/api/v1/uploads"
	five := begin(t, srv.URL, 10)
	tus(t, "PATCH", five, strings.NewReader("12345"), "Upload-Offset", "0").want(t, 204)
	const nowhere = "/0190b5a0-0000-7000-8000-000000000000"
	for name, c := range map[string]struct {
		method, url string
		headers     []string
		body        string
		status      int
		says        string
	}{
		"no length":             {"POST", all, nil, "", 400, "invalid_upload_length"},
		"a length that is none": {"POST", all, []string{"Upload-Length", "ten"}, "", 400, "invalid_upload_length"},
		"a negative length":     {"POST", all, []string{"Upload-Length", "-1"}, "", 400, "invalid_upload_length"},
		"nothing":               {"POST", all, []string{"Upload-Length", "0"}, "", 400, "empty_file"},
		"too large":             {"POST", all, []string{"Upload-Length", "5001"}, "", 413, "upload_too_large"},
		"length deferred":       {"POST", all, []string{"Upload-Defer-Length", "1"}, "", 501, "not_implemented"},
		"no version":            {"POST", all, []string{"Upload-Length", "5", "Tus-Resumable", ""}, "", 412, "tus_version"},
		"another version":       {"PATCH", five, []string{"Upload-Offset", "5", "Tus-Resumable", "2.0.0"}, "x", 412, "tus_version"},
		"unknown field":         {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", meta("languag", "de")}, "", 400, "did you mean"},
		"a field twice":         {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", meta("task", "translate", "task", "transcribe")}, "", 400, "repeated_field"},
		"no base64":             {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", "language de!"}, "", 400, "bad_metadata"},
		"a value that is wrong": {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", meta("priority", "high")}, "", 400, "priority is"},
		"no such model":         {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", meta("model", "none-such")}, "", 404, "model_not_found"},
		"no such language":      {"POST", all, []string{"Upload-Length", "5", "Upload-Metadata", meta("language", "xx")}, "", 400, "language"},
		"a piece too soon":      {"PATCH", five, []string{"Upload-Offset", "6"}, "x", 409, "wrong_offset"},
		"a piece again":         {"PATCH", five, []string{"Upload-Offset", "0"}, "12345", 409, "wrong_offset"},
		"no offset":             {"PATCH", five, nil, "x", 400, "invalid_offset"},
		"wrong content type":    {"PATCH", five, []string{"Upload-Offset", "5", "Content-Type", "audio/wav"}, "x", 415, "tus_content_type"},
		"more than there is":    {"PATCH", five, []string{"Upload-Offset", "5"}, "123456", 413, "piece_too_large"},
		"unknown, HEAD":         {"HEAD", all + nowhere, nil, "", 404, ""},
		"unknown, GET":          {"GET", all + nowhere, nil, "", 404, "unknown_upload"},
		"unknown, PATCH":        {"PATCH", all + nowhere, []string{"Upload-Offset", "0"}, "x", 404, "unknown_upload"},
		"unknown, DELETE":       {"DELETE", all + nowhere, nil, "", 404, "unknown_upload"},
		"no id at all":          {"PATCH", all + "/jobs", []string{"Upload-Offset", "0"}, "x", 404, "unknown_upload"},
		"the locks' file":       {"DELETE", all + "/.lock", nil, "", 404, "unknown_upload"},
	} {
		t.Run(name, func(t *testing.T) {
			a := tus(t, c.method, c.url, strings.NewReader(c.body), c.headers...)
			if a.want(t, c.status, c.says); c.status >= 400 && a.header.Get("Tus-Resumable") != "1.0.0" {
				t.Errorf("the answer is none of the protocol's: %v", a.header)
			}
		})
	}
	if u := decoded[api.Upload](t, tus(t, "GET", five, nil)); u.Offset != 5 {
		t.Errorf("what was refused has changed the upload: %+v", u)
	}
	for path, allow := range map[string]string{"/api/v1/uploads": "OPTIONS, POST", strings.TrimPrefix(five, srv.URL): "DELETE, GET, OPTIONS, PATCH"} {
		a := do(t, "OPTIONS", srv.URL+path, nil)
		a.want(t, 204)
		for name, want := range map[string]string{"Tus-Version": "1.0.0", "Tus-Extension": "creation,creation-with-upload,termination,expiration", "Tus-Max-Size": "5000",
			"Allow": allow, "Access-Control-Allow-Origin": ""} {
			if got := a.header.Get(name); got != want {
				t.Errorf("OPTIONS %s: %s %q, want %q", path, name, got, want)
			}
		}
	}
	tus(t, "DELETE", five, nil, "Origin", "https://elsewhere.example").want(t, 204)
	wantInbox(t, r, 0)
}

// TestCreationWithUpload begins with the whole recording, or with a piece of it.
func TestCreationWithUpload(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	a := tus(t, "POST", srv.URL+"/api/v1/uploads", strings.NewReader("sound"), "Upload-Length", "5", "Content-Type", "application/offset+octet-stream")
	if a.want(t, 201); a.header.Get("Job-ID") == "" || a.header.Get("Upload-Offset") != "5" {
		t.Errorf("whole: %v", a.header)
	}
	jobState(t, srv.URL+a.header.Get("Job-Location"), "done")
	a = tus(t, "POST", srv.URL+"/api/v1/uploads", strings.NewReader("so"), "Upload-Length", "5", "Content-Type", "application/offset+octet-stream")
	if a.want(t, 201); a.header.Get("Job-ID") != "" || a.header.Get("Upload-Offset") != "2" {
		t.Errorf("in part: %v", a.header)
	}
}

// TestUploadsOfOthers are not there, but for administrators.
func TestUploadsOfOthers(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	at := begin(t, srv.URL, 10, "Authorization", "Bearer wa_user")
	tus(t, "PATCH", at, strings.NewReader("12345"), "Upload-Offset", "0").want(t, 404, "unknown_upload")
	tus(t, "HEAD", at, nil).want(t, 404)
	tus(t, "DELETE", at, nil).want(t, 404, "unknown_upload")
	for _, key := range []string{"wa_user", "wa_admin"} {
		tus(t, "GET", at, nil, "Authorization", "Bearer "+key).want(t, 200, `"offset":0`)
	}
	a := tus(t, "PATCH", at, strings.NewReader("1234567890"), "Upload-Offset", "0", "Authorization", "Bearer wa_user")
	a.want(t, 204)
	if j := jobState(t, srv.URL+a.header.Get("Job-Location"), "done", "Authorization", "Bearer wa_user"); j.Owner != "key:user" {
		t.Errorf("the job is %s's", j.Owner)
	}
}

// TestUploadExpires: what nobody goes on with is gone, and its room is free.
func TestUploadExpires(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	in := r.Desk().Inbox
	at, stays := begin(t, srv.URL, 10), begin(t, srv.URL, 10)
	id, old := filepath.Base(at), time.Now().Add(-25*time.Hour)
	orphans := []string{id, id + ".info", "0190b5a0-0000-7000-8000-000000000001.info", "0190b5a0-0000-7000-8000-000000000002", ".whatever-1234"}
	for _, name := range orphans {
		path := filepath.Join(in.Dir, name)
		if _, err := os.Stat(path); err != nil {
			writeFile(t, path, "left")
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	tus(t, "HEAD", at, nil).want(t, 404)
	tus(t, "PATCH", at, strings.NewReader("x"), "Upload-Offset", "0").want(t, 404, "unknown_upload", "begin a new one")
	if err := in.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, name := range orphans {
		if _, err := os.Stat(filepath.Join(in.Dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	tus(t, "HEAD", stays, nil).want(t, 200)
}

// TestUploadRoom: what the disk will not hold is refused before any of it comes,
// and what it no longer holds leaves what is there.
func TestUploadRoom(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	free := int64(300 << 20)
	r.Desk().Inbox.Free = func(string) (int64, error) { return free, nil }
	srv := r.start(t)
	at := begin(t, srv.URL, 30<<20)
	tus(t, "POST", srv.URL+"/api/v1/uploads", nil, "Upload-Length", strconv.Itoa(20<<20)).want(t, 507, "disk_full")
	tus(t, "PATCH", at, strings.NewReader("12345"), "Upload-Offset", "0").want(t, 204)
	free = 1
	tus(t, "PATCH", at, strings.NewReader("67890"), "Upload-Offset", "5").want(t, 507, "disk_full", "free some space")
	if a := tus(t, "HEAD", at, nil); a.header.Get("Upload-Offset") != "5" {
		t.Errorf("at %s", a.header.Get("Upload-Offset"))
	}
}

// TestTooManyUploads of one owner.
func TestTooManyUploads(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	for range mostUploadsOfOwner {
		begin(t, srv.URL, 10)
	}
	a := tus(t, "POST", srv.URL+"/api/v1/uploads", nil, "Upload-Length", "10")
	if a.want(t, 429, "too_many_uploads"); a.header.Get("Retry-After") == "" {
		t.Error("nothing says when to try again")
	}
	begin(t, srv.URL, 10, "Authorization", "Bearer wa_user")
}

// TestUploadWithKey: the same recording with the same key is one job, by
// whichever door it comes.
func TestUploadWithKey(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	ids := map[string]bool{}
	for range 2 {
		at := begin(t, srv.URL, 5, "Idempotency-Key", "k", "Upload-Metadata", meta("filename", "a.wav"))
		a := tus(t, "PATCH", at, strings.NewReader("sound"), "Upload-Offset", "0")
		a.want(t, 204)
		ids[a.header.Get("Job-ID")] = true
	}
	body, kind := encode(part{"file", "a.wav", "sound"})
	whole := do(t, "POST", srv.URL+"/api/v1/jobs", strings.NewReader(body), "Content-Type", kind, "Idempotency-Key", "k")
	whole.want(t, 202)
	if ids[decoded[api.Job](t, whole).ID] = true; len(ids) != 1 {
		t.Errorf("jobs %v", ids)
	}
	at := begin(t, srv.URL, 5, "Idempotency-Key", "k")
	tus(t, "PATCH", at, strings.NewReader("other"), "Upload-Offset", "0").want(t, 409, "idempotency_key_reused")
	for id := range maps.Keys(ids) {
		jobState(t, srv.URL+"/api/v1/jobs/"+id, "done")
	}
	eventually(t, "the recordings being forgotten", func() bool {
		known, err := r.Desk().Store.Media(t.Context())
		return err == nil && len(known) == 0
	})
	os.Remove(filepath.Join(r.Desk().Dir, filepath.Base(at))) // the sweep's, in an hour
}

// TestUploadWithoutDatabase: what is whole waits for it.
func TestUploadWithoutDatabase(t *testing.T) {
	r := newRig(t, talks).withDesk(t, func(d *work.Desk) { d.Inbox = nil })
	srv := r.start(t)
	tus(t, "POST", srv.URL+"/api/v1/uploads", nil, "Upload-Length", "10").want(t, 503, "no_uploads")
	r.Desk = nil
	tus(t, "POST", srv.URL+"/api/v1/uploads", nil, "Upload-Length", "10").want(t, 503, "no_database")
	tus(t, "PATCH", srv.URL+"/api/v1/uploads/x", strings.NewReader("x"), "Upload-Offset", "0").want(t, 503, "no_database")
}
