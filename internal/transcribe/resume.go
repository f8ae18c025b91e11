package transcribe

import (
	"slices"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

// Keeper stores how far a job has come, so that it can go on after a crash, an
// update or a power cut, in another process. An error ends the job.
type Keeper interface {
	// Plan is called once, when it is known where somebody speaks.
	Plan(Plan) error
	// Window is called for each window that is done, in order, before anybody
	// sees its text.
	Window(Finished) error
}

// Plan is what has to be decoded. It goes through JSON.
type Plan struct {
	Duration time.Duration `json:"duration_ns"` // of the recording
	Speech   []audio.Span  `json:"speech"`      // in order, apart from each other
	Detected bool          `json:"detected"`    // by the detector; else by loudness
	Notes    []string      `json:"notes,omitempty"`
}

// Finished is what came of a window. It goes through JSON.
type Finished struct {
	Start    time.Duration        `json:"start_ns"` // of the window, in the recording
	End      time.Duration        `json:"end_ns"`
	Speech   time.Duration        `json:"speech_ns"`        // speech before this is done
	Language string               `json:"language"`         // of the recording, as far as it is known
	Segments []transcript.Segment `json:"segments"`         // final, with absolute times
	Tokens   []engine.Token       `json:"tokens,omitempty"` // of Segments, where the job asks for them
	Prompt   string               `json:"prompt,omitempty"` // of the next window

	// LanguageProb is how sure the model was of the language, 0 to 1; 0 where nobody
	// asked it.
	LanguageProb float64 `json:"language_prob,omitempty"`
}

// Resume is what was kept of a job.
type Resume struct {
	Plan     Plan
	Finished []Finished // in order
}

// keepQuick is how long storing a window may hold the turn up, which the next
// window needs: nobody else should wait for a slow disk.
const keepQuick = 50 * time.Millisecond

// keep stores a window.
func (r *run) keep(w audio.Window, fresh []transcript.Segment, tokens []engine.Token) error {
	if r.job.Keep == nil {
		return nil
	}
	if turn := r.turn; turn != nil {
		r.turn = nil
		slow := time.AfterFunc(keepQuick, turn.Give)
		defer func() {
			if slow.Stop() {
				r.turn = turn // it was not given back
			}
		}()
	}
	return r.job.Keep.Window(Finished{
		Start: w.Start, End: w.End, Speech: r.at, Language: r.result.Language, Segments: fresh, Tokens: tokens, Prompt: r.prompt,
		LanguageProb: r.sure,
	})
}

// resume takes over what was kept, and tells of it as if it had just come.
func (r *run) resume(from Resume) {
	r.speech, r.detected = from.Plan.Speech, from.Plan.Detected
	r.result.Notes = slices.Clone(from.Plan.Notes)
	for _, f := range from.Finished {
		r.at, r.done, r.prompt, r.result.Language, r.sure = f.Speech, f.End, f.Prompt, f.Language, f.LanguageProb
		r.result.Segments = append(r.result.Segments, f.Segments...)
		for _, s := range f.Segments {
			if s.Text != "" {
				r.last = s.Text
			}
		}
		r.observe(Update{
			Phase: Recognising, Done: f.End, Total: r.result.Duration, Language: f.Language, LanguageProb: f.LanguageProb,
			Segments: f.Segments, Tokens: f.Tokens,
		})
	}
}
