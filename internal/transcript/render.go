package transcript

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Options say what of a transcript is shown, where a format leaves the choice.
type Options struct {
	Words    bool    // verbose_json: "words"
	Segments bool    // verbose_json: "segments"
	Layout   *Layout // srt and vtt: how cues are laid out; nil = one a segment
}

// Render writes t to w. Formats with times show the segments by their start,
// overlapping ones in the order they have in t; txt and the JSON formats keep
// t's order. An error is the writer's, or a fault for an unknown format.
func Render(w io.Writer, f Format, t *Transcript, o Options) error {
	var err error
	switch f {
	case JSON:
		err = Encode(w, map[string]string{"text": t.Text()})
	case VerboseJSON:
		err = Encode(w, verboseOf(t, o))
	default:
		err = renderLines(w, f, t, o.Layout)
	}
	if err != nil {
		return fmt.Errorf("render %s: %w", f, err)
	}
	return nil
}

func renderLines(w io.Writer, f Format, t *Transcript, layout *Layout) error {
	buffered := bufio.NewWriter(w)
	s, err := NewStreamer(buffered, f)
	if err != nil {
		return err
	}
	s.Layout = layout
	segments := t.Segments
	if f != Txt {
		segments = slices.Clone(segments)
		slices.SortStableFunc(segments, func(a, b Segment) int { return cmp.Compare(a.Start, b.Start) })
	}
	for _, seg := range segments {
		if err := s.Segment(seg); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// Encode writes v as one line of JSON. It is for programs, not for HTML: "<"
// stays as it is.
func Encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// verbose has OpenAI's keys in OpenAI's order; times are seconds. Words and
// Segments are left out unless asked for, and are [] where there are none.
type verbose struct {
	Task     Task             `json:"task"`
	Language string           `json:"language"`
	Duration float64          `json:"duration"`
	Text     string           `json:"text"`
	Words    []verboseWord    `json:"words,omitzero"`
	Segments []VerboseSegment `json:"segments,omitzero"`
}

type verboseWord struct {
	Word  string  `json:"word"`
	Start float64 `json:"start"`
	End   float64 `json:"end"`
}

// VerboseSegment is a segment with what Whisper says of it: its keys in their
// order, which are OpenAI's, too. Times are seconds.
type VerboseSegment struct {
	ID               int     `json:"id"`
	Seek             int64   `json:"seek"`
	Start            float64 `json:"start"`
	End              float64 `json:"end"`
	Text             string  `json:"text"`
	Tokens           []int   `json:"tokens"`
	Temperature      float64 `json:"temperature"`
	AvgLogProb       float64 `json:"avg_logprob"`
	CompressionRatio float64 `json:"compression_ratio"`
	NoSpeechProb     float64 `json:"no_speech_prob"`
}

func verboseOf(t *Transcript, o Options) verbose {
	v := verbose{
		Task:     cmp.Or(t.Task, Transcribe),
		Language: cmp.Or(LanguageName(t.Language), t.Language),
		Duration: seconds(millis(t.Duration)),
		Text:     t.Text(),
	}
	if t.Task == Translate {
		// OpenAI names the language of the text, not of the speech.
		v.Language = LanguageName("en")
	}
	if o.Words {
		v.Words = verboseWords(t.Segments)
	}
	if o.Segments {
		v.Segments = VerboseSegments(t.Segments)
	}
	return v
}

func verboseWords(segments []Segment) []verboseWord {
	words := []verboseWord{}
	for _, s := range segments {
		for _, w := range s.Words {
			if text := oneLine(Clean(w.Text)); text != "" {
				start, end := span(w.Start, w.End)
				words = append(words, verboseWord{text, seconds(start), seconds(end)})
			}
		}
	}
	return words
}

// VerboseSegments are all of them, never nil.
func VerboseSegments(segments []Segment) []VerboseSegment {
	list := make([]VerboseSegment, 0, len(segments))
	for i, s := range segments {
		start, end := span(s.Start, s.End)
		list = append(list, VerboseSegment{
			ID: i,
			// Frames of 10 ms before the segment, which is what a client can use of
			// it: windows are cut at silences here, not every 30 s.
			Seek:             int64(max(0, s.Start) / (10 * time.Millisecond)),
			Start:            seconds(start),
			End:              seconds(end),
			Text:             Clean(s.Text),
			Tokens:           append([]int{}, s.Tokens...),
			Temperature:      s.Temperature,
			AvgLogProb:       s.AvgLogProb,
			CompressionRatio: s.CompressionRatio,
			NoSpeechProb:     s.NoSpeechProb,
		})
	}
	return list
}

// seconds from whole milliseconds print as 0.3, not 0.30000000000000004.
func seconds(ms int64) float64 { return float64(ms) / 1000 }
