package transcribe

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/schedule"
)

// detected answers every window with a language, and how sure that is where it
// was asked for.
func detected(language string, prob float64) func(context.Context, int, call, func(engine.Event)) (engine.Done, error) {
	return func(_ context.Context, _ int, c call, observe func(engine.Event)) (engine.Done, error) {
		observe(segment(" Text.", 0, time.Second))
		if c.req.Language != "" {
			return engine.Done{Language: c.req.Language}, nil
		}
		return engine.Done{Language: language, LanguageProb: prob}, nil
	}
}

// TestOnlyLanguage: one window is decoded, in a short job's place, and no text
// comes of it.
func TestOnlyLanguage(t *testing.T) {
	e := &fakeEngine{answer: detected("de", 0.75)}
	s := service(t, e, sound(-20, 40, -20, 40))
	var sure float64
	job := Job{OnlyLanguage: true, Class: schedule.Short}
	got, err := s.Run(t.Context(), job, func(u Update) { sure = u.LanguageProb })
	if err != nil || got.Language != "de" || len(got.Segments) != 0 || sure != 0.75 {
		t.Errorf("%+v, %v, %v sure; want de, 0.75 and no text", got, err, sure)
	}
	calls := e.seen()
	if len(calls) != 1 || calls[0].req.Language != "" || audio.Duration(int64(len(calls[0].pcm))) > audio.MaxWindow {
		t.Errorf("%d windows were decoded, want one of 30 s at most", len(calls))
	}
	r := &run{Service: s, job: job, result: got}
	if r.classify(); r.job.Class != schedule.Short {
		t.Errorf("class %v, want short", r.job.Class)
	}
	wantFree(t, s)
}

func TestOnlyLanguageWithoutSpeech(t *testing.T) {
	e := &fakeEngine{answer: detected("de", 1)}
	got, err := service(t, e, sound(-40)).Run(t.Context(), Job{OnlyLanguage: true}, ignore)
	if err != nil || got.Language != "" || len(e.seen()) != 0 {
		t.Errorf("%+v, %v after %d windows; want no language and none", got, err, len(e.seen()))
	}
}

func TestOnlyLanguageFails(t *testing.T) {
	e := &fakeEngine{answer: func(context.Context, int, call, func(engine.Event)) (engine.Done, error) {
		return engine.Done{}, &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
	}}
	s := service(t, e, sound(5))
	_, err := s.Run(t.Context(), Job{OnlyLanguage: true, Model: "tiny"}, ignore)
	wantFault(t, err, fault.Unavailable, "no_memory")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Run(ctx, Job{OnlyLanguage: true}, ignore); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
	wantFree(t, s)
}

// TestOnlyLanguageHearsNoMore: a film is not searched for speech to its end.
func TestOnlyLanguageHearsNoMore(t *testing.T) {
	for name, c := range map[string]struct {
		pcm   []byte
		calls int
	}{
		"speech at once":            {sound(5, -295), 1},
		"speech late in a part":     {sound(-50, 5, -245), 2},
		"speech after two minutes":  {sound(-130, 5, -165), 3},
		"no speech but at the end":  {sound(-290, 10), 5},
		"shorter than what is said": {sound(20), 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := &fakeDetector{}
			e := &fakeEngine{answer: detected("en", 1)}
			got, err := detecting(t, e, d, c.pcm).Run(t.Context(), Job{OnlyLanguage: true}, ignore)
			if err != nil || got.Language != "en" || len(d.calls) != c.calls {
				t.Errorf("%+v, %v after %d calls to the detector, want %d", got, err, len(d.calls), c.calls)
			}
		})
	}
}

// TestLanguageProb: how sure the model was comes with the text, also where
// the window was decoded again, and not where the language was given.
func TestLanguageProb(t *testing.T) {
	for language, want := range map[string]float64{"": 0.75, "fr": 0} {
		e := &fakeEngine{answer: detected("de", 0.75)}
		sure := -1.0
		_, err := service(t, e, threeWindows()).Run(t.Context(), Job{Language: language}, func(u Update) {
			if len(u.Segments) > 0 {
				sure = u.LanguageProb
			}
		})
		if err != nil || sure != want {
			t.Errorf("asked for %q: %v sure, %v; want %v", language, sure, err, want)
		}
	}
}

