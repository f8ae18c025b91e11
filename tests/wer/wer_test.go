package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

// said gives each clip's text by its language.
func said(texts map[string]string) recogniser {
	return func(_ context.Context, _, language string) (string, peer.Cost, error) {
		text, ok := texts[language]
		if !ok {
			return "", peer.Cost{}, errors.New("deaf")
		}
		return text, peer.Cost{Took: time.Second, CPU: 2 * time.Second, Peak: 3 << 20}, nil
	}
}

// recordings are three clips with a second of nothing in each, the last of
// which does not count.
func recordings(t *testing.T) []score.Clip {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	list := []score.Clip{
		{File: "en.wav", Language: "en", Reference: "the cat sat on the mat"},
		{File: "zh.wav", Language: "zh", Reference: "广州市房"},
		{File: "two.wav", Language: "en", Reference: "LEFT: a RIGHT: b", Excluded: "two voices"},
	}
	dir := t.TempDir()
	for i := range list {
		list[i].Path = filepath.Join(dir, list[i].File)
		if err := (clips.Sound{}).Fit(time.Second).WriteWAV(list[i].Path); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func TestMeasureAndReport(t *testing.T) {
	m := measurement{
		dir: t.TempDir(), progress: io.Discard,
		ours:       said(map[string]string{"en": "The cat sat on a mat.", "zh": "广州市房"}),
		theirs:     said(map[string]string{"en": "the cat sat on the mat", "zh": "广州"}),
		theirsLong: said(map[string]string{"en": "the cat sat"}), long: 1,
	}
	r, err := m.all(t.Context(), recordings(t))
	if err != nil {
		t.Fatal(err)
	}
	out := report.New("Test", "unknown")
	r.write(out)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"en words 1/6 = 16.7 % 0/6 = 0.0 % +16.67 1/6 = 16.7 %",
		"zh characters 0/4 = 0.0 % 2/4 = 50.0 % -50.00 0/4 = 0.0 %",
		"overall both 1/10 = 10.0 % 2/10 = 20.0 % -10.00 1/10 = 10.0 %",
		"long form (1 clips in en, 1 s with pauses",
		"errors 1/6 = 16.7 % 3/6 = 50.0 %",
		"processor time 2.0 s 2.0 s",
		"memory at most 3 MiB 3 MiB",
		"en.wav: ours 1/6 = 16.7 %, theirs 0/6 = 0.0 %",
		"two.wav does not count: two voices.",
		"(0 others are the same)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if err := r.verdict(); err != nil {
		t.Error(err)
	}
}

func TestMeasureStopsAtAFailure(t *testing.T) {
	list := recordings(t)
	m := measurement{dir: t.TempDir(), progress: io.Discard, ours: said(nil), theirs: said(nil)}
	if _, err := m.all(t.Context(), list); err == nil || !strings.Contains(err.Error(), "en.wav: deaf") {
		t.Errorf("got %v, want the clip and the cause", err)
	}
	list[0].Path += ".none"
	if _, err := m.all(t.Context(), list); err == nil || !strings.Contains(err.Error(), "en.wav.none") {
		t.Errorf("got %v, want the file that is missing", err)
	}
}

func TestWithout(t *testing.T) {
	all := without{detector: true, shortPass: true, secondLook: true}
	if got := strings.Join(all.env(), " "); strings.Count(got, "WHISPER_APPLIANCE_") != 4 || !strings.Contains(got, "VAD_DETECTOR=loudness") {
		t.Errorf("environment %s", got)
	}
	if none := (without{carriedText: true}); none.env() != nil || none.String() != "" {
		t.Errorf("nothing is off, but %q, %s", none.env(), none)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name         string
		ours, theirs int // errors in 1000 words
		bad          bool
	}{
		{"the same", 50, 50, false},
		{"better", 10, 50, false},
		{"worse by as much as is allowed", 55, 50, false},
		{"worse by more", 56, 50, true},
	} {
		r := result{clips: []heard{{
			ours: side{counts: score.Counts{Sub: c.ours, Ref: 1000}}, theirs: side{counts: score.Counts{Sub: c.theirs, Ref: 1000}},
		}}}
		if err := r.verdict(); (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	var stderr bytes.Buffer
	err := run(t.Context(), []string{"-no-such-flag"}, io.Discard, &stderr)
	if code := report.ExitCode(program, err, &stderr); code != report.ExitUsage || !strings.Contains(stderr.String(), "no-such-flag") {
		t.Errorf("a wrong flag: exit code %d, %q", code, stderr.String())
	}
	err = run(t.Context(), []string{"-speech", t.TempDir()}, io.Discard, &stderr)
	if code := report.ExitCode(program, err, &stderr); code != report.ExitError || !strings.Contains(stderr.String(), "manifest") {
		t.Errorf("no recordings: exit code %d, %q", code, stderr.String())
	}
}
