package transcribe

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

func TestRunWindowsInOrder(t *testing.T) {
	e := &fakeEngine{answer: func(_ context.Context, n int, _ call, observe func(engine.Event)) (engine.Done, error) {
		observe(segment(fmt.Sprintf(" part %d.", n), time.Second, 2*time.Second))
		return engine.Done{Language: "en"}, nil
	}}
	s := service(t, e, threeWindows())
	var updates []Update
	job := Job{Model: "tiny", ModelFile: "ggml-tiny.bin", Task: transcript.Translate, Prompt: "names", Temperature: 0.5,
		Words: true, BeamSize: 3, BestOf: 4, Threads: 2}
	got, err := s.Run(t.Context(), job, func(u Update) { updates = append(updates, u) })
	if err != nil {
		t.Fatal(err)
	}
	if text := got.Text(); text != "part 0. part 1. part 2." {
		t.Errorf("text %q", text)
	}
	if got.Duration != 55*time.Second || got.Model != "tiny" || got.Task != transcript.Translate || got.Language != "en" {
		t.Errorf("transcript %+v", got)
	}
	// Each window of speech begins half a second before its sound.
	for i, want := range []time.Duration{time.Second, 25*time.Second + 500*time.Millisecond, 50*time.Second + 500*time.Millisecond} {
		if start := got.Segments[i].Start; (start - want).Abs() > 50*time.Millisecond {
			t.Errorf("segment %d starts at %v, want about %v", i, start, want)
		}
	}
	calls := e.seen()
	if len(calls) != 3 {
		t.Fatalf("the engine was called %d times, want 3: silence need not be decoded", len(calls))
	}
	want := engine.WindowRequest{Model: "ggml-tiny.bin", Translate: true, Prompt: "names", Temperature: 0.5, Words: true, BeamSize: 3, BestOf: 4, Threads: 2,
		AudioCtx: 768, TemperatureInc: noFallback, OnePass: true}
	if calls[0].req != want {
		t.Errorf("request %+v, want %+v", calls[0].req, want)
	}
	checkUpdates(t, updates, got)
	wantFree(t, s)
}

// checkUpdates holds what observe saw against the result.
func checkUpdates(t *testing.T, updates []Update, got *transcript.Transcript) {
	t.Helper()
	if updates[0].Phase != Decoding || updates[1].Phase != Waiting {
		t.Errorf("phases begin with %s, %s", updates[0].Phase, updates[1].Phase)
	}
	var segments []transcript.Segment
	last := time.Duration(0)
	for _, u := range updates {
		if u.Done < last {
			t.Errorf("done went back from %v to %v", last, u.Done)
		}
		last = u.Done
		segments = append(segments, u.Segments...)
	}
	if !reflect.DeepEqual(segments, got.Segments) {
		t.Errorf("updates brought %v, the result has %v", segments, got.Segments)
	}
	if last != got.Duration {
		t.Errorf("the last update is at %v of %v", last, got.Duration)
	}
}

func TestRunKeepsFirstLanguage(t *testing.T) {
	for name, c := range map[string]struct {
		asked string
		said  []string // text of each window
		heard []string // language of each window
		sent  []string // language asked of the engine
		want  string
	}{
		"first window":            {"", []string{"a", "b", "c"}, []string{"de", "en", "fr"}, []string{"", "de", "de"}, "de"},
		"first with text":         {"", []string{"", "b", "c"}, []string{"en", "de", "fr"}, []string{"", "", "de"}, "de"},
		"nothing said":            {"", []string{"", "", ""}, []string{"en", "en", "en"}, []string{"", "", ""}, ""},
		"asked for":               {"it", []string{"a", "b", "c"}, []string{"it", "it", "it"}, []string{"it", "it", "it"}, "it"},
		"asked for, nothing said": {"it", []string{"", "", ""}, []string{"it", "it", "it"}, []string{"it", "it", "it"}, "it"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &fakeEngine{}
			e.answer = func(ctx context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
				return says(c.said[n], c.heard[n])(ctx, n, k, observe)
			}
			got, err := service(t, e, threeWindows()).Run(t.Context(), Job{Language: c.asked}, ignore)
			if err != nil {
				t.Fatal(err)
			}
			var sent []string
			for _, k := range e.seen() {
				sent = append(sent, k.req.Language)
			}
			if got.Language != c.want || !slices.Equal(sent, c.sent) {
				t.Errorf("language %q after asking for %q, want %q after %q", got.Language, sent, c.want, c.sent)
			}
		})
	}
}

