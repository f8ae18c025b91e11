//go:build e2e

package conformance

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"

	"whisper-appliance/tests/clips"
)

// nobody lists sounds in which nobody speaks: samples of −1 to 1 by their time
// in seconds, each with a random number from −1 to 1.
func nobody() map[string]func(at, random float64) float64 {
	tone := func(at, hertz float64) float64 { return math.Sin(2 * math.Pi * hertz * at) }
	pulse := func(at, every, fades float64) float64 { return math.Exp(-math.Mod(at, every) / fades) }
	melody := []float64{262, 294, 330, 349, 392, 440, 494, 523}
	note := func(at float64) float64 { return melody[int(at*2)*3%len(melody)] }
	var brown, low, band float64
	return map[string]func(at, random float64) float64{
		"silence":      func(float64, float64) float64 { return 0 },
		"a quiet room": func(_, random float64) float64 { return 0.001 * random },
		"white noise":  func(_, random float64) float64 { return 0.2 * random },
		"wind": func(at, random float64) float64 {
			brown = 0.998*brown + 0.02*random
			return brown * (1 + 0.5*tone(at, 0.2))
		},
		"mains hum": func(at, _ float64) float64 { return 0.1*tone(at, 50) + 0.05*tone(at, 100) + 0.02*tone(at, 150) },
		"breathing": func(at, random float64) float64 {
			low = 0.7*low + 0.3*random
			return 0.15 * low * max(0, tone(at, 0.25))
		},
		"one tone": func(at, _ float64) float64 { return 0.3 * tone(at, 440) },
		"a melody": func(at, _ float64) float64 {
			return 0.3 * pulse(at, 0.5, 0.3) * (tone(at, note(at)) + 0.4*tone(at, 2*note(at)))
		},
		"chords, drums": func(at, random float64) float64 {
			chord := tone(at, note(at)) + tone(at, 1.25*note(at)) + tone(at, 1.5*note(at))
			return 0.12*chord*pulse(at, 1, 0.8) + 0.3*pulse(at, 0.5, 0.04)*random
		},
		"keys": func(at, random float64) float64 { return 0.5 * pulse(at, 0.23, 0.004) * random },
		"a telephone": func(at, _ float64) float64 {
			return 0.2 * max(0, math.Copysign(1, math.Mod(at, 3)-2)) * (tone(at, 440) + tone(at, 480))
		},
		"a siren": func(at, _ float64) float64 {
			return 0.3 * math.Sin(2*math.Pi*(900*at+300/(2*math.Pi*0.3)*math.Sin(2*math.Pi*0.3*at)))
		},
		"an engine": func(at, random float64) float64 {
			band = 0.9*band + 0.1*random
			return 0.5 * (1 + tone(at, 23)) * (band + 0.1*tone(at, 92))
		},
		"rain and thunder": func(at, random float64) float64 {
			brown = 0.995*brown + 0.01*random
			return 0.05*random + brown*pulse(at, 7, 2)
		},
	}
}

// TestNothingIsInvented: sound without speech, of 15 seconds each, has no text.
func TestNothingIsInvented(t *testing.T) {
	const length, rate = 15 * time.Second, 16000
	random := rand.New(rand.NewPCG(4, 2))
	for name, sample := range nobody() {
		t.Run(name, func(t *testing.T) {
			sound := make(clips.Sound, int(length.Seconds()*rate))
			for i := range sound {
				v := sample(float64(i)/rate, 2*random.Float64()-1)
				sound[i] = int16(32767 * max(-1, min(1, v)))
			}
			path := filepath.Join(t.TempDir(), "nobody.wav")
			if err := sound.WriteWAV(path); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(text(t, load(t, path), openai.AudioResponseFormatText)); got != "" {
				t.Errorf("heard %q", got)
			}
		})
	}
}
