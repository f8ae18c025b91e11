package audio

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
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

// checkCover asserts what always holds of windows.
func checkCover(t *testing.T, windows []Window, src Source, longest time.Duration) {
	t.Helper()
	var at time.Duration
	for i, w := range windows {
		if w.Start != at || w.End <= w.Start || w.End-w.Start > longest {
			t.Fatalf("window %d is %v to %v, after %v", i, w.Start, w.End, at)
		}
		at = w.End
	}
	if at != Duration(src.Samples()) {
		t.Fatalf("windows end at %v of %v", at, Duration(src.Samples()))
	}
}

func TestCutWindows(t *testing.T) {
	speech := func(s float64) pcm { return babble(s, -20, 1) }
	type win struct {
		end    float64 // seconds, ± 0.2
		silent bool
	}
	tests := []struct {
		name string
		pcm  pcm
		want []win
	}{
		{"nothing", nil, nil},
		{"one sample", zeros(1.0 / SampleRate), []win{{0, true}}},
		{"short speech", speech(3), []win{{3, false}}},
		{"exactly a window", speech(30), []win{{30, false}}},
		{"short, mostly silent", slices.Concat(zeros(12), speech(1), zeros(12)), []win{{25, false}}},
		{"short silence", zeros(20), []win{{20, true}}},
		{"long silence", zeros(70), []win{{30, true}, {60, true}, {70, true}}},
		{"one pause", slices.Concat(speech(22), zeros(0.3), speech(20)), []win{{22.15, false}, {42.3, false}}},
		{"pause under hum and offset", hum(slices.Concat(speech(22), zeros(0.3), speech(20))), []win{{22.15, false}, {42.3, false}}},
		{"pause in noise", mix(slices.Concat(speech(22), zeros(0.3), speech(20)), noise(42.3, -42)), []win{{22.15, false}, {42.3, false}}},
		{"longer pause wins", slices.Concat(speech(18), zeros(0.8), speech(7), zeros(0.2), speech(12)), []win{{18.4, false}, {38, false}}},
		{"later of two equal", slices.Concat(speech(17), zeros(0.5), speech(9), zeros(0.5), speech(12)), []win{{26.75, false}, {39, false}}},
		{"early pause is too early", slices.Concat(speech(5), zeros(2), speech(15), zeros(0.3), speech(20)), []win{{22.15, false}, {42.3, false}}},
		{"long silence between", slices.Concat(speech(20), zeros(20), speech(15)), []win{{20.5, false}, {39.5, true}, {55, false}}},
		{"silence first", slices.Concat(zeros(10), speech(25)), []win{{9.5, true}, {35, false}}},
		{"no snippet at the end", slices.Concat(speech(12), zeros(0.25), speech(18.5)), []win{{-1, false}, {30.75, false}}},
		{"quiet voice is no silence", slices.Concat(speech(20), babble(20, -50, 2)), []win{{-1, false}, {40, false}}},
		{"quiet recording", babble(40, -65, 3), []win{{-1, false}, {40, false}}},
		{"room noise between loud voices", mix(slices.Concat(speech(20), zeros(20), speech(15)), noise(55, -68)), []win{{20.5, false}, {39.5, true}, {55, false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := CutWindows(tt.pcm, 0)
			if err != nil {
				t.Fatal(err)
			}
			checkCover(t, got, tt.pcm, MaxWindow)
			if len(got) != len(tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			for i, w := range tt.want {
				if w.end >= 0 && math.Abs(got[i].End.Seconds()-w.end) > 0.2 || got[i].Silent != w.silent {
					t.Errorf("window %d is %v, want %v", i, got[i], w)
				}
			}
			again, _ := CutWindows(tt.pcm, 0)
			if !slices.Equal(got, again) {
				t.Error("a second run cuts elsewhere")
			}
		})
	}
}

func TestCutWindowsShorter(t *testing.T) {
	src := slices.Concat(babble(60, -20, 4), zeros(0.001))
	for _, longest := range []time.Duration{time.Nanosecond, time.Second, 10 * time.Second, time.Hour} {
		got, err := CutWindows(src, longest)
		if err != nil {
			t.Fatal(err)
		}
		checkCover(t, got, src, min(max(longest, time.Second), MaxWindow))
	}
}

type broken struct{ pcm }

func (broken) ReadSamples([]float32, int64) (int, error) { return 0, errors.New("bad sector") }

func TestCutWindowsReadError(t *testing.T) {
	if _, err := CutWindows(broken{zeros(1)}, 0); err == nil {
		t.Error("no error from a source that cannot be read")
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

// TestCutWindowsSpeech joins real recordings with known pauses and asserts
// that every cut lies inside one of them or in a pause that the speaker made.
func TestCutWindowsSpeech(t *testing.T) {
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
			got, err := CutWindows(src, 0)
			if err != nil {
				t.Fatal(err)
			}
			checkCover(t, got, src, MaxWindow)
			checkCuts(t, src, got, joins)
		})
	}
}

// checkCuts: a cut is good inside a join, or where 100 ms around it are at
// least 20 dB below the clip around them and no join was in reach.
func checkCuts(t *testing.T, src pcm, windows []Window, joins []Window) {
	t.Helper()
	frames, err := Energy(src)
	if err != nil {
		t.Fatal(err)
	}
	inJoins := 0
	for _, w := range windows[:len(windows)-1] {
		if w.Silent {
			t.Errorf("%v to %v is called silent", w.Start, w.End)
		}
		if slices.ContainsFunc(joins, func(j Window) bool { return j.Start <= w.End && w.End <= j.End }) {
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

func join(clips []pcm, pause float64) (src pcm, joins []Window) {
	for _, c := range clips {
		src = append(src, c...)
		from := Duration(src.Samples())
		src = append(src, zeros(pause)...)
		joins = append(joins, Window{Start: from, End: Duration(src.Samples())})
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

func BenchmarkCutWindows(b *testing.B) {
	src := babble(600, -20, 1)
	b.SetBytes(int64(len(src)) * SampleSize)
	for b.Loop() {
		if _, err := CutWindows(src, 0); err != nil {
			b.Fatal(err)
		}
	}
}
