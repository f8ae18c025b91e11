package model

import "math"

// Whisper hears 16 kHz in windows of 400 samples.
const (
	melRate   = 16000
	melWindow = 400
)

// melFilters are the weights that turn a power spectrum into mel bins, bin by
// bin, spectrumBins weights each: triangles on Slaney's scale, each of the same
// area. Whisper was trained on librosa's, which are rounded to float32 before
// and after the area is applied; so are these.
func melFilters(bins int) []float32 {
	edges := melEdges(bins + 2)
	out := make([]float32, 0, bins*spectrumBins)
	for i := range bins {
		low, mid, high := edges[i], edges[i+1], edges[i+2]
		for j := range spectrumBins {
			hz := float64(j) * melRate / melWindow
			rise, fall := (hz-low)/(mid-low), (high-hz)/(high-mid)
			weight := float32(max(0, min(rise, fall)))
			out = append(out, float32(float64(weight)*(2/(high-low))))
		}
	}
	return out
}

// melEdges are n frequencies in Hz, evenly spaced in mel from 0 to the highest.
func melEdges(n int) []float64 {
	top := melOf(melRate / 2)
	edges := make([]float64, n)
	for i := range edges {
		edges[i] = hzOf(top * float64(i) / float64(n-1))
	}
	return edges
}

// Slaney's scale is linear up to 1 kHz, which is 15 mel, and then logarithmic:
// 27 steps for each factor of 6.4.
const (
	melLinear = 200.0 / 3
	melBreak  = 1000.0
	melSteps  = 27
	melFactor = 6.4
)

func melOf(hz float64) float64 {
	if hz < melBreak {
		return hz / melLinear
	}
	return melBreak/melLinear + melSteps*math.Log(hz/melBreak)/math.Log(melFactor)
}

func hzOf(mel float64) float64 {
	if mel < melBreak/melLinear {
		return mel * melLinear
	}
	return melBreak * math.Exp(math.Log(melFactor)/melSteps*(mel-melBreak/melLinear))
}
