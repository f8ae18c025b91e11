package engine

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"whisper-appliance/internal/transcript"
)

// WordsOf joins a segment's tokens into words. A token may hold a part of a
// character, so bytes are collected until they are text. Times are made
// monotone and kept within the segment: whisper.cpp's token times may step back.
// Where no spaces are written each character stands for itself, as in OpenAI's
// own word times.
func WordsOf(s Segment, language string) []Word {
	var words []Word
	joined := 0 // units in the last word
	split := startsWord
	if transcript.Unspaced(language) {
		split = func(string) bool { return true }
	}
	at := s.Start
	for _, unit := range units(s.Tokens) {
		start := clamp(unit.start, at, s.End)
		end := clamp(unit.end, start, s.End)
		at = end
		if n := len(words); n > 0 && (!split(unit.text) || onlyPunctuation(unit.text)) {
			w := &words[n-1]
			w.Prob = (w.Prob*float64(joined) + unit.prob) / float64(joined+1)
			w.Text, w.End = w.Text+unit.text, end
			joined++
			continue
		}
		joined = 1
		words = append(words, Word{Start: start, End: end, Text: unit.text, Prob: unit.prob})
	}
	return words
}

// unit is the least run of tokens that is valid text.
type unit struct {
	text       string
	start, end time.Duration
	prob       float64
}

func units(tokens []Token) []unit {
	var all []unit
	var bytes []byte
	var start time.Duration
	prob, n := 0.0, 0
	for i, t := range tokens {
		if n == 0 {
			start = t.Start
		}
		bytes = append(bytes, t.Bytes...)
		prob, n = prob+t.Prob, n+1
		if !utf8.Valid(bytes) && i < len(tokens)-1 {
			continue
		}
		text := strings.ToValidUTF8(string(bytes), "\uFFFD")
		all = append(all, unit{text: text, start: start, end: t.End, prob: prob / float64(n)})
		bytes, prob, n = nil, 0, 0
	}
	return all
}

func startsWord(s string) bool { return strings.HasPrefix(s, " ") }

func onlyPunctuation(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsPunct(r) && !unicode.IsSymbol(r)
	}) < 0
}

func clamp(t, low, high time.Duration) time.Duration { return max(low, min(t, high)) }
