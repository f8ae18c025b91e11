package transcribe

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

// absolute turns a segment of window w into one of the recording. Whisper
// works on 30 s however short the window is, so times are kept within it.
func absolute(s engine.Segment, w audio.Window, temperature float64) transcript.Segment {
	at := func(t time.Duration) time.Duration { return min(w.Start+max(t, 0), w.End) }
	seg := transcript.Segment{
		Start: at(s.Start), End: at(s.End), Text: s.Text,
		AvgLogProb: s.AvgLogProb, NoSpeechProb: s.NoSpeechProb, Temperature: temperature,
		CompressionRatio: transcript.CompressionRatio(s.Text),
		Tokens:           make([]int, 0, len(s.Tokens)),
	}
	seg.End = max(seg.Start, seg.End)
	for _, t := range s.Tokens {
		seg.Tokens = append(seg.Tokens, t.ID)
	}
	for _, word := range s.Words {
		seg.Words = append(seg.Words, transcript.Word{
			Start: at(word.Start), End: at(word.End), Text: word.Text, Prob: word.Prob,
		})
	}
	return seg
}

// inOrder is s with all its times at or after at, words in order.
func inOrder(s transcript.Segment, at time.Duration) transcript.Segment {
	s.Start = max(s.Start, at)
	s.End = max(s.End, s.Start)
	at = s.Start
	for i := range s.Words {
		w := &s.Words[i]
		w.Start = min(max(w.Start, at), s.End)
		w.End = min(max(w.End, w.Start), s.End)
		at = w.End
	}
	return s
}

// joined gives a window's first segment the space between it and the text
// before it where both sides are of a script that writes spaces. Whisper
// begins a window with one in most languages, but not always.
func joined(before string, s transcript.Segment) transcript.Segment {
	last, _ := utf8.DecodeLastRuneInString(before)
	first, _ := utf8.DecodeRuneInString(s.Text)
	if last == utf8.RuneError || !writesSpaces(last) || !writesSpaces(first) {
		return s
	}
	s.Text = " " + strings.TrimLeft(s.Text, " ")
	if len(s.Words) > 0 {
		s.Words[0].Text = " " + strings.TrimLeft(s.Words[0].Text, " ")
	}
	return s
}

// writesSpaces is false for space itself, too.
func writesSpaces(r rune) bool { return !unicode.IsSpace(r) && !transcript.UnspacedRune(r) }

// wordRune is what words are made of.
func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || r == '\''
}
