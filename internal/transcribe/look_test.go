package transcribe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
)

// spoke is a segment of words, each a token, which the model believes so much.
func spoke(text string, start, end time.Duration, logProb, noSpeech float64) piece {
	s := engine.Segment{Start: start, End: end, Text: " " + text, AvgLogProb: logProb, NoSpeechProb: noSpeech}
	for _, word := range strings.Fields(text) {
		id := 0
		for _, b := range []byte(word) {
			id = 31*id%50000 + int(b)
		}
		s.Tokens = append(s.Tokens, engine.Token{ID: id, LogProb: logProb})
	}
	return piece{Segment: s}
}

const saying = "The quick brown fox jumps over the lazy dog and away."

func TestLook(t *testing.T) {
	s := time.Second
	for name, c := range map[string]struct {
		said   []piece
		speech time.Duration
		cut    bool
		want   flaw
		kept   int
	}{
		"fine":                       {said: []piece{spoke(saying, 0, 3*s, -0.2, 0.01)}, speech: 3 * s, want: fine, kept: 1},
		"nothing in nothing":         {want: fine},
		"nothing in a breath":        {speech: s / 2, want: fine},
		"nothing in speech":          {speech: s, want: wordless},
		"an empty segment in speech": {said: []piece{spoke("", 0, s, 0, 0)}, speech: 2 * s, want: wordless, kept: 1},
		"a sentence again and again": {said: []piece{spoke(strings.Repeat(saying+" ", 12), 0, 30*s, -0.1, 0)}, speech: 30 * s, want: looping, kept: 1},
		"a segment again and again":  {said: slices.Repeat([]piece{spoke("I was in the city.", 0, 2*s, -0.1, 0)}, 5), speech: 10 * s, want: looping, kept: 5},
		"a word again and again":     {said: []piece{spoke("yes "+strings.Repeat("no ", 8), 0, 2*s, -0.1, 0)}, speech: 2 * s, want: looping, kept: 1},
		"a sentence twice":           {said: []piece{spoke(saying, 0, 3*s, -0.1, 0), spoke(saying, 3*s, 6*s, -0.1, 0)}, speech: 6 * s, want: echoing, kept: 2},
		"a few words twice":          {said: []piece{spoke("So it is.", 0, s, -0.1, 0), spoke("So it is.", s, 2*s, -0.1, 0)}, speech: 2 * s, want: fine, kept: 2},
		"a sentence in no time":      {said: []piece{spoke(saying, 0, s/4, -0.1, 0)}, speech: 2 * s, want: echoing, kept: 1},
		"a word a few times":         {said: []piece{spoke("no no no no never", 0, 2*s, -0.1, 0)}, speech: 2 * s, want: fine, kept: 1},
		"improbable":                 {said: []piece{spoke(saying, 0, 3*s, -1.1, 0.3)}, speech: 3 * s, want: improbable, kept: 1},
		"improbable over silence":    {said: []piece{spoke("Thank you.", 0, 3*s, -1.1, 0.7)}, speech: s / 2, want: fine},
		"that alone is left out":     {said: []piece{spoke(saying, 0, 3*s, -0.2, 0.7), spoke("Thank you.", 3*s, 4*s, -1.1, 0.7)}, speech: 3 * s, want: fine, kept: 1},
		"unsure with less context":   {said: []piece{spoke(saying, 0, 3*s, -0.5, 0)}, speech: 3 * s, cut: true, want: unsure, kept: 1},
		"unsure with all of it":      {said: []piece{spoke(saying, 0, 3*s, -0.5, 0)}, speech: 3 * s, want: fine, kept: 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := heard{segments: c.said, cut: c.cut}.look(c.speech)
			if got.flaw != c.want || len(got.segments) != c.kept {
				t.Errorf("%q with %d segments, want %q with %d", got.flaw, len(got.segments), c.want, c.kept)
			}
		})
	}
}

func TestRepeats(t *testing.T) {
	text := func(n int) []int {
		var tokens []int
		for i := range n {
			tokens = append(tokens, i*i%97+i)
		}
		return tokens
	}
	many := func(n int, tokens ...int) []int { return slices.Repeat(tokens, n) }
	for name, c := range map[string]struct {
		tokens []int
		want   bool
	}{
		"nothing":                 {nil, false},
		"text":                    {text(200), false},
		"one seven times":         {many(7, 5), false},
		"one eight times":         {many(8, 5), true},
		"two three times":         {many(3, 5, 6), false},
		"two four times":          {many(4, 5, 6), true},
		"a sentence twice":        {many(2, text(10)...), false},
		"a sentence three times":  {many(3, text(10)...), true},
		"in the middle":           {slices.Concat(text(30), many(9, 5), text(30)), true},
		"apart":                   {slices.Concat(many(5, 5), text(3), many(5, 5)), false},
		"one with others between": {[]int{5, 1, 5, 2, 5, 3, 5, 4, 5, 6, 5, 7, 5, 8, 5, 9}, false},
	} {
		if got := repeats(c.tokens); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestMissed(t *testing.T) {
	s := time.Second
	w := audio.Window{Start: 100 * s, End: 130 * s, Speech: []audio.Span{{Start: 101 * s, End: 110 * s}, {Start: 112 * s, End: 113 * s}, {Start: 115 * s, End: 129 * s}}}
	text := func(from, to float64) piece {
		return spoke("x", time.Duration(from*float64(s)), time.Duration(to*float64(s)), 0, 0)
	}
	for name, c := range map[string]struct {
		said []piece
		want []audio.Span
	}{
		"all":              {[]piece{text(1, 10), text(12, 29)}, nil},
		"nothing":          {nil, w.Speech},
		"the beginning":    {[]piece{text(5, 29)}, []audio.Span{{Start: 101 * s, End: 104700 * time.Millisecond}}},
		"the middle":       {[]piece{text(1, 10.1), text(15, 20), text(25.6, 40)}, []audio.Span{{Start: 112 * s, End: 113 * s}, {Start: 120300 * time.Millisecond, End: 125300 * time.Millisecond}}},
		"less than counts": {[]piece{text(2.2, 13), text(16.2, 28.0)}, nil},
		"no words there":   {[]piece{text(1, 13), spoke("", 15*s, 29*s, 0, 0)}, []audio.Span{{Start: 115 * s, End: 129 * s}}},
	} {
		if got := missed(w, c.said); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestEncoderContext(t *testing.T) {
	for length, want := range map[time.Duration]int{
		time.Millisecond: 512, 8900 * time.Millisecond: 512, 9 * time.Second: 768, 14 * time.Second: 768,
		19 * time.Second: 1024, 19300 * time.Millisecond: 0, 30 * time.Second: 0,
	} {
		if got := encoderContext(length); got != want {
			t.Errorf("%v: %d, want %d", length, got, want)
		}
	}
}
