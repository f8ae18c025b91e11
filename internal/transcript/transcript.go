// Package transcript is what was said, with times: the types that every part
// of the appliance hands on, and the renderers that turn them into the formats
// people ask for (txt, json, verbose_json, srt, vtt, tsv, words, lrc). It
// computes only; it opens no file and knows no network.
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

// Transcript is the result of one recording. Times count from its start.
type Transcript struct {
	Task     Task
	Language string        // ISO 639-1 code as Whisper names it, "en"; "" where nothing was said
	Duration time.Duration // of the recording
	Model    string        // catalogue name, "tiny"
	Segments []Segment     // in order of Start
	Notes    []string      // what the reader should know, e.g. that speech was detected by energy alone
}

// Segment is a stretch of speech as Whisper delimits it, usually a sentence
// or a part of one.
type Segment struct {
	Start, End time.Duration
	Text       string // as Whisper gives it: a leading space where the language writes spaces
	Words      []Word // empty unless word times were asked for
	Tokens     []int  // text tokens, without timestamps and specials

	AvgLogProb       float64 // mean log probability of the tokens, ≤ 0
	NoSpeechProb     float64 // 0 to 1
	CompressionRatio float64 // of the text under zlib; above 2.4 it repeats itself
	Temperature      float64 // at which decoding began; whisper.cpp does not tell where its fallback ended
}

// Word is one word with its own times. Text keeps the leading space, so that
// the words of a segment joined give its text.
type Word struct {
	Start, End time.Duration
	Text       string
	Prob       float64 // 0 to 1
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
