package score

import "strings"

// expand is the normal form of one English word: none for a hesitation, the
// parts of a contraction, the short form of a title, else the word without
// apostrophes.
func expand(word string) []string {
	switch word {
	case "hmm", "hm", "mm", "mhm", "mmm", "uh", "um", "er", "erm":
		return nil
	case "can't", "cannot":
		return []string{"can", "not"}
	case "won't":
		return []string{"will", "not"}
	case "shan't":
		return []string{"shall", "not"}
	case "let's":
		return []string{"let", "us"}
	case "y'all":
		return []string{"you", "all"}
	case "gonna":
		return []string{"going", "to"}
	case "gotta":
		return []string{"got", "to"}
	case "wanna":
		return []string{"want", "to"}
	}
	if short := abbreviation(word); short != "" {
		return []string{short}
	}
	return contraction(word)
}

// contraction splits a regular one. "'s" is "is" behind pronouns and the like
// alone; behind a noun it is the possessive, whose apostrophe nobody hears.
func contraction(word string) []string {
	stem, ending, _ := strings.Cut(word, "'")
	switch ending {
	case "re":
		return []string{stem, "are"}
	case "ve":
		return []string{stem, "have"}
	case "ll":
		return []string{stem, "will"}
	case "m":
		return []string{stem, "am"}
	case "d":
		return []string{stem, "would"}
	case "t":
		if verb, negated := strings.CutSuffix(stem, "n"); negated && verb != "ai" {
			return []string{verb, "not"}
		}
	case "s":
		if takesIs(stem) {
			return []string{stem, "is"}
		}
	}
	return []string{strings.ReplaceAll(word, "'", "")}
}

func takesIs(stem string) bool {
	switch stem {
	case "it", "he", "she", "that", "this", "there", "here", "what", "who", "where", "when", "how", "why":
		return true
	}
	return false
}

// abbreviation is how a word is written short, "" for one that is not.
func abbreviation(word string) string {
	switch word {
	case "mister":
		return "mr"
	case "missus":
		return "mrs"
	case "doctor":
		return "dr"
	case "saint":
		return "st"
	case "professor":
		return "prof"
	case "captain":
		return "capt"
	case "junior":
		return "jr"
	case "senior":
		return "sr"
	case "versus":
		return "vs"
	case "okay":
		return "ok"
	}
	return ""
}
