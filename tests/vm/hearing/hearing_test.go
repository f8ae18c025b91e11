package hearing

import (
	"bytes"
	"encoding/binary"
	"testing"

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
	b, err := New()
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

func TestRefuses(t *testing.T) {
	if _, err := (Backend{}).LoadVAD("x", 1); err == nil {
		t.Error("there is a speech detector")
	}
}
