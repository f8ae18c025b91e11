package transcript

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// piece is text that no line break may divide: a word, or a character of a
// script that writes no spaces, with the punctuation that stays with it.
type piece struct {
	text       string
	space      string // between it and the piece before, where they share a line
	columns    int
	start, end int64   // ms
	after      float64 // what a break behind it costs: 0 after a sentence, 1 and more where none should be
}

// What breaks cost. Lines break after punctuation first, then before the short
// words that begin a phrase in many languages, never gladly between a number
// and what it counts.
const (
	costSentence = 0
	costClause   = 0.15
	costSpace    = 0.5
	costParticle = 0.4  // between two Japanese phrases
	costSyllable = 0.6  // between two characters of a script without spaces
	costShort    = 0.8  // behind an article or a preposition
	costNumber   = 0.95 // behind a number
	costWord     = 1    // inside what may be one word
	costInside   = 2    // inside what is one
)

// columnsOf is the width of text: full-width characters take two columns, those
// that combine with the one before none.
func columnsOf(text string) (n int) {
	for _, r := range text {
		n += columnsOfRune(r)
	}
	return n
}

func columnsOfRune(r rune) int {
	if joins(r) || unicode.Is(unicode.Cf, r) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// joins says that r is part of the character before it.
func joins(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me) || r == '\u200d'
}

// blank says that a line may break in place of r. No-break spaces are text.
func blank(r rune) bool {
	return unicode.IsSpace(r) && !strings.ContainsRune("\u00a0\u2007\u202f", r)
}

// piecesOf cuts the text of seg, which is clean, into pieces with their times.
func piecesOf(seg Segment) []piece {
	text := strings.TrimSpace(Clean(seg.Text))
	times := momentsOf(seg, text)
	var list []piece
	var before rune // the last character of the piece at the end of list
	space, n := "", 0
	for _, r := range text {
		if blank(r) || unicode.IsSpace(r) && space != "" { // what stands alone must be seen
			space += string(r)
			continue
		}
		at := moment{}
		if !unicode.IsSpace(r) { // a no-break space is at no time of its own
			at, n = times[n], n+1
		}
		last := len(list) - 1
		if last >= 0 && keeps(before, r, space) {
			list[last].text += space + string(r)
			list[last].end = max(list[last].end, at.end)
		} else {
			if last >= 0 {
				list[last].after = costOf(list[last].text, r, space != "", at.begins)
			}
			list = append(list, piece{text: string(r), space: oneSpace(space), start: at.start, end: at.end})
		}
		space, before = "", r
	}
	for i := range list {
		list[i].columns = columnsOf(list[i].text)
	}
	return list
}

// oneSpace is white space as it stands on a line.
func oneSpace(space string) string {
	if strings.ContainsFunc(space, isBreak) {
		return " "
	}
	return space
}

// keeps says that r stays on the line of a, with the space between them. In
// French there is one before marks and inside quotation marks.
func keeps(a, r rune, space string) bool {
	if space == "" {
		return !divides(a, r)
	}
	return space == " " && (strings.ContainsRune("!?;:»", r) || a == '«')
}

// divides says that a line may break between two characters without a space
// between them: in scripts that write none, but not where punctuation, a small
// letter or a mark would come to begin or end a line, nor inside what is
// written in letters or digits.
func divides(a, b rune) bool {
	switch {
	case a == '\u200b':
		return true
	case !UnspacedRune(a) && !UnspacedRune(b), joins(b), a == '\u200d', unicode.Is(unicode.Mc, b), unicode.Is(unicode.Cf, b):
		return false
	case staysBehind(b), staysBefore(a), unicode.IsSpace(a), unicode.IsSpace(b):
		return false
	}
	return !alphabetic(a) || !alphabetic(b)
}

// alphabetic is what words and numbers in other scripts are made of, of
// whatever width.
func alphabetic(r rune) bool {
	return unicode.IsDigit(r) || unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic) || strings.ContainsRune(".%-'", r)
}

// staysBehind says that r begins no line: closing punctuation, small kana, marks
// of repetition and length, vowels that are written behind.
func staysBehind(r rune) bool {
	return unicode.In(r, unicode.Pe, unicode.Pf) || unicode.In(r, unicode.Po) && !strings.ContainsRune("#&@¡¿", r) ||
		strings.ContainsRune("ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶーｰ々〻ゝゞヽヾ〜～…‥%％℃", r) ||
		strings.ContainsRune("ะาำๅๆฯຯະາຳໆ", r)
}

// staysBefore says that r ends no line: opening punctuation, currencies, vowels
// that are written ahead.
func staysBefore(r rune) bool {
	return unicode.In(r, unicode.Ps, unicode.Pi, unicode.Sc) || strings.ContainsRune("#＃@เแโใไເແໂໃໄ", r)
}

// costOf is what a break between text and next costs. begins says that a word
// begins with next.
func costOf(text string, next rune, spaced, begins bool) float64 {
	bare := strings.TrimRightFunc(text, func(r rune) bool { return unicode.In(r, unicode.Pe, unicode.Pf) || r == '"' || r == '\'' })
	last, _ := utf8.DecodeLastRuneInString(bare)
	switch {
	case strings.ContainsRune("?!。？！．｡؟।॥።։…", last):
		return costSentence
	case last == '.' && !abbreviated(bare, next):
		return costSentence
	case strings.ContainsRune(",;:、，；：､،؛—–", last):
		return costClause
	case unicode.IsDigit(last):
		return costNumber
	case spaced && UnspacedRune(last):
		return costClause // a space is punctuation there
	case spaced && (columnsOf(text) <= 3 || last == '.'):
		return costShort
	case spaced:
		return costSpace
	}
	return unspacedCost(last, next, begins)
}

// abbreviated says that the point at the end of word ends no sentence: "Mrs. May",
// "z. B.", "J. Smith", "1. Januar". A short word without a vowel is no word.
func abbreviated(word string, next rune) bool {
	letters := strings.TrimRight(word, ".")
	first, _ := utf8.DecodeRuneInString(letters)
	n := utf8.RuneCountInString(letters)
	return unicode.IsLower(next) || n <= 1 || n <= 2 && unicode.IsDigit(first) ||
		n <= 3 && unicode.IsUpper(first) && !strings.ContainsAny(strings.ToLower(letters), "aeiouyàáâãäåèéêëìíîïòóôõöùúûüаеёиоуыэюяіїєαεηιουω")
}

// unspacedCost goes by the script: in Japanese what is written behind a word
// is Hiragana, and the next word begins with something else.
func unspacedCost(last, next rune, begins bool) float64 {
	long := unicode.In(last, unicode.Katakana) || last == 'ー'
	switch {
	case unicode.In(last, unicode.Hiragana) && !unicode.In(next, unicode.Hiragana):
		return costParticle
	case long && unicode.In(next, unicode.Katakana):
		return costInside
	case unicode.In(next, unicode.Hiragana):
		return costWord
	case unicode.In(last, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar), !begins:
		return costWord
	}
	return costSyllable
}
