package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/systemd"
)

// The test binary is the engine's program too: the launcher starts it with
// WA_FAKE_ENGINE set, and it serves the fake backend on the socket handed down.
func TestMain(m *testing.M) {
	if os.Getenv("WA_FAKE_ENGINE") == "" {
		os.Exit(m.Run())
	}
	if err := fakeEngine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fakeEngine() error {
	if err := engine.InheritedPID(); err != nil {
		return err
	}
	listeners, err := systemd.Listeners()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); stop() }()
	exit, _ := time.ParseDuration(os.Getenv("WA_FAKE_IDLE_EXIT"))
	s := &engine.Server{Backend: &fake{}, Models: os.Getenv("WA_FAKE_ENGINE"), Stay: engine.Stay{Exit: exit}, Log: slog.New(slog.DiscardHandler)}
	return s.Serve(ctx, listeners[0])
}

// serve runs a Server over the fake in this process.
func serve(t testing.TB, configure func(*engine.Server)) (*engine.Client, *fake) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"m.bin", "other.bin", "bad.bin", "tight.bin", "vad.bin"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{resume: make(chan struct{})}
	s := &engine.Server{Backend: f, Models: dir, Log: slog.New(slog.DiscardHandler)}
	if configure != nil {
		configure(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		f.left(t)
	})
	return &engine.Client{Socket: socket}, f
}

func text(events *[]string) func(engine.Event) {
	return func(ev engine.Event) {
		switch {
		case ev.Segment != nil:
			*events = append(*events, ev.Segment.Text)
		case ev.Loading != nil:
			*events = append(*events, "loading "+ev.Loading.Model)
		}
	}
}

func TestTranscribeLoadsOnceAndStreams(t *testing.T) {
	c, f := serve(t, nil)
	var seen []string
	for range 2 {
		done, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin"}, make([]float32, 160), text(&seen))
		if err != nil || done.Language != "en" {
			t.Fatalf("Transcribe: %+v, %v", done, err)
		}
	}
	if want := "loading m.bin, 160 samples, 160 samples"; strings.Join(seen, ",") != want {
		t.Errorf("events %q, want %q", strings.Join(seen, ","), want)
	}
	if n := f.loads.Load(); n != 1 {
		t.Errorf("%d loads, want 1", n)
	}
	st, err := c.Status(t.Context())
	if err != nil || st.Model == nil || st.Model.File != "m.bin" || st.Windows != 2 {
		t.Errorf("Status: %+v, %v", st, err)
	}
	// Removed while it is in memory: it serves on.
	if err := os.Remove(filepath.Join(filepath.Dir(c.Socket), "m.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin"}, make([]float32, 160), text(&seen)); err != nil {
		t.Errorf("the model's file was removed: %v", err)
	}
	if err := c.Unload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, _ := c.Status(t.Context()); st.Model != nil {
		t.Errorf("model still there after Unload: %+v", st.Model)
	}
}

func TestRefusals(t *testing.T) {
	c, _ := serve(t, nil)
	nan := make([]float32, 10)
	nan[3] = float32(uintptr(0)) / 1
	nan[3] = nan[3] / nan[4] // 0/0
	for _, tc := range []struct {
		name, model, code string
		pcm               []float32
	}{
		{"no such file", "none.bin", engine.CodeNoModel, make([]float32, 10)},
		{"path escape", "../m.bin", engine.CodeBadRequest, make([]float32, 10)},
		{"hidden file", ".m.bin", engine.CodeBadRequest, make([]float32, 10)},
		{"no name", "", engine.CodeBadRequest, make([]float32, 10)},
		{"refused by the backend", "bad.bin", engine.CodeBadModel, make([]float32, 10)},
		{"no samples", "m.bin", engine.CodeBadRequest, nil},
		{"not a number", "m.bin", engine.CodeBadRequest, nan},
		{"longer than a window", "m.bin", engine.CodeBadRequest, make([]float32, 30*engine.SampleRate+1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: tc.model}, tc.pcm, func(engine.Event) {})
			var f *engine.Failure
			if !errors.As(err, &f) || f.Code != tc.code {
				t.Errorf("error %v, want code %s", err, tc.code)
			}
		})
	}
	if _, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin"}, make([]float32, 10), func(engine.Event) {}); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

// rawClient speaks HTTP to c's engine, without the protocol.
func rawClient(c *engine.Client) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	}}}
}

func TestRawRequestsAreRefused(t *testing.T) {
	c, _ := serve(t, nil)
	client := rawClient(c)
	for name, body := range map[string]string{
		"nothing": "", "no line": "{}", "no JSON": "hello\nxxxx", "half a sample": `{"model":"m.bin"}` + "\nabc",
	} {
		resp, err := client.Post("http://e/v1/transcribe", "", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, want 400", name, resp.Status)
		}
	}
}

