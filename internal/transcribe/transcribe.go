// Package transcribe turns a recording into a transcript: it has it decoded to
// PCM, finds speech in that, packs it into windows, has the engine decode one
// window after the other, looks at each result and has it decoded anew where
// that looks wrong, and puts the segments together with absolute times. The
// window is the unit of everything here: of progress, fairness, cancellation,
// and of going on after an interruption. Several jobs run at once and take turns
// at the engine, as package schedule says. What is kept of a recording in memory
// are its spans of speech and one window's samples, however long it is.
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
	"sync/atomic"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/schedule"
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
	Queue   *schedule.Queue // in front of the engine
	Spool   string          // directory for PCM while a job runs
	Longest time.Duration   // of a recording; 0 = no limit
	Timeout time.Duration   // for decoding the media; 0 = none
	Log     *slog.Logger

	// Detector finds speech with the model that DetectorModel names; where either
	// is nil, or there is no model, speech is what is not silent.
	Detector      Detector
	DetectorModel func() (file string, ok bool)

	// Stuck is called when a window takes longer than any window may: the
	// engine is frozen and has to be ended. nil = nobody can.
	Stuck func()

	// WindowLimit is the least that a window may take; 0 = 10 minutes.
	WindowLimit time.Duration

	slowest  atomic.Int64 // nanoseconds of the slowest window
	decoders decoders
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

// Job is what is asked for. Its JSON is what is the same wherever and whenever
// it is done: stored, it does not change with the settings.
type Job struct {
	Audio *os.File `json:"-"` // the recording; read from its start, not closed
	Name  string   `json:"-"` // as the caller calls it, for messages
	ID    string   `json:"-"` // for the log, and for the queue
	Owner string   `json:"-"` // who asked

	// Class is how urgent the job is. Short holds for short recordings; a longer
	// one is Long then.
	Class schedule.Class `json:"-"`

	// Share is with whom the job has its share of the engine's time; "" = Owner.
	Share string `json:"share,omitempty"`

	Model       string          `json:"model"`              // catalogue name, for the transcript
	ModelFile   string          `json:"model_file"`         // file name in the model directory
	Language    string          `json:"language,omitempty"` // ISO 639-1; "" = detect
	Task        transcript.Task `json:"task"`
	Prompt      string          `json:"prompt,omitempty"`      // given to every window
	Temperature float64         `json:"temperature,omitempty"` // of the first attempt, 0 to 1
	Words       bool            `json:"words,omitempty"`       // word times
	Logprobs    bool            `json:"logprobs,omitempty"`    // the tokens with every update
	BeamSize    int             `json:"beam_size,omitempty"`   // < 2 = greedy
	BestOf      int             `json:"best_of,omitempty"`     // candidates above temperature 0
	Threads     int             `json:"threads,omitempty"`     // 0 = the engine's choice

	ByLoudness   bool    `json:"by_loudness,omitempty"`   // find speech without the detector
	Threshold    float64 `json:"threshold,omitempty"`     // of the detector, 0 to 1; 0 = its own
	FullContext  bool    `json:"full_context,omitempty"`  // never cut the encoder's context to a short window
	OneLook      bool    `json:"one_look,omitempty"`      // take each result as it comes
	PreviousText bool    `json:"previous_text,omitempty"` // the text of the window before is a prompt, too
	EachLanguage bool    `json:"each_language,omitempty"` // detect the language of each window, not the first's alone

	// Steady keeps what is decoded anew at the first temperature.
	Steady bool `json:"steady,omitempty"`

	// From and Until bound what is decoded; what is outside counts as silence, and
	// times stay those of the recording. 0 = its start, its end.
	From  time.Duration `json:"from_ns,omitempty"`
	Until time.Duration `json:"until_ns,omitempty"`

	// OnlyLanguage ends the job when the language of its first speech is known:
	// the transcript has that and no segments. It stays Short, whatever its length.
	OnlyLanguage bool `json:"only_language,omitempty"`

	// Patient is for a job that can be tried again: an engine that is away ends it
	// rather than change what comes of it.
	Patient bool `json:"-"`

	// Asked is what the caller asked for, the same for the same whatever the
	// settings are.
	Asked string `json:"asked,omitempty"`

	// Keep is told how far the job has come, and Resume how far it had come when
	// it was interrupted; nil = nobody keeps it, and it begins anew.
	Keep   Keeper  `json:"-"`
	Resume *Resume `json:"-"`
}

// Phase is how far a job has come.
type Phase string

// The phases in their order. Failures before Recognising are the caller's
// business; from then on text follows.
const (
	Decoding    Phase = "decoding"
	Detecting   Phase = "detecting" // where speech is; left out where that takes no time
	Waiting     Phase = "waiting"   // for a turn at the engine
	Loading     Phase = "loading"   // the model into memory
	Recognising Phase = "recognising"
)

