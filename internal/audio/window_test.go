package audio

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// pcm is a Source in memory.
type pcm []float32

func (p pcm) Samples() int64 { return int64(len(p)) }

func (p pcm) ReadSamples(dst []float32, from int64) (int, error) {
	n := copy(dst, p[from:])
	if n < len(dst) {
		return n, io.EOF
	}
	return n, nil
}

func (p pcm) scaled(db float64) pcm {
	out, k := slices.Clone(p), float32(math.Pow(10, db/20))
	for i := range out {
		out[i] *= k
	}
	return out
}

// babble is noise in syllables of 80 ms with dips that are no pauses, its loud
// parts at about level dBFS.
func babble(seconds, level float64, seed int64) pcm {
	r := rand.New(rand.NewSource(seed))
	out := make(pcm, int(seconds*SampleRate))
	for i := range out {
		dip := 0.6 + 0.4*math.Sin(2*math.Pi*float64(i)/(0.16*SampleRate))
		out[i] = float32(r.NormFloat64() * dip * math.Pow(10, level/20))
	}
	return out
}

func noise(seconds, level float64) pcm {
	r := rand.New(rand.NewSource(7))
	out := make(pcm, int(seconds*SampleRate))
	for i := range out {
		out[i] = float32(r.NormFloat64() * math.Pow(10, level/20))
	}
	return out
}

func zeros(seconds float64) pcm { return make(pcm, int(seconds*SampleRate)) }

// loud cuts src by its energy, as where there is no better detector.
func loud(t *testing.T, src Source, c Cutting) (spans []Span, windows []Window) {
	t.Helper()
	spans, err := LoudSpans(src)
	if err != nil {
		t.Fatal(err)
	}
	windows, err = allWindows(c, src, spans)
	if err != nil {
		t.Fatal(err)
	}
	checkWindows(t, windows, spans, src, c)
	return spans, windows
}

// allWindows packs speech, in any order, one window after the other.
func allWindows(c Cutting, src Source, speech []Span) ([]Window, error) {
	speech = Joined(speech, Duration(src.Samples()))
	var windows []Window
	for at := time.Duration(0); ; {
		w, ok, err := c.Next(src, speech, at)
		if err != nil || !ok {
			return windows, err
		}
		windows = append(windows, w)
		at = w.Speech[len(w.Speech)-1].End
	}
}

// checkWindows asserts what always holds: windows are in order, apart, within
// the recording and not too long, all speech is in them, and only a span that
// is too long is in more than one.
func checkWindows(t *testing.T, windows []Window, speech []Span, src Source, c Cutting) {
	t.Helper()
	c = c.defaults()
	var at time.Duration
	var inside []Span
	for i, w := range windows {
		if w.Start < at || w.End <= w.Start || w.Length() > c.Longest || len(w.Speech) == 0 {
			t.Fatalf("window %d is %v, after %v", i, w, at)
		}
		if w.Speech[0].Start < w.Start || w.Speech[len(w.Speech)-1].End > w.End {
			t.Fatalf("window %d is %v: its speech is not in it", i, w)
		}
		for j, s := range w.Speech {
			if j > 0 && s.Start-w.Speech[j-1].End >= c.Gap {
				t.Fatalf("window %d is %v: a long gap is in it", i, w)
			}
		}
		inside = append(inside, w.Speech...)
		at = w.End
	}
	if total := Duration(src.Samples()); at > total {
		t.Fatalf("windows end at %v of %v", at, total)
	}
	checkPieces(t, inside, Joined(speech, Duration(src.Samples())), c.Longest)
}

// checkPieces: pieces are spans, of which those that are too long were cut.
func checkPieces(t *testing.T, pieces, spans []Span, longest time.Duration) {
	t.Helper()
	for _, s := range spans {
		if s.Length() <= longest {
			if len(pieces) == 0 || pieces[0] != s {
				t.Fatalf("%v is not whole: %v", s, pieces)
			}
			pieces = pieces[1:]
			continue
		}
		at := s.Start
		for len(pieces) > 0 && pieces[0].Start == at && at < s.End {
			at, pieces = pieces[0].End, pieces[1:]
		}
		if at != s.End {
			t.Fatalf("pieces of %v end at %v", s, at)
		}
	}
	if len(pieces) > 0 {
		t.Fatalf("%v is nobody's speech", pieces)
	}
}