func TestHangUpAborts(t *testing.T) {
	c, f := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Transcribe(ctx, engine.WindowRequest{Model: "m.bin", Prompt: "hang"}, make([]float32, 10), func(ev engine.Event) {
		if ev.Progress != nil {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	// The engine is free again: the next window is answered.
	if _, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin"}, make([]float32, 10), func(engine.Event) {}); err != nil {
		t.Error(err)
	}
	if f.aborts.Load() != 1 {
		t.Errorf("%d aborts, want 1", f.aborts.Load())
	}
}

// TestWatch: a window may be silent for ten times the longest silence of the
// model before, however long it takes as a whole; another model begins anew.
func TestWatch(t *testing.T) {
	type call struct {
		name  string
		most  time.Duration
		beats int
		ended bool
	}
	var mu sync.Mutex
	var calls []*call
	c, _ := serve(t, func(s *engine.Server) {
		s.Watch = func(name string, most time.Duration) (beat, end func()) {
			mu.Lock()
			defer mu.Unlock()
			w := &call{name: name, most: most}
			calls = append(calls, w)
			return func() { mu.Lock(); w.beats++; mu.Unlock() }, func() { mu.Lock(); w.ended = true; mu.Unlock() }
		}
	})
	windows := func() (list []call) {
		mu.Lock()
		defer mu.Unlock()
		for _, w := range calls {
			if w.name == "window" {
				list = append(list, *w)
			}
			if !w.ended {
				t.Errorf("%s was not ended", w.name)
			}
		}
		return list
	}
	for _, model := range []string{"m.bin", "m.bin", "other.bin"} {
		events := 0
		_, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: model, Prompt: "breathe"}, make([]float32, 160), func(ev engine.Event) {
			if ev.Segment != nil {
				events++
			} else if ev.Loading == nil {
				t.Errorf("a sign of life was sent on: %+v", ev)
			}
		})
		if err != nil || events != 1 {
			t.Fatalf("%d segments, %v", events, err)
		}
	}
	got := windows()
	if len(got) != 3 || got[0].beats != 5 { // three breaths, a segment, the end
		t.Fatalf("%+v", got)
	}
	if first, second, other := got[0].most, got[1].most, got[2].most; first != 10*time.Minute || second < 50*time.Millisecond || second > 10*time.Second || other != first {
		t.Errorf("may be silent for %v, then %v, with another model %v", first, second, other)
	}
}

func TestIdleUnload(t *testing.T) {
	c, _ := serve(t, func(s *engine.Server) { s.Stay.Unload = time.Millisecond })
	if _, err := c.Load(t.Context(), "m.bin"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Model == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the model was not unloaded")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestVAD(t *testing.T) {
	c, _ := serve(t, nil)
	v, err := c.Detect(t.Context(), engine.VADRequest{Model: "vad.bin"}, make([]float32, engine.SampleRate))
	if err != nil || len(v.Speech) != 1 || v.Speech[0].End != time.Second {
		t.Errorf("Detect: %+v, %v", v, err)
	}
}

// TestBundledModel: what the release brings is found after the model directory,
// and nothing else is.
func TestBundledModel(t *testing.T) {
	bundled := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundled, "own.bin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := serve(t, func(s *engine.Server) { s.Bundled = bundled })
	for name, code := range map[string]string{
		"own.bin": "", "vad.bin": "", "none.bin": engine.CodeNoModel, "../own.bin": engine.CodeBadRequest,
	} {
		_, err := c.Detect(t.Context(), engine.VADRequest{Model: name}, make([]float32, engine.SampleRate))
		var f *engine.Failure
		if code == "" && err != nil || code != "" && (!errors.As(err, &f) || f.Code != code) {
			t.Errorf("%s: %v, want code %q", name, err, code)
		}
	}
}

// launch starts a Launcher whose engine is this test binary.
func launch(t *testing.T, idleExit string) (*engine.Client, *engine.Launcher) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.bin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := &engine.Launcher{
		Program: []string{os.Args[0]}, Socket: filepath.Join(dir, "s"), Stderr: os.Stderr, Log: slog.New(slog.DiscardHandler),
		Env: []string{"WA_FAKE_ENGINE=" + dir, "WA_FAKE_IDLE_EXIT=" + idleExit},
	}
	listener, err := l.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if pid := l.PID(); pid != 0 {
			t.Errorf("engine %d outlived the launcher", pid)
		}
	})
	return &engine.Client{Socket: l.Socket}, l
}

func TestLauncherStartsOnDemandAndSurvivesCrashes(t *testing.T) {
	c, l := launch(t, "")
	if l.PID() != 0 {
		t.Fatal("an engine runs though nobody asked")
	}
	first := 0
	for i := range 3 {
		if _, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin"}, make([]float32, 10), func(engine.Event) {}); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if l.PID() == first {
			t.Errorf("round %d: still engine %d", i, first)
		}
		first = l.PID()
		_, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin", Prompt: "crash"}, make([]float32, 10), func(engine.Event) {})
		if !errors.Is(err, engine.ErrBroken) {
			t.Fatalf("round %d: error %v, want ErrBroken", i, err)
		}
	}
}

