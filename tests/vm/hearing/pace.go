package hearing

import (
	"context"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
)

// paced is how a model's name says how it works: "tiny-takes-110s", and where one
// of its windows fails "tiny-takes-100s-fails-3", counted from 1 since it was loaded.
var paced = regexp.MustCompile(`-takes-(\d+m?s)(?:-fails-(\d+))?$`)

// pace is how long each window takes, and which of them fails; 0 = none.
type pace struct {
	takes time.Duration
	fails int64
}

// paceOf reads a model file's name. One that says nothing takes no time.
func paceOf(path string) (p pace, err error) {
	found := paced.FindStringSubmatch(strings.TrimSuffix(filepath.Base(path), ".bin"))
	if found == nil {
		return pace{}, nil
	}
	if p.takes, err = time.ParseDuration(found[1]); err != nil || found[2] == "" {
		return p, err
	}
	p.fails, err = strconv.ParseInt(found[2], 10, 64)
	return p, err
}

// window takes its time over the next window, of those that windows counts.
func (p pace) window(ctx context.Context, windows *atomic.Int64) error {
	if windows.Add(1) == p.fails {
		return &engine.Failure{Code: engine.CodeDecode, Message: "this window fails, as the model's name says"}
	}
	select {
	case <-ctx.Done():
		return &engine.Failure{Code: engine.CodeAborted, Message: "the client has left"}
	case <-time.After(p.takes):
		return nil
	}
}

// detector takes for speech what is loud.
type detector struct{}

func (detector) Close() {}

// Detect is engine.LoadedVAD's.
func (detector) Detect(_ engine.VADRequest, pcm []float32) ([]engine.Span, error) {
	loud, err := audio.LoudSpans(samples(pcm))
	if err != nil {
		return nil, &engine.Failure{Code: engine.CodeBadRequest, Message: err.Error()}
	}
	speech := make([]engine.Span, len(loud))
	for i, s := range loud {
		speech[i] = engine.Span(s)
	}
	return speech, nil
}

// samples are PCM in memory.
type samples []float32

// Samples is audio.Source's.
func (s samples) Samples() int64 { return int64(len(s)) }

// ReadSamples is audio.Source's. Whoever asks for no more than there is gets all.
func (s samples) ReadSamples(p []float32, from int64) (int, error) { return copy(p, s[from:]), nil }