// Update tells how a job is doing. Segments are new and final.
type Update struct {
	Phase    Phase
	Done     time.Duration // of the recording, in this phase
	Total    time.Duration // of the recording, 0 until it is known
	Language string        // once it is known
	Segments []transcript.Segment
	Tokens   []engine.Token // of Segments, where the job asks for Logprobs

	// LanguageProb is how sure the model is of Language, 0 to 1; 0 where nobody
	// asked it.
	LanguageProb float64
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
	r := &run{Service: s, job: job, pcm: pcm, observe: observe, result: &transcript.Transcript{
		Task: job.Task, Language: job.Language, Duration: pcm.Duration(), Model: job.Model,
	}}
	r.classify()
	defer r.rest()
	if err := r.prepare(ctx, info.Note); err != nil {
		return nil, err
	}
	r.observe(Update{Phase: Waiting, Done: r.done, Total: r.result.Duration})
	work := r.windows
	if job.OnlyLanguage {
		work = r.language
	}
	if err := work(ctx); err != nil {
		return nil, err
	}
	r.progress(r.result.Duration)
	if len(r.result.Segments) == 0 {
		r.note("no speech was found")
	}
	return r.result, nil
}

// windows decodes one window after the other.
func (r *run) windows(ctx context.Context) error {
	for {
		w, ok, err := r.next()
		if err == nil && ok {
			err = describe(ctx, r.window(ctx, w), r.job, w)
		}
		switch {
		case err != nil:
			return err
		case !ok && ctx.Err() != nil:
			return canceled(ctx)
		case !ok:
			return nil
		}
	}
}

// prepare finds where somebody speaks, unless that is known from before, and
// takes over what was decoded then.
func (r *run) prepare(ctx context.Context, note string) error {
	if r.job.Resume != nil {
		r.resume(*r.job.Resume)
		return nil
	}
	if note != "" {
		r.note(note)
	}
	speech, err := r.findSpeech(ctx)
	if err != nil {
		return err
	}
	r.rest() // what comes now may read the recording
	r.speech = audio.Joined(speech, r.result.Duration)
	if r.job.Keep == nil {
		return nil
	}
	return r.job.Keep.Plan(Plan{Duration: r.result.Duration, Speech: r.speech, Detected: r.detected, Notes: r.result.Notes})
}

// pad is how much sound around speech is decoded with it: half of it cost a
// tenth more errors in long recordings.
const pad = 400 * time.Millisecond

// next is the window after those that are done.
func (r *run) next() (audio.Window, bool, error) {
	c := audio.Cutting{Pad: pad}
	if r.Queue.Crowded(r.job.Class) {
		c.Longest = schedule.ShortWindow
	}
	return c.Next(r.pcm, r.speech, r.at)
}

// decode fills pcm, not with more decoders at a time than the machine has room for.
func (s *Service) decode(ctx context.Context, job Job, pcm *audio.PCMFile) (decode.Info, error) {
	give, err := s.decoders.take(ctx, job.Audio)
	if err != nil {
		return decode.Info{}, canceled(ctx)
	}
	defer give()
	return s.Decoder.Decode(ctx, job.Audio, decode.Limits{MaxDuration: s.Longest, Timeout: s.Timeout}, within(job, pcm))
}

// run is one job under way.
type run struct {
	*Service
	job     Job
	pcm     *audio.PCMFile
	observe func(Update)
	result  *transcript.Transcript
	turn    *schedule.Turn // at the engine; nil = it has none
	speech  []audio.Span   // in order, apart from each other
	at      time.Duration  // speech before this is done
	done    time.Duration  // of the recording, as was told
	last    string         // text of the last segment that has any
	prompt  string         // text of the window before, where it can be believed
	sure    float64        // of the language that was last detected, 0 to 1

	detected bool // a detector says where speech is; else it is what is loud
}

func (r *run) note(text string) { r.result.Notes = append(r.result.Notes, text) }

// progress tells that the recording is done up to a place. What is decoded a
// second time does not take it back.
func (r *run) progress(done time.Duration) {
	if done < r.done || done == r.done && done == r.result.Duration {
		return
	}
	r.done = done
	r.observe(Update{Phase: Recognising, Done: done, Total: r.result.Duration, Language: r.result.Language, LanguageProb: r.sure})
}

// window decodes one window and appends its segments.
func (r *run) window(ctx context.Context, w audio.Window) error {
	pcm, err := r.pcm.ReadWindow(w.Start, w.End)
	if err != nil {
		return err
	}
	h, heard, err := r.hear(ctx, w, pcm)
	if err != nil {
		return err
	}
	return r.add(heard, h)
}

