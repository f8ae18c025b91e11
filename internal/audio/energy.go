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
// The last frame may be shorter. It streams: memory is 4 bytes a frame, 14 MB
// for ten hours.
func Energy(src Source) ([]float32, error) {
	total := src.Samples()
	power := make([]float32, 0, (total+int64(frameSamples)-1)/int64(frameSamples))
	buf := make([]float32, 100*frameSamples)
	var filter dcBlocker
	for from := int64(0); from < total; {
		n, err := src.ReadSamples(buf[:min(int64(len(buf)), total-from)], from)
		if err != nil && (err != io.EOF || n == 0) {
			return nil, err
		}
		for frame := range slices.Chunk(buf[:n], frameSamples) {
			power = append(power, filter.power(frame))
		}
		from += int64(n)
	}
	return smooth(power), nil
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

// smooth averages each power with its neighbours and turns it into dBFS, in place.
func smooth(power []float32) []float32 {
	var before float32
	for i, p := range power {
		sum, n := p, float32(1)
		if i > 0 {
			sum, n = sum+before, n+1
		}
		if i+1 < len(power) {
			sum, n = sum+power[i+1], n+1
		}
		power[i], before = decibels(sum/n), p
	}
	return power
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

// spread returns the floor and the loud level of frames: percentiles 10 and 95.
func spread(frames []float32) (floor, loud float32) {
	var l levels
	for _, db := range frames {
		l.add(db)
	}
	return l.percentile(0.10), l.percentile(0.95)
}
