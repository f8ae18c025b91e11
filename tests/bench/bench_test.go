package main

import (
	"bytes"
	"context"
	"errors"
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
	if _, err := makeSamples(t.Context(), root, t.TempDir(), true); err == nil || !strings.Contains(err.Error(), "reference.wav") {
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
	check := func(from string, texts ...string) {
		t.Helper()
		list, err := makeSamples(t.Context(), root, t.TempDir(), true)
		if err != nil || len(list) != 5 {
			t.Fatalf("%s: %d samples, %v", from, len(list), err)
		}
		for i, want := range []time.Duration{3 * time.Second, 11 * time.Second, time.Minute} {
			sound, err := clips.Read(t.Context(), list[i].path)
			if err != nil || list[i].duration != want || sound.Duration() != want || list[i].text != texts[i] {
				t.Errorf("%s: sample %s lasts %v and says %q, %v; want %v and %q", from, list[i].name, sound.Duration(), list[i].text, err, want, texts[i])
			}
		}
		if list[3].duration >= list[4].duration || (list[4].text == "") != (texts[0] == "") {
			t.Errorf("%s: the long samples last %v and %v; the longest says %q", from, list[3].duration, list[4].duration, list[4].text)
		}
	}
	put(filepath.Join(root, reference), 2500*time.Millisecond)
	check("the reference clip", "", "", "")
	shared := filepath.Join(filepath.Dir(root), "shared", "speech")
	put(filepath.Join(shared, "a.wav"), 40*time.Second)
	put(filepath.Join(shared, "b.wav"), 10*time.Second)
	put(filepath.Join(shared, "c.wav"), time.Second)
	table := "file\tlanguage\treference\na.wav\ten\tone\nb.wav\ten\ttwo\nc.wav\ten\tthree\nmissing.wav\tde\tdrei\n"
	if err := os.WriteFile(filepath.Join(shared, clips.Manifest), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	check("the clips beside the checkout", "three", "two", "one three two")
}

func TestPlan(t *testing.T) {
	models := map[string]int{}
	for _, p := range (settings{}).plan() {
		models[p.model]++
		if p.runs != map[string]int{threeSeconds: 10, elevenSeconds: 10, oneMinute: 10, tenMinutes: map[string]int{"tiny": 3, "base": 1}[p.model], oneHour: 1}[p.sample] {
			t.Errorf("%+v", p)
		}
	}
	if models["tiny"] != 5 || models["base"] != 3 {
		t.Errorf("parts by model: %v", models)
	}
	for _, c := range []struct {
		s    settings
		says string
	}{{settings{}, "bench-full"}, {settings{full: true}, ""}, {settings{quick: true}, "quick look"}} {
		if said := c.s.leftOut(); !strings.Contains(said, c.says) || (said == "") != (c.says == "") {
			t.Errorf("%+v leaves out %q, want %q", c.s, said, c.says)
		}
		for _, p := range c.s.plan() {
			if c.s.full && !p.beam || c.s.quick && p.runs != 1 {
				t.Errorf("%+v: %+v", c.s, p)
			}
		}
	}
}

// speaker is a side that answers every request with text, or with an error
// where that is empty, and writes who was asked. It uses a second of processor
// time and peak bytes each time.
func speaker(t *testing.T, order *strings.Builder, name, text string, peak int64) side {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		order.WriteString(name)
		if text == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, `{"text":"`+text+`"}`)
	}))
	t.Cleanup(server.Close)
	asked := 0
	return side{
		name:   name,
		forget: func() error { return nil },
		spent: func() (time.Duration, int64, error) {
			asked++
			return time.Duration(asked) * time.Second, peak, nil
		},
		request: func(path string) clips.Request { return clips.Request{URL: server.URL, Path: path} },
	}
}

