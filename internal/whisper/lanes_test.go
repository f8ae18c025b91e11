//go:build whisper

package whisper

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/engine"
)

// serve is the engine's server over the real backend.
func serve(t *testing.T) *engine.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &engine.Server{Backend: backend(t), Models: os.Getenv("WA_MODELS"), Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &engine.Client{Socket: socket}
}

// repeated is sound of that many seconds, of pcm over and over.
func repeated(pcm []float32, seconds int) []float32 {
	var all []float32
	for len(all) < seconds*engine.SampleRate {
		all = append(all, pcm...)
	}
	return all[:seconds*engine.SampleRate]
}

// piece is a window that is decoded time and again.
type piece struct {
	name string
	req  engine.WindowRequest
	pcm  []float32
	want string // what it gave alone
}

// decode gives all that is heard, times and the tokens' probabilities too. The
// probability of no speech is not among it: whisper.cpp takes that from what the
// state's last window has left.
func (p piece) decode(ctx context.Context, c *engine.Client, lane engine.Lane) (string, error) {
	p.req.Model, p.req.Lane, p.req.Threads, p.req.BestOf, p.req.TemperatureInc = tiny, lane, 2, 5, -1
	var h heard
	done, err := c.Transcribe(ctx, p.req, p.pcm, h.event)
	if err != nil {
		return "", fmt.Errorf("%s in lane %q: %w", p.name, lane, err)
	}
	for i := range h.segments {
		h.segments[i].NoSpeechProb = 0
	}
	all, err := json.Marshal(h.segments)
	return fmt.Sprintf("%s %.6f %s", done.Language, done.LanguageProb, all), err
}

// TestLanesAreIndependent: what both lanes decode at the same time is to the
// last byte what each window gives alone, whatever contexts come after each other.
func TestLanesAreIndependent(t *testing.T) {
	const rounds = 20
	c := serve(t)
	pcm, words := reference(t)
	long := []piece{
		{name: "11 s", pcm: repeated(pcm, 11), req: engine.WindowRequest{Language: "en", AudioCtx: 600}},
		{name: "a clip with the whole context", pcm: pcm, req: engine.WindowRequest{Language: "en", Words: true}},
		{name: "9 s of unknown language", pcm: repeated(pcm, 9), req: engine.WindowRequest{AudioCtx: 512}},
	}
	short := []piece{
		{name: "a clip", pcm: pcm, req: engine.WindowRequest{Language: "en", AudioCtx: 512}},
		{name: "half a clip by beams", pcm: pcm[:len(pcm)/2], req: engine.WindowRequest{Language: "en", AudioCtx: 256, BeamSize: 3}},
		{name: "the other half", pcm: pcm[len(pcm)/2:], req: engine.WindowRequest{Language: "en", AudioCtx: 768, Prompt: "The windows."}},
		{name: "a short one with the whole context", pcm: pcm[:2*engine.SampleRate], req: engine.WindowRequest{Language: "en"}},
	}
	for _, list := range [][]piece{long, short} {
		for i := range list {
			text, err := list[i].decode(t.Context(), c, engine.LaneLong)
			if err != nil {
				t.Fatal(err)
			}
			list[i].want = text
		}
	}
	if first := strings.Fields(words)[0]; !strings.Contains(short[0].want, first) {
		t.Errorf("%q is not in %s", first, short[0].want)
	}
	for i := range rounds {
		var wg sync.WaitGroup
		wg.Go(func() { long[i%len(long)].same(t, c, engine.LaneLong) })
		wg.Go(func() {
			short[i%len(short)].same(t, c, engine.LaneShort)
			short[(i+1)%len(short)].same(t, c, engine.LaneShort)
		})
		wg.Wait()
	}
}

// same wants what came when nothing else was decoded.
func (p piece) same(t *testing.T, c *engine.Client, lane engine.Lane) {
	t.Helper()
	if got, err := p.decode(t.Context(), c, lane); err != nil || got != p.want {
		t.Errorf("%s in lane %q: %v\n%s\nalone:\n%s", p.name, lane, err, got, p.want)
	}
}

// thread is what the kernel says of one of this process's.
type thread struct {
	nice  int
	ticks int // on a processor, in hundredths of a second
}

func threads(t *testing.T) map[string]thread {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]thread{}
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(data), ") ")
		f := strings.Fields(after) // from the third field on
		var utime, stime int
		var th thread
		if _, err := fmt.Sscan(f[11]+" "+f[12]+" "+f[16], &utime, &stime, &th.nice); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		th.ticks = utime + stime
		all[path] = th
	}
	return all
}

// spent is what f costs on the processors, in hundredths of a second by nice
// value, and how many threads it was that had more than a tenth of it.
func spent(t *testing.T, f func()) (by, workers map[int]int) {
	t.Helper()
	before := threads(t)
	f()
	by, workers = map[int]int{}, map[int]int{}
	sum := 0
	after := threads(t)
	for path, th := range after {
		by[th.nice] += th.ticks - before[path].ticks
		sum += th.ticks - before[path].ticks
	}
	for path, th := range after {
		if 10*(th.ticks-before[path].ticks) > sum {
			workers[th.nice]++
		}
	}
	return by, workers
}

// TestLanesThreads: all that computes for the long lane has its nice value, and
// nothing of the short lane's has.
func TestLanesThreads(t *testing.T) {
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	base := 20 - inverse
	if base > 18 {
		t.Skipf("this runs at nice %d: there is none left that is larger by one", base)
	}
	c := serve(t)
	pcm, _ := reference(t)
	p := piece{name: "a clip", pcm: repeated(pcm, 20), req: engine.WindowRequest{Language: "en"}}
	for _, tc := range []struct {
		lane engine.Lane
		nice int
	}{{engine.LaneLong, base + 1}, {engine.LaneShort, base}, {engine.LaneLong, base + 1}} {
		by, workers := spent(t, func() {
			if _, err := p.decode(t.Context(), c, tc.lane); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("lane %q: %v hundredths of a second by nice value, %v threads", tc.lane, by, workers)
		other := base + base + 1 - tc.nice
		if by[tc.nice] < 20 || 10*by[other] > by[tc.nice] || workers[tc.nice] != 2 || workers[other] != 0 {
			t.Errorf("lane %q: two threads of nice %d should have done it: %v, %v", tc.lane, tc.nice, by, workers)
		}
	}
}

// TestSecondStateMemory: it is what Status says, and comes back.
func TestSecondStateMemory(t *testing.T) {
	c := serve(t)
	pcm, _ := reference(t)
	p := piece{name: "30 s", pcm: repeated(pcm, 30), req: engine.WindowRequest{Language: "en"}}
	use := func(lane engine.Lane) int {
		for range 2 {
			if _, err := p.decode(t.Context(), c, lane); err != nil {
				t.Fatal(err)
			}
		}
		return resident(t)
	}
	none := resident(t)
	one, two := use(engine.LaneLong), use(engine.LaneShort)
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := int(st.StateBytes >> 20)
	t.Logf("resident %d MiB, with a model of %d MiB and one state %d, with two %d; whisper.cpp says %d for a state", none, st.Model.Bytes>>20, one, two, said)
	if second := two - one; said < 10 || second > said+said/2+10 {
		t.Errorf("the second state takes %d MiB, and is said to take %d", second, said)
	}
	if err := c.Unload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := resident(t); left > none+60 {
		t.Errorf("%d MiB are left", left)
	}
}