func TestRunWithoutSpeech(t *testing.T) {
	for name, pcm := range map[string][]byte{"no sample": nil, "one sample": sound(-1.0 / audio.SampleRate), "silence": sound(-40)} {
		t.Run(name, func(t *testing.T) {
			e := &fakeEngine{answer: says("invented", "en")}
			got, err := service(t, e, pcm).Run(t.Context(), Job{}, ignore)
			if err != nil || got.Text() != "" || len(e.seen()) != 0 {
				t.Errorf("got %+v, %v after %d calls; want an empty text and no call", got, err, len(e.seen()))
			}
		})
	}
}

func TestRunDecoderFails(t *testing.T) {
	e := &fakeEngine{answer: says("x", "en")}
	s := service(t, e, nil)
	bad := fault.New(fault.Unsupported, "undecodable", "no sound")
	s.Decoder = &fakeDecoder{err: bad}
	_, err := s.Run(t.Context(), Job{}, ignore)
	wantFault(t, err, fault.Unsupported, "undecodable")
	s.Spool = "no such directory"
	if _, err := s.Run(t.Context(), Job{}, ignore); err == nil || errors.Is(err, bad) {
		t.Errorf("without a spool: %v", err)
	}
	if len(e.seen()) > 0 {
		t.Error("the engine was asked")
	}
}

func TestRunDecodersNote(t *testing.T) {
	e := &fakeEngine{answer: says("x", "en")}
	s := service(t, e, nil)
	d := &fakeDecoder{pcm: sound(2)}
	d.info.Note = "ends early"
	s.Decoder = d
	got, err := s.Run(t.Context(), Job{ByLoudness: true}, ignore)
	if err != nil || !slices.Equal(got.Notes, []string{"ends early"}) {
		t.Errorf("notes %q, %v", got.Notes, err)
	}
}

func TestRunEngineBreaks(t *testing.T) {
	broken := fmt.Errorf("%w: unexpected EOF", engine.ErrBroken)
	for breaks, ok := range map[int]bool{1: true, 2: false} {
		t.Run(fmt.Sprint(breaks), func(t *testing.T) {
			e := &fakeEngine{}
			e.answer = func(ctx context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
				if n == 1 || n == breaks { // in the second window
					observe(segment(" half", 0, time.Second))
					return engine.Done{}, broken
				}
				return says(" whole", "en")(ctx, n, k, observe)
			}
			s := service(t, e, threeWindows())
			got, err := s.Run(t.Context(), Job{Model: "tiny"}, ignore)
			wantFree(t, s)
			if ok {
				if err != nil || got.Text() != "whole whole whole" {
					t.Errorf("got %+v, %v: want the second attempt's text alone", got, err)
				}
				return
			}
			f := wantFault(t, err, fault.Unavailable, "engine_crashed")
			if !strings.Contains(f.Message, "window from 24.49s to 35.52s") || !strings.Contains(f.Message, "tiny") || f.Hint == "" || !errors.Is(err, engine.ErrBroken) {
				t.Errorf("words: %q, hint %q, cause %v", f.Message, f.Hint, f.Err)
			}
		})
	}
}

