package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/report"
)

func TestSamplesLastAsLongAsTheySay(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	root := filepath.Join(t.TempDir(), "checkout")
	if _, err := makeSamples(t.Context(), root, t.TempDir()); err == nil || !strings.Contains(err.Error(), "reference.wav") {
		t.Errorf("without any clip: %v", err)
	}
	put := func(path string, d time.Duration) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := (clips.Sound{}).Fit(d).WriteWAV(path); err != nil {
			t.Fatal(err)
		}
	}
	check := func(from string) {
		t.Helper()
		list, err := makeSamples(t.Context(), root, t.TempDir())
		if err != nil || len(list) != 3 {
			t.Fatalf("%s: %d samples, %v", from, len(list), err)
		}
		for i, want := range []time.Duration{3 * time.Second, 11 * time.Second, time.Minute} {
			sound, err := clips.Read(t.Context(), list[i].path)
			if err != nil || list[i].duration != want || sound.Duration() != want {
				t.Errorf("%s: sample %s lasts %v, %v; want %v", from, list[i].name, sound.Duration(), err, want)
			}
		}
	}
	put(filepath.Join(root, reference), 2500*time.Millisecond)
	check("the reference clip")
	shared := filepath.Join(filepath.Dir(root), "shared", "speech")
	put(filepath.Join(shared, "a.wav"), 40*time.Second)
	put(filepath.Join(shared, "b.wav"), 10*time.Second)
	table := "file\tlanguage\treference\na.wav\ten\tone\nb.wav\ten\ttwo\nmissing.wav\tde\tdrei\n"
	if err := os.WriteFile(filepath.Join(shared, clips.Manifest), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	check("the clips beside the checkout")
}

func TestNearest(t *testing.T) {
	list := []clips.Sound{make(clips.Sound, 16000), make(clips.Sound, 48000), make(clips.Sound, 160000)}
	for d, want := range map[time.Duration]time.Duration{0: time.Second, 4 * time.Second: 3 * time.Second, time.Minute: 10 * time.Second} {
		if got := nearest(list, d).Duration(); got != want {
			t.Errorf("nearest to %v lasts %v, want %v", d, got, want)
		}
	}
}

// speaker answers every request with text, and writes who was asked.
func speaker(t *testing.T, order *strings.Builder, name, text string) clips.Request {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		order.WriteString(name)
		if text == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, `{"text":"`+text+`"}`)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "clip.wav")
	if err := os.WriteFile(path, []byte("sound"), 0o644); err != nil {
		t.Fatal(err)
	}
	return clips.Request{URL: server.URL, Path: path}
}

func TestInTurn(t *testing.T) {
	var order strings.Builder
	m := &measurement{settings: settings{runs: 3}, progress: io.Discard}
	one := sample{name: "3 s"}
	l, err := m.inTurn(t.Context(), one, speaker(t, &order, "A", "Hello there."), speaker(t, &order, "B", " hello there"))
	if err != nil {
		t.Fatal(err)
	}
	if order.String() != "ABABABAB" || len(l.ours) != 3 || len(l.theirs) != 3 || !l.sameText {
		t.Errorf("order %s, %d and %d times, same text %v; want one uncounted round and three", &order, len(l.ours), len(l.theirs), l.sameText)
	}
	if _, err := m.inTurn(t.Context(), one, speaker(t, &order, "A", "a"), speaker(t, &order, "B", "")); err == nil || !strings.Contains(err.Error(), "theirs: ") {
		t.Errorf("a side that fails: %v", err)
	}
}

func TestTables(t *testing.T) {
	s := sample{name: "3 s"}
	m := &measurement{settings: settings{runs: 2, starts: 1}, samples: []sample{s}}
	m.latency = []latency{{sample: s, ours: []time.Duration{time.Second, 3 * time.Second}, theirs: []time.Duration{4 * time.Second, 4 * time.Second}, sameText: true}}
	m.start.ours, m.start.theirs = []time.Duration{time.Second / 10}, []time.Duration{time.Second}
	m.memory = memory{oursIdle: 10 << 20, theirsStarted: 100 << 20}
	out := report.New("Test", "unknown")
	m.write(out)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"3 s median 2.000 s 4.000 s 0.50 same", "p95 3.000 s 4.000 s 0.75",
		"process to first health answer 0.100 s 1.000 s 0.10",
		"started, nothing transcribed yet 10.0 MiB 100.0 MiB 0.10", "after unload 0.0 MiB 0.0 MiB -",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-runs", "0"}} {
		var stderr bytes.Buffer
		if code := report.ExitCode(program, run(t.Context(), args, io.Discard, &stderr), &stderr); code != report.ExitUsage || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
	var stderr bytes.Buffer
	if code := report.ExitCode(program, run(t.Context(), []string{"-peer", t.TempDir()}, io.Discard, &stderr), &stderr); code != report.ExitError || !strings.Contains(stderr.String(), "peer.sh") {
		t.Errorf("no peer: exit code %d, %q", code, stderr.String())
	}
}
