//go:build whisper

package whisper

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/engine"
)

// onLane calls f on a thread of its own, whose nice value is larger by nice.
func onLane(b *testing.B, wg *sync.WaitGroup, nice int, f func()) {
	wg.Go(func() {
		runtime.LockOSThread()
		inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-inverse+nice)
		}
		if err != nil {
			b.Errorf("nice %d: %v", nice, err)
			return
		}
		f()
	})
}

// BenchmarkShortBesideLong is how long a clip of 3 s takes while windows of 30 s
// are decoded one after the other, and what that costs these: the figures that
// the long lane's nice value was chosen by. Run it with -benchtime=20x;
// WA_MODEL names another model's file.
func BenchmarkShortBesideLong(b *testing.B) {
	m, err := backend(b).Load(filepath.Join(os.Getenv("WA_MODELS"), cmp.Or(os.Getenv("WA_MODEL"), tiny)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	long, short := room(b, m), room(b, m)
	pcm, _ := reference(b)
	thirty := piece{pcm: repeated(pcm, 30), req: engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5, TemperatureInc: -1}}
	three := piece{pcm: pcm[:3*engine.SampleRate], req: engine.WindowRequest{Language: "en", Threads: 2, BestOf: 5, TemperatureInc: -1, AudioCtx: 512}}
	decode := func(s engine.State, p piece) time.Duration {
		began := time.Now()
		if _, err := s.Transcribe(context.Background(), p.req, p.pcm, func(engine.Event) {}); err != nil {
			b.Error(err)
		}
		return time.Since(began)
	}
	b.Run("30s/alone", func(b *testing.B) { series(b, func() time.Duration { return decode(long, thirty) }) })
	b.Run("3s/alone", func(b *testing.B) { series(b, func() time.Duration { return decode(short, three) }) })
	b.Run("30s/beside an idle lane", func(b *testing.B) { // whose threads are there
		var wg sync.WaitGroup
		hold, ready := make(chan struct{}), make(chan struct{})
		onLane(b, &wg, 0, func() { decode(short, three); close(ready); <-hold })
		<-ready
		series(b, func() time.Duration { return decode(long, thirty) })
		close(hold)
		wg.Wait()
	})
	for _, nice := range []int{0, 5, 10, 19} {
		b.Run(fmt.Sprintf("3s/long lane at nice %d", nice), func(b *testing.B) {
			beside(b, nice, func() { decode(long, thirty) }, func() {
				series(b, func() time.Duration { return decode(short, three) })
			})
		})
	}
}

// series measures b.N calls.
func series(b *testing.B, call func() time.Duration) {
	var wg sync.WaitGroup
	onLane(b, &wg, 0, func() {
		call() // its threads are made
		var took []time.Duration
		for range b.N {
			took = append(took, call())
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[0].Milliseconds()), "ms-least")
		b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-median")
		b.ReportMetric(float64(took[len(took)*95/100].Milliseconds()), "ms-p95")
	})
	wg.Wait()
}

// beside calls long one time after the other on niced threads while other runs.
func beside(b *testing.B, nice int, long, other func()) {
	var wg sync.WaitGroup
	var over atomic.Bool
	var windows int
	var took time.Duration
	started := make(chan struct{})
	onLane(b, &wg, nice, func() {
		long()
		close(started)
		began := time.Now()
		for ; !over.Load(); windows++ {
			long()
		}
		took = time.Since(began)
	})
	<-started
	other()
	over.Store(true)
	wg.Wait()
	b.ReportMetric(float64(took.Milliseconds())/float64(max(1, windows)), "ms/long-window")
}