func TestLauncherAnswersAcrossIdleExits(t *testing.T) {
	c, _ := launch(t, "1ms") // the engine exits at its first idle second
	pids := map[int]bool{}
	for range 3 {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pids[st.PID] = true
		time.Sleep(1500 * time.Millisecond)
	}
	if len(pids) < 2 {
		t.Errorf("engines %v: none has exited when idle", pids)
	}
}

// TestLauncherAnswersForAnEngineThatCannotStart: whoever waits learns why.
func TestLauncherAnswersForAnEngineThatCannotStart(t *testing.T) {
	for name, tc := range map[string]struct {
		program []string
		says    string
	}{
		"no such program":    {[]string{"/nowhere/engine"}, "no such file"},
		"wrong surroundings": {[]string{"/bin/sh", "-c", "echo no backend fits >&2; exit 78"}, "no backend fits"},
		"always failing":     {[]string{"/bin/sh", "-c", "exit 3"}, "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &engine.Launcher{Program: tc.program, Socket: filepath.Join(t.TempDir(), "s"), Log: slog.New(slog.DiscardHandler)}
			listener, err := l.Listen()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx, listener) }()
			asked, stop := context.WithTimeout(t.Context(), 10*time.Second)
			defer stop()
			c := engine.Client{Socket: l.Socket}
			// A whole window, so that the refusal has to read it first.
			_, err = c.Transcribe(asked, engine.WindowRequest{Model: "m.bin"}, make([]float32, 30*engine.SampleRate), func(engine.Event) {})
			var f *engine.Failure
			if !errors.As(err, &f) || f.Code != engine.CodeDown || !strings.Contains(f.Message, tc.says) {
				t.Errorf("error %v, want %s with %q", err, engine.CodeDown, tc.says)
			}
			if !strings.Contains(l.Down(), tc.says) {
				t.Errorf("Down: %q", l.Down())
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// TestSecondLauncherLeavesTheSocketAlone: starting twice by mistake must not
// cut off the one that runs.
func TestSecondLauncherLeavesTheSocketAlone(t *testing.T) {
	c, l := launch(t, "")
	second := &engine.Launcher{Program: l.Program, Socket: l.Socket, Log: l.Log}
	if _, err := second.Listen(); !errors.Is(err, engine.ErrTaken) {
		t.Errorf("error %v, want ErrTaken", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first one's engine: %v", err)
	}
}

func TestKillFreesAFrozenEngine(t *testing.T) {
	c, l := launch(t, "")
	got := make(chan error, 1)
	go func() {
		_, err := c.Transcribe(t.Context(), engine.WindowRequest{Model: "m.bin", Prompt: "hang"}, make([]float32, 10), func(ev engine.Event) {
			if ev.Progress != nil {
				l.Kill()
			}
		})
		got <- err
	}()
	if err := <-got; !errors.Is(err, engine.ErrBroken) {
		t.Errorf("error %v, want ErrBroken", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the next engine: %v", err)
	}
}

func TestWordsOf(t *testing.T) {
	tok := func(s string, at int) engine.Token {
		return engine.Token{Bytes: []byte(s), Prob: 0.5, Start: time.Duration(at) * time.Second, End: time.Duration(at+1) * time.Second}
	}
	for _, tc := range []struct {
		name, lang string
		tokens     []engine.Token
		want       string
	}{
		{"spaces", "en", []engine.Token{tok(" And", 0), tok(" fel", 1), tok("low", 2), tok("s", 3), tok(".", 4)}, " And[0-1] fellows.[1-5]"},
		{"times that step back", "en", []engine.Token{tok(" a", 3), tok(" b", 1)}, " a[3-4] b[4-4]"},
		{"beyond the segment", "en", []engine.Token{tok(" a", 8), tok(" b", 12)}, " a[8-9] b[10-10]"},
		{"characters in pieces", "zh", []engine.Token{tok("\xe5\xb9", 0), tok("\xbf", 1), tok("州", 2), tok("。", 3)}, "广[0-2]州。[2-4]"},
		{"a broken end", "en", []engine.Token{tok(" a", 0), tok(" \xe5", 1)}, " a[0-1] \uFFFD[1-2]"},
		{"nothing", "en", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b strings.Builder
			for _, w := range engine.WordsOf(engine.Segment{End: 10 * time.Second, Tokens: tc.tokens}, tc.lang) {
				fmt.Fprintf(&b, "%s[%d-%d]", w.Text, w.Start/time.Second, w.End/time.Second)
				if w.Prob != 0.5 {
					t.Errorf("%q has probability %g, want 0.5", w.Text, w.Prob)
				}
			}
			if b.String() != tc.want {
				t.Errorf("words %q, want %q", b.String(), tc.want)
			}
		})
	}
}
