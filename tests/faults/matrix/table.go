package matrix

import "strings"

// The columns.
const (
	killed    = "SIGKILL"
	powerCut  = "power cut"
	full      = "disk full"
	corrupt   = "corrupt"
	forged    = "bad signature"
	downgrade = "downgrade"
	crashes   = "crash at start"
	hangs     = "hang, watchdog"
	smokes    = "smoke fails"
	degrades  = "degrades later"
	busDown   = "bus down"
	two       = "two updaters"
	clocks    = "clock ±10 y"
)

// Columns are the faults, as the table has them.
func Columns() []string {
	return []string{killed, powerCut, full, corrupt, forged, downgrade, crashes, hangs, smokes, degrades, busDown, two, clocks}
}

// None is what the table has where a fault cannot occur.
const None = "N"

// expected is the design's table, a line for each step; words after the letters
// are left out. trial: it stays on trial while the disk is full, and is committed
// when it is no more. golden: the package's release serves. kept: the old release
// serves, though it is not well. allowed: a rollback goes below the floor.
const expected = `
3 plan          | O | O | O | OQ | OQ | O | N | N | N | N | M | L | M
4 reserve       | O | O | O | N | N | N | N | N | N | N | M | L | M
5 fetch         | C | C | O | OQ | N | N | N | N | N | N | M | L | M
6 verify        | O | O | O | OQ | OQ | O | N | N | N | N | M | L | M
7 stage         | C | C | O | OQ | N | N | N | N | N | N | M | L | M
8 publish       | C | C | O | OQ | N | N | N | N | N | N | M | L | M
9 preflight     | C | C | O | OQ | N | N | OQ | OQ | OQ | N | D | L | M
10 arm          | O or F | O or F | O | N | N | N | N | N | N | N | M | L | M
11 overlap      | C | C | O | OQ | N | N | OQ | OQ | OQ | N | D | L | M
12 switch       | F | F | F | N | N | N | N | N | N | N | M | L | M
13 take over    | F | F | B or F | B | N | N | B or BP | B or BP | B | N | D | L | M
14 trial        | F | F | F | N | N | N | B or BP | B or BP | B | B | D | L | M
15 commit       | F | F | trial | N | N | N | N | N | N | N | M | L | M
16 clean        | C | C | C | N | N | N | N | N | N | N | M | L | M
rollback: link  | B | B | B | golden | N | allowed | N | N | N | N | M | L | M
rollback: start | B | B | B | golden | N | N | golden | golden | golden or kept | N | D | L | M
`

// Steps are the rows, in order.
func Steps() (names []string) {
	for line := range strings.Lines(strings.TrimSpace(expected)) {
		name, _, _ := strings.Cut(line, "|")
		names = append(names, strings.TrimSpace(name))
	}
	return names
}

// Wants gives the letters that a cell may come to, by step and fault.
func Wants() map[string]map[string][]string {
	table := map[string]map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(expected)) {
		words := strings.Split(line, "|")
		cells := map[string][]string{}
		for i, column := range Columns() {
			cells[column] = strings.Split(strings.TrimSpace(words[i+1]), " or ")
		}
		table[strings.TrimSpace(words[0])] = cells
	}
	return table
}

// Unsigned marks a letter of what was refused by its digest or signature before
// it was anything: to quarantine the release whose name such bytes bear would
// keep out the true one.
const Unsigned = "¹"

// Fits tells whether what a cell came to, one letter or several, is among what
// it may come to.
func Fits(got string, want []string) bool {
	for letter := range strings.SplitSeq(got, " or ") {
		fits := false
		for _, w := range want {
			fits = fits || w == strings.TrimSuffix(letter, Unsigned)
		}
		if !fits {
			return false
		}
	}
	return true
}
