package audio

import (
	"fmt"
	"time"
)

// MaxWindow is the longest window: what the engine takes at once.
const MaxWindow = 30 * time.Second

// Window is a stretch of a recording, from its beginning, that is decoded at once.
type Window struct {
	Start, End time.Duration
	Speech     []Span // what in it is speech, in order; never empty
}

// Length is how long the window lasts.
func (w Window) Length() time.Duration { return w.End - w.Start }

// Cutting says how windows are made of speech.
type Cutting struct {
	Longest time.Duration // of a window; 0 and more than MaxWindow mean MaxWindow; at least 1 s
	Pad     time.Duration // of sound kept before and after a window's speech, where there is as much
	Gap     time.Duration // silence between two spans that is in no window; 0 = 5 s
}

const (
	defaultGap = 5 * time.Second
	// minPause is the shortest gap taken for a pause: the closure of a
	// plosive is shorter, mostly.
	minPause = 15 // frames
	// longPause and above, all pauses are equally good.
	longPause = 100 // frames
)

// Windows packs speech, in any order, into as few windows as hold it: each is
// filled with one span after the other as long as it is not too long. Windows
// are in order and do not overlap, and each span is in exactly one. Only a span
// that is too long in itself is cut, into pieces that each are in one window:
// within its longest and latest pause, or else where it is quietest. What is no
// speech and not near it is in no window. The same input gives the same windows.
func (c Cutting) Windows(src Source, speech []Span) ([]Window, error) {
	c = c.defaults()
	total := Duration(src.Samples())
	var pieces []Span
	for _, s := range Joined(speech, total) {
		cut, err := c.split(src, s)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, cut...)
	}
	return c.pack(pieces, total), nil
}

func (c Cutting) defaults() Cutting {
	if c.Longest <= 0 || c.Longest > MaxWindow {
		c.Longest = MaxWindow
	}
	c.Longest = max(c.Longest, time.Second)
	c.Pad = max(c.Pad, 0)
	if c.Gap <= 0 {
		c.Gap = defaultGap
	}
	return c
}

// pack fills windows with pieces, none of which is too long.
func (c Cutting) pack(pieces []Span, total time.Duration) []Window {
	var windows []Window
	for i := 0; i < len(pieces); {
		n := c.fitting(pieces[i:])
		w := Window{Speech: pieces[i : i+n : i+n]}
		before, after := time.Duration(0), total
		if i > 0 {
			before = pieces[i-1].End
		}
		if i += n; i < len(pieces) {
			after = pieces[i].Start
		}
		windows = append(windows, c.padded(w, before, after, total))
	}
	return windows
}

// fitting is how many of pieces go into one window, at least one.
func (c Cutting) fitting(pieces []Span) int {
	n := 1
	for ; n < len(pieces); n++ {
		if pieces[n].Start-pieces[n-1].End >= c.Gap || pieces[n].End-pieces[0].Start+2*c.Pad > c.Longest {
			break
		}
	}
	return n
}

// padded gives w its bounds. Speech before and after belongs to other windows,
// with which it shares what is between; the recording's ends are nobody's.
func (c Cutting) padded(w Window, before, after, total time.Duration) Window {
	first, last := w.Speech[0].Start, w.Speech[len(w.Speech)-1].End
	left, right := first-before, after-last
	if before > 0 {
		left /= 2
	}
	if after < total {
		right /= 2
	}
	room := (c.Longest - (last - first)) / 2
	w.Start, w.End = first-min(c.Pad, left, room), last+min(c.Pad, right, room)
	return w
}

// split cuts s where it is longer than a window may be.
func (c Cutting) split(src Source, s Span) ([]Span, error) {
	if s.Length() <= c.Longest {
		return []Span{s}, nil
	}
	frames, err := Energy(section{src, SamplesIn(s.Start), SamplesIn(s.Length())})
	if err != nil {
		return nil, fmt.Errorf("measure energy: %w", err)
	}
	var pieces []Span
	from := s.Start
	for _, at := range cuts(frames, int(c.Longest/FrameLength)) {
		cut := s.Start + frameStart(at)
		pieces = append(pieces, Span{from, cut})
		from = cut
	}
	return append(pieces, Span{from, s.End}), nil
}

// section is a part of a Source.
type section struct {
	Source
	from, samples int64
}

func (s section) Samples() int64 { return s.samples }

func (s section) ReadSamples(p []float32, from int64) (int, error) {
	return s.Source.ReadSamples(p, s.from+from)
}

// cuts are the frames to cut before, so that no piece is longer than longest.
// The last one leaves the rest a sixth of that at least, as a snippet of a word
// is the hardest to understand.
func cuts(frames []float32, longest int) []int {
	var at []int
	from, to := 0, len(frames)
	for to-from > longest {
		lo := from + longest/2
		hi := min(from+longest, to-longest/6)
		from = bestCut(frames, from, lo, hi)
		at = append(at, from)
	}
	return at
}

// bestCut finds the frame between lo and hi to cut before: the middle of the
// best pause, or where there is none the quietest tenth of a second. from is
// where the piece begins.
func bestCut(frames []float32, from, lo, hi int) int {
	threshold := pauseThreshold(frames[from:hi])
	best, bestScore := -1, 0.0
	for _, r := range runs(frames[lo:hi], threshold) {
		if r.to-r.from < minPause {
			continue
		}
		late := float64(r.to+r.from) / 2 / float64(hi-lo)
		if s := pauseScore(r.to-r.from, late); s > bestScore {
			best, bestScore = lo+(r.from+r.to)/2, s
		}
	}
	if best > lo {
		return best
	}
	return quietestPoint(frames, lo, hi)
}

// pauseScore weighs a pause of n frames; late is where in the search it lies,
// 0 to 1. Among short gaps, which may be inside a word, only length counts.
func pauseScore(n int, late float64) float64 {
	const short = 30
	if n < short {
		return 0.7 * float64(n)
	}
	return float64(min(n, longPause)) * (0.7 + 0.3*late)
}

// quietestPoint is the middle of the quietest 100 ms between lo and hi.
func quietestPoint(frames []float32, lo, hi int) int {
	const width = 10
	best, bestSum := hi, float32(0)
	for i := lo; i+width <= hi; i++ {
		var sum float32
		for _, db := range frames[i : i+width] {
			sum += db
		}
		if best == hi || sum <= bestSum {
			best, bestSum = i+width/2, sum
		}
	}
	return best
}

// pauseThreshold is the level below which a stretch is a pause: a third of
// the way from the floor to the loud level of its surroundings. Digital
// silence says nothing about a room, so the floor is at most 50 dB down.
func pauseThreshold(frames []float32) float32 {
	floor, loud := spread(frames)
	floor = max(floor, loud-50)
	return floor + 0.35*(loud-floor)
}
