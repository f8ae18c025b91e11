package hearing

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/smoke"
)

// TestHear: the reference clip is known by any stretch of it, other sound is
// heard as its digest says, the same sound as the same words.
func TestHear(t *testing.T) {
	known, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	clip := make([]float32, len(known)/4)
	if err := binary.Read(bytes.NewReader(known), binary.LittleEndian, clip); err != nil {
		t.Fatal(err)
	}
	b, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := b.Load("ggml-tiny.bin")
	if err != nil {
		t.Fatal(err)
	}
	room, err := loaded.NewState()
	if err != nil {
		t.Fatal(err)
	}
	text := func(pcm []float32) string {
		t.Helper()
		var heard []string
		done, err := room.Transcribe(t.Context(), engine.WindowRequest{Words: true}, pcm, func(e engine.Event) {
			heard = append(heard, e.Segment.Text)
			if len(e.Segment.Words) == 0 || e.Segment.End > engine.MaxWindow {
				t.Errorf("the segment %+v", e.Segment)
			}
		})
		if err != nil || done.Language != "en" || len(heard) != 1 {
			t.Fatalf("%v, %+v, %q", err, done, heard)
		}
		return heard[0]
	}
	for _, pcm := range [][]float32{clip, clip[4000:], clip[:len(clip)/2]} {
		if got := text(pcm); !smoke.Right(got) {
			t.Errorf("of the clip %q is heard", got)
		}
	}
	other := make([]float32, 16000)
	for i := range other {
		other[i] = float32(i%200)/100 - 1
	}
	first := text(other)
	if smoke.Right(first) || text(other) != first {
		t.Errorf("other sound is heard as %q and as %q", first, text(other))
	}
	other[8000] = 0.5
	if text(other) == first {
		t.Error("two sounds are heard alike")
	}
}

// TestPace: a model's name says how long its windows take, and which one fails.
func TestPace(t *testing.T) {
	for name, want := range map[string]pace{
		"ggml-tiny.bin":                       {},
		"ggml-tiny-takes-110s.bin":            {takes: 110 * time.Second},
		"ggml-tiny-takes-1670ms-fails-3.bin":  {1670 * time.Millisecond, 3},
		"ggml-tiny-takes-long.bin":            {},
		"ggml-tiny-takes-1s-fails-3-more.bin": {},
	} {
		if got, err := paceOf(name); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	if _, err := (Backend{}).Load("ggml-tiny-takes-99999999999999999999s.bin"); err == nil {
		t.Error("a time beyond all bounds was taken")
	}
	loaded, err := Backend{log: slog.New(slog.DiscardHandler)}.Load("ggml-tiny-takes-1ms-fails-2.bin")
	if err != nil {
		t.Fatal(err)
	}
	room, err := loaded.NewState()
	if err != nil {
		t.Fatal(err)
	}
	window := func(ctx context.Context) error {
		_, err := room.Transcribe(ctx, engine.WindowRequest{}, make([]float32, 16000), func(engine.Event) {})
		return err
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	first, second, third, fourth := window(t.Context()), window(t.Context()), window(t.Context()), window(gone)
	if first != nil || second == nil || third != nil || fourth == nil {
		t.Errorf("windows: %v, %v, %v, of one who has left: %v", first, second, third, fourth)
	}
}

// TestDetect: what is loud is speech.
func TestDetect(t *testing.T) {
	loaded, err := Backend{}.LoadVAD("x", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	pcm := make([]float32, 10*engine.SampleRate)
	for i := range 2 * engine.SampleRate {
		pcm[5*engine.SampleRate+i] = float32(i%200)/200 - 0.5
	}
	speech, err := loaded.Detect(engine.VADRequest{}, pcm)
	if err != nil || len(speech) != 1 || speech[0].Start < 4*time.Second || speech[0].End > 8*time.Second {
		t.Errorf("speech %v, %v; want it from 5 to 7 s", speech, err)
	}
	if speech, err := loaded.Detect(engine.VADRequest{}, make([]float32, engine.SampleRate)); err != nil || len(speech) != 0 {
		t.Errorf("in silence %v, %v", speech, err)
	}
}
