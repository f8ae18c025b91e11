package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// measurable is a server that tells what bench asks for.
type measurable struct {
	mu      sync.Mutex
	loaded  bool
	busy    bool
	ended   int
	unloads int
}

func (m *measurable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r.URL.Path {
	case "/health":
		fmt.Fprintf(w, `{"status":"ok","model_status":{"current_model_name":"tiny","model_loaded":%v}}`, m.loaded)
	case "/health/detailed":
		io.WriteString(w, `{"status":"ok","versions":{"server":"1.2.3 (c0ffee)"},"environment":{"slot":"b"},"startup":{"ready_ms":250},"components":[]}`)
	case "/metrics":
		jobs := map[bool]int{true: 1}[m.busy]
		fmt.Fprintf(w, "whisper_appliance_jobs %d\nwhisper_appliance_transcriptions_total %d\n", jobs, m.ended)
	case "/api/v1/engine/unload":
		m.unloads++
		m.loaded = false
		w.WriteHeader(http.StatusNoContent)
	case "/api/v1/transcriptions":
		io.Copy(io.Discard, r.Body)
		m.ended++
		m.loaded = true
		fmt.Fprint(w, "event: segment\ndata: {\"text\":\"Please open the window and let the fresh air into the room.\"}\n\nevent: done\ndata: {\"duration_ns\":8000000000}\n\n")
	}
}

// newMeasured is an app with such a server.
func newMeasured(t *testing.T, m *measurable) (a *app, out *strings.Builder) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: m}}
	server.Start()
	t.Cleanup(server.Close)
	out = &strings.Builder{}
	return &app{paths: paths.Paths{APISocket: socket, Updater: dir}, out: out, errOut: io.Discard}, out
}

// runBench executes the command line.
func runBench(ctx context.Context, a *app, args ...string) error {
	c := benchCommand(a)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	return c.ExecuteContext(ctx)
}

func TestBenchPrints(t *testing.T) {
	m := &measurable{loaded: true}
	a, out := newMeasured(t, m)
	file := put(t, filepath.Join(t.TempDir(), "talk.wav"), "sound", 0o600)
	if err := runBench(t.Context(), a, "--runs", "3", file); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"version 1.2.3, model tiny, slot b, runs that count: 3\n", "start                0.25 s\n", "first transcription  –\n", "memory               –\n",
		"real-time factor     0.", "health, 99 of 100    ", "talk.wav             0.", "(8.0 s of sound in ",
		"note: the time of a first transcription is not known", "note: memory is not known",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if m.unloads != 0 || m.ended != 4 {
		t.Errorf("%d unloads, %d transcriptions", m.unloads, m.ended)
	}
}

func TestBenchCold(t *testing.T) {
	m := &measurable{loaded: true}
	a, out := newMeasured(t, m)
	if err := runBench(t.Context(), a, "--runs", "3", "--cold", "--json"); err != nil {
		t.Fatal(err)
	}
	var r benchReport
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if m.unloads != 1 || r.Figures.FirstSeconds <= 0 || r.Figures.Runs != 2 || len(r.Runs) != 3 || !r.Runs[0].Cold || r.Runs[1].Cold {
		t.Errorf("%d unloads, %+v", m.unloads, r)
	}
	if r.Version != "1.2.3" || r.Commit != "c0ffee" || r.Slot != "b" || r.Model != "tiny" || r.Against != nil || r.Saved {
		t.Errorf("%+v", r)
	}
}

func TestBenchSavesAndCompares(t *testing.T) {
	a, out := newMeasured(t, &measurable{loaded: true})
	if os.Geteuid() != 0 {
		if err := runBench(t.Context(), a, "--save"); fault.KindOf(err) != fault.Forbidden {
			t.Errorf("error %v", err)
		}
		t.Skip("only root saves")
	}
	if err := runBench(t.Context(), a, "--runs", "2", "--save"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "kept for version 1.2.3\n") {
		t.Errorf("%s", out)
	}
	kept, err := deployment.Benches(a.paths.Updater, "1.2.3")
	if err != nil || len(kept) != 1 || kept[0].Model != "tiny" || kept[0].Commit != "c0ffee" || kept[0].Figures.Runs != 2 || time.Since(kept[0].At) > time.Hour {
		t.Errorf("%+v, %v", kept, err)
	}
}

