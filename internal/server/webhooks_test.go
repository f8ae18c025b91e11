package server

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/webhook"
	"whisper-appliance/internal/work"
)

// outsideSecret is what webhooks are signed with.
const outsideSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

// reaching lets a desk fetch from and tell a host.
func (r *rig) reaching(t *testing.T, host string) func(*work.Desk) {
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, outsideSecret)
	places := func(field, setting string) *outbound.Places {
		return &outbound.Places{Field: field, Setting: setting + " in [outbound]", Hosts: func() []string { return []string{host} },
			Networks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }}
	}
	return func(d *work.Desk) {
		d.From = places("url", "recordings")
		d.Webhooks = &webhook.Sender{Places: places("webhook", "webhooks"), Secret: func() string { return secret }}
		d.Event, d.Told = r.JobEvent, r.WebhookSent
	}
}

func textPart(name, value string) part { return part{name: name, value: value} }

// TestJobFromURLAndWebhook: a recording is fetched, and its end told with a
// signature that an implementation of others' verifies.
func TestJobFromURLAndWebhook(t *testing.T) {
	r := newRig(t, talks)
	events := make(chan api.Event, 9)
	mux := http.NewServeMux()
	outside := httptest.NewServer(mux)
	defer outside.Close()
	mux.HandleFunc("/talk.mp3", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a recording") })
	mux.HandleFunc("/bad.mp3", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "bad") })
	mux.HandleFunc("/hook", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		verifier, err := standard.NewWebhook(outsideSecret)
		if err == nil {
			err = verifier.Verify(body, r.Header)
		}
		if err != nil {
			t.Errorf("not verified: %v", err)
		}
		var e api.Event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Errorf("%v in %s", err, body)
		}
		if strings.Contains(string(body), "secret") || strings.Contains(string(body), `"text"`) {
			t.Errorf("told: %s", body)
		}
		events <- e
	})
	r.withDesk(t, r.reaching(t, outside.Listener.Addr().String()))
	srv := r.start(t)
	a := post(t, srv.URL+"/api/v1/jobs", textPart("url", outside.URL+"/talk.mp3?token=secret"), textPart("webhook", outside.URL+"/hook?token=secret"))
	a.want(t, 202, `"name":"talk.mp3"`, outside.URL+`/talk.mp3?…`, `"webhook":{"url":"`+outside.URL+`/hook?…","state":"waiting"`)
	if strings.Contains(a.body, "secret") {
		t.Errorf("what lets somebody in is shown: %s", a.body)
	}
	at := srv.URL + a.header.Get("Location")
	if j := jobState(t, at, "done"); j.Text != whole || j.Bytes != int64(len("a recording")) {
		t.Errorf("done: %+v", j)
	}
	e := <-events
	if e.Type != "job.done" || srv.URL+e.Data.Transcript != at+"/transcript" || e.Data.State != "done" || e.Data.Percent != 100 || !e.Timestamp.Equal(e.Data.Ended) || e.Data.Webhook != nil || e.Data.URL != e.Data.Name || "http://"+e.Data.URL != outside.URL {
		t.Errorf("told: %+v", e)
	}
	do(t, "GET", srv.URL+e.Data.Transcript, nil).want(t, 200, whole)
	eventually(t, "the delivery being noted", func() bool {
		j := decoded[api.JobDetail](t, do(t, "GET", at, nil))
		return j.Webhook.State == "delivered" && j.Webhook.Attempts == 1 && strings.HasPrefix(j.Webhook.ID, "msg_")
	})
	do(t, "GET", srv.URL+"/api/v1/jobs", nil).want(t, 200, `"state":"delivered"`)
	a = post(t, srv.URL+"/api/v1/jobs", textPart("url", outside.URL+"/bad.mp3"), textPart("webhook", outside.URL+"/hook"))
	jobState(t, srv.URL+a.header.Get("Location"), "failed")
	if e := <-events; e.Type != "job.failed" || e.Data.Error == nil || e.Data.Error.Hint == "" || e.Data.Transcript != "" {
		t.Errorf("told: %+v", e)
	}
	eventually(t, "the attempts being counted", func() bool {
		return strings.Contains(do(t, "GET", srv.URL+"/metrics", nil).body, `webhook_attempts_total{state="delivered"} 2`)
	})
}

