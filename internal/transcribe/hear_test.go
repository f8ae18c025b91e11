package transcribe

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/audio"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/transcript"
)

func newTranscript(d time.Duration) *transcript.Transcript {
	return &transcript.Transcript{Duration: d}
}

// script answers the nth call with the nth list of segments.
func script(t *testing.T, said ...[]piece) *fakeEngine {
	return &fakeEngine{answer: func(_ context.Context, n int, _ call, observe func(engine.Event)) (engine.Done, error) {
		if n >= len(said) {
			t.Errorf("call %d is one too many", n)
			return engine.Done{}, nil
		}
		for _, s := range said[n] {
			observe(engine.Event{Segment: &s.Segment})
		}
		return engine.Done{Language: "en"}, nil
	}}
}

// asked lists how each window was decoded.
func asked(e *fakeEngine) []string {
	var list []string
	for _, c := range e.seen() {
		list = append(list, fmt.Sprintf("%d@%.1f", c.req.AudioCtx, c.req.Temperature))
	}
	return list
}

// TestFallbacks: what looks wrong is decoded anew, and the best is kept.
func TestFallbacks(t *testing.T) {
	s := time.Second
	good := []piece{spoke(saying, 0, 6*s, -0.2, 0)}
	worse := []piece{spoke("A quack brawn fax jumbles away.", 0, 6*s, -0.6, 0)}
	bad := []piece{spoke("Croak broke frogs jam over.", 0, 6*s, -1.4, 0)}
	less := []piece{spoke("Crook brick figs gem ever.", 0, 6*s, -1.2, 0)}
	chant := []piece{spoke("no no no no no no no no", 0, 6*s, -0.2, 0)}
	notes := []piece{spoke("\u266a \u266a \u266a \u266a \u266a \u266a \u266a \u266a \u266a", 0, 6*s, -0.2, 0)}
	loop := []piece{spoke(strings.Repeat("and so ", 40), 0, 6*s, -0.1, 0)}
	for name, c := range map[string]struct {
		job  Job
		long float64 // seconds of speech; 0 = 6
		said [][]piece
		want string
		by   []string
	}{
		"fine":                           {said: [][]piece{good}, want: saying, by: []string{"512@0.0"}},
		"unsure, then fine":              {said: [][]piece{worse, good}, want: saying, by: []string{"512@0.0", "0@0.0"}},
		"unsure, then a loop":            {said: [][]piece{worse, loop}, want: "A quack brawn fax jumbles away.", by: []string{"512@0.0", "0@0.0"}},
		"unsure is enough in a long one": {long: 20, said: [][]piece{{spoke("A quack brawn fax jumbles away.", 0, 20*s, -0.6, 0)}}, want: "A quack brawn fax jumbles away.", by: []string{"0@0.0"}},
		"a loop, then fine":              {said: [][]piece{loop, good}, want: saying, by: []string{"512@0.0", "0@0.0"}},
		"a loop until it is hotter":      {said: [][]piece{loop, loop, loop, good}, want: saying, by: []string{"512@0.0", "0@0.0", "0@0.2", "0@0.4"}},
		"said again and again":           {said: [][]piece{chant, chant}, want: "no no no no no no no no", by: []string{"512@0.0", "0@0.0"}},
		"a loop, then another one":       {said: [][]piece{chant, loop, good}, want: saying, by: []string{"512@0.0", "0@0.0", "0@0.2"}},
		"the same loop of no words":      {said: [][]piece{notes, notes, good}, want: saying, by: []string{"512@0.0", "0@0.0", "0@0.2"}},
		"a loop that the prompt may be":  {job: Job{Prompt: "no no no"}, said: [][]piece{chant, chant, good}, want: saying, by: []string{"512@0.0", "0@0.0", "0@0.2"}},
		"improbable to the end":          {said: [][]piece{bad, less, bad, bad, bad, bad, bad}, want: "Crook brick figs gem ever.", by: []string{"512@0.0", "0@0.0", "0@0.2", "0@0.4", "0@0.6", "0@0.8", "0@1.0"}},
		"improbable beats a loop":        {said: [][]piece{loop, bad, loop, loop, loop, loop, loop}, want: "Croak broke frogs jam over.", by: []string{"512@0.0", "0@0.0", "0@0.2", "0@0.4", "0@0.6", "0@0.8", "0@1.0"}},
		"from the temperature asked":     {job: Job{Temperature: 0.7}, said: [][]piece{loop, loop, good}, want: saying, by: []string{"512@0.7", "0@0.7", "0@0.9"}},
		"no words, then some":            {said: [][]piece{nil, good}, want: saying, by: []string{"512@0.0", "0@0.0"}},
		"no words are not made up":       {said: [][]piece{nil, nil}, by: []string{"512@0.0", "0@0.0"}},
		"the whole context at once":      {job: Job{FullContext: true}, said: [][]piece{worse}, want: "A quack brawn fax jumbles away.", by: []string{"0@0.0"}},
		"one look":                       {job: Job{OneLook: true}, said: [][]piece{worse}, want: "A quack brawn fax jumbles away.", by: []string{"512@0.0"}},
		"taken for silence by Whisper":   {said: [][]piece{{spoke("Thank you.", 0, 6*s, -1.3, 0.9)}, {spoke("Thank you.", 0, 6*s, -1.3, 0.9)}}, by: []string{"512@0.0", "0@0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := script(t, c.said...)
			if c.long == 0 {
				c.long = 6
			}
			sv := detecting(t, e, &fakeDetector{}, sound(c.long))
			got, err := sv.Run(t.Context(), c.job, ignore)
			if err != nil || strings.TrimSpace(got.Text()) != c.want || !slices.Equal(asked(e), c.by) {
				t.Errorf("%q by %q, %v; want %q by %q", got.Text(), asked(e), err, c.want, c.by)
			}
			for _, k := range e.seen() {
				if want := float32(noFallback); !c.job.OneLook && k.req.TemperatureInc != want || c.job.OneLook && k.req.TemperatureInc != 0 {
					t.Errorf("whisper.cpp's own fallback is %g", k.req.TemperatureInc)
				}
			}
			wantFree(t, sv)
		})
	}
}