func TestBenchAgainst(t *testing.T) {
	a, out := newMeasured(t, &measurable{loaded: true})
	fast := deployment.Bench{Version: "1.0.0", Model: "tiny", Figures: deployment.Figures{RealTime: 1e-9, StartSeconds: 0.2, MemoryBytes: 1 << 20}}
	if err := deployment.SaveBench(a.paths.Updater, fast); err != nil {
		t.Fatal(err)
	}
	if err := runBench(t.Context(), a, "--runs", "1", "--against", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FIGURE               NOW", "1.0.0", "TIMES", "0.25 s  0.20 s  1.25\n", "memory               –       1 MiB   –\n", "worse: 1.2.3 needs "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), "worse: 1.2.3 holds") {
		t.Error("memory that is not known is worse")
	}
}

func TestBenchRefuses(t *testing.T) {
	a, _ := newMeasured(t, &measurable{loaded: true})
	if err := deployment.SaveBench(a.paths.Updater, deployment.Bench{Version: "1.0.0", Model: "base"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code string
		hint string
	}{
		{[]string{"--against", "1.0.0"}, "no_figures", "1.0.0"},
		{[]string{"--against", "../x"}, "bad_version", ""},
		{[]string{t.TempDir()}, "not_a_file", "recordings"},
		{[]string{"--socket", filepath.Join(t.TempDir(), "none")}, "no_server", "systemctl"},
	} {
		err := runBench(t.Context(), a, c.args...)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != c.code || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%v: %v, hint %q, want %s", c.args, err, fault.Hint(err), c.code)
		}
	}
	for _, runs := range []string{"0", "1001"} {
		if err := runBench(t.Context(), a, "--runs", runs); !errors.As(err, new(usageError)) {
			t.Errorf("--runs %s: %v", runs, err)
		}
	}
	if err := runBench(t.Context(), a, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	a.paths.Updater = ""
	if err := runBench(t.Context(), a, "--against", "1.0.0"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("not installed: %v", err)
	}
}

// TestBenchOfABusyServer: nobody is kept waiting, and nothing is kept of it.
func TestBenchOfABusyServer(t *testing.T) {
	m := &measurable{loaded: true, busy: true}
	a, out := newMeasured(t, m)
	if err := runBench(t.Context(), a, "--wait", "0s"); err != nil {
		t.Fatal(err)
	}
	if m.ended != 0 || !strings.Contains(out.String(), "note: busy: somebody uses the engine") || !strings.Contains(out.String(), "real-time factor     –") {
		t.Errorf("%d transcriptions\n%s", m.ended, out)
	}
	if err := runBench(t.Context(), a, "--wait", "0s", "--cold"); fault.KindOf(err) != fault.Busy || m.unloads != 0 {
		t.Errorf("error %v, %d unloads", err, m.unloads)
	}
	r := benchReport{Notes: []string{"busy"}}
	if err := r.save(a.paths.Updater); fault.KindOf(err) != fault.Unavailable || r.Saved {
		t.Errorf("nothing was saved: %v", err)
	}
}

func TestBenchIsCancelled(t *testing.T) {
	a, out := newMeasured(t, &measurable{loaded: true, busy: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := runBench(ctx, a, "--wait", "1h"); err == nil || out.Len() != 0 {
		t.Errorf("error %v, and it printed %q", err, out)
	}
}

func TestBenchTellsOfABusyMachine(t *testing.T) {
	for waited, want := range map[float64]bool{0.5: false, 1.9: true} {
		r := benchReport{Runs: []timed{{Seconds: 2, Waited: waited, Idle: true}, {Seconds: 2, Waited: waited, Idle: true}}}
		r.explain(2)
		if got := strings.Contains(strings.Join(r.Notes, "\n"), "other programs used the processors"); got != want {
			t.Errorf("%v s of 2: %q", waited, r.Notes)
		}
	}
}
