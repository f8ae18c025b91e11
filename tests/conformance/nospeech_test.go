//go:build e2e

package conformance

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
)

// signal gives samples of −1 to 1 by their time in seconds, each with a random
// number from −1 to 1.
type signal func(at, random float64) float64

// fixture is a sound in which nobody speaks.
type fixture struct {
	name   string
	quiet  bool // by its loudness alone it is no speech
	signal signal
}

func tone(at, hertz float64) float64 { return math.Sin(2 * math.Pi * hertz * at) }

// pulse fades within every period.
func pulse(at, every, fades float64) float64 { return math.Exp(-math.Mod(at, every) / fades) }

// note is what a melody plays, in hertz.
func note(at float64) float64 {
	melody := []float64{262, 294, 330, 349, 392, 440, 494, 523}
	return melody[int(at*2)*3%len(melody)]
}

func white(level float64) signal { return func(_, random float64) float64 { return level * random } }

// pink is noise that loses 3 dB an octave, of filters at distances of two octaves.
func pink(level float64) signal {
	var poles [5]float64
	return func(_, random float64) float64 {
		sum := 0.0
		for i := range poles {
			keep := math.Exp(-2 * math.Pi * 20 * math.Pow(4, float64(i)) / 16000)
			poles[i] = keep*poles[i] + (1-keep)*random*math.Pow(2, float64(len(poles)-1-i))
			sum += poles[i]
		}
		return level * sum / float64(len(poles))
	}
}

// brown is noise that loses 6 dB an octave.
func brown(level float64) signal {
	sum := 0.0
	return func(_, random float64) float64 {
		sum = 0.998*sum + 0.02*random
		return level * sum
	}
}

// low is noise below a frequency that keep, from 0 to 1, lowers.
func low(keep float64) signal {
	last := 0.0
	return func(_, random float64) float64 {
		last = keep*last + (1-keep)*random
		return last
	}
}

// noises are those without a form.
func noises() []fixture {
	const bit = 1.0 / 32767
	breath, wind, engine, rumble := low(0.7), brown(1), low(0.9), brown(1)
	return []fixture{
		{"silence", true, white(0)},
		{"digital silence with dither", true, func(_, random float64) float64 { return bit * random }},
		{"a quiet room", true, white(0.001)},
		{"white noise, faint", false, white(0.01)},
		{"white noise", false, white(0.2)},
		{"white noise, loud", false, white(0.9)},
		{"pink noise, faint", false, pink(0.05)},
		{"pink noise, loud", false, pink(1)},
		{"brown noise, faint", false, brown(0.1)},
		{"brown noise, loud", false, brown(2)},
		{"wind", false, func(at, random float64) float64 { return wind(at, random) * (1 + 0.5*tone(at, 0.2)) }},
		{"breathing", false, func(at, random float64) float64 { return 0.15 * breath(at, random) * max(0, tone(at, 0.25)) }},
		{"rain and thunder", false, func(at, random float64) float64 { return 0.05*random + rumble(at, random)*pulse(at, 7, 2) }},
		{"an engine", false, func(at, random float64) float64 {
			return 0.5 * (1 + tone(at, 23)) * (engine(at, random) + 0.1*tone(at, 92))
		}},
	}
}

