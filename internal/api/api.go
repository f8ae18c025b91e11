// Package api is the appliance's own API as both ends see it: the wire types
// of POST /api/v1/transcriptions, and a client for the CLI that reaches the
// server through its Unix socket or a URL. It trusts the server it was told to
// talk to and writes nothing.
package api

import (
	"time"

	"whisper-appliance/internal/transcript"
)

// Names of the server-sent events that answer a transcription, in the order in
// which they come: any number of progress and segment, then done or error.
const (
	EventProgress = "progress"
	EventSegment  = "segment"
	EventDone     = "done"
	EventError    = "error"
)

// Progress tells how far a recording has come.
type Progress struct {
	Phase    string  `json:"phase"`              // decoding, detecting, waiting, loading or recognising
	Done     float64 `json:"done"`               // seconds of the recording
	Total    float64 `json:"total"`              // seconds; 0 until it is known
	Language string  `json:"language,omitempty"` // once it is known
}

// Segment is a transcript.Segment on the wire; times are nanoseconds, so that
// every format that is rendered from it has the same digits everywhere.
type Segment struct {
	Start            int64   `json:"start_ns"`
	End              int64   `json:"end_ns"`
	Text             string  `json:"text"`
	Words            []Word  `json:"words,omitempty"`
	Tokens           []int   `json:"tokens"`
	AvgLogProb       float64 `json:"avg_logprob"`
	NoSpeechProb     float64 `json:"no_speech_prob"`
	CompressionRatio float64 `json:"compression_ratio"`
	Temperature      float64 `json:"temperature"`
}

// Word is a transcript.Word on the wire.
type Word struct {
	Start int64   `json:"start_ns"`
	End   int64   `json:"end_ns"`
	Text  string  `json:"text"`
	Prob  float64 `json:"prob"`
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

// SegmentOf puts s on the wire.
func SegmentOf(s transcript.Segment) Segment {
	out := Segment{
		Start: int64(s.Start), End: int64(s.End), Text: s.Text, Tokens: s.Tokens, AvgLogProb: s.AvgLogProb,
		NoSpeechProb: s.NoSpeechProb, CompressionRatio: s.CompressionRatio, Temperature: s.Temperature,
	}
	for _, w := range s.Words {
		out.Words = append(out.Words, Word{Start: int64(w.Start), End: int64(w.End), Text: w.Text, Prob: w.Prob})
	}
	return out
}

// Transcript takes it off again.
func (s Segment) Transcript() transcript.Segment {
	out := transcript.Segment{
		Start: time.Duration(s.Start), End: time.Duration(s.End), Text: s.Text, Tokens: s.Tokens, AvgLogProb: s.AvgLogProb,
		NoSpeechProb: s.NoSpeechProb, CompressionRatio: s.CompressionRatio, Temperature: s.Temperature,
	}
	for _, w := range s.Words {
		out.Words = append(out.Words, transcript.Word{
			Start: time.Duration(w.Start), End: time.Duration(w.End), Text: w.Text, Prob: w.Prob,
		})
	}
	return out
}

// DoneOf is the end of t.
func DoneOf(t *transcript.Transcript) Done {
	return Done{Task: string(t.Task), Language: t.Language, Duration: int64(t.Duration), Model: t.Model, Text: t.Text(), Notes: t.Notes}
}
