package transcript

import (
	"math"
	"slices"
)

// What a division into cues costs beside its breaks. Fewer cues win, then
// those that end where the text does; then they are alike in length.
const (
	costCue     = 2
	costUneven  = 1
	costTooLong = 4
	costBreaks  = 0.5 // of a line break, against one between two cues
	costFlash   = 2
	gainPause   = 1 // for each second that the speaker stops
)

// ends divides pieces into cues: where each ends, in order. Each has room in
// its lines; beyond that it is the division of the least cost.
func (l *Layout) ends(pieces []piece, width int) []int {
	n := len(pieces)
	best, from := make([]float64, n+1), make([]int, n+1)
	for i := range best[1:] {
		best[i+1] = math.Inf(1)
	}
	for i := range n {
		if math.IsInf(best[i], 1) {
			continue
		}
		breaks := l.breaks(pieces[i:], width)
		columns := 0
		for j := i + 1; j-i < len(breaks); j++ {
			columns += pieces[j-1].columns
			if cost := best[i] + costBreaks*breaks[j-i] + l.cueCost(pieces, i, j, columns, width); cost < best[j] {
				best[j], from[j] = cost, i
			}
		}
	}
	var list []int
	for j := n; j > 0; j = from[j] {
		list = append(list, j)
	}
	slices.Reverse(list)
	return list
}

// breaks is what the line breaks of a cue of the first n pieces cost, by n, for
// as many pieces as have room in a cue. It has as few lines as will do.
func (l *Layout) breaks(pieces []piece, width int) []float64 {
	least := []float64{0}
	above := []float64{0} // on one line less, by pieces; infinite where it cannot be
	for range l.Lines {
		var here []float64
		for i, cost := range above {
			if math.IsInf(cost, 1) || i == len(pieces) {
				continue
			}
			if i > 0 {
				cost += pieces[i-1].after
			}
			line := newFill(&Layout{Lines: 1, Words: l.Words}, width)
			for j := i + 1; j <= len(pieces) && line.add(pieces[j-1]); j++ {
				for len(here) <= j {
					here = append(here, math.Inf(1))
				}
				here[j] = min(here[j], cost)
			}
		}
		if len(here) > len(least) {
			least = append(least, here[len(least):]...)
		}
		above = here
	}
	return least
}

// cueCost is the cost of a cue of pieces[i:j], which are so many columns wide.
func (l *Layout) cueCost(pieces []piece, i, j, columns, width int) float64 {
	empty := max(0, 1-float64(columns)/float64(width*l.Lines))
	cost := costCue + costUneven*empty*empty
	spoken := float64(pieces[j-1].end - pieces[i].start)
	free := spoken // the time there is to show it
	if j < len(pieces) {
		cost += pieces[j-1].after
		free = float64(pieces[j].start - pieces[i].start)
		if pause := free - spoken; pause >= speechStop {
			cost -= gainPause * min(pause, longPause) / 1000
		}
	}
	if shortest := float64(l.Shortest.Milliseconds()); free < shortest {
		cost += costFlash * (1 - free/shortest)
	}
	if longest := float64(l.Longest.Milliseconds()); spoken > longest {
		cost += costTooLong * spoken / longest
	}
	return cost
}

// fill puts pieces on lines, each as full as it gets.
type fill struct {
	layout  *Layout
	width   int
	lines   int
	line    int // columns of the line at hand
	words   int // on it
	columns int // in all
}

func newFill(l *Layout, width int) *fill { return &fill{layout: l, width: width} }

// add puts one more piece on; false where there is no room.
func (f *fill) add(p piece) bool {
	space := columnsOf(p.space)
	if f.columns > 0 {
		f.columns += space
	}
	f.columns += p.columns
	if f.lines > 0 && f.line+space+p.columns <= f.width && !f.layout.tooMany(f.words+1) {
		f.line, f.words = f.line+space+p.columns, f.words+1
		return true
	}
	f.lines, f.line, f.words = f.lines+1, p.columns, 1
	return f.lines <= f.layout.Lines
}

func (l *Layout) tooMany(words int) bool { return l.Words > 0 && words > l.Words }

// lines divides the pieces of one cue into lines: as few as will do, alike in
// length, the lower rather the longer.
func (l *Layout) lines(pieces []piece, width int) [][]piece {
	fewest := newFill(&Layout{Lines: len(pieces), Words: l.Words}, width)
	for _, p := range pieces {
		fewest.add(p)
	}
	n, target := len(pieces), float64(fewest.columns)/float64(fewest.lines)
	// best[k][j] is the least cost of pieces[:j] on k lines.
	best, from := make([][]float64, fewest.lines+1), make([][]int, fewest.lines+1)
	for k := range best {
		best[k], from[k] = slices.Repeat([]float64{math.Inf(1)}, n+1), make([]int, n+1)
	}
	best[0][0] = 0
	for k := range fewest.lines {
		for i := range n {
			one := newFill(&Layout{Lines: 1, Words: l.Words}, width)
			for j := i + 1; j <= n && one.add(pieces[j-1]); j++ {
				cost := best[k][i] + uneven(float64(one.columns), target, width, k == fewest.lines-1)
				if j < n {
					cost += pieces[j-1].after
				}
				if cost < best[k+1][j] {
					best[k+1][j], from[k+1][j] = cost, i
				}
			}
		}
	}
	var list [][]piece
	for k, j := fewest.lines, n; k > 0; k-- {
		list = append(list, pieces[from[k][j]:j])
		j = from[k][j]
	}
	slices.Reverse(list)
	return list
}

// uneven is the cost of a line that differs from the length that all would have
// if they were alike. A longer line above costs more than a shorter one.
func uneven(columns, target float64, width int, last bool) float64 {
	off := (columns - target) / float64(width)
	if !last && off > 0 {
		return 5 * off * off
	}
	return 3 * off * off
}
