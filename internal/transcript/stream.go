package transcript

import (
	"fmt"
	"io"
	"math"
	"strings"

	"whisper-appliance/internal/fault"
)

// Streamer writes a transcript segment by segment; its bytes are those of
// Render. Segments come in order of Start. One that starts before the one
// above it is written with that one's start, because WebVTT demands order.
//
// A segment without text is left out of every format. Every other segment is
// kept, also where it overlaps its neighbours. A segment that ends no later
// than it starts gets the length of Whisper's time step, 20 ms: players drop a
// cue of no length. Words may have no length, and never end before they start.
//
// Each call writes to the underlying writer at most twice, so that a caller
// may flush after it; nothing is buffered here.
type Streamer struct {
	w      io.Writer
	format Format
	begun  bool
	cues   int
	last   int64 // start of the cue above, ms
	joiner Joiner
}

// NewStreamer makes a Streamer for a format that Streams; any other is a fault.
func NewStreamer(w io.Writer, f Format) (*Streamer, error) {
	if !f.Streams() {
		return nil, fault.New(fault.BadInput, "format_not_streamed",
			"the format %q cannot be written piece by piece", string(f)).
			On("response_format").
			Try("use one of text, srt, vtt, tsv, words, lrc")
	}
	return &Streamer{w: w, format: f}, nil
}

// Header writes what stands before the first segment. Segment and Close do it
// where it was not done; a caller does it to have bytes flow early.
func (s *Streamer) Header() error {
	if s.begun {
		return nil
	}
	s.begun = true
	switch s.format {
	case VTT:
		return s.write("WEBVTT\n\n")
	case TSV:
		return s.write("start\tend\ttext\n")
	case Words:
		return s.write("start\tend\tprobability\tword\n")
	}
	return nil
}

// Segment writes the next segment.
func (s *Streamer) Segment(seg Segment) error {
	if err := s.Header(); err != nil {
		return err
	}
	switch s.format {
	case Txt:
		return s.write(s.joiner.Add(seg))
	case Words:
		return s.write(wordRows(seg))
	}
	return s.write(s.cue(seg))
}

// Close writes what stands behind the last segment. It does not close the writer.
func (s *Streamer) Close() error {
	if err := s.Header(); err != nil {
		return err
	}
	if s.format != Txt {
		return nil
	}
	return s.write(s.joiner.Close() + "\n")
}

func (s *Streamer) write(text string) error {
	if text == "" {
		return nil
	}
	_, err := io.WriteString(s.w, text)
	return err
}

// cue is seg as a format with times for each segment has it, "" for one
// without text.
func (s *Streamer) cue(seg Segment) string {
	text := strings.TrimSpace(Clean(seg.Text))
	if text == "" {
		return ""
	}
	start := max(millis(seg.Start), s.last)
	end := millis(seg.End)
	if end <= start {
		end = start + timeStep
	}
	s.last = start
	s.cues++
	switch s.format {
	case SRT:
		return fmt.Sprintf("%d\n%s --> %s\n%s\n\n", s.cues, clock(start, ','), clock(end, ','), srtText(text))
	case VTT:
		return fmt.Sprintf("%s --> %s\n%s\n\n", clock(start, '.'), clock(end, '.'), vttText(text))
	case LRC:
		return lrcTag(start) + lrcText(text) + "\n"
	}
	return fmt.Sprintf("%d\t%d\t%s\n", start, end, oneLine(text))
}

// wordRows is one row for each word: start and end in ms, probability to four
// places, the word without space around it. A segment without word times is
// one row with its own times and the geometric mean of its tokens'
// probabilities: text is not dropped because its times are coarse.
func wordRows(seg Segment) string {
	words := seg.Words
	if len(words) == 0 {
		words = []Word{{seg.Start, seg.End, seg.Text, math.Exp(seg.AvgLogProb)}}
	}
	var b strings.Builder
	for _, w := range words {
		if text := oneLine(Clean(w.Text)); text != "" {
			start, end := span(w.Start, w.End)
			fmt.Fprintf(&b, "%d\t%d\t%.4f\t%s\n", start, end, w.Prob, text)
		}
	}
	return b.String()
}
