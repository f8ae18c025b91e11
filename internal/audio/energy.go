package audio

import (
	"io"
	"math"
	"slices"
	"time"
)

// FrameLength is the step of the energy measure.
const FrameLength = 10 * time.Millisecond

const frameSamples = int(FrameLength / samplePeriod)

// quietest is the level of digital silence here, in dBFS: below what 16 bits can hold.
const quietest = -100

// highPass is the coefficient of a one-pole filter at about 80 Hz: mains hum
// and an offset would otherwise hide every pause.
const highPass = 0.969

// Energy returns the level of each 10 ms of src, in dBFS, smoothed over 30 ms.
// The last frame may be shorter. It takes 4 bytes a frame: what is measured so is
// no longer than a few windows.
func Energy(src Source) ([]float32, error) {
	frames := make([]float32, 0, (src.Samples()+int64(frameSamples)-1)/int64(frameSamples))
	err := eachLevel(src, func(db float32) { frames = append(frames, db) })
	return frames, err
}

// eachLevel shows see what Energy returns, one frame after the other: of a long
// recording nothing is kept.
func eachLevel(src Source, see func(db float32)) error {
	total := src.Samples()
	buf := make([]float32, 100*frameSamples)
	var filter dcBlocker
	smooth := smoother{see: see}
	for from := int64(0); from < total; {
		n, err := src.ReadSamples(buf[:min(int64(len(buf)), total-from)], from)
		if err != nil && (err != io.EOF || n == 0) {
			return err
		}
		for frame := range slices.Chunk(buf[:n], frameSamples) {
			smooth.add(filter.power(frame))
		}
		from += int64(n)
	}
	smooth.end()
	return nil
}

// dcBlocker is the filter's memory between frames.
type dcBlocker struct{ x, y float64 }

// power is the mean square of a frame after the filter.
func (f *dcBlocker) power(frame []float32) float32 {
	var sum float64
	for _, v := range frame {
		x := float64(v)
		f.y = x - f.x + highPass*f.y
		f.x = x
		sum += f.y * f.y
	}
	if math.Abs(f.y) < 1e-12 {
		f.y = 0 // a decaying tail of denormals is slow
	}
	return float32(sum / float64(len(frame)))
}

// smoother averages each power with its neighbours and turns it into dBFS, which
// see is shown.
type smoother struct {
	see          func(db float32)
	n            int     // powers so far
	before, last float32 // of them, where there are as many
}

// add takes the next power, with which the one before has both neighbours.
func (s *smoother) add(power float32) {
	if s.n > 0 {
		s.tell(power, 1)
	}
	s.before, s.last = s.last, power
	s.n++
}

// end tells of the last one.
func (s *smoother) end() {
	if s.n > 0 {
		s.tell(0, 0)
	}
}

// tell is of the last power, with the one after it where there is one: after 1.
func (s *smoother) tell(next, after float32) {
	sum, n := s.last, 1+after
	if s.n > 1 {
		sum, n = sum+s.before, n+1
	}
	s.see(decibels((sum + next) / n))
}

func decibels(power float32) float32 {
	return float32(max(quietest, 10*math.Log10(float64(power)+1e-12)))
}

// levels is a histogram of levels in half decibels, so that a percentile of
// ten hours needs no sorting.
type levels struct {
	bins  [2 * (-quietest + 40)]int
	total int
}

func (l *levels) add(db float32) {
	i := int(2 * (db - quietest))
	l.bins[min(max(i, 0), len(l.bins)-1)]++
	l.total++
}

// percentile is the level that the share p (0 to 1) of all frames is at or below.
func (l *levels) percentile(p float64) float32 {
	want := int(p * float64(l.total))
	for i, n := range l.bins {
		if want -= n; want < 0 {
			return quietest + float32(i)/2
		}
	}
	return quietest + float32(len(l.bins))/2
}

// spread returns the floor and the loud level: percentiles 10 and 95.
func (l *levels) spread() (floor, loud float32) { return l.percentile(0.10), l.percentile(0.95) }

// spread is that of frames.
func spread(frames []float32) (floor, loud float32) {
	var l levels
	for _, db := range frames {
		l.add(db)
	}
	return l.spread()
}
