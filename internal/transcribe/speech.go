package transcribe

import (
	"context"
	"errors"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/schedule"
)

// Detector finds where somebody speaks; *engine.Client is the real one.
type Detector interface {
	// Detect lists the stretches of speech in pcm, which is at most
	// engine.MaxVAD long. The error is a *engine.Failure, engine.ErrBroken or
	// the context's.
	Detect(ctx context.Context, req engine.VADRequest, pcm []float32) (engine.VADResponse, error)
}

// The detector hears a recording in parts, each with some of its neighbours,
// so that speech at a border is heard in its surroundings from both sides.
const (
	partLength  = time.Minute // 4 MB
	partOverlap = 2 * time.Second
)

// Shorter silences than this are no reason to cut there, and speech is not so short.
const (
	minSilence = 300 * time.Millisecond
	minSpeech  = 250 * time.Millisecond
)

// findSpeech finds where somebody speaks, and notes in the transcript where
// loudness had to tell. The error is a fault, or that of reading the sound.
func (r *run) findSpeech(ctx context.Context) ([]audio.Span, error) {
	if r.job.ByLoudness {
		return audio.LoudSpans(r.pcm)
	}
	file, ok := "", false
	if r.Detector != nil && r.DetectorModel != nil {
		file, ok = r.DetectorModel()
	}
	if !ok {
		r.note("speech was told from silence by its loudness alone, as the speech detector's model is not installed")
		return audio.LoudSpans(r.pcm)
	}
	spans, err := r.detect(ctx, file)
	switch {
	case err == nil:
		r.detected = true
		return spans, nil
	case ctx.Err() != nil:
		return nil, canceled(ctx)
	case r.job.Patient && away(err):
		return nil, describe(ctx, err, r.job, audio.Window{End: r.result.Duration})
	}
	r.Log.Warn("speech detector failed; loudness tells", "job", r.job.ID, "model", file, "error", err)
	r.note("speech was told from silence by its loudness alone, as the speech detector failed")
	return audio.LoudSpans(r.pcm)
}

// detect asks the detector part by part.
func (r *run) detect(ctx context.Context, file string) ([]audio.Span, error) {
	req := engine.VADRequest{Model: file, Threshold: float32(r.job.Threshold), MinSilence: minSilence, MinSpeech: minSpeech}
	total := r.result.Duration
	var spans []audio.Span
	for at := time.Duration(0); at < total; at += partLength {
		if at > 0 || total > partLength {
			r.observe(Update{Phase: Detecting, Done: at, Total: total})
		}
		part := audio.Span{Start: at, End: min(at+partLength, total)}
		found, err := r.detectPart(ctx, req, part)
		if err != nil {
			return nil, err
		}
		spans = append(spans, found...)
		if r.job.OnlyLanguage && enough(spans, part.End) {
			break
		}
	}
	return audio.Joined(spans, total), nil
}

// detectPart lists the speech in a part of the recording.
func (r *run) detectPart(ctx context.Context, req engine.VADRequest, part audio.Span) ([]audio.Span, error) {
	from := max(0, part.Start-partOverlap)
	pcm, err := r.pcm.ReadWindow(from, part.End+partOverlap)
	if err != nil {
		return nil, err
	}
	if err := r.takeTurn(ctx, 0); err != nil { // it takes no longer than a short window
		return nil, err
	}
	found, err := r.askDetector(ctx, req, pcm)
	if r.turn.Lane() == schedule.ShortLane && noMemory(err) {
		r.turn.NoRoom()
		return r.detectPart(ctx, req, part)
	}
	if errors.Is(err, engine.ErrBroken) && ctx.Err() == nil {
		found, err = r.askDetector(ctx, req, pcm)
	}
	var spans []audio.Span
	for _, s := range found.Speech {
		span := audio.Span{Start: max(from+s.Start, part.Start), End: min(from+s.End, part.End)}
		if span.Start < span.End {
			spans = append(spans, span)
		}
	}
	return spans, err
}

// away tells an engine that is not there just now from a detector that fails.
func away(err error) bool {
	var f *engine.Failure
	return errors.Is(err, engine.ErrBroken) || errors.As(err, &f) && (f.Code == engine.CodeDown || f.Code == engine.CodeNoMemory)
}

func (r *run) askDetector(ctx context.Context, req engine.VADRequest, pcm []float32) (engine.VADResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	req.Lane = r.lane()
	found, err := r.Detector.Detect(ctx, req, pcm)
	r.endStuck(err)
	return found, err
}
