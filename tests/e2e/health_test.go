//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/e2e/load"
)

// TestHealthWhileTranscribing: health answers within 100 ms for 99 of 100
// while a transcription uses every core.
func TestHealthWhileTranscribing(t *testing.T) {
	b := shared(t)
	long := longClip(t)
	for _, path := range []string{"/health", "/health/detailed"} {
		done := make(chan bool)
		l := load.Load{Dial: b.Dial, URL: plain, Small: path, Kept: 1, Fresh: 1, Pace: 10 * time.Millisecond}
		counts := b.while(l, func() {
			go func() {
				defer close(done)
				if status, text := b.upload(plain, "long.wav", long); status != 200 || strings.TrimSpace(text) == "" {
					t.Errorf("the transcription: %d %.200s", status, text)
				}
			}()
			<-done
		})
		p99 := max(counts.Kept.P99, counts.Fresh.P99)
		figure(t, "%s while transcribing: 99 of 100 within %v, the slowest %v, of %d", path,
			p99.Round(100*time.Microsecond), max(counts.Kept.Slowest, counts.Fresh.Slowest).Round(100*time.Microsecond), counts.Kept.Asked+counts.Fresh.Asked)
		if p99 > 100*time.Millisecond {
			t.Errorf("%s: %v, at most 100 ms", path, p99)
		}
		if _, failed := counts.Total(); failed != 0 {
			t.Errorf("%s failed:\n%s", path, strings.Join(counts.First, "\n"))
		}
	}
}
