package transcript

import (
	"slices"
	"strings"
	"unicode"
)

// The figures of broadcasters that nobody needs to set: between two cues are
// two frames (at 24 a second) or nothing, and a pause too short to be seen as
// one is closed to that.
const (
	frames     = 84  // ms
	shortPause = 500 // ms
	speechStop = 300 // ms: where a speaker stops for as long as this, a cue may well end
	longPause  = 1500
)

// cue is a cue as it is written.
type cue struct {
	start, end int64 // ms
	columns    int
	lines      []string
}

// moment is when a character is spoken.
type moment struct {
	start, end int64 // ms
	begins     bool  // a word, as far as that is known
}

// momentsOf gives the times of the characters of text, the clean text of seg,
// that are not space: those of the words, shared out among their characters;
// where the words are not those of the text, the segment's shared out.
func momentsOf(seg Segment, text string) []moment {
	start, end := span(seg.Start, seg.End)
	var list []moment
	var said []rune
	at := start
	for _, w := range seg.Words {
		letters := letters(Clean(w.Text))
		from, to := span(w.Start, w.End)
		from = min(max(from, at), max(end, at))
		at = min(max(to, from), max(end, from))
		list, said = append(list, spread(letters, from, at)...), append(said, letters...)
	}
	whole := letters(text)
	if slices.Equal(said, whole) {
		return list
	}
	list = spread(whole, start, end)
	for i := range list {
		list[i].begins = true
	}
	return list
}

// letters is the characters of text that are not space.
func letters(text string) []rune {
	return slices.DeleteFunc([]rune(text), unicode.IsSpace)
}

// spread shares the time from start to end out among the characters of a word,
// by their columns.
func spread(letters []rune, start, end int64) []moment {
	all := int64(max(1, columnsOf(string(letters))))
	list := make([]moment, len(letters))
	done := int64(0)
	for i, r := range letters {
		list[i].start = start + (end-start)*done/all
		done += int64(columnsOfRune(r))
		list[i].end = start + (end-start)*done/all
		list[i].begins = i == 0
	}
	return list
}

// cues lays the text of seg out: none where it has no text. Their times are
// when they are spoken; settle makes of them when they are shown.
func (l *Layout) cues(seg Segment) []cue {
	pieces := piecesOf(seg)
	width := l.widthFor(pieces)
	var list []cue
	from := 0
	for _, to := range l.ends(pieces, width) {
		part := pieces[from:to]
		c := cue{start: part[0].start, end: part[len(part)-1].end, columns: lineColumns(part)}
		for _, line := range l.lines(part, width) {
			c.lines = append(c.lines, lineText(line))
		}
		list = append(list, c)
		from = to
	}
	return list
}

// widthFor is the columns of a line for a text: those for full-width characters
// where these make up most of it.
func (l *Layout) widthFor(pieces []piece) int {
	full, all := 0, 0
	for _, p := range pieces {
		all += p.columns
		for _, r := range p.text {
			if columnsOfRune(r) == 2 {
				full += 2
			}
		}
	}
	if 2*full > all {
		return 2 * l.FullWidth
	}
	return l.Width
}

// lineColumns is the width of pieces on one line.
func lineColumns(line []piece) (n int) {
	for i, p := range line {
		n += p.columns
		if i > 0 {
			n += columnsOf(p.space)
		}
	}
	return n
}

func lineText(line []piece) string {
	var b strings.Builder
	for i, p := range line {
		if i > 0 {
			b.WriteString(p.space)
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// settle decides when c goes, and when next comes at the earliest; next is nil
// for the last cue. A cue stays until it can be read, at least for Shortest, as
// far as the next one allows. One that would flash by, because the next begins
// with it or soon after, takes some of the time of that.
func (l *Layout) settle(c, next *cue) {
	shortest, longest := l.Shortest.Milliseconds(), l.Longest.Milliseconds()
	need := max(shortest, int64(c.columns)*1000/int64(max(1, l.Speed)))
	end := max(c.end, c.start+need)
	if next != nil {
		soonest := min(c.start+shortest, (c.start+max(next.end, next.start+shortest))/2)
		next.start = max(next.start, soonest, c.start+timeStep)
		next.end = max(next.end, next.start+timeStep)
		if end > next.start-shortPause {
			end = next.start - frames
		}
		if end < c.start+shortest {
			end = next.start
		}
	}
	c.end = max(min(end, c.start+longest), c.start+timeStep)
}
