package measure

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/internal/trial"
)

// watch is what was seen before a run, to be held against what is seen after it.
type watch struct {
	idle  bool
	cold  bool    // the engine does not run, or holds no model
	ended float64 // recordings that the server was done with
	waits time.Duration
}

// begin looks whether a run may begin.
func (c client) begin(ctx context.Context) (watch, error) {
	m, err := c.metrics(ctx)
	if err != nil {
		return watch{}, err
	}
	return watch{idle: m.idle() && c.besideIdle(ctx), cold: c.cold(ctx), ended: m.ended(), waits: waiting(c.s.Proc)}, nil
}

// waited is for how many seconds since w work has waited for a processor.
func (c client) waited(w watch) float64 { return max(0, (waiting(c.s.Proc) - w.waits).Seconds()) }

// alone reports whether nobody else has used the engine since w.
func (c client) alone(ctx context.Context, w watch) bool {
	m, err := c.metrics(ctx)
	return err == nil && w.idle && m.idle() && m.ended()-w.ended == 1 && c.besideIdle(ctx)
}

// besideIdle reports whether no other server of this machine works. One that
// does not answer does not.
func (c client) besideIdle(ctx context.Context) bool {
	for _, socket := range c.s.Beside {
		other := Server{Socket: socket, Key: c.s.Key}.client()
		m, err := other.metrics(ctx)
		other.close()
		if err == nil && !m.idle() {
			return false
		}
	}
	return true
}

// cold asks for the engine, which makes the server look at it now.
func (c client) cold(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	h, err := c.short(ctx)
	return err != nil || !h.Model.Loaded
}

// Unload has the engine give its model back, so that the next run is a cold
// one. It needs an admin, and an engine that nobody uses: after Wait the error
// is a fault of kind Busy with the code "engine_busy".
func (s Server) Unload(ctx context.Context) error {
	c := s.client()
	defer c.close()
	w, err := c.whenIdle(ctx)
	if err != nil {
		return err
	}
	if !w.idle {
		return fault.New(fault.Busy, "engine_busy", "somebody uses the engine").Try("try again later")
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Base+"/api/v1/engine/unload", nil)
	if err != nil {
		return err
	}
	if s.Key != "" {
		req.Header.Set("Authorization", "Bearer "+s.Key)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("unload the engine: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return nil
	}
	var e api.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&e); err != nil || e.Error == "" {
		e.Error, e.Code = "the engine is not unloaded: "+resp.Status, "bad_answer"
	}
	return &fault.Error{Kind: fault.OfStatus(resp.StatusCode), Code: e.Code, Message: e.Error, Hint: e.Hint}
}

// Runs has the reference clip transcribed n times, one after the other, and
// tells each as it ends (tell may be nil). It ends early with one that could not
// be made, because somebody else wanted the engine for longer than Wait, or for
// want of a model or memory; and with ctx.
func (s Server) Runs(ctx context.Context, n int, tell func(trial.Run)) []trial.Run {
	c := s.client()
	defer c.close()
	var runs []trial.Run
	for len(runs) < n {
		r := c.run(ctx, Recording{})
		if ctx.Err() != nil {
			break
		}
		runs = append(runs, r)
		if tell != nil {
			tell(r)
		}
		if hopeless(r.Problem) {
			break
		}
	}
	return runs
}

// Recording is one that is not the reference clip.
type Recording struct {
	Path string // of the file; "" = the reference clip
}

// Time has one recording transcribed, like a run of Runs. Whether its text is
// right nobody knows: it is where there is any.
func (s Server) Time(ctx context.Context, recording Recording) trial.Run {
	c := s.client()
	defer c.close()
	return c.run(ctx, recording)
}

// run makes one run, once nobody else wants the engine.
func (c client) run(ctx context.Context, recording Recording) trial.Run {
	w, err := c.whenIdle(ctx)
	if err != nil {
		return failed(err)
	}
	if !w.idle {
		return trial.Run{Problem: trial.Busy, Says: "somebody uses the engine"}
	}
	limited, cancel := context.WithTimeoutCause(ctx, cmp.Or(c.s.Limit, runLimit), errTooLong)
	defer cancel()
	began := time.Now()
	text, sound, err := c.transcribe(limited, recording)
	took, waited := time.Since(began), c.waited(w)
	if err != nil {
		return failed(err)
	}
	right := text != ""
	if recording.Path == "" {
		right = smoke.Right(text)
	}
	return trial.Run{
		Seconds: took.Seconds(), Waited: waited, Sound: sound.Seconds(), Idle: c.alone(ctx, w), Cold: w.cold, Right: right, Says: fault.Short(text),
	}
}

var errTooLong = fault.New(fault.Unavailable, "timeout", "it took too long")

// transcribe gives what was heard, and how long the recording is.
func (c client) transcribe(ctx context.Context, recording Recording) (text string, sound time.Duration, err error) {
	q := api.Request{Path: recording.Path}
	if q.Path != "" {
		heard, err := c.Transcribe(ctx, q, func(int64, int64) {}, nil)
		if err != nil {
			return "", 0, err
		}
		return strings.TrimSpace(heard.Text()), heard.Duration, nil
	}
	clip, size := smoke.Clip()
	q.Path, q.Language = "reference.wav", "en"
	heard, err := c.TranscribeFrom(ctx, clip, size, q, func(int64) {}, nil)
	if err != nil {
		return "", 0, err
	}
	return strings.TrimSpace(heard.Text()), smoke.Length, nil
}

// whenIdle waits for the engine to be idle, for as long as Wait.
func (c client) whenIdle(ctx context.Context) (watch, error) {
	deadline := time.Now().Add(c.s.Wait)
	for {
		w, err := c.begin(ctx)
		if err != nil || w.idle || !time.Now().Before(deadline) {
			return w, err
		}
		pause := time.NewTimer(idlePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return w, context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// failed is a run without a text: whose fault that is stands in its problem.
func failed(err error) trial.Run {
	r := trial.Run{Problem: "failed", Says: err.Error()}
	var f *fault.Error
	worded := errors.As(err, &f)
	switch {
	case errors.Is(err, api.ErrCutOff), errors.Is(err, io.ErrUnexpectedEOF), worded && f.Code == "engine_crashed":
		r.Problem = trial.Crashed
	case worded && f.Kind == fault.Busy:
		r.Problem = trial.Busy
	case worded && (f.Kind == fault.NoSpace || f.Code == "low_memory" || f.Code == "no_memory"):
		r.Problem = trial.LowMemory
	case worded && f.Code == codeNoModel:
		r.Problem = trial.NoModel
	case worded && f.Code != "":
		r.Problem = f.Code
	}
	return r
}
