// Package hearing is what the fake engine hears in sound: words that derive from
// the sound's digest, so that whoever has the sound knows them, and of the
// reference clip what is said in it. It trusts its callers and writes nothing.
package hearing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/smoke"
)

const (
	said  = "Please open the window and let the fresh air into the room."
	probe = 400      // samples by which sound is known again, 25 ms
	bite  = 16 << 20 // bytes that a hog takes at a time
)

// words are those that other sound is heard as.
var words = [16]string{"alder", "birch", "cedar", "elm", "fir", "hazel", "holly", "juniper",
	"larch", "maple", "oak", "pine", "rowan", "spruce", "willow", "yew"}

// Backend hears the reference clip in known, and digests in all else. For speech it
// takes what is loud.
type Backend struct {
	known []byte
	log   *slog.Logger
}

// New is a backend that knows the reference clip, and notes each window that is
// done in log.
func New(log *slog.Logger) (Backend, error) {
	known, err := reference()
	return Backend{known, log}, err
}

// reference is the reference clip's sound, f32le.
func reference() ([]byte, error) {
	clip, size := smoke.Clip()
	data, err := io.ReadAll(io.LimitReader(clip, size))
	if err != nil {
		return nil, err
	}
	var pcm bytes.Buffer
	if _, err := audio.ReadWAV(bytes.NewReader(data), size, &pcm); err != nil {
		return nil, err
	}
	return pcm.Bytes(), nil
}

// Describe is engine.Backend's.
func (Backend) Describe() engine.Description {
	return engine.Description{Whisper: "none", Backend: "fake", System: "text from the sound's digest"}
}

// Load is engine.Backend's: any file is a model.
func (b Backend) Load(path string) (engine.LoadedModel, error) {
	if name := strings.TrimSuffix(filepath.Base(path), ".bin"); strings.HasSuffix(name, "-hog") {
		eat()
	}
	pace, err := paceOf(path)
	if err != nil {
		return nil, &engine.Failure{Code: engine.CodeBadModel, Message: err.Error()}
	}
	return &model{Backend: b, pace: pace}, nil
}

// eat takes memory, and writes to it, until somebody ends the process.
func eat() {
	var all [][]byte
	for {
		piece := make([]byte, bite)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		all = append(all, piece)
		if len(all) == math.MaxInt {
			return
		}
	}
}

// LoadVAD is engine.Backend's.
func (Backend) LoadVAD(string, int) (engine.LoadedVAD, error) { return detector{}, nil }

type model struct {
	Backend
	pace
	windows atomic.Int64 // begun since it was loaded
}

func (*model) Info() engine.Model { return engine.Model{Type: "tiny", Multilingual: true} }
func (*model) Close()             {}

func (m *model) NewState() (engine.State, error) { return state{m}, nil }

// state needs nothing that the model has not.
type state struct{ *model }

func (state) Bytes() int64 { return 0 }

func (s state) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, emit func(engine.Event)) (engine.Done, error) {
	began := time.Now()
	if err := s.window(ctx, &s.windows); err != nil {
		return engine.Done{}, err
	}
	end := time.Duration(len(pcm)) * time.Second / engine.SampleRate
	segment := engine.Segment{End: end, Text: " " + s.hear(pcm), AvgLogProb: -0.1}
	for i, word := range strings.Fields(segment.Text) {
		segment.Tokens = append(segment.Tokens, engine.Token{ID: i, Prob: 0.9, LogProb: -0.1, End: end, Bytes: []byte(" " + word)})
	}
	if req.Words {
		segment.Words = engine.WordsOf(segment, req.Language)
	}
	emit(engine.Event{Segment: &segment})
	done := engine.Done{Language: req.Language, Took: time.Since(began)}
	if done.Language == "" {
		done.Language, done.LanguageProb = "en", 1
	}
	s.log.Info("window decoded", "length", end, "took", done.Took)
	return done, nil
}

// hear gives the words of the reference clip where the sound is from it, else
// eight that stand for the sound's digest.
func (s state) hear(pcm []float32) string {
	data := make([]byte, 0, len(pcm)*audio.SampleSize)
	for _, sample := range pcm {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(sample))
	}
	if middle := len(pcm) / 2; middle >= probe {
		if piece := data[middle*audio.SampleSize:][:probe*audio.SampleSize]; bytes.Contains(s.known, piece) {
			return said
		}
	}
	digest := sha256.Sum256(data)
	heard := make([]string, 8)
	for i := range heard {
		heard[i] = words[digest[i]%16]
	}
	return strings.Join(heard, " ")
}
