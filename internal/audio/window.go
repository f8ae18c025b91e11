package audio

import (
	"fmt"
	"time"
)

// MaxWindow is the longest window: what the engine takes at once.
const MaxWindow = 30 * time.Second

// Window is a stretch of a recording, from its beginning.
type Window struct {
	Start, End time.Duration
	Silent     bool // surely nothing is said: need not be decoded
}

const (
	// minSilence is the shortest silence that is worth a window of its own.
	minSilence = 500 // frames: 5 s
	// guard of a silence stays with the speech beside it: breath, a soft onset, an echo.
	guard = 50 // frames
	// minPause is the shortest gap taken for a pause: the closure of a
	// plosive is shorter, mostly.
	minPause = 15 // frames
	// longPause and above, all pauses are equally good.
	longPause = 100 // frames
)

// CutWindows cuts src into consecutive windows of at most longest each (0 and
// more than MaxWindow mean MaxWindow; at least 1 s). Every sample is in exactly
// one of them. Cuts fall into the longest and latest pause of each window's
// second half; silences of 5 s and more become windows of their own, Silent.
// A recording that fits into one window is one window; without any sample
// there is none. The same PCM always gives the same windows. It reads src once
// and keeps 4 bytes for each 10 ms.
func CutWindows(src Source, longest time.Duration) ([]Window, error) {
	if longest <= 0 || longest > MaxWindow {
		longest = MaxWindow
	}
	longest = max(longest, time.Second)
	frames, err := Energy(src)
	if err != nil {
		return nil, fmt.Errorf("measure energy: %w", err)
	}
	if len(frames) == 0 {
		return nil, nil
	}
	c := cutter{frames: frames, longest: int(longest / FrameLength)}
	c.cutAll()
	c.windows[len(c.windows)-1].End = Duration(src.Samples())
	return c.windows, nil
}

// cutter works in frames; the last of them may be shorter than the others.
type cutter struct {
	frames  []float32 // dBFS
	longest int       // frames
	windows []Window
}

func (c *cutter) cutAll() {
	threshold := silenceThreshold(c.frames)
	if len(c.frames) <= c.longest {
		silent := longestRun(c.frames, threshold) == len(c.frames)
		c.add(0, len(c.frames), silent)
		return
	}
	at := 0
	for _, s := range silences(c.frames, threshold) {
		c.cutSpeech(at, s.from)
		c.cutSilence(s.from, s.to)
		at = s.to
	}
	c.cutSpeech(at, len(c.frames))
}

func (c *cutter) add(from, to int, silent bool) {
	c.windows = append(c.windows, Window{
		Start:  time.Duration(from) * FrameLength,
		End:    time.Duration(to) * FrameLength,
		Silent: silent,
	})
}

func (c *cutter) cutSilence(from, to int) {
	for ; from < to; from += c.longest {
		c.add(from, min(from+c.longest, to), true)
	}
}

// cutSpeech cuts until the rest fits. The last cut leaves the rest a sixth of
// a window at least, as a snippet of a word is the hardest to understand.
func (c *cutter) cutSpeech(from, to int) {
	for to-from > c.longest {
		lo := from + c.longest/2
		hi := min(from+c.longest, to-c.longest/6)
		cut := c.bestCut(from, lo, hi)
		c.add(from, cut, false)
		from = cut
	}
	if from < to {
		c.add(from, to, false)
	}
}

// bestCut finds the frame between lo and hi to cut before: the middle of the
// best pause, or where there is none the quietest tenth of a second.
func (c *cutter) bestCut(from, lo, hi int) int {
	threshold := pauseThreshold(c.frames[from:hi])
	best, bestScore := -1, 0.0
	for _, r := range runs(c.frames[lo:hi], threshold) {
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
	return c.quietestPoint(lo, hi)
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
func (c *cutter) quietestPoint(lo, hi int) int {
	const width = 10
	best, bestSum := hi, float32(0)
	for i := lo; i+width <= hi; i++ {
		var sum float32
		for _, db := range c.frames[i : i+width] {
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

// silenceThreshold is the level below which surely nobody speaks. It has to
// be near the recording's own floor, far below its loud level, and low as
// such: a quiet voice in a loud recording stays above it. Only what is below
// -75 dBFS, six steps of 16 bits, is silence anywhere.
func silenceThreshold(frames []float32) float32 {
	floor, loud := spread(frames)
	return max(-75, min(floor+6, loud-35, -50))
}

// span is frames from up to but not including to.
type span struct{ from, to int }

// runs lists the stretches of frames below threshold.
func runs(frames []float32, threshold float32) []span {
	var list []span
	start := -1
	for i, db := range frames {
		switch {
		case db < threshold && start < 0:
			start = i
		case db >= threshold && start >= 0:
			list, start = append(list, span{start, i}), -1
		}
	}
	if start >= 0 {
		list = append(list, span{start, len(frames)})
	}
	return list
}

func longestRun(frames []float32, threshold float32) int {
	longest := 0
	for _, r := range runs(frames, threshold) {
		longest = max(longest, r.to-r.from)
	}
	return longest
}

// silences lists the stretches that get windows of their own, without their guards.
func silences(frames []float32, threshold float32) []span {
	var list []span
	for _, r := range runs(frames, threshold) {
		if r.to-r.from < minSilence {
			continue
		}
		if r.from > 0 {
			r.from += guard
		}
		if r.to < len(frames) {
			r.to -= guard
		}
		list = append(list, r)
	}
	return list
}
