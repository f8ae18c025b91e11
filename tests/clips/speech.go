package clips

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/score"
)

// Spoken is a sound and what is said in it; an empty text is one that nobody
// has written down.
type Spoken struct {
	Sound Sound
	Text  string
}

// English are the English recordings of the directory that Shared finds, those
// that count, in the table's order. The error says what is missing.
func English(ctx context.Context, root string) ([]Spoken, error) {
	shared, err := Shared(root)
	if err != nil {
		return nil, err
	}
	list, err := score.Manifest(filepath.Join(shared, Manifest))
	if err != nil {
		return nil, err
	}
	var spoken []Spoken
	for _, c := range list {
		if c.Language != "en" || c.Excluded != "" {
			continue
		}
		sound, err := Read(ctx, c.Path)
		if err != nil {
			return nil, err
		}
		spoken = append(spoken, Spoken{sound, c.Reference})
	}
	if len(spoken) == 0 {
		return nil, fmt.Errorf("%s names no English clip", Manifest)
	}
	return spoken, nil
}

// Fit is the recording that lasts exactly d, as Sound.Fit makes it. What is
// said in one that was cut nobody knows.
func (s Spoken) Fit(d time.Duration) Spoken {
	if s.Sound.Duration() > d {
		s.Text = ""
	}
	s.Sound = s.Sound.Fit(d)
	return s
}

// Within is the longest recording that lasts no longer than d, or the shortest
// where all do. There must be one.
func Within(list []Spoken, d time.Duration) Spoken {
	return slices.MaxFunc(list, func(a, b Spoken) int {
		rank := func(s Spoken) time.Duration {
			if over := s.Sound.Duration() - d; over > 0 {
				return -over
			}
			return s.Sound.Duration()
		}
		return int(rank(a) - rank(b))
	})
}

// Together joins recordings as Join does, and their texts.
func Together(list []Spoken, shortest, longest time.Duration, seed uint64) Spoken {
	var sounds []Sound
	var texts []string
	for _, s := range list {
		sounds, texts = append(sounds, s.Sound), append(texts, s.Text)
	}
	return Spoken{Join(sounds, shortest, longest, seed), strings.TrimSpace(strings.Join(texts, " "))}
}

// Fill is Together of as many recordings as fit into d as a whole, with pauses
// of one length, filled up to d with silence.
func Fill(list []Spoken, d, pause time.Duration) Spoken {
	n, sum := 0, -pause
	for n < len(list) && sum+pause+list[n].Sound.Duration() <= d {
		sum += pause + list[n].Sound.Duration()
		n++
	}
	return Together(list[:max(n, min(1, len(list)))], pause, pause, 0).Fit(d)
}

// Shuffled is n of a list: all in one order, all in another, and so on. The
// same at every run.
func Shuffled[T any](list []T, n int) []T {
	const seed, stream = 1, 7
	random := rand.New(rand.NewPCG(seed, stream))
	var order []T
	for len(list) > 0 && len(order) < n {
		for _, i := range random.Perm(len(list)) {
			order = append(order, list[i])
		}
	}
	return order[:min(n, len(order))]
}
