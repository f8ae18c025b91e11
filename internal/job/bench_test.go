package job

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// median runs op b.N times and reports the median beside the mean.
func median(b *testing.B, op func(i int)) {
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		began := time.Now()
		op(i)
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/median")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds()), "µs/p95")
}

func eachPlace(b *testing.B, bench func(b *testing.B, s *Store)) {
	b.Run("sqlite", func(b *testing.B) { bench(b, file(b).store(b, Options{})) })
	b.Run("postgres", func(b *testing.B) { bench(b, server(b).store(b, Options{})) })
}

// BenchmarkAdd stores a job that is claimed with it.
func BenchmarkAdd(b *testing.B) {
	eachPlace(b, func(b *testing.B, s *Store) {
		w := NewWorker("host")
		median(b, func(int) {
			s.add(b, New{Owner: "ann", Media: "m", Request: json.RawMessage(`{"language":"en"}`), Claim: w})
		})
	})
}

// BenchmarkClaim claims one of 1000 queued jobs.
func BenchmarkClaim(b *testing.B) {
	eachPlace(b, func(b *testing.B, s *Store) {
		w := NewWorker("host")
		for range 1000 {
			s.add(b, New{Owner: "ann"})
		}
		median(b, func(int) { s.claimed(b, w) })
	})
}

// BenchmarkWindow stores a window of 4 KiB.
func BenchmarkWindow(b *testing.B) {
	eachPlace(b, func(b *testing.B, s *Store) {
		w := NewWorker("host")
		id := s.add(b, New{Claim: w}).ID
		result, err := json.Marshal(strings.Repeat("word ", 800))
		must(b, err)
		median(b, func(i int) {
			v := window(i)
			v.Result = result
			_, err := s.Window(ctx, id, w, v, "")
			must(b, err)
		})
	})
}
