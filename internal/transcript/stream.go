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
// With a Layout the cues of srt and vtt are what Layout.cues makes of each
// segment; none overlaps the next. How long the last one stays is decided by
// what comes after it, so it is held back until then.
//
// Each call writes to the underlying writer at most twice, so that a caller
// may flush after it; nothing else is buffered here.
type Streamer struct {
	Layout *Layout // nil = a cue a segment, on one line; set before the first segment

	w      io.Writer
	format Format
	held   *cue
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
	if s.Layout != nil && s.format.Cues() {
		return s.write(s.laid(seg))
	}
	return s.write(s.cue(seg))
}

// Close writes what stands behind the last segment. It does not close the writer.
func (s *Streamer) Close() error {
	if err := s.Header(); err != nil {
		return err
	}
	switch {
	case s.format == Txt:
		return s.write(s.joiner.Close() + "\n")
	case s.held != nil:
		s.Layout.settle(s.held, nil)
		return s.write(s.release(nil))
	}
	return nil
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
	switch s.format {
	case SRT, VTT:
		return s.block(cue{start: start, end: end, lines: []string{text}})
	case LRC:
		return lrcTag(start) + lrcText(text) + "\n"
	}
	return fmt.Sprintf("%d\t%d\t%s\n", start, end, oneLine(text))
}

// laid is the cues that seg brings, but for the last one, with the one that was
// held back before them.
func (s *Streamer) laid(seg Segment) string {
	var b strings.Builder
	for _, c := range s.Layout.cues(seg) {
		if s.held != nil {
			s.Layout.settle(s.held, &c)
		}
		b.WriteString(s.release(&c))
	}
	return b.String()
}

// release writes the cue held back, if there is one, and holds next.
func (s *Streamer) release(next *cue) string {
	text := ""
	if s.held != nil {
		text = s.block(*s.held)
	}
	s.held = next
	return text
}

// block is a cue of srt or vtt with the empty line behind it.
func (s *Streamer) block(c cue) string {
	s.cues++
	var b strings.Builder
	point, text := '.', vttText
	if s.format == SRT {
		point, text = ',', srtText
		fmt.Fprintf(&b, "%d\n", s.cues)
	}
	fmt.Fprintf(&b, "%s --> %s\n", clock(c.start, point), clock(c.end, point))
	for _, line := range c.lines {
		b.WriteString(text(line) + "\n")
	}
	b.WriteString("\n")
	return b.String()
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
