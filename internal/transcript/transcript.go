// Package transcript is what was said, with times: the types that every part
// of the appliance hands on, and the renderers that turn them into the formats
// people ask for (txt, json, verbose_json, srt, vtt, tsv, words, lrc). A Layout
// makes of the segments cues that people can read. It computes only; it opens
// no file and knows no network.
package transcript

import (
	"strings"
	"time"
)

// Task is what Whisper was asked to do.
type Task string

// The two tasks Whisper knows.
const (
	Transcribe Task = "transcribe" // text in the language spoken
	Translate  Task = "translate"  // text in English
)

// Transcript is the result of one recording. Times count from its start. Its
// JSON, and that of its parts, is for storing it: durations are nanoseconds.
type Transcript struct {
	Task     Task          `json:"task"`
	Language string        `json:"language"`        // ISO 639-1 code as Whisper names it, "en"; "" where nothing was said
	Duration time.Duration `json:"duration_ns"`     // of the recording
	Model    string        `json:"model"`           // catalogue name, "tiny"
	Segments []Segment     `json:"segments"`        // in order of Start
	Notes    []string      `json:"notes,omitempty"` // what the reader should know, e.g. that speech was detected by energy alone
}

// Segment is a stretch of speech as Whisper delimits it, usually a sentence
// or a part of one.
type Segment struct {
	Start  time.Duration `json:"start_ns"`
	End    time.Duration `json:"end_ns"`
	Text   string        `json:"text"`            // as Whisper gives it: a leading space where the language writes spaces
	Words  []Word        `json:"words,omitempty"` // empty unless word times were asked for
	Tokens []int         `json:"tokens"`          // text tokens, without timestamps and specials

	AvgLogProb       float64 `json:"avg_logprob"`       // mean log probability of the tokens, ≤ 0
	NoSpeechProb     float64 `json:"no_speech_prob"`    // 0 to 1
	CompressionRatio float64 `json:"compression_ratio"` // of the text under zlib; above 2.4 it repeats itself
	Temperature      float64 `json:"temperature"`       // at which decoding began; whisper.cpp does not tell where its fallback ended
}

// Word is one word with its own times. Text keeps the leading space, so that
// the words of a segment joined give its text.
type Word struct {
	Start time.Duration `json:"start_ns"`
	End   time.Duration `json:"end_ns"`
	Text  string        `json:"text"`
	Prob  float64       `json:"prob"` // 0 to 1
}

// Text is the whole text: the segments joined in their order, without space at
// either end, as valid UTF-8 without control characters (see Joiner).
func (t *Transcript) Text() string {
	var b strings.Builder
	var j Joiner
	for _, s := range t.Segments {
		b.WriteString(j.Add(s))
	}
	b.WriteString(j.Close())
	return b.String()
}
