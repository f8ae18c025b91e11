package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/clips"
)

// The sides, in the order in which they take turns.
const (
	ours = iota
	greedy
	beam
	sides
)

// side is a recogniser that runs, with its model in memory after the first
// recording.
type side struct {
	name    string
	request func(path string) clips.Request
	spent   func() (cpu time.Duration, peak int64, err error)
	forget  func() error // peak is counted from here on
}

// cost is one run.
type cost struct {
	took, cpu time.Duration
	peak      int64 // bytes resident at most
	text      string
}

// figures are the runs of a part, each side's in the order they were made.
type figures struct {
	part   part
	sample sample
	runs   [sides][]cost
}

// measurement is what is measured with and what was found.
type measurement struct {
	samples  []sample
	progress io.Writer
	// launch starts the sides that a model is measured on. stop ends them.
	launch func(ctx context.Context, model string) (list []side, stop func() error, err error)

	figures []figures
}

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.progress, program+": "+format+"\n", args...)
}

// all measures the plan, model by model.
func (m *measurement) all(ctx context.Context, plan []part) error {
	for len(plan) > 0 {
		n := slices.IndexFunc(plan, func(p part) bool { return p.model != plan[0].model })
		if n < 0 {
			n = len(plan)
		}
		list, stop, err := m.launch(ctx, plan[0].model)
		if err != nil {
			return err
		}
		for _, p := range plan[:n] {
			if err = m.one(ctx, p, list); err != nil {
				break
			}
		}
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		plan = plan[n:]
	}
	return nil
}

// one measures a part: all sides in turn, so often. Before that each has its
// model read and its memory warmed by the shortest sample and, where that is
// no matter of minutes, by the part's own.
func (m *measurement) one(ctx context.Context, p part, list []side) error {
	at := slices.IndexFunc(m.samples, func(s sample) bool { return s.name == p.sample })
	if at < 0 {
		return fmt.Errorf("there is no sample of %s", p.sample)
	}
	f := figures{part: p, sample: m.samples[at]}
	if !p.beam {
		list = list[:beam]
	}
	warm := m.samples[0]
	if f.sample.duration <= time.Minute {
		warm = f.sample
	}
	for _, s := range list {
		if _, _, err := s.request(warm.path).Transcribe(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for i := range p.runs {
		for k, s := range list {
			c, err := s.run(ctx, f.sample)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			f.runs[k] = append(f.runs[k], c)
			m.say("%s, %s, %d/%d: %s %.3f s", p.model, p.sample, i+1, p.runs, s.name, c.took.Seconds())
		}
	}
	m.figures = append(m.figures, f)
	return nil
}

// run transcribes a sample once.
func (s side) run(ctx context.Context, sample sample) (c cost, err error) {
	if err := s.forget(); err != nil {
		return c, fmt.Errorf("forget the memory used so far: %w", err)
	}
	before, _, err := s.spent()
	if err != nil {
		return c, err
	}
	if c.text, c.took, err = s.request(sample.path).Transcribe(ctx); err != nil {
		return c, err
	}
	c.cpu, c.peak, err = s.spent()
	c.cpu -= before
	return c, err
}

// took is the times of one side.
func (f figures) took(side int) (list []time.Duration) {
	for _, c := range f.runs[side] {
		list = append(list, c.took)
	}
	return list
}

// cpu is the processor times of one side.
func (f figures) cpu(side int) (list []time.Duration) {
	for _, c := range f.runs[side] {
		list = append(list, c.cpu)
	}
	return list
}

// peak is the most memory that one side had in any run, in bytes.
func (f figures) peak(side int) (most int64) {
	for _, c := range f.runs[side] {
		most = max(most, c.peak)
	}
	return most
}

// errors counts one side's word errors, those of all runs.
func (f figures) errors(side int) (sum score.Counts) {
	var text string
	var counts score.Counts
	for i, c := range f.runs[side] {
		if i == 0 || c.text != text { // most say the same again, and an hour's words are not counted in no time
			text, counts = c.text, score.Compare("en", f.sample.text, c.text)
		}
		sum = sum.Add(counts)
	}
	return sum
}

// sameText tells whether all runs of two sides gave one text.
func (f figures) sameText(a, b int) bool {
	all := slices.Concat(f.runs[a], f.runs[b])
	return !slices.ContainsFunc(all, func(c cost) bool {
		return score.Normalize("en", c.text) != score.Normalize("en", all[0].text)
	})
}
