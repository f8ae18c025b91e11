package score

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// The number words, each list in counting order.
const (
	ones         = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
	oneOrdinals  = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
	tens         = "twenty thirty forty fifty sixty seventy eighty ninety"
	tenOrdinals  = "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth"
	powers       = "thousand million billion trillion"
	powerOrdinal = "thousandth millionth billionth trillionth"
)

// number is what was read from the front of a list of words. Used is 0 where
// no number stands there.
type number struct {
	value   int64
	used    int  // words
	ordinal bool // nothing can follow
}

// numbers writes the English number words among words in digits: "twenty
// first" is 21st, "eighteen thirteen" is 1813, "three point one four" is 3.14.
// Digits before a power are a number too: "5 million". Single digits that
// follow one another stay apart.
func numbers(words []string) []string {
	var out []string
	for len(words) > 0 {
		n := read(words)
		if n.used == 0 {
			out, words = append(out, words[0]), words[1:]
			continue
		}
		text := strconv.FormatInt(n.value, 10)
		words = words[n.used:]
		if n.ordinal {
			text += suffix(n.value)
		} else {
			fraction, used := decimals(words)
			text, words = text+fraction, words[used:]
		}
		out = append(out, text)
	}
	return out
}

// read is a year, or groups with falling powers: "two million and one thousand five".
func read(words []string) number {
	if y := year(words); y.used > 0 {
		return y
	}
	var total number
	limit := int64(math.MaxInt64)
	for limit > 1 && !total.ordinal {
		start := total.used
		if start > 0 && start < len(words) && words[start] == "and" {
			start++
		}
		g, power := powered(words[start:])
		if g.used == 0 || power >= limit || g.value >= limit {
			break
		}
		total = number{total.value + g.value, start + g.used, g.ordinal}
		limit = power
	}
	return total
}

// powered is a group with the power behind it, which is 1 where there is none.
func powered(words []string) (number, int64) {
	g := group(words)
	if g.used == 0 || g.used == len(words) || g.ordinal {
		return g, 1
	}
	if power, ordinal := powerOf(words[g.used]); power > 0 {
		return number{g.value * power, g.used + 1, ordinal}, power
	}
	return g, 1
}

// powerOf is the power of a thousand that word names, 0 for another word.
func powerOf(word string) (power int64, ordinal bool) {
	i := place(powers, word)
	if i < 0 {
		i, ordinal = place(powerOrdinal, word), true
	}
	if i < 0 {
		return 0, false
	}
	power = 1
	for range i + 1 {
		power *= 1000
	}
	return power, ordinal
}

// group is a number without powers of a thousand: up to 99, or hundreds of
// that with a rest. "a" and digits count where a multiplier follows.
func group(words []string) number {
	head := small(words)
	if head.used == 0 {
		head = multiplied(words)
	}
	if head.used == 0 || head.ordinal || head.used == len(words) {
		return head
	}
	switch words[head.used] {
	case "hundredth":
		return number{head.value * 100, head.used + 1, true}
	case "hundred":
	default:
		return head
	}
	total := number{head.value * 100, head.used + 1, false}
	rest := words[total.used:]
	and := 0
	if len(rest) > 0 && rest[0] == "and" {
		and = 1
	}
	tail := small(rest[and:])
	end := and + tail.used
	if tail.used == 0 || end < len(rest) && rest[end] == "hundred" {
		return total
	}
	return number{total.value + tail.value, total.used + end, tail.ordinal}
}

// multiplied is "a" or a number in digits with a multiplier behind it.
func multiplied(words []string) number {
	if len(words) < 2 {
		return number{}
	}
	if power, _ := powerOf(words[1]); power == 0 && words[1] != "hundred" {
		return number{}
	}
	if words[0] == "a" {
		return number{value: 1, used: 1}
	}
	value, err := strconv.ParseInt(words[0], 10, 16)
	if err != nil {
		return number{}
	}
	return number{value: value, used: 1}
}

// small is a number from 0 to 99.
func small(words []string) number {
	if len(words) == 0 {
		return number{}
	}
	if i := place(ones, words[0]); i >= 0 {
		return number{int64(i), 1, false}
	}
	if i := place(oneOrdinals, words[0]); i >= 0 {
		return number{int64(i), 1, true}
	}
	if i := place(tenOrdinals, words[0]); i >= 0 {
		return number{int64(i+2) * 10, 1, true}
	}
	i := place(tens, words[0])
	if i < 0 {
		return number{}
	}
	value := int64(i+2) * 10
	if unit := small(words[1:]); unit.used == 1 && unit.value > 0 && unit.value < 10 {
		return number{value + unit.value, 2, unit.ordinal}
	}
	return number{value, 1, false}
}

// year is two numbers of two digits said one after the other, "nineteen eighty
// four" or "nineteen oh five". The century is 10 to 20, so that "thirty forty"
// stays two numbers.
func year(words []string) number {
	century := small(words)
	if century.used != 1 || century.ordinal || century.value < 10 || century.value > 20 {
		return number{}
	}
	rest := words[1:]
	oh := 0
	if len(rest) > 1 && rest[0] == "oh" {
		oh = 1
	}
	y := small(rest[oh:])
	if y.used == 0 || y.ordinal || (y.value >= 10) == (oh == 1) {
		return number{}
	}
	end := oh + y.used
	if end < len(rest) {
		if power, _ := powerOf(rest[end]); power > 0 || rest[end] == "hundred" {
			return number{}
		}
	}
	return number{century.value*100 + y.value, 1 + end, false}
}

// decimals is "point" with the digits behind it, "" where there are none.
func decimals(words []string) (text string, used int) {
	if len(words) < 2 || words[0] != "point" {
		return "", 0
	}
	for _, w := range words[1:] {
		digit := place(ones, w)
		if w == "oh" {
			digit = 0
		}
		if digit < 0 || digit > 9 {
			break
		}
		text += strconv.Itoa(digit)
	}
	if text == "" {
		return "", 0
	}
	return "." + text, 1 + len(text)
}

// suffix is what an ordinal in digits ends with.
func suffix(value int64) string {
	if teen := value % 100; teen >= 11 && teen <= 13 {
		return "th"
	}
	switch value % 10 {
	case 1:
		return "st"
	case 2:
		return "nd"
	case 3:
		return "rd"
	}
	return "th"
}

// place is where word stands in a list of words, -1 if nowhere.
func place(list, word string) int { return slices.Index(strings.Fields(list), word) }
