// Package engine is the protocol between the server and the process that holds
// the model, both ends of it. The engine listens on a Unix socket that it
// inherits and speaks HTTP there:
//
//	GET    /v1/status      Status
//	POST   /v1/model       LoadRequest → Model, or Failure
//	DELETE /v1/model       unload; 204
//	POST   /v1/transcribe  WindowRequest as one JSON line, then PCM → Event lines
//	POST   /v1/vad         VADRequest as one JSON line, then PCM → VADResponse
//
// PCM is 16 kHz mono float32, little endian, −1 to 1. A window is at most 30 s.
// A client that hangs up aborts its window, and no other. Two windows are decoded
// at once, one a lane; a model that is to be loaded waits for both, and whoever
// comes later waits for it. The engine trusts its socket's
// mode (only the server can connect) and opens models in one directory alone;
// it writes nothing.
package engine

import (
	"slices"
	"time"
)

// SampleRate is the rate of all PCM that crosses the protocol, in Hz.
const SampleRate = 16000

// MaxWindow is the longest stretch the engine takes at once: Whisper's own
// encoder window.
const MaxWindow = 30 * time.Second

// MaxVAD bounds one speech detection request, so that a request's memory stays bounded.
const MaxVAD = 10 * time.Minute

// Lane is a way through the engine: windows of one lane are decoded one after
// the other, those of two lanes at the same time, by the same model. An engine
// that knows of no lanes takes every window into its only one, and a server that
// knows of none names none.
type Lane string

// The lanes.
const (
	LaneLong  Lane = ""      // everything that may wait; its threads give way to the short lane's
	LaneShort Lane = "short" // short windows that somebody waits for
)

// Stay is how long an engine keeps what it has while nobody asks: then it drops
// the model, and then it exits. 0 = for ever.
type Stay struct {
	Unload time.Duration `json:"unload_ns"`
	Exit   time.Duration `json:"exit_ns"`
}

// LoadRequest asks for a model to be held in memory.
type LoadRequest struct {
	Model string `json:"model"`          // file name in the engine's model directory, ggml-tiny.bin
	Stay  *Stay  `json:"stay,omitempty"` // from now on; nil = as before
}

// Model describes the model in memory.
type Model struct {
	File         string        `json:"file"`
	Type         string        `json:"type"` // tiny, base, …
	Multilingual bool          `json:"multilingual"`
	LoadTime     time.Duration `json:"load_ns"`
	Bytes        int64         `json:"bytes,omitempty"` // of its file, which are those of its weights in memory; 0 = not known
}

// Status is what the engine says of itself.
type Status struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Whisper string `json:"whisper"` // whisper.cpp's version
	Backend string `json:"backend"` // the backend chosen for this CPU, "CPU (sapphirerapids)"
	System  string `json:"system"`  // whisper_print_system_info
	Model   *Model `json:"model,omitempty"`
	Busy    bool   `json:"busy"`
	Windows int64  `json:"windows"` // decoded since start
	PID     int    `json:"pid"`

	// Lanes are those that the engine has; none = it is older, and has LaneLong alone.
	Lanes []LaneStatus `json:"lanes,omitempty"`
	// StateBytes is what one lane's state takes beside the model, as whisper.cpp
	// says when it makes one: 0 until then. A beam search and the candidates at
	// higher temperatures add to it.
	StateBytes int64 `json:"state_bytes,omitempty"`
}

// Has tells whether the engine has the lane.
func (s Status) Has(lane Lane) bool {
	return lane == LaneLong || slices.ContainsFunc(s.Lanes, func(l LaneStatus) bool { return l.Lane == lane })
}

// LaneStatus is how one lane is doing.
type LaneStatus struct {
	Lane    Lane  `json:"lane"`    // "" is the long one
	Busy    bool  `json:"busy"`    // a window or a speech detection is under way
	State   bool  `json:"state"`   // it has its state: its next window takes no more memory
	Windows int64 `json:"windows"` // decoded since start
}

