package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/engine"
)

// soon bounds what a test waits for.
const soon = 10 * time.Second

// window decodes 10 samples and gives the text.
func window(ctx context.Context, c *engine.Client, lane engine.Lane, model, prompt string) (string, error) {
	var text strings.Builder
	_, err := c.Transcribe(ctx, engine.WindowRequest{Model: model, Lane: lane, Prompt: prompt}, make([]float32, 10), func(ev engine.Event) {
		if ev.Segment != nil {
			text.WriteString(ev.Segment.Text)
		}
	})
	return text.String(), err
}

// holding is a window that is under way until f.resume, or the end of ctx.
func holding(ctx context.Context, t *testing.T, c *engine.Client, lane engine.Lane) (ended <-chan error) {
	t.Helper()
	began, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := c.Transcribe(ctx, engine.WindowRequest{Model: "m.bin", Lane: lane, Prompt: "hold"}, make([]float32, 10), func(ev engine.Event) {
			if ev.Progress != nil {
				close(began)
			}
		})
		done <- err
	}()
	select {
	case <-began:
	case err := <-done:
		t.Fatalf("the window that was to be held ended: %v", err)
	case <-time.After(soon):
		t.Fatal("the window that was to be held has not begun")
	}
	return done
}

func (f *fake) release(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case f.resume <- struct{}{}:
	case <-time.After(soon):
		t.Fatal("nothing is held")
	}
	if err := <-ended; err != nil {
		t.Errorf("the window that was held: %v", err)
	}
}

func status(t *testing.T, c *engine.Client) engine.Status {
	t.Helper()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Lanes) != 2 || st.Lanes[0].Lane != engine.LaneLong || st.Lanes[1].Lane != engine.LaneShort {
		t.Fatalf("lanes %+v", st.Lanes)
	}
	return st
}

// code is that of a Failure, "" where there is none.
func code(err error) string {
	if f := (*engine.Failure)(nil); errors.As(err, &f) {
		return f.Code
	}
	return ""
}

