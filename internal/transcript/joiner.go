package transcript

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Joiner gives the text piece by piece while the segments arrive. Its pieces
// joined are Transcript.Text, byte for byte: space that may turn out to be the
// end of the text is held back, and so is the first part of a character that
// Whisper cut between two segments. The zero value is ready for use.
//
// Bytes that are no UTF-8 become U+FFFD, one for each. Of the control
// characters newline and tab stay, those that are white space become a space,
// and the rest go.
type Joiner struct {
	begun bool   // something other than space was given out
	space string // white space that waits for text behind it
	tail  string // start of a character whose rest is still to come
}

// Add gives the text that s brings, "" where all of it is held back.
func (j *Joiner) Add(s Segment) string {
	text := j.tail + s.Text
	whole := len(text) - incomplete(text)
	j.tail = text[whole:]
	return j.give(Clean(text[:whole]))
}

// Close gives what was held back and belongs to the text: nothing, unless the
// last character is cut off.
func (j *Joiner) Close() string {
	rest := j.give(Clean(j.tail))
	*j = Joiner{}
	return rest
}

func (j *Joiner) give(text string) string {
	if !j.begun {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
	}
	body := strings.TrimRightFunc(text, unicode.IsSpace)
	if body == "" {
		j.space += text
		return ""
	}
	piece := j.space + body
	j.space, j.begun = text[len(body):], true
	return piece
}

// incomplete is the number of bytes at the end of text that start a character
// and do not finish it.
func incomplete(text string) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		tail := text[len(text)-n:]
		if !utf8.RuneStart(tail[0]) {
			continue
		}
		if utf8.FullRuneInString(tail) {
			return 0
		}
		return n
	}
	return 0
}

// Clean is text as Joiner describes it: without what is no text, but with the
// white space at its ends.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || !unicode.IsControl(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, text)
}