// attempt hands a window to the engine when it is its turn, and once more
// where the engine broke off. req says how; the job says the rest.
func (r *run) attempt(ctx context.Context, w audio.Window, pcm []float32, req engine.WindowRequest) (heard, error) {
	if err := r.takeTurn(ctx, w.Length()); err != nil {
		return heard{}, err
	}
	h, err := r.ask(ctx, w, pcm, req)
	if r.turn.Lane() == schedule.ShortLane && noMemory(err) {
		r.turn.NoRoom()
		return r.attempt(ctx, w, pcm, req)
	}
	if errors.Is(err, engine.ErrBroken) && ctx.Err() == nil {
		r.Log.Warn("engine broke off; trying the window again", "job", r.job.ID, "start", w.Start, "error", err)
		h, err = r.ask(ctx, w, pcm, req)
	}
	return h, err
}

func noMemory(err error) bool {
	var f *engine.Failure
	return errors.As(err, &f) && f.Code == engine.CodeNoMemory
}

// ask hands the window to the engine and collects its segments.
func (r *run) ask(ctx context.Context, w audio.Window, pcm []float32, req engine.WindowRequest) (heard, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	req.Lane = r.lane()
	started := time.Now()
	var loading time.Time
	h := heard{temperature: float64(req.Temperature), cut: req.AudioCtx != 0}
	done, err := r.Engine.Transcribe(ctx, req, pcm, func(ev engine.Event) {
		switch {
		case ev.Segment != nil:
			h.segments = append(h.segments, piece{Segment: *ev.Segment, temperature: h.temperature})
		case ev.Loading != nil:
			loading = time.Now()
			r.observe(Update{Phase: Loading, Done: r.done, Total: r.result.Duration})
		case ev.Progress != nil:
			r.progress(w.Start + w.Length()*time.Duration(min(max(ev.Progress.Percent, 0), 100))/100)
		}
	})
	h.language, h.until = done.Language, done.Until
	if req.Language == "" {
		r.sure = done.LanguageProb
	}
	if err == nil {
		r.took(time.Since(started))
		if !loading.IsZero() {
			r.turn.Loaded(time.Since(loading) - done.Took)
		}
	}
	r.endStuck(err)
	return h, err
}

// took remembers the slowest window.
func (r *run) took(d time.Duration) {
	for was := r.slowest.Load(); int64(d) > was && !r.slowest.CompareAndSwap(was, int64(d)); was = r.slowest.Load() {
	}
}

// bounded ends ctx with errStuck when a call to the engine takes too long.
func (r *run) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := max(cmp.Or(r.WindowLimit, windowLeast), windowFactor*time.Duration(r.slowest.Load()))
	return context.WithTimeoutCause(ctx, limit, errStuck)
}

// endStuck ends an engine that is frozen.
func (r *run) endStuck(err error) {
	if errors.Is(err, errStuck) && r.Stuck != nil {
		r.Stuck()
	}
}

// errStuck is an engine that does not answer. It counts as one that broke off:
// the next one tries the window again.
var errStuck = fmt.Errorf("%w: no answer in time", engine.ErrBroken)

// add appends a window's segments with absolute times, none of which begins
// before the one before has ended. The language of the first window in which
// something was said is the recording's. Nobody sees of it what is not kept.
func (r *run) add(w audio.Window, h heard) error {
	var fresh []transcript.Segment
	var tokens []engine.Token
	at := time.Duration(0)
	if n := len(r.result.Segments); n > 0 {
		at = r.result.Segments[n-1].End
	}
	seam := true // to the text before, which another attempt brought
	for _, s := range h.segments {
		seg := inOrder(absolute(s.Segment, w, s.temperature), at)
		seam = seam || s.seam
		if seg.Text != "" {
			if seam {
				seg = joined(r.last, seg)
			}
			r.last, seam = seg.Text, false
		}
		at = seg.End
		fresh = append(fresh, seg)
		if r.job.Logprobs {
			tokens = append(tokens, s.Tokens...)
		}
	}
	if r.result.Language == "" && len(fresh) > 0 {
		r.result.Language = h.language
	}
	r.result.Segments = append(r.result.Segments, fresh...)
	r.at, r.done = w.Speech[len(w.Speech)-1].End, max(r.done, w.End)
	if err := r.keep(w, fresh, tokens); err != nil {
		return err
	}
	r.observe(Update{
		Phase: Recognising, Done: r.done, Total: r.result.Duration,
		Language: r.result.Language, LanguageProb: r.sure, Segments: fresh, Tokens: tokens,
	})
	return nil
}

func canceled(ctx context.Context) error {
	return fault.New(fault.Canceled, "canceled", "the transcription was cancelled").Because(context.Cause(ctx))
}

// describe gives a window's failure the words for people.
func describe(ctx context.Context, err error, job Job, w audio.Window) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return canceled(ctx)
	}
	at := fmt.Sprintf("the window from %v to %v", w.Start.Round(time.Millisecond), w.End.Round(time.Millisecond))
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
func (s *Service) Waiting() int { return s.Queue.Waiting() }