// TestLanes: a short window is decoded while a long one is under way, in a state
// of its own, and a second long one waits.
func TestLanes(t *testing.T) {
	c, f := serve(t, nil)
	if st := status(t, c); st.StateBytes != 0 || st.Lanes[0].State || !st.Has(engine.LaneShort) || st.Has("other") {
		t.Errorf("before any work: %+v", st)
	}
	long := holding(t.Context(), t, c, engine.LaneLong)
	if st := status(t, c); st.Lanes[1].State || f.rooms.Load() != 1 {
		t.Errorf("the short lane has a state before its first window: %+v", st)
	}
	if text, err := window(t.Context(), c, engine.LaneShort, "m.bin", ""); err != nil || text != " 10 samples" {
		t.Errorf("a short window beside a long one: %q, %v", text, err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := window(waiting, c, engine.LaneLong, "m.bin", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second long window did not wait: %v", err)
	}
	want := []engine.LaneStatus{{Busy: true, State: true}, {Lane: engine.LaneShort, State: true, Windows: 1}}
	if st := status(t, c); st.Lanes[0] != want[0] || st.Lanes[1] != want[1] || st.StateBytes != 1000 {
		t.Errorf("status %+v, want lanes %+v", st, want)
	}
	f.release(t, long)
	if st := status(t, c); st.Windows != 2 || st.Lanes[0].Busy || f.loads.Load() != 1 {
		t.Errorf("afterwards %+v, %d loads", st, f.loads.Load())
	}
	if err := c.Unload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := status(t, c); st.Lanes[0].State || st.Lanes[1].State || st.StateBytes != 0 || f.rooms.Load() != 0 {
		t.Errorf("without a model %+v, %d states", st, f.rooms.Load())
	}
}

func TestUnknownLane(t *testing.T) {
	c, _ := serve(t, nil)
	_, err := window(t.Context(), c, "middle", "m.bin", "")
	if code(err) != engine.CodeBadRequest || !strings.Contains(err.Error(), "middle") {
		t.Errorf("a window: %v", err)
	}
	if _, err = c.Detect(t.Context(), engine.VADRequest{Model: "vad.bin", Lane: "middle"}, make([]float32, 10)); code(err) != engine.CodeBadRequest {
		t.Errorf("a detection: %v", err)
	}
}

// TestOlderPeers: a server and an engine of which one knows of no lanes
// understand each other.
func TestOlderPeers(t *testing.T) {
	sent, err := json.Marshal(engine.WindowRequest{Model: "m.bin"})
	if err != nil || strings.Contains(string(sent), "lane") {
		t.Errorf("the long lane is named: %s, %v", sent, err)
	}
	var st engine.Status
	if err := json.Unmarshal([]byte(`{"version":"1","busy":true,"model":{"file":"m.bin"}}`), &st); err != nil || st.Has(engine.LaneShort) || !st.Has(engine.LaneLong) {
		t.Errorf("an older engine's status: %+v, %v", st, err)
	}
	c, _ := serve(t, nil)
	if resp, err := rawClient(c).Post("http://e/v1/transcribe", "", strings.NewReader(`{"model":"m.bin"}`+"\n\x00\x00\x00\x00")); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("an older server's window: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
}

// TestNoMemoryForSecondState: the short window is told, the long one goes on,
// whether the backend says so or the machine before it is tried.
func TestNoMemoryForSecondState(t *testing.T) {
	spare := func(bytes int64, known bool) func() (int64, bool) {
		return func() (int64, bool) { return bytes, known }
	}
	for name, tc := range map[string]struct {
		model, code string
		spare       func() (int64, bool)
	}{
		"the backend has none":  {"tight.bin", engine.CodeNoMemory, nil},
		"the machine has none":  {"m.bin", engine.CodeNoMemory, spare(1000, true)},
		"the machine has some":  {"m.bin", "", spare(1<<30, true)},
		"nothing is known":      {"m.bin", "", spare(0, false)},
		"the machine is wrong":  {"tight.bin", engine.CodeNoMemory, spare(1<<30, true)},
		"nobody asks, it is so": {"m.bin", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := serve(t, func(s *engine.Server) { s.Spare = tc.spare })
			for _, try := range []struct {
				lane engine.Lane
				code string
			}{{engine.LaneLong, ""}, {engine.LaneShort, tc.code}, {engine.LaneLong, ""}} {
				if _, err := window(t.Context(), c, try.lane, tc.model, ""); code(err) != try.code || (err == nil) != (try.code == "") {
					t.Errorf("lane %q: %v, want code %q", try.lane, err, try.code)
				}
			}
			if st := status(t, c); st.Model == nil || st.Lanes[1].State != (tc.code == "") || f.loads.Load() != 1 {
				t.Errorf("%+v, %d loads", st, f.loads.Load())
			}
		})
	}
}

// TestLongLaneTakesTheRoom: where there is memory for one state, the short lane
// that was first gives it to the long one, which takes every window.
func TestLongLaneTakesTheRoom(t *testing.T) {
	c, _ := serve(t, func(s *engine.Server) { s.Spare = func() (int64, bool) { return 1000, true } })
	for _, try := range []struct {
		lane engine.Lane
		code string
	}{{engine.LaneShort, ""}, {engine.LaneLong, ""}, {engine.LaneShort, engine.CodeNoMemory}} {
		if _, err := window(t.Context(), c, try.lane, "tight.bin", ""); code(err) != try.code || (err == nil) != (try.code == "") {
			t.Errorf("lane %q: %v, want code %q", try.lane, err, try.code)
		}
	}
	if st := status(t, c); !st.Lanes[0].State || st.Lanes[1].State {
		t.Errorf("%+v", st)
	}
}

// TestHangUpEndsItsWindowOnly: whoever leaves one lane leaves the other alone.
func TestHangUpEndsItsWindowOnly(t *testing.T) {
	for _, lane := range []engine.Lane{engine.LaneLong, engine.LaneShort} {
		c, f := serve(t, nil)
		leaving, leave := context.WithCancel(t.Context())
		other := engine.LaneShort
		if lane == other {
			other = engine.LaneLong
		}
		stays := holding(t.Context(), t, c, other)
		leaves := holding(leaving, t, c, lane)
		leave()
		if err := <-leaves; !errors.Is(err, context.Canceled) {
			t.Errorf("lane %q: %v", lane, err)
		}
		if _, err := window(t.Context(), c, lane, "m.bin", ""); err != nil {
			t.Errorf("lane %q is not free again: %v", lane, err)
		}
		f.release(t, stays)
		if n := f.aborts.Load(); n != 1 {
			t.Errorf("lane %q: %d aborts", lane, n)
		}
	}
}

// TestWatchOfTwoLanes: two windows under way are two calls to the watchdog, and
// the life of the one does not end with the other.
func TestWatchOfTwoLanes(t *testing.T) {
	var mu sync.Mutex
	under := map[string]int{}
	c, f := serve(t, func(s *engine.Server) {
		s.Watch = func(name string, _ time.Duration) (beat, end func()) {
			mu.Lock()
			defer mu.Unlock()
			under[name]++
			return func() {}, func() { mu.Lock(); under[name]--; mu.Unlock() }
		}
	})
	seen := func(long, short int) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if under["window"] != long || under["window of the short lane"] != short {
			t.Errorf("under way are %v", under)
		}
	}
	long := holding(t.Context(), t, c, engine.LaneLong)
	seen(1, 0)
	if _, err := window(t.Context(), c, engine.LaneShort, "m.bin", ""); err != nil {
		t.Error(err)
	}
	seen(1, 0)
	short := holding(t.Context(), t, c, engine.LaneShort)
	seen(1, 1)
	f.resume <- struct{}{}
	f.resume <- struct{}{}
	for _, ended := range []<-chan error{long, short} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	seen(0, 0)
}

// TestLoadAmongWindows: while each lane always has a window under way and one
// that waits, another model is loaded time and again. The backend counts a load
// beside a window as wrong.
func TestLoadAmongWindows(t *testing.T) {
	c, f := serve(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	streaming, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 4 {
		lane := []engine.Lane{engine.LaneLong, engine.LaneShort}[i%2]
		wg.Go(func() {
			for streaming.Err() == nil {
				if _, err := window(ctx, c, lane, "m.bin", "breathe"); err != nil {
					t.Errorf("lane %q: %v", lane, err)
					return
				}
			}
		})
	}
	for i := range 10 {
		if i%2 == 0 {
			if m, err := c.Load(ctx, "other.bin"); err != nil || m.File != "other.bin" {
				t.Errorf("load: %+v, %v", m, err)
			}
		} else if _, err := window(ctx, c, engine.LaneShort, "other.bin", ""); err != nil {
			t.Errorf("a window of another model: %v", err)
		}
	}
	stop()
	wg.Wait()
	if n := f.loads.Load(); n < 11 {
		t.Errorf("%d loads", n)
	}
}

// TestLoadGivesUp: whoever no longer wants another model keeps nobody waiting.
func TestLoadGivesUp(t *testing.T) {
	c, f := serve(t, nil)
	long := holding(t.Context(), t, c, engine.LaneLong)
	leaving, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	if _, err := c.Load(leaving, "other.bin"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the load did not wait for the window: %v", err)
	}
	if _, err := window(t.Context(), c, engine.LaneShort, "m.bin", ""); err != nil {
		t.Errorf("after a load was given up: %v", err)
	}
	if _, err := c.Load(t.Context(), "m.bin"); err != nil {
		t.Errorf("a model that is there: %v", err)
	}
	f.release(t, long)
	if n := f.loads.Load(); n != 1 {
		t.Errorf("%d loads, want 1", n)
	}
}

// TestIdleLane: the short lane gives its state back when it has had no work for
// long, while the long one works.
func TestIdleLane(t *testing.T) {
	c, f := serve(t, func(s *engine.Server) { s.Stay.Unload = time.Millisecond })
	long := holding(t.Context(), t, c, engine.LaneLong)
	if _, err := window(t.Context(), c, engine.LaneShort, "m.bin", ""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(soon); status(t, c).Lanes[1].State; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the short lane keeps its state")
		}
	}
	if st := status(t, c); st.Model == nil || !st.Lanes[0].State || st.StateBytes != 1000 {
		t.Errorf("the long lane has lost something: %+v", st)
	}
	if _, err := window(t.Context(), c, engine.LaneShort, "m.bin", ""); err != nil {
		t.Errorf("the next short window: %v", err)
	}
	f.release(t, long)
}

// TestDetectors: each lane has one, and they go with the model.
func TestDetectors(t *testing.T) {
	c, f := serve(t, nil)
	long := holding(t.Context(), t, c, engine.LaneLong)
	for range 2 {
		if v, err := c.Detect(t.Context(), engine.VADRequest{Model: "vad.bin", Lane: engine.LaneShort}, make([]float32, 10)); err != nil || len(v.Speech) != 1 {
			t.Errorf("beside a long window: %+v, %v", v, err)
		}
	}
	f.release(t, long)
	if _, err := c.Detect(t.Context(), engine.VADRequest{Model: "vad.bin"}, make([]float32, 10)); err != nil {
		t.Error(err)
	}
	if n := f.detectors.Load(); n != 2 {
		t.Errorf("%d detectors, want 2", n)
	}
	if err := c.Unload(t.Context()); err != nil || f.detectors.Load() != 0 {
		t.Errorf("%v, %d detectors are left", err, f.detectors.Load())
	}
}

// TestLanesThreads: the long lane's thread gives way, the short one's is as the
// process is; both stay so.
func TestLanesThreads(t *testing.T) {
	c, _ := serve(t, nil)
	inverse, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	base := 20 - inverse
	for range 2 {
		for lane, want := range map[engine.Lane]int{engine.LaneLong: min(base+1, 19), engine.LaneShort: base} {
			if got, err := window(t.Context(), c, lane, "m.bin", "nice"); err != nil || got != strconv.Itoa(want) {
				t.Errorf("lane %q: nice value %q, want %q; %v", lane, got, strconv.Itoa(want), err)
			}
		}
	}
}
