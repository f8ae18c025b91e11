package server

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/transcript"
)

// inLines is a format of lines as a dialect writes them.
func inLines(contentType string, begin func(io.Writer) (lineWriter, error)) renderer {
	return renderer{contentType: contentType, lines: begin, whole: func(w io.Writer, t *transcript.Transcript) error {
		lines, err := begin(w)
		if err != nil {
			return err
		}
		if err := lines.Header(); err != nil {
			return err
		}
		for _, seg := range t.Segments {
			if err := lines.Segment(seg); err != nil {
				return err
			}
		}
		return lines.Close()
	}}
}

// textLines writes each segment's text on a line of its own. The text that all
// doors agree on has nothing where a line ends here, or the space that the next
// segment begins with.
type textLines struct {
	w      io.Writer
	joiner transcript.Joiner
	lead   bool // keep that space
}

// Header is lineWriter's.
func (l *textLines) Header() error { return nil }

// Segment is lineWriter's.
func (l *textLines) Segment(s transcript.Segment) error {
	return l.line(l.joiner.Add(s), strings.HasPrefix(s.Text, " "))
}

// Close is lineWriter's.
func (l *textLines) Close() error { return l.line(l.joiner.Close(), false) }

func (l *textLines) line(text string, spaced bool) error {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	if l.lead && spaced {
		text = " " + text
	}
	_, err := io.WriteString(l.w, text+"\n")
	return err
}

// cueLines writes subtitles as package transcript does, but for what a dialect
// has otherwise in the lines of a cue.
type cueLines struct {
	*transcript.Streamer
	out  *cueWriter
	lead bool // keep the space that a segment begins with
}

// cueWriter gets each cue in one Write.
type cueWriter struct {
	w      io.Writer
	offset int                 // added to the numbers of cues
	times  func(string) string // the line of times; nil = as it is
	spaced bool                // the text at hand begins with a space
}

func newCueLines(f transcript.Format, out *cueWriter, lead bool) (lineWriter, error) {
	s, err := transcript.NewStreamer(out, f)
	return &cueLines{Streamer: s, out: out, lead: lead}, err
}

// Segment is lineWriter's.
func (l *cueLines) Segment(s transcript.Segment) error {
	l.out.spaced = l.lead && strings.HasPrefix(s.Text, " ")
	return l.Streamer.Segment(s)
}

// Write is io.Writer's. What is no cue is left as it is.
func (c *cueWriter) Write(p []byte) (int, error) {
	lines := strings.SplitAfter(string(p), "\n")
	for i, line := range lines {
		if !strings.Contains(line, " --> ") || i+1 == len(lines) {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(lines[max(0, i-1)])); err == nil {
			lines[i-1] = strconv.Itoa(n+c.offset) + "\n"
		}
		if c.times != nil {
			lines[i] = c.times(line)
		}
		if c.spaced {
			lines[i+1] = " " + lines[i+1]
		}
		break
	}
	if _, err := io.WriteString(c.w, strings.Join(lines, "")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// spacedText is the whole text with the space that its first segment begins with.
func spacedText(t *transcript.Transcript) string {
	text := t.Text()
	if text != "" && strings.HasPrefix(t.Segments[0].Text, " ") {
		return " " + text
	}
	return text
}

// secondsOf is d in seconds, to the millisecond.
func secondsOf(d time.Duration) float64 {
	return float64(max(0, d.Round(time.Millisecond).Milliseconds())) / 1000
}

// writeBare writes v as JSON for programs that are no browsers: "<" stays as it
// is, and no line ends it.
func writeBare(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := transcript.Encode(&b, v); err != nil {
		return err
	}
	_, err := w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}
