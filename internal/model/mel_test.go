package model

import (
	"math"
	"testing"
)

// The values are those that Whisper ships for 80 bins.
func TestMelFilters(t *testing.T) {
	f := melFilters(80)
	if len(f) != 80*spectrumBins {
		t.Fatalf("%d weights", len(f))
	}
	for _, c := range []struct {
		bin, at int
		want    float64
	}{
		{0, 0, 0}, {0, 1, 0.02486259}, {0, 2, 0}, {1, 1, 0.00199082}, {1, 2, 0.02287177},
		{79, 200, 0},
	} {
		if got := float64(f[c.bin*spectrumBins+c.at]); !closeTo(got, c.want, 1e-7) {
			t.Errorf("bin %d at %d is %.8f and has to be %.8f", c.bin, c.at, got, c.want)
		}
	}
}

func TestMelFiltersHaveOneArea(t *testing.T) {
	for _, bins := range []int{80, 128} {
		f := melFilters(bins)
		for i := range bins {
			area, edges := 0.0, melEdges(bins+2)
			for _, w := range f[i*spectrumBins : (i+1)*spectrumBins] {
				if w < 0 {
					t.Fatalf("bin %d has a negative weight", i)
				}
				area += float64(w) * melRate / melWindow
			}
			// Narrow triangles are sampled coarsely; the wide ones show the area.
			if edges[i+2]-edges[i] > 500 && !closeTo(area, 1, 0.02) {
				t.Errorf("%d bins: the area of bin %d is %v", bins, i, area)
			}
		}
	}
}

func TestMelScale(t *testing.T) {
	for hz, mel := range map[float64]float64{0: 0, 200: 3, 1000: 15, 6400: 42} {
		if got := melOf(hz); !closeTo(got, mel, 1e-9) || !closeTo(hzOf(mel), hz, 1e-6) {
			t.Errorf("%v Hz is %v mel and has to be %v", hz, got, mel)
		}
	}
	if math.Abs(melEdges(82)[81]-8000) > 1e-6 {
		t.Error("the scale does not end at 8 kHz")
	}
}