var padded = Cutting{Pad: 400 * time.Millisecond}

// TestLoudWindows cuts by energy: what is silent for long is in no window, and
// a span that is too long is cut in a pause.
func TestLoudWindows(t *testing.T) {
	speech := func(s float64) pcm { return babble(s, -20, 1) }
	type win struct{ start, end float64 } // seconds, ± 0.2; < 0 = anywhere
	tests := []struct {
		name string
		pcm  pcm
		want []win
	}{
		{"nothing", nil, nil},
		{"one sample", zeros(1.0 / SampleRate), nil},
		{"short speech", speech(3), []win{{0, 3}}},
		{"exactly a window", speech(30), []win{{0, 30}}},
		{"short, mostly silent", slices.Concat(zeros(12), speech(1), zeros(12)), []win{{11.5, 13.5}}},
		{"short silence", zeros(1), nil},
		{"long silence", zeros(70), nil},
		{"one pause", slices.Concat(speech(22), zeros(0.3), speech(20)), []win{{0, 22.15}, {22.15, 42.3}}},
		{"pause under hum and offset", hum(slices.Concat(speech(22), zeros(0.3), speech(20))), []win{{0, 22.15}, {22.15, 42.3}}},
		{"pause in noise", mix(slices.Concat(speech(22), zeros(0.3), speech(20)), noise(42.3, -42)), []win{{0, 22.15}, {22.15, 42.3}}},
		{"longer pause wins", slices.Concat(speech(18), zeros(0.8), speech(7), zeros(0.2), speech(12)), []win{{0, 18.4}, {18.4, 38}}},
		{"later of two equal", slices.Concat(speech(17), zeros(0.5), speech(9), zeros(0.5), speech(12)), []win{{0, 26.75}, {26.75, 39}}},
		{"early pause is too early", slices.Concat(speech(5), zeros(1.8), speech(15), zeros(0.3), speech(20)), []win{{0, 21.95}, {21.95, 42.1}}},
		{"long silence between", slices.Concat(speech(20), zeros(20), speech(15)), []win{{0, 20.5}, {39.5, 55}}},
		{"silence first", slices.Concat(zeros(10), speech(25)), []win{{9.5, 35}}},
		{"silence of 3 s stays between", slices.Concat(speech(10), zeros(3), speech(10)), []win{{0, 23}}},
		{"no snippet at the end", slices.Concat(speech(12), zeros(0.25), speech(18.5)), []win{{0, -1}, {-1, 30.75}}},
		{"quiet voice is no silence", slices.Concat(speech(20), babble(20, -50, 2)), []win{{0, -1}, {-1, 40}}},
		{"quiet recording", babble(40, -65, 3), []win{{0, -1}, {-1, 40}}},
		{"room noise between loud voices", mix(slices.Concat(speech(20), zeros(20), speech(15)), noise(55, -68)), []win{{0, 20.5}, {39.5, 55}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := loud(t, tt.pcm, padded)
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			for i, w := range tt.want {
				if w.start >= 0 && math.Abs(got[i].Start.Seconds()-w.start) > 0.2 || w.end >= 0 && math.Abs(got[i].End.Seconds()-w.end) > 0.2 {
					t.Errorf("window %d is %v, want %v", i, got[i], w)
				}
			}
			if _, again := loud(t, tt.pcm, padded); !reflect.DeepEqual(got, again) {
				t.Error("a second run cuts elsewhere")
			}
		})
	}
}

