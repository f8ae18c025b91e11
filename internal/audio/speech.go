package audio

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Span is a stretch of a recording, from its beginning, in which somebody may
// be speaking.
type Span struct{ Start, End time.Duration }

// Length is how long the span lasts.
func (s Span) Length() time.Duration { return s.End - s.Start }

const (
	// minSilence is the shortest silence that the energy tells apart.
	minSilence = 200 // frames: 2 s
	// guard of a silence stays with the speech beside it: a soft onset, an echo.
	guard = 10 // frames
)

// LoudSpans is the speech detector of last resort: all of src but its long
// silences, in order. It takes whatever is loud for speech, and only what is
// quiet in itself, and against the rest, for silence. It reads src twice and keeps
// nothing of it, however long it is.
func LoudSpans(src Source) ([]Span, error) {
	var l levels
	if err := eachLevel(src, l.add); err != nil {
		return nil, fmt.Errorf("measure energy: %w", err)
	}
	quiet, err := silences(src, silenceThreshold(&l), l.total)
	if err != nil {
		return nil, fmt.Errorf("measure energy: %w", err)
	}
	var spans []Span
	add := func(from, to int) {
		if from < to {
			spans = append(spans, Span{frameStart(from), min(frameStart(to), Duration(src.Samples()))})
		}
	}
	at := 0
	for _, r := range quiet {
		add(at, r.from)
		at = r.to
	}
	add(at, l.total)
	return spans, nil
}

func frameStart(n int) time.Duration { return time.Duration(n) * FrameLength }

// Joined is spans in order, within total, those that touch or overlap made one.
func Joined(spans []Span, total time.Duration) []Span {
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	joined := sorted[:0]
	for _, s := range sorted {
		s.Start, s.End = max(s.Start, 0), min(s.End, total)
		switch n := len(joined); {
		case s.Start >= s.End:
		case n > 0 && s.Start <= joined[n-1].End:
			joined[n-1].End = max(joined[n-1].End, s.End)
		default:
			joined = append(joined, s)
		}
	}
	return joined
}

// silenceThreshold is the level below which surely nobody speaks. It has to
// be near the recording's own floor, far below its loud level, and low as
// such: a quiet voice in a loud recording stays above it. Only what is below
// -75 dBFS, six steps of 16 bits, is silence anywhere.
func silenceThreshold(l *levels) float32 {
	floor, loud := l.spread()
	return max(-75, min(floor+6, loud-35, -50))
}

// stretch is frames from up to but not including to.
type stretch struct{ from, to int }

// runs lists the stretches of frames below threshold.
func runs(frames []float32, threshold float32) []stretch {
	var list []stretch
	start := -1
	for i, db := range frames {
		switch {
		case db < threshold && start < 0:
			start = i
		case db >= threshold && start >= 0:
			list, start = append(list, stretch{start, i}), -1
		}
	}
	if start >= 0 {
		list = append(list, stretch{start, len(frames)})
	}
	return list
}

// silences lists the long stretches of src below threshold, without their guards.
// A recording that is all below it is one, however short. total is how many frames
// there are.
func silences(src Source, threshold float32, total int) (list []stretch, err error) {
	at, start := 0, -1
	end := func() {
		r := stretch{start, at}
		if start = -1; r.from < 0 || r.to-r.from < min(minSilence, total) {
			return
		}
		if r.from > 0 {
			r.from += guard
		}
		if r.to < total {
			r.to -= guard
		}
		list = append(list, r)
	}
	err = eachLevel(src, func(db float32) {
		if db >= threshold {
			end()
		} else if start < 0 {
			start = at
		}
		at++
	})
	end()
	return list, err
}