// TestRetriesKnowTheLanguage: it is detected once for a window.
func TestRetriesKnowTheLanguage(t *testing.T) {
	e := script(t, nil, []piece{spoke(saying, 0, 6*time.Second, -0.2, 0)})
	if _, err := detecting(t, e, &fakeDetector{}, sound(6)).Run(t.Context(), Job{}, ignore); err != nil {
		t.Fatal(err)
	}
	if calls := e.seen(); calls[0].req.Language != "" || calls[1].req.Language != "en" {
		t.Errorf("asked for %q, then %q", calls[0].req.Language, calls[1].req.Language)
	}
}

// TestTheRestGoesOn: what the model leaves at the end of a window is in the next
// one, and nothing is left out.
func TestTheRestGoesOn(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		until time.Duration
		text  string   // of the first window; "" = a word
		by    []string // seconds of each window, "all" where the engine goes on by itself
		loud  bool     // there is no detector
	}{
		"it reaches the end":              {by: []string{"10.0"}},
		"in a pause":                      {until: 5500 * ms, by: []string{"10.0", "4.4"}},
		"while somebody speaks":           {until: 7000 * ms, by: []string{"10.0", "3.0"}},
		"just before a pause":             {until: 3900 * ms, by: []string{"10.0", "4.4"}},
		"just after one":                  {until: 6100 * ms, by: []string{"10.0", "4.4"}},
		"with next to no rest":            {until: 9800 * ms, by: []string{"10.0"}},
		"before much came":                {until: 900 * ms, by: []string{"10.0", "10.0 all"}},
		"before much came, by loudness":   {until: 900 * ms, by: []string{"10.0", "10.0 all"}, loud: true},
		"before much came that is a loop": {until: 900 * ms, text: strings.Repeat("a ", 80), by: []string{"10.0", "10.0", "10.0", "10.0", "10.0", "10.0", "10.0", "10.0 all"}},
		"in a pause, by loudness":         {until: 5500 * ms, by: []string{"10.0", "4.5"}, loud: true},
	} {
		t.Run(name, func(t *testing.T) {
			var by []string
			e := &fakeEngine{answer: func(_ context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
				d := engine.Done{Language: "en"}
				end := time.Duration(len(k.pcm)) * time.Second / audio.SampleRate
				text, length := strings.Repeat("b ", n)+"word", fmt.Sprintf("%.1f", end.Seconds())
				if k.req.OnePass && end == 10*time.Second && c.until > 0 {
					d.Until, end = c.until, c.until
					text = cmp.Or(c.text, text)
				}
				if !k.req.OnePass {
					length += " all"
				}
				said := spoke(text, 0, end, -0.2, 0)
				observe(engine.Event{Segment: &said.Segment})
				by = append(by, length)
				return d, nil
			}}
			sv := detecting(t, e, &fakeDetector{}, sound(4, -2, 4))
			if c.loud {
				sv.Detector = nil
			}
			got, err := sv.Run(t.Context(), Job{}, ignore)
			if err != nil || !slices.Equal(by, c.by) {
				t.Fatalf("windows of %q s, %v; want %q", by, err, c.by)
			}
			for i, seg := range got.Segments {
				if i > 0 && seg.Start < got.Segments[i-1].End {
					t.Errorf("segment %d from %v on, the one before until %v", i, seg.Start, got.Segments[i-1].End)
				}
			}
		})
	}
}