func TestWindowsPack(t *testing.T) {
	s := func(from, to float64) Span {
		return Span{time.Duration(from * float64(time.Second)), time.Duration(to * float64(time.Second))}
	}
	for _, tt := range []struct {
		name   string
		speech []Span
		want   []Span // of the windows
	}{
		{"none", nil, nil},
		{"padded", []Span{s(10, 12)}, []Span{s(9.6, 12.4)}},
		{"padded within the recording", []Span{s(0.1, 119.9-92)}, []Span{s(0, 28.3)}},
		{"at its end", []Span{s(110, 119.9)}, []Span{s(109.6, 120)}},
		{"beyond its end", []Span{s(119, 130), s(130, 140)}, []Span{s(118.6, 120)}},
		{"together", []Span{s(1, 5), s(6, 10), s(12, 20)}, []Span{s(0.6, 20.4)}},
		{"in any order", []Span{s(12, 20), s(1, 5), s(4, 10)}, []Span{s(0.6, 20.4)}},
		{"not the one that is too much", []Span{s(1, 20), s(20.2, 31)}, []Span{s(0.6, 20.1), s(20.1, 31.4)}},
		{"the gap is shared", []Span{s(1, 29), s(29.4, 50)}, []Span{s(0.6, 29.2), s(29.2, 50.4)}},
		{"the pad is what fits", []Span{s(10, 39.8)}, []Span{s(9.9, 39.9)}},
		{"a whole window", []Span{s(10, 40)}, []Span{s(10, 40)}},
		{"a long gap", []Span{s(1, 5), s(10, 12)}, []Span{s(0.6, 5.4), s(9.6, 12.4)}},
		{"no long gap", []Span{s(1, 5), s(9.9, 12)}, []Span{s(0.6, 12.4)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, src := padded, zeros(120)
			windows, err := allWindows(c, src, tt.speech)
			if err != nil {
				t.Fatal(err)
			}
			checkWindows(t, windows, tt.speech, src, c)
			var got []Span
			for _, w := range windows {
				got = append(got, Span{w.Start.Round(time.Millisecond), w.End.Round(time.Millisecond)})
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestWindowsOfAnySpeech: what always holds holds of spans drawn at random.
func TestWindowsOfAnySpeech(t *testing.T) {
	src := babble(300, -20, 5)
	r := rand.New(rand.NewSource(1))
	for range 300 {
		var speech []Span
		for at := time.Duration(0); at < 310*time.Second; {
			from := at + time.Duration(r.Int63n(int64(8*time.Second)))
			at = from + time.Duration(r.ExpFloat64()*float64(8*time.Second))
			speech = append(speech, Span{from, at})
		}
		r.Shuffle(len(speech), func(i, j int) { speech[i], speech[j] = speech[j], speech[i] })
		c := Cutting{
			Longest: time.Duration(r.Int63n(int64(31 * time.Second))), Pad: time.Duration(r.Int63n(int64(time.Second))),
			Gap: time.Duration(r.Int63n(int64(6 * time.Second))),
		}
		windows, err := allWindows(c, src, speech)
		if err != nil {
			t.Fatal(err)
		}
		checkWindows(t, windows, speech, src, c)
	}
}

// TestLongSpanIsCutAtItsQuietest: where a span has no pause, the cut is in its dip.
func TestLongSpanIsCutAtItsQuietest(t *testing.T) {
	dip := babble(0.1, -32, 3)
	src := slices.Concat(zeros(7), babble(21, -20, 1), dip, babble(19, -20, 2))
	c := Cutting{}
	speech := []Span{{7 * time.Second, Duration(src.Samples())}}
	windows, err := allWindows(c, src, speech)
	if err != nil {
		t.Fatal(err)
	}
	checkWindows(t, windows, speech, src, c)
	if at := windows[0].End.Seconds(); len(windows) != 2 || at < 28 || at > 28.1 {
		t.Errorf("windows %v, want the cut between 28 and 28.1 s", windows)
	}
}

func TestShorterWindows(t *testing.T) {
	src := slices.Concat(babble(60, -20, 4), zeros(0.001))
	for _, longest := range []time.Duration{-1, time.Nanosecond, time.Second, 10 * time.Second, time.Hour} {
		loud(t, src, Cutting{Longest: longest})
	}
}

func TestJoined(t *testing.T) {
	got := Joined([]Span{{5, 7}, {-3, 1}, {7, 8}, {6, 6}, {9, 8}, {1, 2}, {20, 40}, {50, 60}}, 30)
	if want := []Span{{0, 2}, {5, 8}, {20, 30}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

type broken struct{ pcm }

func (broken) ReadSamples([]float32, int64) (int, error) { return 0, errors.New("bad sector") }

func TestReadError(t *testing.T) {
	src := broken{zeros(40)}
	if _, err := LoudSpans(src); err == nil {
		t.Error("spans of a source that cannot be read")
	}
	if _, err := allWindows(Cutting{}, src, []Span{{0, 40 * time.Second}}); err == nil {
		t.Error("a span is cut though it cannot be read")
	}
	if got, err := allWindows(Cutting{}, src, []Span{{0, 20 * time.Second}}); err != nil || len(got) != 1 {
		t.Errorf("%v, %v: what need not be cut is not read", got, err)
	}
}

func hum(p pcm) pcm {
	out := slices.Clone(p)
	for i := range out {
		out[i] += 0.1 + float32(0.003*math.Sin(2*math.Pi*50*float64(i)/SampleRate))
	}
	return out
}

func mix(a, b pcm) pcm {
	out := slices.Clone(a)
	for i := range min(len(a), len(b)) {
		out[i] += b[i]
	}
	return out
}

// TestWindowsOfRecordings joins real recordings with known pauses and asserts
// that every cut lies inside one of them or in a pause that the speaker made.
func TestWindowsOfRecordings(t *testing.T) {
	clips := speechClips(t)
	for _, tt := range []struct {
		name  string
		pause float64
		floor pcm // laid under everything
		gain  float64
	}{
		{"200 ms", 0.2, nil, 0},
		{"400 ms", 0.4, nil, 0},
		{"1 s", 1, nil, 0},
		{"quiet, 400 ms", 0.4, nil, -30},
		{"in noise, 400 ms", 0.4, noise(240, -50), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src, joins := join(clips, tt.pause)
			src = mix(src.scaled(tt.gain), tt.floor)
			_, got := loud(t, src, Cutting{})
			checkCuts(t, src, got, joins)
		})
	}
}

// checkCuts: a cut is good inside a join, or where 100 ms around it are at
// least 20 dB below the clip around them and no join was in reach.
func checkCuts(t *testing.T, src pcm, windows []Window, joins []Span) {
	t.Helper()
	frames, err := Energy(src)
	if err != nil {
		t.Fatal(err)
	}
	inJoins := 0
	for _, w := range windows[:len(windows)-1] {
		if slices.ContainsFunc(joins, func(j Span) bool { return j.Start <= w.End && w.End <= j.End }) {
			inJoins++
			continue
		}
		at := int(w.End / FrameLength)
		_, loud := spread(frames[max(0, at-300):min(len(frames), at+300)])
		if quiet := slices.Max(frames[at-7 : at+8]); quiet > loud-15 {
			t.Errorf("cut at %v, at %.0f dBFS with %.0f around it", w.End, quiet, loud)
		}
	}
	t.Logf("%d cuts, %d of them in joins", len(windows)-1, inJoins)
}

func join(clips []pcm, pause float64) (src pcm, joins []Span) {
	for _, c := range clips {
		src = append(src, c...)
		from := Duration(src.Samples())
		src = append(src, zeros(pause)...)
		joins = append(joins, Span{from, Duration(src.Samples())})
	}
	return src, joins
}

func speechClips(t *testing.T) []pcm {
	t.Helper()
	var clips []pcm
	for _, name := range sharedSpeech(t) {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := ReadWAV(bytes.NewReader(raw), int64(len(raw)), &out); errors.Is(err, ErrNotWAV) {
			continue // another rate
		} else if err != nil {
			t.Fatal(err)
		}
		c := make(pcm, out.Len()/SampleSize)
		decodeF32(c, out.Bytes())
		clips = append(clips, c)
	}
	return append(clips, clips...)
}

// sharedSpeech lists the recordings kept beside the checkout.
func sharedSpeech(t *testing.T) []string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if list, _ := filepath.Glob(filepath.Join(dir, "shared", "speech", "*.wav")); len(list) > 0 {
			return list
		}
	}
	t.Skip("no directory shared/speech beside the checkout")
	return nil
}

func BenchmarkLoudWindows(b *testing.B) {
	src := babble(600, -20, 1)
	b.SetBytes(int64(len(src)) * SampleSize)
	for b.Loop() {
		spans, err := LoudSpans(src)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := allWindows(Cutting{}, src, spans); err != nil {
			b.Fatal(err)
		}
	}
}