// TestRefusedPlaces: what may not be gone to is refused before there is a job, and
// everything is until somebody has named a host.
func TestRefusedPlaces(t *testing.T) {
	r := newRig(t, talks)
	r.withDesk(t, r.reaching(t, "files.example.org"))
	srv := r.start(t)
	for _, c := range []struct {
		parts  []part
		status int
		says   []string
	}{
		{[]part{textPart("url", "https://elsewhere.test/a.mp3")}, 403, []string{"host_not_allowed", `"field":"url"`, "recordings in [outbound]"}},
		{[]part{textPart("url", "https://user:pw@files.example.org/a.mp3")}, 400, []string{"bad_url", `"field":"url"`}},
		{[]part{textPart("url", "talk.mp3")}, 400, []string{"bad_url"}},
		{[]part{recording("file"), textPart("webhook", "https://elsewhere.test/")}, 403, []string{"host_not_allowed", `"field":"webhook"`, "webhooks in [outbound]"}},
		{[]part{recording("file"), textPart("url", "https://files.example.org/a.mp3")}, 400, []string{"two_recordings", `"field":"url"`}},
		{[]part{textPart("url", "")}, 400, []string{"missing_file"}},
		{[]part{textPart("url", "https://files.example.org/a.mp3"), textPart("url", "https://files.example.org/b.mp3")}, 400, []string{"repeated_field"}},
	} {
		post(t, srv.URL+"/api/v1/jobs", c.parts...).want(t, c.status, c.says...)
	}
	meta := func(name, value string) string { return name + " " + base64.StdEncoding.EncodeToString([]byte(value)) }
	tus := func(meta string) answered {
		return do(t, "POST", srv.URL+"/api/v1/uploads", nil, "Tus-Resumable", "1.0.0", "Upload-Length", "5", "Upload-Metadata", meta)
	}
	tus(meta("webhook", "https://elsewhere.test/")).want(t, 403, "host_not_allowed")
	tus(meta("url", "https://files.example.org/")).want(t, 400, "unknown_field")
	tus(meta("webhook", "https://files.example.org/")).want(t, 201)
	if list := decoded[api.JobList](t, do(t, "GET", srv.URL+"/api/v1/jobs", nil)); len(list.Jobs) != 0 {
		t.Errorf("jobs were made: %+v", list)
	}
	off := newRig(t, talks).withDesk(t)
	srv = off.start(t)
	post(t, srv.URL+"/api/v1/jobs", textPart("url", "https://files.example.org/a.mp3")).want(t, 403, "outbound_off", `"field":"url"`)
	post(t, srv.URL+"/api/v1/jobs", recording("file"), textPart("webhook", "https://files.example.org/")).want(t, 403, "outbound_off", `"field":"webhook"`)
}

// TestWebhookIsDocumented: with its headers, and a schema of what is sent.
func TestWebhookIsDocumented(t *testing.T) {
	doc := decoded[struct {
		Webhooks map[string]struct {
			Post struct {
				Parameters  []struct{ Name string }
				RequestBody struct {
					Content map[string]struct{ Schema schema }
				}
			}
		}
		Components struct{ Schemas map[string]schema }
	}](t, do(t, "GET", newRig(t, talks).start(t).URL+"/openapi.json", nil))
	hook := doc.Webhooks["jobEnded"].Post
	if len(hook.Parameters) != 3 || !strings.HasSuffix(hook.RequestBody.Content["application/json"].Schema.Ref, "/Event") {
		t.Errorf("documented: %+v", hook)
	}
	if _, there := doc.Components.Schemas["EndedJob"].Properties["transcript"]; !there {
		t.Errorf("the job of an event is documented as %+v", doc.Components.Schemas["EndedJob"])
	}
}
