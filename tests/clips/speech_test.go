package clips

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// said is a tone of so many seconds with a text.
func said(seconds float64, text string) Spoken {
	return Spoken{tone(time.Duration(seconds * float64(time.Second))), text}
}

func TestEnglish(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	base := t.TempDir()
	root, dir := filepath.Join(base, "checkout"), filepath.Join(base, "shared", "speech")
	if _, err := English(t.Context(), root); err == nil {
		t.Error("clips came from nowhere")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	table := func(rows string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, Manifest), []byte("file\tlanguage\treference\n"+rows), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tone(time.Second).WriteWAV(filepath.Join(dir, "a.wav")); err != nil {
		t.Fatal(err)
	}
	table("de.wav\tde\tdrei\na.wav\ten\tone\n")
	list, err := English(t.Context(), root)
	if err != nil || len(list) != 1 || list[0].Text != "one" || list[0].Sound.Duration() != time.Second {
		t.Errorf("%d clips, %v; want the English one", len(list), err)
	}
	table("de.wav\tde\tdrei\n")
	if _, err := English(t.Context(), root); err == nil || !strings.Contains(err.Error(), "no English clip") {
		t.Errorf("without an English clip: %v", err)
	}
	table("none.wav\ten\tone\n")
	if _, err := English(t.Context(), root); err == nil || !strings.Contains(err.Error(), "none.wav") {
		t.Errorf("without its file: %v", err)
	}
}

func TestWithin(t *testing.T) {
	list := []Spoken{said(4, "four"), said(1, "one"), said(2.5, "two"), said(9, "nine")}
	for d, want := range map[time.Duration]string{time.Second / 2: "one", 3 * time.Second: "two", 4 * time.Second: "four", time.Minute: "nine"} {
		if got := Within(list, d).Text; got != want {
			t.Errorf("within %v: %s, want %s", d, got, want)
		}
	}
}

func TestFitForgetsWhatIsCut(t *testing.T) {
	s := said(2, "two")
	for d, want := range map[time.Duration]string{time.Second: "", 2 * time.Second: "two", 3 * time.Second: "two"} {
		if got := s.Fit(d); got.Text != want || got.Sound.Duration() != d {
			t.Errorf("fit to %v: %q of %v, want %q", d, got.Text, got.Sound.Duration(), want)
		}
	}
}

func TestFill(t *testing.T) {
	list := []Spoken{said(2, "a"), said(3, "b"), said(4, "c")}
	for d, want := range map[time.Duration]string{
		time.Second: "", 2 * time.Second: "a", 5900 * time.Millisecond: "a", 6 * time.Second: "a b", time.Minute: "a b c",
	} {
		if got := Fill(list, d, time.Second); got.Text != want || got.Sound.Duration() != d {
			t.Errorf("%v: %q of %v, want %q", d, got.Text, got.Sound.Duration(), want)
		}
	}
}

func TestShuffled(t *testing.T) {
	list := []int{0, 1, 2, 3, 4}
	order := Shuffled(list, 13)
	if !slices.Equal(order, Shuffled(list, 13)) || len(order) != 13 || len(Shuffled([]int{}, 3)) != 0 {
		t.Errorf("order %v", order)
	}
	if first := slices.Sorted(slices.Values(order[:5])); !slices.Equal(first, list) {
		t.Errorf("the first five are %v, want each once", first)
	}
}
