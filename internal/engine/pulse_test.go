package engine

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPulse: the longest silence of its own decides how long the next window may
// be silent. The other lane may speak for it, within bounds, and what passes
// meanwhile is no measure.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		beats := 0
		window := func() time.Duration {
			most := p.limit()
			p.begin(func() { beats++ }, most)
			return most
		}
		if most := window(); most != windowMost {
			t.Errorf("the first window may be silent for %v", most)
		}
		for _, d := range []time.Duration{2, 5, 1} {
			time.Sleep(d * time.Second)
			p.heard()
		}
		p.end()
		p.lend()
		if beats != 3 {
			t.Errorf("%d beats, want 3, and none after the end", beats)
		}

		beats = 0
		if most := window(); most != 50*time.Second {
			t.Errorf("after silences of 5 s at most it may be silent for %v", most)
		}
		for range 600 { // ten minutes beside windows of the short lane
			time.Sleep(time.Second)
			p.lend()
		}
		if want := int(slowest * 50); beats != want {
			t.Errorf("the other lane spoke for it %d times, want %d: for ever hides that it hangs", beats, want)
		}
		p.heard()
		p.end()
		if most := p.limit(); most != 50*time.Second {
			t.Errorf("what was spent waiting for the other lane counts: %v", most)
		}
		p.forget()
		if most := p.limit(); most != windowMost {
			t.Errorf("another model may be silent for %v", most)
		}
	})
}
