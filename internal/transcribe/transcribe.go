// Package transcribe turns a recording into a transcript: it has it decoded to
// PCM, cuts that into windows, has the engine decode one window after the
// other, and puts the segments together with absolute times. The window is the
// unit of everything here: of progress, fairness and cancellation. Several
// jobs run at once and take turns by the window, first come, first served.
//
// It trusts neither the recording (the decoder is a process in a sandbox) nor
// the engine (a window whose engine crashes is tried once more with the next
// engine). It writes PCM to its spool directory, into files without a name.
package transcribe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// Engine decodes windows; *engine.Client is the real one.
type Engine interface {
	// Transcribe decodes one window. observe sees its events but the last.
	// The error is a *engine.Failure, engine.ErrBroken or the context's.
	Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, observe func(engine.Event)) (engine.Done, error)
}

// Decoder turns media into PCM; *decode.Decoder is the real one.
type Decoder interface {
	// Decode writes f as 16 kHz mono f32le to sink. Its errors are faults.
	Decode(ctx context.Context, f *os.File, limits decode.Limits, sink io.Writer) (decode.Info, error)
}

// Service transcribes. Fields are set before the first Run and not changed after.
type Service struct {
	Engine  Engine
	Decoder Decoder
	Spool   string        // directory for PCM while a job runs
	Longest time.Duration // of a recording; 0 = no limit
	Timeout time.Duration // for decoding the media; 0 = none
	Log     *slog.Logger

	// Stuck is called when a window takes longer than any window may: the
	// engine is frozen and has to be ended. nil = nobody can.
	Stuck func()

	// WindowLimit is the least that a window may take; 0 = 10 minutes.
	WindowLimit time.Duration

	slowest  atomic.Int64 // nanoseconds of the slowest window
	turns    turns        // at the engine, by the window
	decoding turns        // decoders, by the job: each is an ffmpeg with its memory
	setup    sync.Once
}

// Reserve is what must stay free where recordings are spooled, in bytes: the
// sound that is decoded from them, the settings and the log lie there, too.
const Reserve = 256 << 20

// Bounds of a window: ten times the slowest so far, and never so little that
// a large model could not be read from a slow disk meanwhile.
const (
	windowLeast  = 10 * time.Minute
	windowFactor = 10
)

// Job is what is asked for.
type Job struct {
	Audio *os.File // the recording; read from its start, not closed
	Name  string   // as the caller calls it, for messages
	ID    string   // for the log

	Model       string // catalogue name, for the transcript
	ModelFile   string // file name in the model directory
	Language    string // ISO 639-1; "" = detect
	Task        transcript.Task
	Prompt      string  // given to every window
	Temperature float64 // of the first attempt, 0 to 1
	Words       bool    // word times
	BeamSize    int     // < 2 = greedy
	BestOf      int     // candidates above temperature 0
	Threads     int     // 0 = the engine's choice
}

// Phase is how far a job has come.
type Phase string

// The phases in their order. Failures before Recognising are the caller's
// business; from then on text follows.
const (
	Decoding    Phase = "decoding"
	Waiting     Phase = "waiting" // for a turn at the engine
	Loading     Phase = "loading" // the model into memory
	Recognising Phase = "recognising"
)

// Update tells how a job is doing. Segments are new and final.
type Update struct {
	Phase    Phase
	Done     time.Duration // of the recording
	Total    time.Duration // of the recording, 0 until it is known
	Language string        // once it is known
	Segments []transcript.Segment
	Tokens   []engine.Token // of Segments
}

// Run does a job. observe is called from one goroutine, in order. When ctx
// ends the engine is free within one encoder pass.
func (s *Service) Run(ctx context.Context, job Job, observe func(Update)) (*transcript.Transcript, error) {
	pcm, err := audio.CreatePCM(s.Spool)
	if err != nil {
		return nil, err
	}
	defer pcm.Close()
	observe(Update{Phase: Decoding})
	info, err := s.decode(ctx, job, pcm)
	if err != nil {
		return nil, err
	}
	windows, err := audio.CutWindows(pcm, 0)
	if err != nil {
		return nil, err
	}
	r := &run{Service: s, job: job, pcm: pcm, observe: observe, result: &transcript.Transcript{
		Task: job.Task, Language: job.Language, Duration: pcm.Duration(), Model: job.Model,
	}}
	if info.Note != "" {
		r.result.Notes = append(r.result.Notes, info.Note)
	}
	observe(Update{Phase: Waiting, Total: r.result.Duration})
	for i, w := range windows {
		if err := r.window(ctx, w); err != nil {
			return nil, describe(ctx, err, job, i, w)
		}
	}
	if len(r.result.Segments) == 0 {
		r.result.Notes = append(r.result.Notes, "no speech was found")
	}
	return r.result, nil
}

// decode fills pcm, not with more decoders at a time than the machine has room for.
func (s *Service) decode(ctx context.Context, job Job, pcm *audio.PCMFile) (decode.Info, error) {
	s.setup.Do(func() { s.decoding.limit = max(2, runtime.NumCPU()) })
	if err := s.decoding.take(ctx); err != nil {
		return decode.Info{}, canceled(ctx)
	}
	defer s.decoding.give()
	return s.Decoder.Decode(ctx, job.Audio, decode.Limits{MaxDuration: s.Longest, Timeout: s.Timeout}, pcm)
}

// run is one job under way.
type run struct {
	*Service
	job     Job
	pcm     *audio.PCMFile
	observe func(Update)
	result  *transcript.Transcript
	last    string // text of the last segment that has any
}