// sounds are those with one.
func sounds() []fixture {
	clap := low(0.3)
	return []fixture{
		{"mains hum", false, func(at, _ float64) float64 { return 0.1*tone(at, 50) + 0.05*tone(at, 100) + 0.02*tone(at, 150) }},
		{"one tone", false, func(at, _ float64) float64 { return 0.3 * tone(at, 440) }},
		{"a melody", false, func(at, _ float64) float64 {
			return 0.3 * pulse(at, 0.5, 0.3) * (tone(at, note(at)) + 0.4*tone(at, 2*note(at)))
		}},
		{"chords, drums", false, func(at, random float64) float64 {
			chord := tone(at, note(at)) + tone(at, 1.25*note(at)) + tone(at, 1.5*note(at))
			return 0.12*chord*pulse(at, 1, 0.8) + 0.3*pulse(at, 0.5, 0.04)*random
		}},
		{"keys", false, func(at, random float64) float64 { return 0.5 * pulse(at, 0.23, 0.004) * random }},
		{"clicks", false, func(at, _ float64) float64 { return 0.9 * pulse(at, 0.7, 0.0002) }},
		{"a sweep", false, func(at, _ float64) float64 { return 0.3 * math.Sin(2*math.Pi*(50+200*at)*at) }},
		{"a telephone", false, func(at, _ float64) float64 {
			return 0.2 * max(0, math.Copysign(1, math.Mod(at, 3)-2)) * (tone(at, 440) + tone(at, 480))
		}},
		{"a siren", false, func(at, _ float64) float64 {
			return 0.3 * math.Sin(2*math.Pi*(900*at+300/(2*math.Pi*0.3)*math.Sin(2*math.Pi*0.3*at)))
		}},
		{"applause", false, func(at, random float64) float64 {
			hands := 0.0
			for i := range 24 { // who clap each at a pace of their own
				hands += pulse(at+float64(i)*0.37, 0.21+0.011*float64(i), 0.008)
			}
			return 0.25 * hands * clap(at, random)
		}},
	}
}

// nobody are all of them. They have states: each list is good for one recording of each.
func nobody() []fixture { return append(noises(), sounds()...) }

// recording makes 15 seconds of it, the same at every run.
func (f fixture) recording(t *testing.T) clip {
	t.Helper()
	const length, rate = 15 * time.Second, 16000
	seed := fnv.New64()
	seed.Write([]byte(f.name)) //nolint:errcheck // it takes everything
	random := rand.New(rand.NewPCG(4, seed.Sum64()))
	sound := make(clips.Sound, int(length.Seconds()*rate))
	for i := range sound {
		sound[i] = int16(32767 * max(-1, min(1, f.signal(float64(i)/rate, 2*random.Float64()-1))))
	}
	path := filepath.Join(t.TempDir(), "nobody.wav")
	if err := sound.WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	return load(t, path)
}

// detects tells whether the appliance finds speech by the detector's model.
func detects(t *testing.T) bool {
	t.Helper()
	health := decoded[struct {
		Components []struct{ Name, Status string }
	}](t, get(t, "/health/detailed"))
	for _, c := range health.Components {
		if c.Name == "vad" {
			return c.Status == "ok"
		}
	}
	return false
}

// TestNothingIsInvented: sound without speech has no text.
func TestNothingIsInvented(t *testing.T) {
	if !detects(t) {
		t.Fatal("the appliance has no speech detector's model: packaging/vad-model.sh says where the build looks for it")
	}
	for _, f := range nobody() {
		t.Run(f.name, func(t *testing.T) {
			a := asked(t, transcriptions, f.recording(t).under("file"), field("response_format", "text"))
			if got := strings.TrimSpace(string(a.body)); got != "" {
				t.Errorf("heard %q", got)
			}
		})
	}
}

// TestInventedByLoudness: without the detector's model, too, what is quiet has no
// text. The rest is counted where the run is thorough, and told, not judged: that is
// why transcripts say when speech was told by loudness.
func TestInventedByLoudness(t *testing.T) {
	a, err := appliance.Start(t.Context(), appliance.Options{Env: []string{"WHISPER_APPLIANCE_VAD_DETECTOR=loudness"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	}()
	invented, tried := 0, 0
	for _, f := range nobody() {
		if !f.quiet && os.Getenv(thorough) == "" {
			continue
		}
		tried++
		path := filepath.Join(t.TempDir(), "nobody.wav")
		if err := os.WriteFile(path, f.recording(t).data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := clips.Request{URL: a.URL + transcriptions, Key: a.Key, Path: path}.Transcribe(t.Context())
		switch {
		case err != nil:
			t.Errorf("%s: %v", f.name, err)
		case got == "":
		case f.quiet:
			t.Errorf("%s: heard %q", f.name, got)
		default:
			invented++
			t.Logf("%s: heard %.80q", f.name, got)
		}
	}
	t.Logf("without the model, %d of %d sounds have a text that nobody said", invented, tried)
}
