package transcribe

import (
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

// flaw is what is wrong with a result; "" = nothing that can be seen.
type flaw string

// The flaws, the worst first.
const (
	looping    flaw = "loop"       // it says the same again and again
	wordless   flaw = "no words"   // somebody spoke, and there is no text
	improbable flaw = "improbable" // the model itself does not believe it
	echoing    flaw = "echo"       // a sentence follows itself, or there is no time for it
	unsure     flaw = "unsure"     // heard with a cut context, and the model is in doubt
	fine       flaw = ""
)

// mild tells whether the text stands where the whole context says no better.
func (f flaw) mild() bool { return f == fine || f == unsure || f == echoing }

// Whisper's own bounds.
const (
	mostCompression = 2.4
	leastLogProb    = -1.0
	mostNoSpeech    = 0.6
)

// mostTokens is more than anybody says in a second; fewer than leastTokens say
// nothing about that, nor do so few that are said again.
const (
	mostTokens  = 25
	leastTokens = 5
)

// sureLogProb is what a text heard with a cut context must have at least to
// stand. Of 28 clips a quarter is below, and all but one that the cut made worse.
const sureLogProb = -0.4

// leastRest is how much speech is worth to be gone on with where the model says
// that more follows.
const leastRest = 250 * time.Millisecond

// leastSpeech is how much speech without text is worth another look.
const leastSpeech = time.Second

// piece is one segment of an attempt.
type piece struct {
	engine.Segment
	temperature float64
	seam        bool // another attempt brought the text before it
}

// heard is what an attempt at a window brought.
type heard struct {
	segments    []piece
	language    string
	temperature float64
	cut         bool // with a context cut to the window
	flaw        flaw
	logProb     float64 // mean over all tokens
	tokens      int
	until       time.Duration // how far it reaches, where more would follow; else 0
}

// look judges an attempt at a window with so much speech in it. Segments that
// Whisper takes for silence are left out first.
func (h heard) look(speech time.Duration) heard {
	h.segments = withoutSilence(h.segments)
	var text strings.Builder
	var tokens []int
	ratio, sum := 0.0, 0.0
	for _, s := range h.segments {
		text.WriteString(s.Text)
		ratio = max(ratio, transcript.CompressionRatio(s.Text))
		for _, t := range s.Tokens {
			tokens = append(tokens, t.ID)
		}
		sum += s.AvgLogProb * float64(len(s.Tokens))
	}
	if h.tokens = len(tokens); h.tokens > 0 {
		h.logProb = sum / float64(len(tokens))
	}
	switch {
	case strings.TrimSpace(text.String()) == "":
		h.flaw = fine
		if speech >= leastSpeech {
			h.flaw = wordless
		}
	case max(ratio, transcript.CompressionRatio(text.String())) > mostCompression, repeats(tokens):
		h.flaw = looping
	case h.logProb < leastLogProb:
		h.flaw = improbable
	case echoes(h.segments):
		h.flaw = echoing
	case h.cut && h.logProb < sureLogProb:
		h.flaw = unsure
	default:
		h.flaw = fine
	}
	return h
}

// withoutSilence leaves out what Whisper itself takes for silence: it hears no
// speech, and does not believe its own words.
func withoutSilence(segments []piece) []piece {
	var kept []piece
	for _, s := range segments {
		if s.NoSpeechProb <= mostNoSpeech || s.AvgLogProb >= leastLogProb {
			kept = append(kept, s)
		}
	}
	return kept
}

// echoes tells whether a segment says what the one before said, or takes less
// time than anybody needs for it. Both happen where speech ends early in what
// the encoder hears.
func echoes(segments []piece) bool {
	for i, s := range segments {
		if len(s.Tokens) < leastTokens {
			continue
		}
		if float64(len(s.Tokens)) > mostTokens*(s.End-s.Start).Seconds() || i > 0 && sameTokens(s, segments[i-1]) {
			return true
		}
	}
	return false
}

func sameTokens(a, b piece) bool {
	return slices.EqualFunc(a.Tokens, b.Tokens, func(x, y engine.Token) bool { return x.ID == y.ID })
}

// better tells whether h is to be preferred to other.
func (h heard) better(other heard) bool {
	rank := map[flaw]int{looping: 0, wordless: 1, improbable: 2, echoing: 3, unsure: 4, fine: 5}
	if rank[h.flaw] != rank[other.flaw] {
		return rank[h.flaw] > rank[other.flaw]
	}
	return h.logProb > other.logProb
}

// What people say in a second, in tokens: who speak slowly, and fast. A loop goes
// on until there is no room for more.
const (
	slowTokens = 1
	fastTokens = 6
)

// confirms tells whether what an attempt said again and again was said so:
// another attempt heard the same words, and there was time to say them.
func (h heard) confirms(other heard, speech time.Duration) bool {
	rate := float64(h.tokens) / speech.Seconds()
	return h.flaw == looping && other.flaw == looping && rate >= slowTokens && rate <= fastTokens &&
		strings.TrimSpace(h.plain()) != "" && h.plain() == other.plain()
}

// longestPeriod is the longest passage, in tokens, whose repetition is looked for.
const longestPeriod = 40

// repeats tells whether a passage follows itself more often than people repeat
// themselves: a single token eight times, a few four times, a sentence three
// times.
func repeats(tokens []int) bool {
	for period := 1; period <= min(longestPeriod, len(tokens)/3); period++ {
		times := 3
		switch {
		case period == 1:
			times = 8
		case period < 6:
			times = 4
		}
		same := 0
		for i := period; i < len(tokens); i++ {
			if tokens[i] != tokens[i-period] {
				same = 0
				continue
			}
			if same++; same >= period*(times-1) {
				return true
			}
		}
	}
	return false
}

// missed lists the speech in w, of a second at least, over which no text is.
// The times of segments are taken as they are, a little wider.
func missed(w audio.Window, segments []piece) []audio.Span {
	const slack = 300 * time.Millisecond
	var covered []audio.Span
	for _, s := range segments {
		if strings.TrimSpace(s.Text) != "" {
			covered = append(covered, audio.Span{Start: w.Start + s.Start - slack, End: w.Start + s.End + slack})
		}
	}
	covered = audio.Joined(covered, w.End)
	var spans []audio.Span
	for _, speech := range w.Speech {
		for _, rest := range without(speech, covered) {
			if rest.Length() >= leastSpeech {
				spans = append(spans, rest)
			}
		}
	}
	return spans
}

// without is what is left of s; covered is in order.
func without(s audio.Span, covered []audio.Span) []audio.Span {
	var left []audio.Span
	for _, c := range covered {
		if c.End <= s.Start || c.Start >= s.End {
			continue
		}
		if c.Start > s.Start {
			left = append(left, audio.Span{Start: s.Start, End: c.Start})
		}
		s.Start = min(c.End, s.End)
	}
	return append(left, s)
}