// window decodes one window and appends its segments.
func (r *run) window(ctx context.Context, w audio.Window) error {
	if w.Silent {
		r.observe(Update{Phase: Recognising, Done: w.End, Total: r.result.Duration, Language: r.result.Language})
		return ctx.Err()
	}
	pcm, err := r.pcm.ReadWindow(w.Start, w.End)
	if err != nil {
		return err
	}
	if err := r.turns.take(ctx); err != nil {
		return err
	}
	defer r.turns.give()
	segments, done, err := r.attempt(ctx, w, pcm)
	if errors.Is(err, engine.ErrBroken) && ctx.Err() == nil {
		r.Log.Warn("engine broke off; trying the window again", "job", r.job.ID, "start", w.Start, "error", err)
		segments, done, err = r.attempt(ctx, w, pcm)
	}
	if err != nil {
		return err
	}
	r.add(w, segments, done)
	return nil
}

// attempt hands the window to the engine and collects its segments.
func (r *run) attempt(ctx context.Context, w audio.Window, pcm []float32) ([]engine.Segment, engine.Done, error) {
	limit := max(cmp.Or(r.WindowLimit, windowLeast), windowFactor*time.Duration(r.slowest.Load()))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errStuck)
	defer cancel()
	started := time.Now()
	var segments []engine.Segment
	done, err := r.Engine.Transcribe(ctx, engine.WindowRequest{
		Model: r.job.ModelFile, Language: r.result.Language, Translate: r.job.Task == transcript.Translate,
		Prompt: r.job.Prompt, Temperature: float32(r.job.Temperature), Words: r.job.Words,
		BeamSize: r.job.BeamSize, BestOf: r.job.BestOf, Threads: r.job.Threads,
	}, pcm, func(ev engine.Event) {
		switch {
		case ev.Segment != nil:
			segments = append(segments, *ev.Segment)
		case ev.Loading != nil:
			r.observe(Update{Phase: Loading, Done: w.Start, Total: r.result.Duration})
		case ev.Progress != nil:
			part := (w.End - w.Start) * time.Duration(min(max(ev.Progress.Percent, 0), 100)) / 100
			r.observe(Update{Phase: Recognising, Done: w.Start + part, Total: r.result.Duration, Language: r.result.Language})
		}
	})
	switch {
	case err == nil:
		r.slowest.Store(max(r.slowest.Load(), int64(time.Since(started)))) // one window at a time: no race
	case errors.Is(err, errStuck) && r.Stuck != nil:
		r.Stuck()
	}
	return segments, done, err
}

// errStuck is an engine that does not answer. It counts as one that broke off:
// the next one tries the window again.
var errStuck = fmt.Errorf("%w: no answer in time", engine.ErrBroken)

// add appends a window's segments with absolute times. The language of the
// first window in which something was said is the recording's.
func (r *run) add(w audio.Window, segments []engine.Segment, done engine.Done) {
	var fresh []transcript.Segment
	var tokens []engine.Token
	joint := false // the seam to the text before this window is made
	for _, s := range segments {
		seg := absolute(s, w, r.job.Temperature)
		if !joint && seg.Text != "" {
			seg, joint = joined(r.last, seg), true
		}
		if seg.Text != "" {
			r.last = seg.Text
		}
		fresh = append(fresh, seg)
		tokens = append(tokens, s.Tokens...)
	}
	if r.result.Language == "" && len(fresh) > 0 {
		r.result.Language = done.Language
	}
	r.result.Segments = append(r.result.Segments, fresh...)
	r.observe(Update{
		Phase: Recognising, Done: w.End, Total: r.result.Duration,
		Language: r.result.Language, Segments: fresh, Tokens: tokens,
	})
}

func canceled(ctx context.Context) error {
	return fault.New(fault.Canceled, "canceled", "the transcription was cancelled").Because(context.Cause(ctx))
}

// describe gives an engine's failure the words for people.
func describe(ctx context.Context, err error, job Job, i int, w audio.Window) error {
	if ctx.Err() != nil {
		return canceled(ctx)
	}
	at := fmt.Sprintf("window %d (%v to %v)", i+1, w.Start.Round(time.Millisecond), w.End.Round(time.Millisecond))
	if errors.Is(err, engine.ErrBroken) {
		return fault.New(fault.Unavailable, "engine_crashed", "the engine crashed twice on %s with the model %s", at, job.Model).
			Try("see the engine's log; a smaller model needs less memory, and `whisper-appliance models verify %s` checks the file", job.Model).
			Because(err)
	}
	var f *engine.Failure
	if !errors.As(err, &f) {
		return err
	}
	switch f.Code {
	case engine.CodeNoModel:
		return fault.New(fault.Unavailable, "model_not_installed", "the model %s is not installed", job.Model).
			Try("whisper-appliance models pull %s", job.Model).Because(err)
	case engine.CodeBadModel:
		return damaged(job.Model, err)
	case engine.CodeDown:
		return fault.New(fault.Unavailable, "engine_down", "the engine cannot be started").Because(err).
			Try("its own words are in the server's log")
	case engine.CodeNoMemory:
		return fault.New(fault.Unavailable, "no_memory", "there is not enough memory for the model %s", job.Model).
			Try("use a smaller model or give the machine more memory").Because(err)
	}
	return fault.New(fault.Internal, "engine_failed", "the engine could not decode %s", at).Because(err)
}

// Waiting is how many windows wait for their turn at the engine.
func (s *Service) Waiting() int { return s.turns.count() }
