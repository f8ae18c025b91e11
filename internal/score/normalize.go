package score

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Normalize brings a text into a spelling in which two ways to write the same
// speech are one, in the spirit of the normaliser that Whisper was measured
// with: compatibility forms folded (NFKC), lower case, asides in brackets
// dropped, punctuation and symbols gone, one space between words.
//
// English also loses its diacritics, hesitations and contractions, and writes
// titles short and numbers in digits; British and American spelling are left
// alone. Other languages keep their diacritics. Where ByCharacter holds, the
// spaces go too; traditional and simplified characters stay what they are.
func Normalize(language, text string) string {
	text = dropAsides(strings.ToLower(norm.NFKC.String(text)))
	switch {
	case language == "en":
		return english(text)
	case ByCharacter(language):
		return strings.Join(words(text), "")
	}
	return strings.Join(words(text), " ")
}

// words is the stretches of letters, marks and digits.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.In(r, unicode.L, unicode.M, unicode.N)
	})
}

// dropAsides removes what stands in brackets: recognisers note sounds there,
// "[Music]" or "(applause)", and nobody said it. A bracket without its partner
// is left for the punctuation to go.
func dropAsides(text string) string {
	var b strings.Builder
	for {
		open := strings.IndexAny(text, "[(")
		if open < 0 {
			break
		}
		partner := "]"
		if text[open] == '(' {
			partner = ")"
		}
		length := strings.Index(text[open:], partner)
		if length < 0 {
			break
		}
		b.WriteString(text[:open] + " ")
		text = text[open+length+1:]
	}
	b.WriteString(text)
	return b.String()
}

// english is the normal form of lower case English.
func english(text string) string {
	var expanded []string
	for _, w := range englishTokens(plain(text)) {
		expanded = append(expanded, expand(w)...)
	}
	return strings.Join(currencies(numbers(expanded)), " ")
}

// plain is text without diacritics and with one kind of apostrophe.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Mn, r):
			return -1
		case r == '’' || r == '‘' || r == 'ʼ':
			return '\''
		}
		return r
	}, norm.NFKD.String(text))
}

// englishTokens splits text into words, numbers and the signs that are spoken.
// An apostrophe stays inside a word and a point inside a number; a comma
// inside a number goes.
func englishTokens(text string) []string {
	var b strings.Builder
	runes := []rune(text)
	for i, r := range runes {
		before, after := ' ', ' '
		if i > 0 {
			before = runes[i-1]
		}
		if i+1 < len(runes) {
			after = runes[i+1]
		}
		digits := unicode.IsDigit(before) && unicode.IsDigit(after)
		switch {
		case unicode.IsLetter(r), unicode.IsNumber(r),
			r == '.' && digits,
			r == '\'' && unicode.IsLetter(before) && unicode.IsLetter(after):
			b.WriteRune(r)
		case r == ',' && digits:
		case r == '$' || r == '£' || r == '€':
			b.WriteString(" " + string(r) + " ")
		case r == '%':
			b.WriteString(" percent ")
		default:
			b.WriteByte(' ')
		}
	}
	return strings.Fields(b.String())
}

// currencies puts "$ 5" as it is said, "5 dollars".
func currencies(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		name := currency(words[i])
		switch {
		case name == "":
			out = append(out, words[i])
		case i+1 < len(words) && unicode.IsDigit(rune(words[i+1][0])):
			i++
			if words[i] != "1" {
				name += "s"
			}
			out = append(out, words[i], name)
		}
	}
	return out
}

func currency(sign string) string {
	switch sign {
	case "$":
		return "dollar"
	case "£":
		return "pound"
	case "€":
		return "euro"
	}
	return ""
}
