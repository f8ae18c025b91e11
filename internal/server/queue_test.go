package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
)

// TestQueueIsBounded: what finds no place is told how many are before it and
// when to try again, before its body is read; and the next one finds a place.
func TestQueueIsBounded(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		if n == 0 {
			close(begun)
			<-release
		}
		return talks(ctx, n, req, observe)
	})
	most, mine := 1, 64
	r.Service.Queue = &schedule.Queue{Most: func() int { return most }, OwnersMost: func() int { return mine }}
	srv := r.start(t)
	first := make(chan answered)
	go func() { first <- post(t, srv.URL+"/v1/audio/transcriptions", recording("file")) }()
	<-begun
	refused := func(code string) {
		t.Helper()
		for path, field := range map[string]string{"/v1/audio/transcriptions": "file", "/transcribe": "audio", "/api/v1/transcriptions": "file"} {
			a := post(t, srv.URL+path, recording(field))
			a.want(t, http.StatusTooManyRequests, code, "1 recordings", "send it again in 1 s")
			if after := a.header.Get("Retry-After"); after != "1" {
				t.Errorf("%s: Retry-After %q", path, after)
			}
		}
	}
	refused("queue_full")
	most, mine = 64, 1
	refused("queue_full_for_you")
	do(t, "GET", srv.URL+"/metrics", nil).want(t, 200, "queue_recordings 1\n")
	close(release)
	a := <-first
	a.want(t, 200, whole)
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 200, whole)
	eventually(t, "an empty queue", func() bool { return r.Service.Queue.Inside() == 0 })
}

// TestOwner: who sends a recording decides whose it is, and whose share of the
// engine it takes.
func TestOwner(t *testing.T) {
	r := newRig(t, talks)
	for i, c := range []struct{ addr, header, owner, share string }{
		{"192.168.1.7:99", "", "addr:192.168.1.7", "addr:192.168.1.7"},
		{"[fd00::1:2:3:4]:99", "", "addr:fd00::1:2:3:4", "addr:fd00::"},
		{"[fd00::ffff:2:3:4]:99", "", "addr:fd00::ffff:2:3:4", "addr:fd00::"},
		{"[::ffff:10.0.0.1]:99", "", "addr:10.0.0.1", "addr:10.0.0.1"},
		{"192.168.1.7:99", "Bearer wa_admin", "key:admin", "key:admin"},
	} {
		req := httptest.NewRequest("POST", "/", nil)
		req.RemoteAddr = c.addr
		if c.header != "" {
			req.Header.Set("Authorization", c.header)
		}
		a, err := r.permit(req, auth.Transcribe)
		var job transcribe.Job
		(&upload{access: a}).give(&job)
		if err != nil || job.Owner != c.owner || job.Share != c.share {
			t.Errorf("%d: %s and %s, %v; want %s and %s", i, job.Owner, job.Share, err, c.owner, c.share)
		}
	}
}
