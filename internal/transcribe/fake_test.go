package transcribe

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/schedule"
)

// call is one window as the engine got it.
type call struct {
	req engine.WindowRequest
	pcm []float32
}

// fakeEngine answers with what its function says.
type fakeEngine struct {
	// answer decodes the nth call (from 0).
	answer func(ctx context.Context, n int, c call, observe func(engine.Event)) (engine.Done, error)

	mu    sync.Mutex
	calls []call
}

func (f *fakeEngine) Transcribe(ctx context.Context, req engine.WindowRequest, pcm []float32, observe func(engine.Event)) (engine.Done, error) {
	f.mu.Lock()
	n := len(f.calls)
	f.calls = append(f.calls, call{req, pcm})
	f.mu.Unlock()
	return f.answer(ctx, n, call{req, pcm}, observe)
}

// seen is the calls so far.
func (f *fakeEngine) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// says answers every window with one segment over its first second.
func says(text, language string) func(context.Context, int, call, func(engine.Event)) (engine.Done, error) {
	return func(_ context.Context, _ int, _ call, observe func(engine.Event)) (engine.Done, error) {
		if text != "" {
			observe(segment(text, 0, time.Second))
		}
		return engine.Done{Language: language}, nil
	}
}

func segment(text string, start, end time.Duration) engine.Event {
	return engine.Event{Segment: &engine.Segment{Start: start, End: end, Text: text}}
}

// fakeDecoder gives out PCM of its own.
type fakeDecoder struct {
	pcm  []byte
	info decode.Info
	err  error
}

func (f *fakeDecoder) Decode(ctx context.Context, _ *os.File, _ decode.Limits, sink io.Writer) (decode.Info, error) {
	if f.err != nil {
		return decode.Info{}, f.err
	}
	_, err := sink.Write(f.pcm)
	return f.info, errors.Join(err, ctx.Err())
}

// sound is PCM in which each stretch follows the one before: positive seconds
// are a tone, negative ones silence.
func sound(seconds ...float64) []byte {
	var b []byte
	for _, s := range seconds {
		for i := range int(math.Abs(s) * audio.SampleRate) {
			v := float32(0)
			if s > 0 {
				v = float32(0.3 * math.Sin(2*math.Pi*440*float64(i)/audio.SampleRate))
			}
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// threeWindows is speech of 10 s, 15 s of silence, speech of 10 s, 15 s of
// silence, speech of 5 s: each is a window, the speech with its guards.
func threeWindows() []byte { return sound(10, -15, 10, -15, 5) }

// service is one of fakes. When the test ends its spool must be empty.
func service(t *testing.T, e Engine, pcm []byte) *Service {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the spool holds %v, %v", left, err)
		}
	})
	return &Service{Engine: e, Decoder: &fakeDecoder{pcm: pcm}, Queue: &schedule.Queue{}, Spool: dir, Log: slog.New(slog.DiscardHandler)}
}

func ignore(Update) {}

func wantFault(t *testing.T, err error, kind fault.Kind, code string) *fault.Error {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Code != code {
		t.Fatalf("got %v, want a fault %s (%d)", err, code, kind.Status())
	}
	return f
}

// wantFree checks that nobody has the turn and nobody waits for it.
func wantFree(t *testing.T, s *Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	turn, err := s.Queue.Take(ctx, schedule.Ask{})
	if err != nil || s.Waiting() != 0 {
		t.Fatalf("the turn was not given back: %v, %d waiting", err, s.Waiting())
	}
	turn.Give()
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Errorf("%s never happened", what)
			return
		}
	}
}