// TestStretch: what is outside of the stretch asked for is not heard, and
// times stay those of the recording.
func TestStretch(t *testing.T) {
	for name, c := range map[string]struct {
		from, until time.Duration
		windows     int
		first       time.Duration // about
	}{
		"all":               {0, 0, 3, 0},
		"from the second":   {20 * time.Second, 0, 2, 25 * time.Second},
		"the second alone":  {20 * time.Second, 40 * time.Second, 1, 25 * time.Second},
		"a part of it":      {28 * time.Second, 31 * time.Second, 1, 28 * time.Second},
		"up to the first":   {0, 15 * time.Second, 1, 0},
		"behind the end":    {time.Hour, 0, 0, 0},
		"nothing in itself": {12 * time.Second, 20 * time.Second, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := &fakeEngine{answer: detected("en", 1)}
			got, err := service(t, e, threeWindows()).Run(t.Context(), Job{From: c.from, Until: c.until}, ignore)
			if err != nil || len(got.Segments) != c.windows || got.Duration != 55*time.Second {
				t.Fatalf("%+v, %v; want %d windows of 55 s", got, err, c.windows)
			}
			if c.windows > 0 && (got.Segments[0].Start-c.first).Abs() > time.Second {
				t.Errorf("begins at %v, want about %v", got.Segments[0].Start, c.first)
			}
		})
	}
}

// pieces takes what is written in the sizes it comes in.
type pieces struct{ got []byte }

func (p *pieces) Write(b []byte) (int, error) {
	p.got = append(p.got, b...)
	return len(b), nil
}

func TestMuted(t *testing.T) {
	in := slices.Repeat([]byte{1}, 100)
	for _, size := range []int{1, 7, 100} {
		out := &pieces{}
		m := &muted{sink: out, from: 10, until: 30}
		for piece := range slices.Chunk(in, size) {
			if n, err := m.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		for i, b := range out.got {
			if want := i >= 10 && i < 30; (b == 1) != want {
				t.Errorf("in pieces of %d byte %d is %d", size, i, b)
			}
		}
		if len(out.got) != 100 || slices.Contains(in, 0) {
			t.Errorf("%d bytes came, or the caller's were changed", len(out.got))
		}
	}
}

// TestSteady: a job that is to stay at its temperature gets the whole context
// as its second look, and no more.
func TestSteady(t *testing.T) {
	e := &fakeEngine{answer: func(_ context.Context, _ int, _ call, observe func(engine.Event)) (engine.Done, error) {
		ev := segment(" unlikely", 0, time.Second)
		ev.Segment.AvgLogProb = -3
		ev.Segment.Tokens = []engine.Token{{ID: 1}}
		observe(ev)
		return engine.Done{Language: "en"}, nil
	}}
	for steady, want := range map[bool]int{true: 2, false: 7} {
		e.calls = nil
		if _, err := service(t, e, sound(5)).Run(t.Context(), Job{Steady: steady}, ignore); err != nil {
			t.Fatal(err)
		}
		if got := len(e.seen()); got != want {
			t.Errorf("steady %v: %d attempts, want %d", steady, got, want)
		}
	}
}

// TestLanguageProbIsKept: whoever goes on with a job, or asks for it later, is
// told how sure the model was.
func TestLanguageProbIsKept(t *testing.T) {
	for name, job := range map[string]Job{"text": {}, "the language alone": {OnlyLanguage: true}} {
		k := &keeper{fails: -1}
		first := job
		first.Keep = k
		want, err := service(t, &fakeEngine{answer: detected("de", 0.75)}, threeWindows()).Run(t.Context(), first, ignore)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range k.kept(t).Finished {
			if f.LanguageProb != 0.75 || f.Language != "de" {
				t.Errorf("%s: window %d is kept with %q, %v sure", name, i, f.Language, f.LanguageProb)
			}
		}
		again := &fakeEngine{answer: detected("de", 0)}
		next, sure := job, 0.0
		next.Resume = k.kept(t)
		got, err := service(t, again, threeWindows()).Run(t.Context(), next, func(u Update) { sure = max(sure, u.LanguageProb) })
		if err != nil || sure != 0.75 || len(again.seen()) != 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, %v sure after %d windows; want %+v", name, got, err, sure, len(again.seen()), want)
		}
	}
}
