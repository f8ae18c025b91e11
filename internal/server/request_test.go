package server

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// logBook is a log that requests write to at once.
type logBook struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// TestRequestsAreNamed: the client is told under which name the log has its
// request, and the job that it started has the same.
func TestRequestsAreNamed(t *testing.T) {
	r := newRig(t, talks)
	log := &logBook{}
	r.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := r.start(t)
	refused := do(t, "GET", srv.URL+"/v1/models/none", nil).header.Get(requestHeader)
	if len(refused) != 16 || !log.has("request="+refused) {
		t.Errorf("request %q is not in the log", refused)
	}
	done := post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).header.Get(requestHeader)
	if done == refused || !eventually(t, "the job's entry", func() bool { return log.has("msg=transcribed job=" + done) }) {
		t.Errorf("job %q", done)
	}
}
