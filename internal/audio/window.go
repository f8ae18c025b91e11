package audio

import (
	"fmt"
	"slices"
	"time"
)

// MaxWindow is the longest window: what the engine takes at once.
const MaxWindow = 30 * time.Second

// Window is a stretch of a recording, from its beginning, that is decoded at once.
type Window struct {
	Start, End time.Duration
	Speech     []Span // what in it is speech, in order; Next leaves it never empty
}

// Length is how long the window lasts.
func (w Window) Length() time.Duration { return w.End - w.Start }

// Spoken is how much speech is in the window.
func (w Window) Spoken() (sum time.Duration) {
	for _, s := range w.Speech {
		sum += s.Length()
	}
	return sum
}

// Before is the part of the window before a place in the recording; without
// Speech where there is none. Speech that begins or ends within slack of the
// place is not cut, and a pause is shared with what follows, as Next does.
func (w Window) Before(place, slack time.Duration) Window {
	part := Window{Start: w.Start, End: w.End}
	for _, s := range w.Speech {
		switch {
		case place >= s.End-slack:
			part.Speech = append(part.Speech, s)
			place = max(place, s.End)
			continue
		case place > s.Start+slack:
			part.Speech = append(part.Speech, Span{s.Start, place})
			part.End = place
		case len(part.Speech) > 0:
			last := part.Speech[len(part.Speech)-1].End
			part.End = min(place, last+(s.Start-last)/2)
		}
		return part
	}
	return part
}

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

// Next packs the speech from at on into a window: one span after the other, as
// long as it is not too long. It is in order, as Joined gives it; ok is false
// where none is left. The window after this one begins where its speech ends,
// so windows do not overlap and all speech is in exactly one. Only a span that
// is too long in itself is cut, within its longest and latest pause, or else
// where it is quietest. What is no speech and not near it is in no window. The
// same input gives the same window.
func (c Cutting) Next(src Source, speech []Span, at time.Duration) (w Window, ok bool, err error) {
	c = c.defaults()
	total := Duration(src.Samples())
	before, after := time.Duration(0), total
	switch i := following(speech, at); {
	case i < len(speech) && speech[i].Start < at: // it was cut there
		before = at
	case i > 0:
		before = speech[i-1].End
	}
	for {
		piece, ok, err := c.piece(src, speech, at)
		switch {
		case err != nil:
			return Window{}, false, err
		case !ok:
		case len(w.Speech) == 0 || c.fits(w, piece):
			w.Speech = append(w.Speech, piece)
			at = piece.End
			continue
		default:
			after = piece.Start
		}
		if len(w.Speech) == 0 {
			return Window{}, false, nil
		}
		return c.padded(w, before, after, total), true, nil
	}
}

// following is the index of the first span that does not end by at.
func following(speech []Span, at time.Duration) int {
	i, _ := slices.BinarySearchFunc(speech, at, func(s Span, at time.Duration) int {
		if s.End <= at {
			return -1
		}
		return 1
	})
	return i
}

// piece is the first stretch of speech from at on that is not too long.
func (c Cutting) piece(src Source, speech []Span, at time.Duration) (piece Span, ok bool, err error) {
	i := following(speech, at)
	if i == len(speech) {
		return Span{}, false, nil
	}
	s := Span{max(speech[i].Start, at), speech[i].End}
	if s.Length() <= c.Longest {
		return s, true, nil
	}
	// More than this does not decide where the first cut is.
	near := section{src, SamplesIn(s.Start), SamplesIn(min(s.Length(), 2*c.Longest))}
	frames, err := Energy(near)
	if err != nil {
		return Span{}, false, fmt.Errorf("measure energy: %w", err)
	}
	return Span{s.Start, s.Start + frameStart(firstCut(frames, int(c.Longest/FrameLength)))}, true, nil
}

// fits tells whether w has room for another piece.
func (c Cutting) fits(w Window, piece Span) bool {
	first, last := w.Speech[0], w.Speech[len(w.Speech)-1]
	return piece.Start-last.End < c.Gap && piece.End-first.Start+2*c.Pad <= c.Longest
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

// section is a part of a Source.
type section struct {
	Source
	from, samples int64
}

func (s section) Samples() int64 { return s.samples }

func (s section) ReadSamples(p []float32, from int64) (int, error) {
	return s.Source.ReadSamples(p, s.from+from)
}

// firstCut is the frame to cut before, so that the first piece is not longer
// than longest, which frames are. It leaves the rest a sixth of that at least,
// as a snippet of a word is the hardest to understand.
func firstCut(frames []float32, longest int) int {
	return bestCut(frames, longest/2, min(longest, len(frames)-longest/6))
}

// bestCut finds the frame between lo and hi to cut before: the middle of the
// best pause, or where there is none the quietest tenth of a second.
func bestCut(frames []float32, lo, hi int) int {
	threshold := pauseThreshold(frames[:hi])
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
