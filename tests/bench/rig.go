package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"whisper-appliance/tests/appliance"
	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/peer"
	"whisper-appliance/tests/report"
)

// rig starts what is measured: the real appliance and the real whisper-server.
type rig struct {
	settings settings
	peer     peer.Peer

	ours   appliance.Identity
	starts starts
	memory memory
}

// starts are times from the start of a process.
type starts struct {
	ours      []time.Duration // to the first 200 of /health
	oursText  []time.Duration // to the first text of the shortest sample
	theirs    []time.Duration // to the first answer of any kind; the model is read by then
	theirText []time.Duration // to the first text
}

// memory is resident bytes on the model that was measured first.
type memory struct{ oursIdle, oursLoaded, oursUnloaded, theirsStarted, theirsLoaded int64 }

func (r *rig) appliance(ctx context.Context, model string) (*appliance.Appliance, error) {
	return appliance.Start(ctx, appliance.Options{Root: r.settings.root, Model: model, Env: r.settings.oursEnv()})
}

func (r *rig) server(ctx context.Context, model, beam string) (*peer.Server, error) {
	return r.peer.Server(ctx, appliance.ModelFile(r.settings.root, model), r.settings.theirArgs(beam)...)
}

// launch starts all sides on a model.
func (r *rig) launch(ctx context.Context, model string) ([]side, func() error, error) {
	a, err := r.appliance(ctx, model)
	if err != nil {
		return nil, nil, err
	}
	plain, err := r.server(ctx, model, "1")
	if err != nil {
		return nil, nil, errors.Join(err, a.Stop())
	}
	search, err := r.server(ctx, model, beamSize)
	if err != nil {
		plain.Stop()
		return nil, nil, errors.Join(err, a.Stop())
	}
	stop := func() error {
		defer search.Stop()
		defer plain.Stop()
		return errors.Join(r.after(ctx, a, plain), a.Stop())
	}
	list := []side{ours: r.oursOf(a, model), greedy: theirsOf("theirs", plain), beam: theirsOf("theirs, beam", search)}
	if err := r.before(a, plain); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return list, stop, nil
}

// before notes the memory of sides that have not transcribed yet.
func (r *rig) before(a *appliance.Appliance, theirs *peer.Server) (err error) {
	if r.memory.oursIdle != 0 {
		return nil
	}
	if r.memory.theirsStarted, err = appliance.PSS(theirs.PID); err != nil {
		return err
	}
	r.memory.oursIdle, err = a.PSS()
	return err
}

// after notes the memory of sides that have, and what ours is.
func (r *rig) after(ctx context.Context, a *appliance.Appliance, theirs *peer.Server) (err error) {
	if r.ours.Commit != "" || ctx.Err() != nil {
		return nil
	}
	if r.memory.theirsLoaded, err = appliance.PSS(theirs.PID); err != nil {
		return err
	}
	if r.memory.oursLoaded, err = a.PSS(); err != nil {
		return err
	}
	if r.ours, err = a.Identify(ctx); err != nil {
		return err
	}
	if err := a.Unload(ctx); err != nil {
		return err
	}
	r.memory.oursUnloaded, err = a.PSS()
	return err
}

// start starts and stops each side once, on the first model.
func (r *rig) start(ctx context.Context, s sample) error {
	model := r.settings.plan()[0].model
	a, err := r.appliance(ctx, model)
	if err != nil {
		return err
	}
	begin := time.Now()
	_, err = clips.Do(ctx, http.MethodGet, a.URL+"/health", "", "", nil)
	health := a.Started + time.Since(begin)
	if err == nil {
		_, _, err = r.oursOf(a, model).request(s.path).Transcribe(ctx)
		r.starts.ours = append(r.starts.ours, health)
		r.starts.oursText = append(r.starts.oursText, a.Started+time.Since(begin))
	}
	if err := errors.Join(err, a.Stop()); err != nil {
		return err
	}
	theirs, err := r.server(ctx, model, "1")
	if err != nil {
		return err
	}
	defer theirs.Stop()
	_, took, err := theirsOf("theirs", theirs).request(s.path).Transcribe(ctx)
	r.starts.theirs = append(r.starts.theirs, theirs.Started)
	r.starts.theirText = append(r.starts.theirText, theirs.Started+took)
	return err
}

func (r *rig) oursOf(a *appliance.Appliance, model string) side {
	return side{
		name: "ours", spent: a.Spent, forget: a.ForgetPeak,
		request: func(path string) clips.Request {
			return clips.Request{URL: a.URL + "/v1/audio/transcriptions", Key: a.Key, Path: path, Fields: map[string]string{
				"model": model, "language": "en", "temperature": "0", "response_format": "json",
			}}
		},
	}
}

func theirsOf(name string, s *peer.Server) side {
	return side{
		name: name,
		spent: func() (time.Duration, int64, error) {
			cpu, peak := appliance.Spent(s.PID)
			return cpu, peak, nil
		},
		forget: func() error { return appliance.ForgetPeak(s.PID) },
		request: func(path string) clips.Request {
			return clips.Request{URL: s.URL, Path: path, Fields: map[string]string{
				"language": "en", "temperature": "0", "temperature_inc": "0.2", "response_format": "json",
			}}
		},
	}
}

// write puts the tables of starts and of memory at rest.
func (r *rig) write(out *report.Report) {
	model := r.settings.plan()[0].model
	out.Printf("\nstart with %s, median of %d\n", model, r.settings.starts)
	out.Table(func(row func(...any)) {
		row("", "ours", "theirs", "ratio", "")
		for _, t := range []struct {
			name, note   string
			ours, theirs []time.Duration
		}{
			{"process to first health answer", "ours has no model in memory by then, theirs has", r.starts.ours, r.starts.theirs},
			{"process to first text of " + threeSeconds, "the model is read on both sides", r.starts.oursText, r.starts.theirText},
		} {
			o, t2 := report.Median(t.ours), report.Median(t.theirs)
			row(t.name, seconds(o), seconds(t2), ratio(o, t2).String(), t.note)
		}
	})
	out.Printf("\nresident memory at rest with %s (Pss), ours with its engine\n", model)
	out.Table(func(row func(...any)) {
		row("", "ours", "theirs", "ratio", "")
		for _, t := range []struct {
			name, note   string
			ours, theirs int64
		}{
			{"started, nothing transcribed yet", "whisper-server always holds a model", r.memory.oursIdle, r.memory.theirsStarted},
			{"after the longest recording", "", r.memory.oursLoaded, r.memory.theirsLoaded},
			{"after unload", "whisper-server cannot unload", r.memory.oursUnloaded, r.memory.theirsLoaded},
		} {
			row(t.name, mib(t.ours), mib(t.theirs), ratio(t.ours, t.theirs).String(), t.note)
		}
	})
}
