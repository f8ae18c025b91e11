package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"whisper-appliance/tests/clips"
)

// part is one line of the plan: a recording on a model.
type part struct {
	model  string
	sample string
	runs   int
	beam   bool // beside whisper-server with beam search, too
}

// plan is what is measured, the short ones of a model first: memory that the
// long ones take need not come back.
func (s settings) plan() []part {
	list := []part{
		{"tiny", threeSeconds, 10, s.full},
		{"tiny", elevenSeconds, 10, s.full},
		{"tiny", oneMinute, 10, s.full},
		{"tiny", tenMinutes, 3, true},
		{"tiny", oneHour, 1, true},
		{"base", threeSeconds, 10, s.full},
		{"base", elevenSeconds, 10, s.full},
		{"base", tenMinutes, 1, true},
	}
	if s.quick {
		for i := range list {
			list[i].runs = 1
		}
	}
	return slices.DeleteFunc(list, func(p part) bool { return s.model != "" && p.model != s.model })
}

// leftOut says in words what the plan does without; "" = nothing.
func (s settings) leftOut() string {
	switch {
	case s.quick:
		return "a quick look: one run of each, long recordings cut to a tenth; its figures say little"
	case !s.full:
		return "left out for time, and in bench-full: beam search on recordings of a minute and less"
	}
	return ""
}

// The recordings' names, which are their lengths or nearly so.
const (
	threeSeconds  = "3 s"
	elevenSeconds = "11 s"
	oneMinute     = "1 min"
	tenMinutes    = "10 min"
	oneHour       = "1 h"
)

// short is up to which length a recording is a short one.
const short = 11 * time.Second

// reference is the clip that the repository has of its own.
var reference = filepath.Join("tests", "testdata", "reference.wav")

// sample is a recording that all sides transcribe.
type sample struct {
	name     string
	path     string
	text     string // what is said in it; "" = not known
	duration time.Duration
}

// makeSamples writes the samples into dir. They are made of the English clips
// beside the repository, or of the reference clip said again and again where
// those are not there.
func makeSamples(ctx context.Context, root, dir string, quick bool) ([]sample, error) {
	const pause, seed = 300 * time.Millisecond, 1
	list, err := clips.English(ctx, root)
	known := err == nil
	if !known {
		said, readErr := clips.Read(ctx, filepath.Join(root, reference))
		if readErr != nil {
			return nil, fmt.Errorf("%w; without them the samples are made of %s: %w", err, reference, readErr)
		}
		list = []clips.Spoken{{Sound: said}}
	}
	// The clips beside the repository last 4.5 s on average.
	tenMinutesOf, hourOf := clips.Shuffled(list, 104), clips.Shuffled(list, 302)
	if quick {
		tenMinutesOf, hourOf = tenMinutesOf[:10], hourOf[:30]
	}
	var samples []sample
	for _, s := range []struct {
		name   string
		spoken clips.Spoken
	}{
		{threeSeconds, clips.Within(list, 3*time.Second).Fit(3 * time.Second)},
		{elevenSeconds, eleven(list, known, pause)},
		{oneMinute, clips.Fill(clips.Shuffled(list, 100), time.Minute, pause)},
		{tenMinutes, clips.Together(tenMinutesOf, pause, 3*time.Second, seed)},
		{oneHour, clips.Together(hourOf, 2*time.Second, 14*time.Second, seed)},
	} {
		made := sample{s.name, filepath.Join(dir, fmt.Sprintf("%d.wav", len(samples))), s.spoken.Text, s.spoken.Sound.Duration()}
		if err := s.spoken.Sound.WriteWAV(made.path); err != nil {
			return nil, err
		}
		samples = append(samples, made)
	}
	return samples, nil
}

// eleven is a recording of 11 s: one clip where there is such a one, or several.
func eleven(list []clips.Spoken, known bool, pause time.Duration) clips.Spoken {
	const length = 11 * time.Second
	if known {
		return clips.Within(list, length).Fit(length)
	}
	return clips.Fill(clips.Shuffled(list, 100), length, pause)
}
