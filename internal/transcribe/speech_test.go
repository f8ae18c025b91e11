package transcribe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
)

// fakeDetector takes every stretch that is not digital silence for speech.
type fakeDetector struct {
	fails func(n int) error // of the nth call (from 0); nil = never
	heard func(n int)       // told of the nth call; nil = nobody

	mu    sync.Mutex
	calls []engine.VADRequest
	long  time.Duration // the longest PCM of a call
}

func (f *fakeDetector) Detect(ctx context.Context, req engine.VADRequest, pcm []float32) (engine.VADResponse, error) {
	f.mu.Lock()
	n := len(f.calls)
	f.calls = append(f.calls, req)
	f.long = max(f.long, audio.Duration(int64(len(pcm))))
	f.mu.Unlock()
	if f.heard != nil {
		f.heard(n)
	}
	if f.fails != nil {
		if err := f.fails(n); err != nil {
			return engine.VADResponse{}, err
		}
	}
	return engine.VADResponse{Speech: nonzero(pcm)}, ctx.Err()
}

// nonzero lists the stretches between silences of 50 ms and more.
func nonzero(pcm []float32) []engine.Span {
	const gap = audio.SampleRate / 20
	var spans []engine.Span
	last := -gap
	for i, v := range pcm {
		if v == 0 {
			continue
		}
		at := audio.Duration(int64(i))
		if i-last >= gap {
			spans = append(spans, engine.Span{Start: at})
		}
		spans[len(spans)-1].End = at + audio.Duration(1)
		last = i
	}
	return spans
}

// detecting is a service of fakes with a detector.
func detecting(t *testing.T, e Engine, d Detector, pcm []byte) *Service {
	t.Helper()
	s := service(t, e, pcm)
	s.Detector = d
	s.DetectorModel = func() (string, bool) { return "vad.bin", true }
	return s
}

// TestDetectInParts: a long recording is heard in parts, and speech over their
// borders, or right beside them, stays what it is.
func TestDetectInParts(t *testing.T) {
	// Over 60 s; up to just before 120 s; from just after it; over 180 s.
	pcm := sound(-50, 20, -40, 9.9, -0.2, 9.9, -41, 8, -1)
	d := &fakeDetector{}
	e := &fakeEngine{answer: says("x", "en")}
	var phases []string
	s := detecting(t, e, d, pcm)
	r := &run{Service: s, observe: func(u Update) { phases = append(phases, fmt.Sprintf("%s %v", u.Phase, u.Done)) }}
	recorded, err := audio.CreatePCM(s.Spool)
	if err != nil {
		t.Fatal(err)
	}
	defer recorded.Close()
	if _, err := recorded.Write(pcm); err != nil {
		t.Fatal(err)
	}
	r.pcm, r.result = recorded, newTranscript(recorded.Duration())
	r.job.Threshold = 0.25
	got, err := r.findSpeech(t.Context())
	r.rest()
	if err != nil || !r.detected {
		t.Fatalf("detected %t, %v", r.detected, err)
	}
	want := []audio.Span{{Start: 50e9, End: 70e9}, {Start: 110e9, End: 119.9e9}, {Start: 120.1e9, End: 130e9}, {Start: 171e9, End: 179e9}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if (got[i].Start-want[i].Start).Abs() > time.Millisecond || (got[i].End-want[i].End).Abs() > time.Millisecond {
			t.Errorf("span %d is %v, want %v", i, got[i], want[i])
		}
	}
	if d.long > partLength+2*partOverlap || d.long > engine.MaxVAD || len(d.calls) != 3 {
		t.Errorf("%d calls, the longest with %v", len(d.calls), d.long)
	}
	if c := d.calls[0]; c.Model != "vad.bin" || c.Threshold != 0.25 {
		t.Errorf("request %+v", c)
	}
	if want := []string{"detecting 0s", "detecting 1m0s", "detecting 2m0s"}; !slices.Equal(phases, want) {
		t.Errorf("phases %q, want %q", phases, want)
	}
	wantFree(t, s)
}