func TestRunEngineFails(t *testing.T) {
	for code, want := range map[string]struct {
		kind fault.Kind
		code string
	}{
		engine.CodeNoModel:    {fault.Unavailable, "model_not_installed"},
		engine.CodeBadModel:   {fault.Unavailable, "model_damaged"},
		engine.CodeNoMemory:   {fault.Unavailable, "no_memory"},
		engine.CodeDecode:     {fault.Internal, "engine_failed"},
		engine.CodeBadRequest: {fault.Internal, "engine_failed"},
		engine.CodeAborted:    {fault.Internal, "engine_failed"},
		"news to us":          {fault.Internal, "engine_failed"},
	} {
		t.Run(code, func(t *testing.T) {
			e := &fakeEngine{answer: func(context.Context, int, call, func(engine.Event)) (engine.Done, error) {
				return engine.Done{}, fmt.Errorf("window: %w", &engine.Failure{Code: code, Message: "because"})
			}}
			s := service(t, e, sound(3))
			_, err := s.Run(t.Context(), Job{Model: "tiny"}, ignore)
			f := wantFault(t, err, want.kind, want.code)
			if len(e.seen()) != 1 {
				t.Errorf("the engine was asked %d times; only a crash is worth another try", len(e.seen()))
			}
			if !strings.Contains(f.Error(), "because") || f.Kind != fault.Internal && f.Hint == "" {
				t.Errorf("%v lacks its cause, or a hint: %q", f, f.Hint)
			}
			wantFree(t, s)
		})
	}
}

func TestRunOtherError(t *testing.T) {
	odd := errors.New("the engine answered 418")
	e := &fakeEngine{answer: func(context.Context, int, call, func(engine.Event)) (engine.Done, error) { return engine.Done{}, odd }}
	s := service(t, e, sound(3))
	if _, err := s.Run(t.Context(), Job{}, ignore); !errors.Is(err, odd) {
		t.Errorf("got %v", err)
	}
	wantFree(t, s)
}

func TestRunCancelled(t *testing.T) {
	left := errors.New("the client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	e := &fakeEngine{answer: func(ctx context.Context, _ int, _ call, _ func(engine.Event)) (engine.Done, error) {
		cancel(left)
		<-ctx.Done()
		// A connection that breaks because of it is no crash.
		return engine.Done{}, fmt.Errorf("%w: %w", engine.ErrBroken, ctx.Err())
	}}
	s := service(t, e, threeWindows())
	_, err := s.Run(ctx, Job{}, ignore)
	wantFault(t, err, fault.Canceled, "canceled")
	if !errors.Is(err, left) || len(e.seen()) != 1 {
		t.Errorf("cause %v after %d calls", err, len(e.seen()))
	}
	wantFree(t, s)
	e.answer = says("next", "en")
	if got, err := s.Run(t.Context(), Job{}, ignore); err != nil || got.Text() == "" {
		t.Errorf("the next job: %v, %v", got, err)
	}
}

func TestRunCancelledInSilence(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := &fakeEngine{answer: says("x", "en")}
	s := service(t, e, sound(-40))
	_, err := s.Run(ctx, Job{}, func(u Update) {
		if u.Phase == Waiting {
			cancel()
		}
	})
	wantFault(t, err, fault.Canceled, "canceled")
}

// TestRunPanic: whoever recovers finds the turn free and no file left.
func TestRunPanic(t *testing.T) {
	e := &fakeEngine{answer: func(context.Context, int, call, func(engine.Event)) (engine.Done, error) { panic("a bug") }}
	s := service(t, e, sound(3))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		s.Run(t.Context(), Job{}, ignore) //nolint:errcheck // it does not return
	}()
	wantFree(t, s)
}

func TestRunProgress(t *testing.T) {
	e := &fakeEngine{answer: func(_ context.Context, _ int, _ call, observe func(engine.Event)) (engine.Done, error) {
		observe(engine.Event{Loading: &engine.Loading{Model: "ggml-tiny.bin"}})
		for _, percent := range []int{-5, 0, 50, 100, 900} {
			observe(engine.Event{Progress: &engine.Progress{Percent: percent}})
		}
		return engine.Done{Language: "en"}, nil
	}}
	var updates []Update
	if _, err := service(t, e, sound(20)).Run(t.Context(), Job{}, func(u Update) { updates = append(updates, u) }); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range updates {
		got = append(got, fmt.Sprintf("%s %v/%v", u.Phase, u.Done, u.Total))
	}
	want := []string{"decoding 0s/0s", "waiting 0s/20s", "loading 0s/20s", "recognising 0s/20s", "recognising 0s/20s",
		"recognising 10s/20s", "recognising 20s/20s", "recognising 20s/20s"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