// TestOneLookGoesOnItself: nobody would hear what was left.
func TestOneLookGoesOnItself(t *testing.T) {
	e := script(t, []piece{spoke(saying, 0, 6*time.Second, -0.2, 0)})
	if _, err := detecting(t, e, &fakeDetector{}, sound(6)).Run(t.Context(), Job{OneLook: true}, ignore); err != nil || e.seen()[0].req.OnePass {
		t.Errorf("one pass, %v", err)
	}
}

// TestMissedSpeechIsDecoded: speech over which no text is gets a window of its
// own, and its text goes where it was said.
func TestMissedSpeechIsDecoded(t *testing.T) {
	s := time.Second
	front, back := spoke("first here", 0, 4400*time.Millisecond, -0.2, 0), spoke("third here", 12*s, 16*s, -0.2, 0)
	for name, c := range map[string]struct {
		said []piece
		want string
	}{
		"found":               {[]piece{spoke("second there", s/4, 3*s, -0.2, 0)}, "first here second there third here"},
		"without its space":   {[]piece{{Segment: engine.Segment{Start: s / 4, End: 3 * s, Text: "second", Tokens: []engine.Token{{ID: 1}}}}}, "first here second third here"},
		"nothing there":       {nil, "first here third here"},
		"not to be believed":  {[]piece{spoke("mumble", s/4, 3*s, -1.5, 0)}, "first here third here"},
		"a loop":              {[]piece{spoke(strings.Repeat("no ", 20), s/4, 3*s, -0.1, 0)}, "first here third here"},
		"what is there":       {[]piece{spoke("Third, here!", s/4, 3*s, -0.2, 0)}, "first here third here"},
		"its last words":      {[]piece{spoke("HERE", s/4, 3*s, -0.2, 0)}, "first here third here"},
		"a part of a word":    {[]piece{spoke("her", s/4, 3*s, -0.2, 0)}, "first here her third here"},
		"no letters, no text": {[]piece{spoke("…", s/4, 3*s, -0.2, 0)}, "first here third here"},
	} {
		t.Run(name, func(t *testing.T) {
			e := script(t, []piece{front, back}, c.said)
			got, err := detecting(t, e, &fakeDetector{}, sound(4, -2, 4, -2, 4)).Run(t.Context(), Job{}, ignore)
			if err != nil || got.Text() != c.want {
				t.Errorf("%q, %v; want %q", got.Text(), err, c.want)
			}
			calls := e.seen()
			if len(calls) != 2 || calls[1].req.AudioCtx != 0 {
				t.Fatalf("asked %q", asked(e))
			}
			if d := audio.Duration(int64(len(calls[1].pcm))); (d - 4400*time.Millisecond).Abs() > 10*time.Millisecond {
				t.Errorf("decoded %v anew, want 4.4 s", d)
			}
			checkTimes(t, got)
			if len(got.Segments) == 3 && got.Segments[1].Start < 6*s {
				t.Errorf("the second is at %v", got.Segments[1].Start)
			}
		})
	}
}

