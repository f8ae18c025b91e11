package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// fast tries again at once, for a second.
func fast() Retry {
	return Retry{First: time.Millisecond, Most: 2 * time.Millisecond, Until: time.Second}
}

func served(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &Client{Base: srv.URL, Key: "k"}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":"no","code":%q}`, code)
}

// TestFollowJob: what comes in several answers is one transcript, and nothing is
// in it twice.
func TestFollowJob(t *testing.T) {
	answers := []string{
		"event: job\ndata: {\"id\":\"j\",\"state\":\"running\"}\n\nevent: progress\ndata: {\"phase\":\"recognising\",\"done\":1}\n\nid: 1\nevent: segment\ndata: {\"text\":\"one\"}\n\n",
		"", // a server that is being replaced
		"id: 2\nevent: segment\ndata: {\"text\":\"two\"}\n\nid: 3\nevent: seg",
		"id: 3\nevent: segment\ndata: {\"text\":\"three\"}\n\nevent: done\ndata: {\"language\":\"de\",\"duration_ns\":5}\n\n",
	}
	var seen []string
	n := 0
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/jobs/j/events" || r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("%s asked with %v", r.URL, r.Header)
		}
		seen = append(seen, r.Header.Get("Last-Event-ID"))
		if n++; answers[n-1] == "" {
			refuse(w, 503, "starting")
			return
		}
		io.WriteString(w, answers[n-1])
	})
	var states []string
	away := 0
	got, err := c.FollowJob(t.Context(), "j", Follower{Retry: fast(), Job: func(j Job) { states = append(states, j.State) }, Away: func(error, time.Duration) { away++ }})
	if err != nil || got.Language != "de" || got.Duration != 5 || len(got.Segments) != 3 || got.Segments[2].Text != "three" {
		t.Errorf("%+v, %v", got, err)
	}
	if fmt.Sprint(seen, states, away) != "[ 1 1 2] [running] 3" {
		t.Errorf("Last-Event-ID %q, states %q, away %d", seen, states, away)
	}
}

func TestFollowJobEnds(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   string
		kind   fault.Kind
	}{
		"failed": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "event: error\ndata: {\"error\":\"x\",\"code\":\"undecodable\"}\n\n")
		}, "undecodable", fault.Internal},
		"cancelled": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "event: error\ndata: {\"error\":\"x\",\"code\":\"canceled\"}\n\n")
		}, "canceled", fault.Canceled},
		"gone":       {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "unknown_job") }, "unknown_job", fault.NotFound},
		"never back": {func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "stopping") }, "stopping", fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			retry := fast()
			retry.Until = 20 * time.Millisecond
			_, err := served(t, c.answer).FollowJob(t.Context(), "j", Follower{Retry: retry})
			wantCode(t, err, c.code)
			if fault.KindOf(err) != c.kind {
				t.Errorf("kind %v", fault.KindOf(err))
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := served(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "stopping"); cancel() })
	if _, err := c.FollowJob(ctx, "j", Follower{}); err != context.Canceled {
		t.Errorf("%v", err)
	}
}

// TestSend: an upload is sent on where the server is, and only what may pass is
// tried again.
func TestSend(t *testing.T) {
	const whole = "0123456789"
	for name, c := range map[string]struct {
		refusals []string // of the pieces, in order; "" = taken
		code     string   // of the error; "" = it is a job
		pieces   int
	}{
		"at once":             {[]string{"", "", "", ""}, "", 4},
		"held up":             {[]string{"", "503 stopping", "409 upload_busy", "409 wrong_offset", "500 bad_answer", "429 too_many", "", "", ""}, "", 9},
		"no room":             {[]string{"", "507 disk_full"}, "disk_full", 2},
		"refused at the end":  {[]string{"", "", "", "409 idempotency_key_reused"}, "idempotency_key_reused", 4},
		"nothing may be sent": {[]string{"401 invalid_api_key"}, "invalid_api_key", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var at, pieces atomic.Int64
			got := make([]byte, len(whole))
			client := served(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Tus-Resumable") != "1.0.0" {
					t.Error("no version")
				}
				if r.Method == http.MethodGet {
					job := ""
					if at.Load() == int64(len(whole)) {
						job = "the-job"
					}
					fmt.Fprintf(w, `{"id":"u","bytes":%d,"offset":%d,"job":%q}`, len(whole), at.Load(), job)
					return
				}
				n := pieces.Add(1)
				if refusal := c.refusals[n-1]; refusal != "" {
					status, code, _ := strings.Cut(refusal, " ")
					number, _ := strconv.Atoi(status)
					refuse(w, number, code)
					return
				}
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("Upload-Offset") != fmt.Sprint(at.Load()) || r.Header.Get("Content-Type") != "application/offset+octet-stream" || len(body) > 3 {
					t.Errorf("a piece of %d with %v", len(body), r.Header)
				}
				at.Add(int64(copy(got[at.Load():], body)))
				w.WriteHeader(http.StatusNoContent)
			})
			done := int64(0)
			id, err := client.Send(t.Context(), "u", Sending{From: strings.NewReader(whole), Piece: 3, Retry: fast(), Sent: func(n, size int64) { done = n }})
			if c.code != "" {
				wantCode(t, err, c.code)
			} else if err != nil || id != "the-job" || string(got) != whole || done != int64(len(whole)) {
				t.Errorf("%q, %v; %q sent, %d told", id, err, got, done)
			}
			if int(pieces.Load()) != c.pieces {
				t.Errorf("%d pieces, want %d", pieces.Load(), c.pieces)
			}
		})
	}
}

func TestRetrying(t *testing.T) {
	r := Retry{First: time.Second, Most: 3 * time.Second, Until: time.Hour}.begin()
	var pauses []time.Duration
	for range 4 {
		pause, more := r.after(ErrCutOff)
		if !more {
			t.Fatal("given up")
		}
		pauses = append(pauses, pause)
	}
	if fmt.Sprint(pauses) != "[1s 2s 3s 3s]" {
		t.Errorf("pauses %v", pauses)
	}
	r.well()
	if pause, _ := r.after(ErrCutOff); pause != time.Second {
		t.Errorf("after success %v", pause)
	}
	r.since = time.Now().Add(-2 * time.Hour)
	if _, more := r.after(ErrCutOff); more {
		t.Error("never given up")
	}
	if d := (Retry{}).begin(); d.First <= 0 || d.Most < d.First || d.Until < d.Most {
		t.Errorf("%+v", d.Retry)
	}
}

func TestOddIDs(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, r *http.Request) { refuse(w, 404, "unknown_job@"+r.URL.EscapedPath()) })
	_, err := c.Job(t.Context(), "a/../b?c")
	wantCode(t, err, "unknown_job@/api/v1/jobs/a%2F..%2Fb%3Fc")
	_, err = c.Upload(t.Context(), "../jobs")
	wantCode(t, err, "bad_upload_id")
}
