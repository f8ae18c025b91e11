// Package api is the appliance's own API as both ends see it: the wire types
// of POST /api/v1/transcriptions, and a client for the CLI that reaches the
// server through its Unix socket or a URL. It trusts the server it was told to
// talk to and writes nothing.
package api

import "whisper-appliance/internal/transcript"

// Names of the server-sent events that answer a transcription, in the order in
// which they come: any number of progress and segment (a transcript.Segment; its
// times are nanoseconds, so that every format that is rendered from it has the
// same digits everywhere), then done or error.
const (
	EventProgress = "progress"
	EventSegment  = "segment"
	EventDone     = "done"
	EventError    = "error"
)

// Progress tells how far a recording has come.
type Progress struct {
	Phase    string  `json:"phase"`              // fetching (jobs from a URL), decoding, detecting, waiting, loading or recognising
	Done     float64 `json:"done"`               // seconds of the recording
	Total    float64 `json:"total"`              // seconds; 0 until it is known
	Language string  `json:"language,omitempty"` // once it is known
	Fetched  int64   `json:"fetched,omitempty"`  // bytes, while the recording is being fetched
	Size     int64   `json:"size,omitempty"`     // bytes of it, where that is known then
}

// Done ends a transcription: what is not in the segments.
type Done struct {
	Task     string   `json:"task"`
	Language string   `json:"language"`
	Duration int64    `json:"duration_ns"`
	Model    string   `json:"model"`
	Text     string   `json:"text"`
	Notes    []string `json:"notes,omitempty"`
}

// Error is the error of every door but OpenAI's.
type Error struct {
	Error string `json:"error" doc:"What happened, for people."`
	Code  string `json:"code" doc:"The same for programs: stable, snake_case."`
	Field string `json:"field,omitempty" doc:"The request's field to change."`
	Hint  string `json:"hint,omitempty" doc:"What to try."`
}

// DoneOf is the end of t.
func DoneOf(t *transcript.Transcript) Done {
	return Done{Task: string(t.Task), Language: t.Language, Duration: int64(t.Duration), Model: t.Model, Text: t.Text(), Notes: t.Notes}
}