// WindowRequest says how one window is decoded. Zero values are defaults.
type WindowRequest struct {
	Model          string  `json:"model"`              // file name; loaded when it is not there yet
	Lane           Lane    `json:"lane,omitempty"`     // an unknown one is refused
	Language       string  `json:"language,omitempty"` // ISO 639-1; "" = detect
	Translate      bool    `json:"translate,omitempty"`
	Prompt         string  `json:"prompt,omitempty"`
	Temperature    float32 `json:"temperature,omitempty"`
	TemperatureInc float32 `json:"temperature_inc,omitempty"` // step of the fallback; < 0 = no fallback; 0 = 0.2
	BeamSize       int     `json:"beam_size,omitempty"`       // < 2 = greedy
	BestOf         int     `json:"best_of,omitempty"`         // candidates at a temperature above 0; 0 = 5
	AudioCtx       int     `json:"audio_ctx,omitempty"`       // encoder positions (20 ms each); 0 = all 1500
	OnePass        bool    `json:"one_pass,omitempty"`        // the encoder runs until something was heard; see Done.Until
	Words          bool    `json:"words,omitempty"`
	Threads        int     `json:"threads,omitempty"` // 0 = the engine's own choice
	Stay           *Stay   `json:"stay,omitempty"`    // from now on; nil = as before
}

// Event is one line of the answer to a transcribe request. Exactly one of the
// pointers is set; the last line is Done or Error.
type Event struct {
	Loading  *Loading  `json:"loading,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Segment  *Segment  `json:"segment,omitempty"`
	Done     *Done     `json:"done,omitempty"`
	Error    *Failure  `json:"error,omitempty"`

	// Alive is a sign of life between the backend and the engine's server,
	// which has nothing else set and is not sent on.
	Alive bool `json:"-"`
}

// Loading says that the model is being read into memory first.
type Loading struct {
	Model string `json:"model"`
}

// Progress is how much of the window has been decoded.
type Progress struct {
	Percent int `json:"percent"` // 0 to 100
}

// Segment is a stretch of text, times in nanoseconds from the window's start.
type Segment struct {
	Start        time.Duration `json:"start_ns"`
	End          time.Duration `json:"end_ns"`
	Text         string        `json:"text"` // with its leading space
	Words        []Word        `json:"words,omitempty"`
	Tokens       []Token       `json:"tokens"`      // text tokens, without timestamps and specials
	AvgLogProb   float64       `json:"avg_logprob"` // mean over Tokens
	NoSpeechProb float64       `json:"no_speech_prob"`
}

// Word is a word with its times from the window's start.
type Word struct {
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
	Text  string        `json:"text"` // with its leading space
	Prob  float64       `json:"prob"` // mean of its tokens' probabilities
}

// Token is one text token.
type Token struct {
	ID      int           `json:"id"`
	Prob    float64       `json:"prob"`
	LogProb float64       `json:"logprob"`
	Start   time.Duration `json:"start_ns"`
	End     time.Duration `json:"end_ns"`
	Bytes   []byte        `json:"bytes"` // a token may be part of a character
}

// Done ends a successful answer.
type Done struct {
	Language     string        `json:"language"`      // as given or detected
	LanguageProb float64       `json:"language_prob"` // 0 where it was given
	Took         time.Duration `json:"took_ns"`

	// Until is how far the text reaches, from the window's start, where the model
	// says that more would follow and OnePass kept it from that; else 0.
	Until time.Duration `json:"until_ns,omitempty"`
}

// Failure is an error as the engine reports it.
type Failure struct {
	Code    string `json:"code"` // one of the Code constants
	Message string `json:"message"`
}

// Codes of a Failure.
const (
	CodeBadRequest = "bad_request"
	CodeNoModel    = "no_model"  // no such file
	CodeBadModel   = "bad_model" // whisper.cpp would not have it
	CodeNoMemory   = "no_memory"
	CodeAborted    = "aborted"
	CodeDown       = "engine_down" // none can be started
	CodeDecode     = "decode_failed"
)

func (f *Failure) Error() string { return f.Message }

// VADRequest asks where speech is in the PCM that follows.
type VADRequest struct {
	Model      string        `json:"model"`                    // file name of a Silero model in GGML form
	Lane       Lane          `json:"lane,omitempty"`           // each has a detector of its own
	Threshold  float32       `json:"threshold,omitempty"`      // 0 = 0.5
	MinSpeech  time.Duration `json:"min_speech_ns,omitempty"`  // 0 = 250 ms
	MinSilence time.Duration `json:"min_silence_ns,omitempty"` // 0 = 100 ms
	Pad        time.Duration `json:"pad_ns,omitempty"`         // 0 = 30 ms
}

// VADResponse lists the stretches of speech.
type VADResponse struct {
	Speech []Span        `json:"speech"`
	Took   time.Duration `json:"took_ns"`
}

// Span is a stretch of the PCM, from its start.
type Span struct {
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
}