// TestDetectorDecides: what the detector takes for no speech is not decoded.
func TestDetectorDecides(t *testing.T) {
	e := &fakeEngine{answer: says("invented", "en")}
	s := detecting(t, e, deaf{}, sound(40))
	got, err := s.Run(t.Context(), Job{}, ignore)
	if err != nil || got.Text() != "" || len(e.seen()) != 0 || !slices.Equal(got.Notes, []string{"no speech was found"}) {
		t.Errorf("%q, notes %q, %v after %d calls", got.Text(), got.Notes, err, len(e.seen()))
	}
}

// deaf finds no speech.
type deaf struct{}

func (deaf) Detect(context.Context, engine.VADRequest, []float32) (engine.VADResponse, error) {
	return engine.VADResponse{}, nil
}

// TestLoudnessStandsIn: without a detector that works the recording is
// transcribed all the same, and the transcript says so.
func TestLoudnessStandsIn(t *testing.T) {
	broken := fmt.Errorf("%w: unexpected EOF", engine.ErrBroken)
	bad := &engine.Failure{Code: engine.CodeBadModel, Message: "no detector"}
	for name, c := range map[string]struct {
		job   Job
		spoil func(*Service, *fakeDetector)
		calls int
		note  string
	}{
		"well":         {spoil: func(*Service, *fakeDetector) {}, calls: 1},
		"as asked for": {job: Job{ByLoudness: true}, spoil: func(*Service, *fakeDetector) {}},
		"no detector":  {spoil: func(s *Service, _ *fakeDetector) { s.Detector = nil }, note: "not installed"},
		"nobody knows": {spoil: func(s *Service, _ *fakeDetector) { s.DetectorModel = nil }, note: "not installed"},
		"no model": {spoil: func(s *Service, _ *fakeDetector) {
			s.DetectorModel = func() (string, bool) { return "", false }
		}, note: "not installed"},
		"bad model":   {spoil: func(_ *Service, d *fakeDetector) { d.fails = func(int) error { return bad } }, calls: 1, note: "failed"},
		"breaks once": {spoil: func(_ *Service, d *fakeDetector) { d.fails = first(1, broken) }, calls: 2},
		"breaks":      {spoil: func(_ *Service, d *fakeDetector) { d.fails = first(2, broken) }, calls: 2, note: "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &fakeDetector{}
			s := detecting(t, &fakeEngine{answer: says(" heard", "en")}, d, sound(3))
			c.spoil(s, d)
			got, err := s.Run(t.Context(), c.job, ignore)
			if err != nil || got.Text() != "heard" || len(d.calls) != c.calls {
				t.Errorf("%q, %v after %d calls, want %d", got.Text(), err, len(d.calls), c.calls)
			}
			if notes := strings.Join(got.Notes, "\n"); (notes != "") != (c.note != "") || !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			wantFree(t, s)
		})
	}
}

// first fails the first n calls.
func first(n int, err error) func(int) error {
	return func(i int) error {
		if i < n {
			return err
		}
		return nil
	}
}

func TestDetectionCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the client left")
	d := &fakeDetector{heard: func(n int) {
		if n == 1 {
			cancel(left)
		}
	}}
	e := &fakeEngine{answer: says("x", "en")}
	s := detecting(t, e, d, sound(5, -200))
	_, err := s.Run(ctx, Job{}, ignore)
	wantFault(t, err, fault.Canceled, "canceled")
	if !errors.Is(err, left) || len(d.calls) != 2 || len(e.seen()) != 0 {
		t.Errorf("cause %v after %d and %d calls", err, len(d.calls), len(e.seen()))
	}
	wantFree(t, s)
}

// TestDetectorStuck: a detector that does not answer is ended, and loudness stands in.
func TestDetectorStuck(t *testing.T) {
	ended := 0
	s := detecting(t, &fakeEngine{answer: says(" heard", "en")}, stuck{}, sound(3))
	s.WindowLimit = 20 * time.Millisecond
	s.Stuck = func() { ended++ }
	got, err := s.Run(t.Context(), Job{}, ignore)
	if err != nil || got.Text() != "heard" || ended != 2 {
		t.Errorf("%v, %v, ended %d times", got, err, ended)
	}
}

// stuck never answers.
type stuck struct{}

func (stuck) Detect(ctx context.Context, _ engine.VADRequest, _ []float32) (engine.VADResponse, error) {
	<-ctx.Done()
	return engine.VADResponse{}, context.Cause(ctx)
}
