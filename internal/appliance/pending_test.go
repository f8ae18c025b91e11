package appliance

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFirstModelStaysPending: what cannot be fetched is told, and tried again
// by the next server.
func TestFirstModelStaysPending(t *testing.T) {
	p := box(t)
	hub := httptest.NewServer(http.NotFoundHandler())
	defer hub.Close()
	p.Config().Models.Mirror = hub.URL
	p.Appliance.pull.NoUpstream = true
	file := filepath.Join(p.Paths.Pending, firstModelFile)
	touch(t, file, t.TempDir()+"\n") // a directory without the model
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Appliance.TakeUpPending(ctx, p.Paths, p.Config, slog.New(slog.NewTextHandler(&log, nil)))
	}()
	eventually(t, "word of the attempt", func() bool { return strings.Contains(p.Appliance.firstModel(), "the next is in") })
	if _, err := p.checkModels(t.Context()); err == nil || !strings.Contains(err.Error(), "being fetched") {
		t.Errorf("the component says %v", err)
	}
	cancel()
	<-done
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the work was dropped: %v", err)
	}
	if !strings.Contains(log.String(), "first model not taken from its directory") {
		t.Errorf("the log lacks the directory:\n%s", &log)
	}
}

// TestFirstModelIsThere: work that somebody has done already is no longer pending.
func TestFirstModelIsThere(t *testing.T) {
	p := box(t)
	file := filepath.Join(p.Paths.Pending, firstModelFile)
	touch(t, file, "\n")
	touch(t, filepath.Join(p.Paths.Models, "ggml-base.bin"), "a model")
	p.Appliance.TakeUpPending(t.Context(), p.Paths, p.Config, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(file); err == nil {
		t.Error("the work is still pending")
	}
	p.Appliance.TakeUpPending(t.Context(), p.Paths, p.Config, slog.New(slog.DiscardHandler)) // nothing to do
}
