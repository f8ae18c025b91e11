// Package score measures how far a transcript is from what was said: word and
// character error rates after both texts were brought into one spelling. It
// serves the comparison of this project with its peers, where both sides are
// judged alike. It trusts the references in its manifest and writes nothing.
package score

import (
	"strings"

	"whisper-appliance/internal/transcript"
)

// Counts are the fewest edits that turn a reference into what was heard.
type Counts struct {
	Sub int // heard as something else
	Del int // said and not heard
	Ins int // heard and not said
	Ref int // words or characters said
}

// Errors is the number of edits.
func (c Counts) Errors() int { return c.Sub + c.Del + c.Ins }

// Rate is errors by reference length: 0 is perfect, and it may exceed 1. Where
// nothing was said, nothing heard is 0 and anything heard is 1.
func (c Counts) Rate() float64 {
	switch {
	case c.Ref > 0:
		return float64(c.Errors()) / float64(c.Ref)
	case c.Errors() > 0:
		return 1
	}
	return 0
}

// Add is the counts of both, so that a rate over many clips weighs each by its
// length.
func (c Counts) Add(d Counts) Counts {
	return Counts{c.Sub + d.Sub, c.Del + d.Del, c.Ins + d.Ins, c.Ref + d.Ref}
}

// Compare scores what was heard against the reference in a language, both
// normalised: by character where ByCharacter says so, else by word.
func Compare(language, ref, hyp string) Counts {
	ref, hyp = Normalize(language, ref), Normalize(language, hyp)
	if ByCharacter(language) {
		return CER(ref, hyp)
	}
	return WER(strings.Fields(ref), strings.Fields(hyp))
}

// ByCharacter says that a language is written without spaces between words, so
// that only characters can be counted.
func ByCharacter(language string) bool {
	return transcript.Unspaced(language)
}

// WER counts by word. It compares the words as they are: normalise first.
func WER(ref, hyp []string) Counts { return edits(ref, hyp) }

// CER counts by character, which here is a code point; spaces count as well.
func CER(ref, hyp string) Counts { return edits([]rune(ref), []rune(hyp)) }

// edits is Levenshtein's distance with its parts kept apart. Of several
// shortest ways it takes the one with substitutions, then deletions. It holds
// one row of the table, so a long text costs time and not memory.
func edits[T comparable](ref, hyp []T) Counts {
	row := make([]Counts, len(hyp)+1)
	for j := range row {
		row[j].Ins = j
	}
	for i, r := range ref {
		diagonal := row[0]
		row[0].Del = i + 1
		for j, h := range hyp {
			above := row[j+1]
			row[j+1] = cheapest(diagonal, above, row[j], r == h)
			diagonal = above
		}
	}
	total := row[len(hyp)]
	total.Ref = len(ref)
	return total
}

// cheapest is the best way into a cell of the table from its three neighbours.
func cheapest(diagonal, above, left Counts, same bool) Counts {
	if same {
		return diagonal
	}
	diagonal.Sub++
	above.Del++
	left.Ins++
	best := diagonal
	for _, c := range []Counts{above, left} {
		if c.Errors() < best.Errors() {
			best = c
		}
	}
	return best
}