// checkTimes asserts that segments and words are in order, and in the recording.
func checkTimes(t *testing.T, got *transcript.Transcript) {
	t.Helper()
	at := time.Duration(0)
	for i, s := range got.Segments {
		if s.Start < at || s.End < s.Start || s.End > got.Duration {
			t.Fatalf("segment %d is %v to %v, after %v of %v", i, s.Start, s.End, at, got.Duration)
		}
		word := s.Start
		for _, w := range s.Words {
			if w.Start < word || w.End < w.Start || w.End > s.End {
				t.Fatalf("word %q is %v to %v, after %v in %v to %v", w.Text, w.Start, w.End, word, s.Start, s.End)
			}
			word = w.End
		}
		at = s.End
	}
}

// TestTimesAreInOrder: whatever times the engine gives, those of the transcript
// are absolute and monotone.
func TestTimesAreInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	any := func() time.Duration { return time.Duration(random.Int64N(int64(40*time.Second))) - 5*time.Second }
	for range 50 {
		e := &fakeEngine{answer: func(_ context.Context, _ int, _ call, observe func(engine.Event)) (engine.Done, error) {
			for i := range random.IntN(5) {
				s := spoke(fmt.Sprintf("said %d", random.IntN(1000)), any(), any(), -0.2, 0).Segment
				for range i {
					s.Words = append(s.Words, engine.Word{Start: any(), End: any(), Text: " w"})
				}
				observe(engine.Event{Segment: &s})
			}
			return engine.Done{Language: "en"}, nil
		}}
		got, err := detecting(t, e, &fakeDetector{}, sound(20, -1, 15, -7, 3, -2, 6)).Run(t.Context(), Job{Words: true}, ignore)
		if err != nil {
			t.Fatal(err)
		}
		checkTimes(t, got)
	}
}

// TestPrompts: the text of the window before is a prompt where that is asked
// for, after the caller's own; a text that cannot be believed never is.
func TestPrompts(t *testing.T) {
	s := time.Second
	loop := []piece{spoke(strings.Repeat("and so ", 40), 0, 9*s, -0.1, 0)}
	said := func(text string) []piece { return []piece{spoke(text, 0, 11*s, -0.2, 0)} }
	answers := [][]piece{said("One."), loop, loop, loop, loop, loop, loop, loop, said("Three.")}
	for name, c := range map[string]struct {
		job  Job
		want []string
	}{
		"never by itself": {Job{Prompt: "names"}, []string{"names", "names", "names"}},
		"as asked":        {Job{Prompt: "names", PreviousText: true}, []string{"names", "names One.", "names"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := script(t, answers...)
			if _, err := detecting(t, e, &fakeDetector{}, threeWindows()).Run(t.Context(), c.job, ignore); err != nil {
				t.Fatal(err)
			}
			calls := e.seen()
			if got := []string{calls[0].req.Prompt, calls[1].req.Prompt, calls[len(calls)-1].req.Prompt}; !slices.Equal(got, c.want) {
				t.Errorf("prompts %q, want %q", got, c.want)
			}
		})
	}
}

// TestEachLanguage: where it is asked for, each window's language is detected.
func TestEachLanguage(t *testing.T) {
	languages := []string{"de", "en", "fr"}
	e := &fakeEngine{answer: func(ctx context.Context, n int, k call, observe func(engine.Event)) (engine.Done, error) {
		return says(" x", languages[n])(ctx, n, k, observe)
	}}
	got, err := service(t, e, threeWindows()).Run(t.Context(), Job{EachLanguage: true}, ignore)
	if err != nil || got.Language != "de" {
		t.Errorf("language %q, %v", got.Language, err)
	}
	for i, k := range e.seen() {
		if k.req.Language != "" {
			t.Errorf("window %d was asked in %q", i, k.req.Language)
		}
	}
}
