package engine_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/engine"
)

// fake is a backend whose text is the number of samples. The prompt steers it:
// "crash" kills the process, "hang" waits for the client to leave, "hold" for
// resume as well, and "nice" tells the nice value of the thread. Of tight.bin
// there is memory for one state. It counts what a real one would not survive.
type fake struct {
	loads, aborts, detectors atomic.Int32
	decoding, rooms          atomic.Int32 // windows under way, and states that were not closed
	wrongs                   atomic.Int32
	resume                   chan struct{}
}

// left wants that nothing is, and that nothing was done that must not be.
func (f *fake) left(t testing.TB) {
	if w, r, d := f.wrongs.Load(), f.rooms.Load(), f.detectors.Load(); w != 0 || r != 0 || d != 0 {
		t.Errorf("the backend was used wrongly %d times; %d states and %d detectors are left", w, r, d)
	}
}

func (f *fake) wrong(is bool) {
	if is {
		f.wrongs.Add(1)
	}
}

func (f *fake) Describe() engine.Description { return engine.Description{Backend: "fake"} }

func (f *fake) Load(path string) (engine.LoadedModel, error) {
	f.wrong(f.decoding.Load() > 0 || f.rooms.Load() > 0)
	if strings.Contains(path, "bad") {
		return nil, &engine.Failure{Code: engine.CodeBadModel, Message: "bad magic"}
	}
	f.loads.Add(1)
	return &fakeModel{f: f, tight: strings.Contains(path, "tight")}, nil
}

func (f *fake) LoadVAD(string, int) (engine.LoadedVAD, error) {
	f.detectors.Add(1)
	return fakeVAD{f}, nil
}

type fakeModel struct {
	f     *fake
	tight bool
}

func (*fakeModel) Info() engine.Model { return engine.Model{Type: "fake"} }
func (m *fakeModel) Close()           { m.f.wrong(m.f.decoding.Load() > 0 || m.f.rooms.Load() > 0) }

func (m *fakeModel) NewState() (engine.State, error) {
	if m.f.rooms.Add(1) > 1 && m.tight {
		m.f.rooms.Add(-1)
		return nil, &engine.Failure{Code: engine.CodeNoMemory, Message: "no memory"}
	}
	return &fakeState{f: m.f}, nil
}

type fakeState struct {
	f    *fake
	used atomic.Bool
}

func (s *fakeState) Bytes() int64 { return 1000 }
func (s *fakeState) Close()       { s.f.wrong(s.used.Load()); s.f.rooms.Add(-1) }

func (s *fakeState) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, emit func(engine.Event)) (engine.Done, error) {
	s.f.wrong(s.used.Swap(true))
	s.f.decoding.Add(1)
	defer func() { s.f.decoding.Add(-1); s.used.Store(false) }()
	text := fmt.Sprintf(" %d samples", len(pcm))
	switch req.Prompt {
	case "crash":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang", "hold":
		resume := s.f.resume
		if req.Prompt == "hang" {
			resume = nil
		}
		emit(engine.Event{Progress: &engine.Progress{Percent: 1}})
		select {
		case <-resume:
		case <-ctx.Done():
			s.f.aborts.Add(1)
			return engine.Done{}, &engine.Failure{Code: engine.CodeAborted, Message: "given up"}
		}
	case "breathe":
		for range 3 {
			time.Sleep(5 * time.Millisecond) // a computation
			emit(engine.Event{Alive: true})
		}
	case "nice":
		inverse, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
		text = fmt.Sprint(20 - inverse)
	}
	emit(engine.Event{Segment: &engine.Segment{Text: text, End: time.Second}})
	return engine.Done{Language: "en"}, nil
}

type fakeVAD struct{ f *fake }

func (v fakeVAD) Close() { v.f.detectors.Add(-1) }

func (v fakeVAD) Detect(_ engine.VADRequest, pcm []float32) ([]engine.Span, error) {
	return []engine.Span{{End: time.Duration(len(pcm)) * time.Second / engine.SampleRate}}, nil
}
