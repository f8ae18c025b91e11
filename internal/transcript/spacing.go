package transcript

import (
	"slices"
	"unicode"
)

// Unspaced says that a language, given by Whisper's code, is written without
// spaces between words: words cannot be told there, only characters.
func Unspaced(code string) bool {
	return slices.Contains([]string{"zh", "yue", "ja", "th", "lo", "km", "my"}, code)
}

// UnspacedRune says the same of a character: it belongs to the script of one
// of those languages, or to their full-width punctuation.
func UnspacedRune(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar) ||
		r >= 0x3000 && r <= 0x303F || r >= 0xFF00 && r <= 0xFFEF
}