// fake is a measurement of speakers, with samples that are no sound.
func fake(t *testing.T, list []side) *measurement {
	t.Helper()
	m := &measurement{progress: io.Discard}
	for _, s := range []sample{
		{name: threeSeconds, duration: 3 * time.Second}, {name: elevenSeconds, duration: 11 * time.Second}, {name: oneMinute, duration: time.Minute},
		{name: tenMinutes, duration: 10 * time.Minute}, {name: oneHour, duration: time.Hour},
	} {
		s.path, s.text = filepath.Join(t.TempDir(), "clip.wav"), "hello there"
		if err := os.WriteFile(s.path, []byte("sound"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.samples = append(m.samples, s)
	}
	m.launch = func(context.Context, string) ([]side, func() error, error) {
		return list, func() error { return nil }, nil
	}
	return m
}

func TestInTurn(t *testing.T) {
	var order strings.Builder
	a, b, c := speaker(t, &order, "A", "Hello there.", 9), speaker(t, &order, "B", "hello there", 8), speaker(t, &order, "C", "hello", 7)
	m := fake(t, []side{a, b, c})
	if err := m.all(t.Context(), []part{{"tiny", threeSeconds, 2, false}, {"base", tenMinutes, 1, true}}); err != nil {
		t.Fatal(err)
	}
	if order.String() != "ABABAB"+"ABCABC" {
		t.Errorf("order %s, want each part warmed and then in turn", &order)
	}
	f, long := m.figures[0], m.figures[1]
	if len(f.runs[ours]) != 2 || len(f.runs[beam]) != 0 || len(long.runs[beam]) != 1 || !f.sameText(ours, greedy) || long.sameText(ours, beam) {
		t.Errorf("figures %+v", m.figures)
	}
	if report.Median(f.cpu(ours)) != time.Second || f.peak(greedy) != 8 || long.errors(beam).Errors() != 1 {
		t.Errorf("processor %v, peak %d, errors %d", f.cpu(ours), f.peak(greedy), long.errors(beam).Errors())
	}
}

func TestFailures(t *testing.T) {
	var order strings.Builder
	good := speaker(t, &order, "ours", "a", 1)
	bad := speaker(t, &order, "theirs", "", 1)
	plan := []part{{"tiny", threeSeconds, 1, false}}
	stopped := errors.New("it left a child behind")
	for name, c := range map[string]struct {
		m    *measurement
		plan []part
		want string
	}{
		"a side that fails": {fake(t, []side{good, bad, good}), plan, "theirs: "},
		"no such sample":    {fake(t, []side{good, good, good}), []part{{"tiny", "2 h", 1, false}}, "no sample of 2 h"},
		"no start": {&measurement{launch: func(context.Context, string) ([]side, func() error, error) {
			return nil, nil, stopped
		}}, plan, stopped.Error()},
	} {
		if err := c.m.all(t.Context(), c.plan); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	m := fake(t, []side{good, good, good})
	m.launch = func(context.Context, string) ([]side, func() error, error) {
		return []side{good, good, good}, func() error { return stopped }, nil
	}
	if err := m.all(t.Context(), plan); !errors.Is(err, stopped) {
		t.Errorf("a stop that fails: %v", err)
	}
}

// TestQuickLook is the whole plan on fake servers.
func TestQuickLook(t *testing.T) {
	var order strings.Builder
	say := func(name string) side { return speaker(t, &order, name, "Hello there.", 1<<20) }
	m := fake(t, []side{say("ours"), say("theirs"), say("beam")})
	s := settings{quick: true}
	if err := m.all(t.Context(), s.plan()); err != nil {
		t.Fatal(err)
	}
	out := report.New("Test", "unknown")
	m.write(out)
	for _, want := range []string{"tiny, 1 h", "base, 10 min", "0/2 = 0.0 %", "≤ 6 % met", "goals: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// runs is costs of so many seconds each.
func runs(text string, peak int64, took ...float64) (list []cost) {
	for _, t := range took {
		d := time.Duration(t * float64(time.Second))
		list = append(list, cost{d, 2 * d, peak << 20, text})
	}
	return list
}

func TestTables(t *testing.T) {
	said := strings.TrimSpace(strings.Repeat("one two three four five ", 4))
	three := sample{name: threeSeconds, duration: 3 * time.Second, text: said}
	hour := sample{name: oneHour, duration: time.Hour, text: said}
	m := &measurement{samples: []sample{three, hour}, figures: []figures{
		{part{"tiny", threeSeconds, 2, false}, three, [sides][]cost{runs(said, 100, 1, 3), runs(said, 200, 4, 4), nil}},
		{part{"tiny", oneHour, 1, true}, hour, [sides][]cost{runs(said+" six six", 100, 210), runs(said, 200, 200), runs(said, 250, 300)}},
	}}
	out := report.New("Test", "unknown")
	m.write(out)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"tiny, 3 s 3s median of 2 2.000 s 4.000 s 0.50 ≤ 0.50 met - -",
		"p95 3.000 s 4.000 s 0.75 ≤ 0.50 missed",
		"processor 4.000 s 8.000 s 0.50",
		"tiny, 1 h 1h0m0s median of 1 210.000 s 200.000 s 1.05 ≤ 0.60 missed 300.000 s 0.70 ≤ 0.60 missed",
		"tiny, 1 h 2/20 = 10.0 % 0/20 = 0.0 % +10.00 ≤ +0.50 missed, ≤ 6 % missed 0/20 = 0.0 % +10.00 differs",
		"tiny, 1 h 100.0 MiB 200.0 MiB 0.50 250.0 MiB 0.40 ≤ 0.33 missed",
		"goals: 2 of 9 met",
		"missed: tiny, 1 h, median of 1: 1.05, never to be above 1.03",
		"missed: tiny, 1 h: 10.0 % errors, goal 6 %",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	m.samples[1].text, m.figures[1].sample.text = "", ""
	out = report.New("Test", "unknown")
	m.write(out)
	if !strings.Contains(out.String(), "no error rates are known") {
		t.Errorf("nobody says that no error rates are known:\n%s", out)
	}
}

func TestRestTables(t *testing.T) {
	r := &rig{memory: memory{oursIdle: 10 << 20, theirsStarted: 100 << 20}}
	r.starts.ours, r.starts.theirs = []time.Duration{time.Second / 10}, []time.Duration{time.Second}
	out := report.New("Test", "unknown")
	r.write(out)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"process to first health answer 0.100 s 1.000 s 0.10",
		"started, nothing transcribed yet 10.0 MiB 100.0 MiB 0.10", "after unload 0.0 MiB 0.0 MiB -",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-starts", "0"}, {"-model", "huge"}} {
		var stderr bytes.Buffer
		if code := report.ExitCode(program, run(t.Context(), args, io.Discard, &stderr), &stderr); code != report.ExitUsage || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
	var stderr bytes.Buffer
	if code := report.ExitCode(program, run(t.Context(), []string{"-quick", "-peer", t.TempDir()}, io.Discard, &stderr), &stderr); code != report.ExitError || !strings.Contains(stderr.String(), "peer.sh") {
		t.Errorf("no peer: exit code %d, %q", code, stderr.String())
	}
}
