package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/clips"
)

// pause lies between the clips of a joined sample.
const pause = 300 * time.Millisecond

// reference is the clip that the repository has of its own.
var reference = filepath.Join("tests", "testdata", "reference.wav")

// sample is a recording that both sides transcribe.
type sample struct {
	name     string
	path     string
	duration time.Duration
}

// makeSamples writes the samples into dir: of 3, 11 and 60 seconds. They are
// made of the English clips beside the repository, or of the reference clip
// said again and again where those are not there.
func makeSamples(ctx context.Context, root, dir string) ([]sample, error) {
	short, middle, many, err := sounds(ctx, root)
	if err != nil {
		return nil, err
	}
	var list []sample
	for _, s := range []struct {
		seconds int
		sound   clips.Sound
	}{{3, short}, {11, middle}, {60, clips.Join(many, pause, pause, 0)}} {
		made := sample{fmt.Sprintf("%d s", s.seconds), filepath.Join(dir, fmt.Sprintf("%ds.wav", s.seconds)), time.Duration(s.seconds) * time.Second}
		if err := s.sound.Fit(made.duration).WriteWAV(made.path); err != nil {
			return nil, err
		}
		list = append(list, made)
	}
	return list, nil
}

// sounds gives what the samples are made of.
func sounds(ctx context.Context, root string) (short, middle clips.Sound, many []clips.Sound, err error) {
	shared, err := clips.Shared(root)
	if err != nil {
		said, err := clips.Read(ctx, filepath.Join(root, reference))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("without ../shared/speech the samples are made of %s: %w", reference, err)
		}
		many = slices.Repeat([]clips.Sound{said}, int(time.Minute/said.Duration())+1)
		return said, clips.Join(many, pause, pause, 0), many, nil
	}
	list, err := score.Manifest(filepath.Join(shared, clips.Manifest))
	if err != nil {
		return nil, nil, nil, err
	}
	for _, c := range list {
		if c.Language != "en" || c.Excluded != "" {
			continue
		}
		sound, err := clips.Read(ctx, c.Path)
		if err != nil {
			return nil, nil, nil, err
		}
		many = append(many, sound)
	}
	if len(many) == 0 {
		return nil, nil, nil, fmt.Errorf("%s names no English clip", clips.Manifest)
	}
	return nearest(many, 3*time.Second), nearest(many, 11*time.Second), many, nil
}

// nearest is the sound that lasts about as long as d.
func nearest(list []clips.Sound, d time.Duration) clips.Sound {
	return slices.MinFunc(list, func(a, b clips.Sound) int {
		return int((a.Duration() - d).Abs() - (b.Duration() - d).Abs())
	})
}
