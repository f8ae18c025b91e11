package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
)

// measurement is a run and what it found.
type measurement struct {
	settings settings
	peer     peer.Peer
	samples  []sample
	progress io.Writer

	ours    appliance.Identity
	latency []latency
	memory  memory
	start   starts
}

// latency is the times of one sample, in the order they were taken.
type latency struct {
	sample       sample
	ours, theirs []time.Duration
	sameText     bool
}

// memory is resident bytes.
type memory struct{ oursIdle, oursLoaded, oursUnloaded, theirsStarted, theirsLoaded int64 }

// starts are times from the start of a process.
type starts struct {
	ours      []time.Duration // to the first 200 of /health
	oursText  []time.Duration // to the first text of the shortest sample
	theirs    []time.Duration // to the first answer of any kind; the model is read by then
	theirText []time.Duration // to the first text
}

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.progress, program+": "+format+"\n", args...)
}

// all measures everything: the starts, each on a fresh process, then speed and
// memory with both sides up.
func (m *measurement) all(ctx context.Context) error {
	for i := range m.settings.starts {
		m.say("start %d/%d", i+1, m.settings.starts)
		if err := m.startOurs(ctx); err != nil {
			return err
		}
		if err := m.startTheirs(ctx); err != nil {
			return err
		}
	}
	ours, err := m.launch(ctx)
	if err != nil {
		return err
	}
	theirs, err := m.peer.Server(ctx, m.model(), m.settings.theirArgs()...)
	if err != nil {
		return errors.Join(err, ours.Stop())
	}
	defer theirs.Stop()
	return errors.Join(m.sideBySide(ctx, ours, theirs), ours.Stop())
}

func (m *measurement) model() string {
	return appliance.ModelFile(m.settings.root, m.settings.model)
}

func (m *measurement) launch(ctx context.Context) (*appliance.Appliance, error) {
	return appliance.Start(ctx, appliance.Options{Root: m.settings.root, Model: m.settings.model, Env: m.settings.oursEnv()})
}

// startOurs starts and stops an appliance.
func (m *measurement) startOurs(ctx context.Context) error {
	a, err := m.launch(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	_, err = clips.Do(ctx, http.MethodGet, a.URL+"/health", "", "", nil)
	health := a.Started + time.Since(begin)
	if err == nil {
		_, _, err = m.oursOf(a, m.samples[0]).Transcribe(ctx)
		m.start.ours = append(m.start.ours, health)
		m.start.oursText = append(m.start.oursText, a.Started+time.Since(begin))
	}
	return errors.Join(err, a.Stop())
}

// startTheirs starts and stops a whisper-server.
func (m *measurement) startTheirs(ctx context.Context) error {
	s, err := m.peer.Server(ctx, m.model(), m.settings.theirArgs()...)
	if err != nil {
		return err
	}
	defer s.Stop()
	m.start.theirs = append(m.start.theirs, s.Started)
	_, took, err := theirsOf(s, m.samples[0]).Transcribe(ctx)
	m.start.theirText = append(m.start.theirText, s.Started+took)
	return err
}

// sideBySide measures memory and speed. The first transcription of each side
// loads its model and warms its caches; it is not counted.
func (m *measurement) sideBySide(ctx context.Context, ours *appliance.Appliance, theirs *peer.Server) (err error) {
	if m.memory.oursIdle, err = ours.PSS(); err != nil {
		return err
	}
	if m.memory.theirsStarted, err = appliance.PSS(theirs.PID); err != nil {
		return err
	}
	for _, s := range m.samples {
		l, err := m.inTurn(ctx, s, m.oursOf(ours, s), theirsOf(theirs, s))
		if err != nil {
			return err
		}
		m.latency = append(m.latency, l)
	}
	if m.memory.oursLoaded, err = ours.PSS(); err != nil {
		return err
	}
	if m.memory.theirsLoaded, err = appliance.PSS(theirs.PID); err != nil {
		return err
	}
	if m.ours, err = ours.Identify(ctx); err != nil {
		return err
	}
	if err := ours.Unload(ctx); err != nil {
		return err
	}
	m.memory.oursUnloaded, err = ours.PSS()
	return err
}

// inTurn times a sample: ours, theirs, ours, theirs.
func (m *measurement) inTurn(ctx context.Context, s sample, ours, theirs clips.Request) (latency, error) {
	l := latency{sample: s}
	for i := range m.settings.runs + 1 {
		ourText, ourTime, err := ours.Transcribe(ctx)
		if err != nil {
			return l, fmt.Errorf("ours: %w", err)
		}
		theirText, theirTime, err := theirs.Transcribe(ctx)
		if err != nil {
			return l, fmt.Errorf("theirs: %w", err)
		}
		if i == 0 { // not counted
			l.sameText = score.Normalize("en", ourText) == score.Normalize("en", theirText)
			continue
		}
		l.ours, l.theirs = append(l.ours, ourTime), append(l.theirs, theirTime)
		m.say("%s %d/%d: ours %v, theirs %v", s.name, i, m.settings.runs, ourTime.Round(time.Millisecond), theirTime.Round(time.Millisecond))
	}
	return l, nil
}

func (m *measurement) oursOf(a *appliance.Appliance, s sample) clips.Request {
	return clips.Request{URL: a.URL + "/v1/audio/transcriptions", Key: a.Key, Path: s.path, Fields: map[string]string{
		"model": m.settings.model, "language": "en", "temperature": "0", "response_format": "json",
	}}
}

func theirsOf(s *peer.Server, sample sample) clips.Request {
	return clips.Request{URL: s.URL, Path: sample.path, Fields: map[string]string{
		"language": "en", "temperature": "0", "temperature_inc": "0.2", "response_format": "json",
	}}
}
