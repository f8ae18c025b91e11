package clips

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
)

// tone is a sound to compare by.
func tone(d time.Duration) Sound {
	s := make(Sound, audio.SamplesIn(d))
	for i := range s {
		s[i] = int16(8000 * math.Sin(float64(i)/7))
	}
	return s
}

func TestWriteWAVIsReadAsItWas(t *testing.T) {
	for _, d := range []time.Duration{0, time.Second / 16000, 1500 * time.Millisecond} {
		path, sound := filepath.Join(t.TempDir(), "tone.wav"), tone(d)
		if err := sound.WriteWAV(path); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != 44+2*len(sound) {
			t.Errorf("%v: the file has %d bytes, want %d", d, len(data), 44+2*len(sound))
		}
		header, err := audio.ParseWAV(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		if !audio.FitsWAV(header) || header.Truncated || header.DataSize != int64(2*len(sound)) {
			t.Errorf("%v: header %+v does not fit the recognisers", d, header)
		}
	}
}

func TestReadGivesTheSamplesBack(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	dir, sound := t.TempDir(), tone(300*time.Millisecond)
	path := filepath.Join(dir, "tone.wav")
	if err := sound.WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), path)
	if err != nil || !slices.Equal(got, sound) {
		t.Errorf("Read: %d samples, %v; want the %d written", len(got), err, len(sound))
	}
	text := filepath.Join(dir, "text.wav")
	if err := os.WriteFile(text, []byte("no sound at all"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.wav")
	if err := Convert(t.Context(), text, out); err == nil || !strings.Contains(err.Error(), "text.wav") {
		t.Errorf("Convert of a text: %v; want an error that names it", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("Convert of a text left a file")
	}
}

func TestFit(t *testing.T) {
	sound := tone(time.Second)
	short, long := sound.Fit(time.Second/2), sound.Fit(3*time.Second)
	if short.Duration() != time.Second/2 || !slices.Equal(short, sound[:len(short)]) {
		t.Errorf("cut: %v long, or other samples", short.Duration())
	}
	if long.Duration() != 3*time.Second || slices.ContainsFunc(long[len(sound):], func(v int16) bool { return v != 0 }) {
		t.Errorf("filled up: %v long, or not silent", long.Duration())
	}
}

func TestJoin(t *testing.T) {
	sounds := []Sound{tone(time.Second), tone(2 * time.Second), tone(time.Second)}
	joined := Join(sounds, 300*time.Millisecond, 3*time.Second, 1)
	if d := joined.Duration(); d < 4600*time.Millisecond || d > 10*time.Second {
		t.Errorf("joined is %v long, want 4 s and two pauses of 0.3 to 3 s", d)
	}
	if !slices.Equal(joined, Join(sounds, 300*time.Millisecond, 3*time.Second, 1)) {
		t.Error("the same seed gave another result")
	}
	if slices.Equal(joined, Join(sounds, 300*time.Millisecond, 3*time.Second, 2)) {
		t.Error("another seed gave the same result")
	}
	if d := Join(sounds, time.Second, time.Second, 1).Duration(); d != 6*time.Second {
		t.Errorf("with fixed pauses it is %v long, want 6 s", d)
	}
	if d := Join(nil, time.Second, time.Second, 1).Duration(); d != 0 {
		t.Errorf("nothing joined is %v long", d)
	}
}

func TestShared(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "checkout")
	if _, err := Shared(root); err == nil || !strings.Contains(err.Error(), filepath.Join(base, "shared")) {
		t.Errorf("without clips: %v; want where it looked", err)
	}
	dir := filepath.Join(base, "shared", "speech")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Manifest), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Shared(root); err != nil || got != dir {
		t.Errorf("Shared = %q, %v; want %q", got, err, dir)
	}
}

func TestTranscribe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clip.wav")
	if err := os.WriteFile(path, []byte("sound"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, answer string
		status       int
		want, fails  string
	}{
		{name: "text", status: 200, answer: `{"text":" hello"}`, want: " hello"},
		{name: "refused", status: 401, answer: `{"error":"no key"}`, fails: "no key"},
		{name: "no JSON", status: 200, answer: "<html>", fails: "<html>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				file, header, err := r.FormFile("file")
				if err != nil {
					t.Error(err)
					return
				}
				if data, _ := io.ReadAll(file); string(data) != "sound" || header.Filename != "clip.wav" {
					t.Errorf("uploaded %q as %q", data, header.Filename)
				}
				if r.FormValue("language") != "de" || r.Header.Get("Authorization") != "Bearer secret" {
					t.Errorf("language %q, authorization %q", r.FormValue("language"), r.Header.Get("Authorization"))
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			}))
			defer server.Close()
			text, took, err := Request{URL: server.URL, Key: "secret", Fields: map[string]string{"language": "de"}, Path: path}.Transcribe(t.Context())
			switch {
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("error %v, want one with %q", err, c.fails)
			case c.fails == "" && (err != nil || text != c.want || took <= 0):
				t.Errorf("got %q in %v, %v; want %q", text, took, err, c.want)
			}
		})
	}
	if _, _, err := (Request{Path: path + ".none"}).Transcribe(context.Background()); err == nil {
		t.Error("a recording that is not there was sent")
	}
}
