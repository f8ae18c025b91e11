//go:build whisper

package whisper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
)

// These tests run on the real whisper.cpp with the real model:
// make test-engine says where both are.

func backend(t testing.TB) *Backend {
	t.Helper()
	dir := os.Getenv("WA_BACKENDS")
	if dir == "" {
		t.Fatal("WA_BACKENDS is not set: run `make test-engine`")
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t testing.TB, b *Backend) engine.LoadedModel {
	t.Helper()
	m, err := b.Load(filepath.Join(os.Getenv("WA_MODELS"), tiny))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// room is a state of m, closed before it.
func room(t testing.TB, m engine.LoadedModel) engine.State {
	t.Helper()
	s, err := m.NewState()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// reference is the clip in the repository: 16 kHz, mono, 16 bit behind a
// header of 44 bytes.
func reference(t testing.TB) (pcm []float32, text string) {
	t.Helper()
	dir := filepath.Join("..", "..", "tests", "testdata")
	data, err := os.ReadFile(filepath.Join(dir, "reference.wav"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 44; i+1 < len(data); i += 2 {
		pcm = append(pcm, float32(int16(binary.LittleEndian.Uint16(data[i:])))/32768)
	}
	words, err := os.ReadFile(filepath.Join(dir, "reference.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return pcm, strings.TrimSpace(string(words))
}

const tiny = "ggml-tiny.bin"

type heard struct {
	text     string
	segments []engine.Segment
}

func (h *heard) event(ev engine.Event) {
	if ev.Segment != nil {
		h.text += ev.Segment.Text
		h.segments = append(h.segments, *ev.Segment)
	}
}

func TestTranscribe(t *testing.T) {
	b := backend(t)
	m := room(t, load(t, b))
	pcm, want := reference(t)
	if d := b.Describe(); !strings.Contains(d.Backend, "CPU") || d.Whisper == "" {
		t.Errorf("Describe: %+v", d)
	} else {
		t.Logf("whisper.cpp %s on %s", d.Whisper, d.Backend)
	}
	for name, req := range map[string]engine.WindowRequest{
		"greedy":           {Language: "en"},
		"beam":             {Language: "en", BeamSize: 5},
		"language unknown": {},
		"one thread":       {Language: "en", Threads: 1},
		"shorter context":  {Language: "en", AudioCtx: 512},
	} {
		t.Run(name, func(t *testing.T) {
			req.Threads = max(req.Threads, 2)
			req.BestOf = 5
			var h heard
			done, err := m.Transcribe(t.Context(), req, pcm, h.event)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(h.text); got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
			if done.Language != "en" || (req.Language == "" && done.LanguageProb < 0.5) {
				t.Errorf("language %q (%.2f)", done.Language, done.LanguageProb)
			}
			for _, s := range h.segments {
				if s.End <= s.Start || s.End > 5*time.Second || s.AvgLogProb >= 0 || len(s.Tokens) == 0 {
					t.Errorf("segment %+v", s)
				}
			}
		})
	}
}

func TestWords(t *testing.T) {
	m := room(t, load(t, backend(t)))
	pcm, want := reference(t)
	var h heard
	if _, err := m.Transcribe(t.Context(), engine.WindowRequest{Language: "en", Threads: 2, Words: true, BestOf: 5}, pcm, h.event); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	at := time.Duration(0)
	for _, s := range h.segments {
		for _, w := range s.Words {
			text.WriteString(w.Text)
			if w.Start < at || w.End < w.Start || w.End > s.End || w.Prob <= 0 || w.Prob > 1 {
				t.Errorf("word %+v after %v", w, at)
			}
			at = w.End
		}
	}
	if got := strings.TrimSpace(text.String()); got != want {
		t.Errorf("words %q, want %q", got, want)
	}
}

// TestWindowsAreIndependent: what was said before leaves no trace in the state.
func TestWindowsAreIndependent(t *testing.T) {
	m := room(t, load(t, backend(t)))
	pcm, _ := reference(t)
	half := pcm[:len(pcm)/2]
	texts := map[string]int{}
	for i, between := range [][]float32{half, pcm, make([]float32, 30*engine.SampleRate), half} {
		var h heard
		if _, err := m.Transcribe(t.Context(), engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5}, pcm, h.event); err != nil {
			t.Fatal(err)
		}
		texts[h.text]++
		other := engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5, AudioCtx: 300 * i} // of other contexts, in step or not
		if _, err := m.Transcribe(t.Context(), other, between, func(engine.Event) {}); err != nil {
			t.Fatal(err)
		}
	}
	if len(texts) != 1 {
		t.Errorf("the same window gave %d texts: %v", len(texts), texts)
	}
}

// resident is this process's memory in MiB.
func resident(t testing.TB) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var all, here int
	if _, err := fmt.Sscan(string(data), &all, &here); err != nil {
		t.Fatal(err)
	}
	return here * os.Getpagesize() >> 20
}

// TestStateIsMadeAnew: what that costs is little beside a window, and no memory is lost.
func TestStateIsMadeAnew(t *testing.T) {
	m := room(t, load(t, backend(t))).(*state)
	m.cut = true
	started := time.Now()
	if err := m.ready(0); err != nil || m.cut {
		t.Fatal(err)
	}
	t.Logf("a new state in %v", time.Since(started).Round(time.Millisecond))
	pcm, _ := reference(t)
	var after []int
	for range 4 {
		for _, context := range []int{512, 0} {
			if _, err := m.Transcribe(t.Context(), engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5, AudioCtx: context}, pcm, func(engine.Event) {}); err != nil {
				t.Fatal(err)
			}
		}
		after = append(after, resident(t))
	}
	if t.Logf("resident %v MiB", after); after[3] > after[0]+16 {
		t.Errorf("memory grows with each new state: %v MiB", after)
	}
	for asked, want := range map[int]int{0: 0, 1: 256, 512: 512, 513: 768, 1280: 1280, 1281: 0, 1500: 0} {
		if got := m.context(asked); got != want {
			t.Errorf("context %d becomes %d, want %d", asked, got, want)
		}
	}
}

func TestShortAndSilentWindows(t *testing.T) {
	m := room(t, load(t, backend(t)))
	for _, n := range []int{1, 160, engine.SampleRate / 2, 30 * engine.SampleRate} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if _, err := m.Transcribe(t.Context(), engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5}, make([]float32, n), func(engine.Event) {}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOnePass: what whisper.cpp would encode once more for is left, and it says
// how far the text reaches.
func TestOnePass(t *testing.T) {
	s := room(t, load(t, backend(t)))
	clip, _ := reference(t)
	const length = 40 * engine.SampleRate // and the encoder hears 30
	var pcm []float32
	for len(pcm) < length {
		pcm = append(append(pcm, clip...), make([]float32, engine.SampleRate/2)...)
	}
	pcm = pcm[:length]
	decode := func(onePass bool) (h heard, until time.Duration) {
		done, err := s.Transcribe(t.Context(), engine.WindowRequest{Language: "en", TemperatureInc: -1, OnePass: onePass, Threads: 2}, pcm, h.event)
		if err != nil {
			t.Fatal(err)
		}
		return h, done.Until
	}
	all, none := decode(false)
	part, until := decode(true)
	last := part.segments[len(part.segments)-1]
	if none != 0 || until != last.End || until < 15*time.Second || until > 30*time.Second {
		t.Errorf("the text reaches %v and %v, its last segment %v", none, until, last.End)
	}
	if len(all.text) <= len(part.text) || !strings.HasPrefix(all.text, part.text) {
		t.Errorf("in one pass %q\nin all of them %q", part.text, all.text)
	}
}

func TestAbort(t *testing.T) {
	m := room(t, load(t, backend(t)))
	noise := make([]float32, 30*engine.SampleRate)
	for i := range noise {
		noise[i] = float32(math.Sin(float64(i*i)) / 3)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := m.Transcribe(ctx, engine.WindowRequest{Language: "en", Threads: 1, BestOf: 5}, noise, func(engine.Event) {})
	var f *engine.Failure
	if !errors.As(err, &f) || f.Code != engine.CodeAborted {
		t.Errorf("error %v after %v, want code %s", err, time.Since(started), engine.CodeAborted)
	}
	t.Logf("gave up after %v", time.Since(started).Round(time.Millisecond))
	pcm, want := reference(t)
	var h heard
	if _, err := m.Transcribe(t.Context(), engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5}, pcm, h.event); err != nil || strings.TrimSpace(h.text) != want {
		t.Errorf("after the abort: %q, %v", h.text, err)
	}
}

func TestBadModels(t *testing.T) {
	b := backend(t)
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"empty": {}, "text": []byte("this is no model, only text that goes on for a while"),
		"magic alone": {0x6c, 0x6d, 0x67, 0x67},
	} {
		path := filepath.Join(dir, "ggml-bad.bin")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := b.Load(path)
		var f *engine.Failure
		if !errors.As(err, &f) || f.Code != engine.CodeBadModel {
			t.Errorf("%s: error %v, want code %s", name, err, engine.CodeBadModel)
		}
	}
	if _, err := Open(dir); err == nil {
		// ggml keeps what it has loaded, so the devices of the first Open stay.
		t.Log("backends of an earlier Open stay loaded")
	}
}

func TestDetectSpeech(t *testing.T) {
	b := backend(t)
	path := os.Getenv("VAD_MODEL")
	if path == "" {
		path = filepath.Join("..", "..", "..", "shared", "models", "ggml-silero-v6.2.0.bin")
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no Silero model: %v (VAD_MODEL names one)", err)
	}
	v, err := b.LoadVAD(path, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	speech, _ := reference(t)
	silence := make([]float32, 3*engine.SampleRate)
	pcm := append(append(append([]float32{}, silence...), speech...), silence...)
	spans, err := v.Detect(engine.VADRequest{}, pcm)
	if err != nil || len(spans) == 0 {
		t.Fatalf("Detect: %v, %v", spans, err)
	}
	first, last := spans[0].Start, spans[len(spans)-1].End
	begin, end := 3*time.Second, 3*time.Second+time.Duration(len(speech))*time.Second/engine.SampleRate
	if first < begin-300*time.Millisecond || first > begin+time.Second || last < end-time.Second || last > end+500*time.Millisecond {
		t.Errorf("speech from %v to %v, want about %v to %v", first, last, begin, end)
	}
	if spans, err := v.Detect(engine.VADRequest{}, silence); err != nil || len(spans) != 0 {
		t.Errorf("silence: %v, %v", spans, err)
	}
}
