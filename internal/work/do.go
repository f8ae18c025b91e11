package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// poisonous is how often a job is begun that never comes to its first window: it
// may be what ends the server each time.
const poisonous = 8

// pauseMost is the longest pause before something that may pass is tried again:
// the last of pauses that double, so a job is held up for about a minute.
const pauseMost = 32 * time.Second

// do does a job that was claimed, to its end or that of ctx.
func (d *Desk) do(ctx context.Context, j job.Job) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	leave := d.enter(j.ID, cancel)
	defer leave()
	log := d.Log.With("job", j.ID)
	stop := d.keepAlive(ctx, j.ID, cancel)
	defer stop()
	log.Info("job begun", "name", j.Name, "owner", j.Owner, "windows_done", j.WindowsDone, "attempt", j.Attempts)
	result, err := d.attempt(ctx, j)
	if err := d.settle(ctx, j, result, err); err != nil {
		log.Error("what came of the job cannot be stored", "error", err)
	}
}

// attempt does the job, again after a while where something was missing that
// comes back by itself.
func (d *Desk) attempt(ctx context.Context, j job.Job) (*transcript.Transcript, error) {
	if j.WindowsDone == 0 && j.Attempts > poisonous {
		return nil, fault.New(fault.Internal, "job_interrupted", "the job was begun %d times and never came to an end", j.Attempts-1).
			Try("the log says how; send the recording again once that is mended")
	}
	for pause := time.Second; ; pause *= 2 {
		result, err := d.once(ctx, j)
		if err == nil || ctx.Err() != nil || !passing(err) || pause > pauseMost {
			return result, err
		}
		d.Log.Warn("job held up; trying again", "job", j.ID, "error", err, "after", pause)
		sleep(ctx, pause)
		if now, err := d.Store.Get(ctx, j.ID); err == nil {
			j = now // with the windows that it came to
		}
	}
}

// passing tells whether an error may have gone when the job is tried again.
func passing(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.NoSpace || kind == fault.Busy
}

// once does the job from its last stored window on. A panic is this job's
// failure and not the server's end.
func (d *Desk) once(ctx context.Context, j job.Job) (result *transcript.Transcript, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	t, err := d.prepare(ctx, j)
	if err != nil {
		return nil, err
	}
	defer t.Audio.Close()
	return d.Service.Run(ctx, t, func(u transcribe.Update) { d.progress(j.ID, u) })
}

// prepare makes of what is stored what the service does.
func (d *Desk) prepare(ctx context.Context, j job.Job) (t transcribe.Job, err error) {
	if err := json.Unmarshal(j.Request, &t); err != nil {
		return t, fmt.Errorf("request of job %s: %w", j.ID, err)
	}
	t.Name, t.ID, t.Owner, t.Class = j.Name, j.ID, j.Owner, schedule.Class(j.Class)
	k := &keeper{ctx: ctx, desk: d, id: j.ID}
	t.Keep = k
	if len(j.Plan) > 0 {
		t.Resume = &transcribe.Resume{}
		if err := json.Unmarshal(j.Plan, &t.Resume.Plan); err != nil {
			return t, fmt.Errorf("plan of job %s: %w", j.ID, err)
		}
		if t.Resume.Finished, err = d.Finished(ctx, j.ID, 0); err != nil {
			return t, err
		}
		k.next = len(t.Resume.Finished)
	}
	t.Audio, err = d.open(j)
	return t, err
}

// Finished are a job's windows that are stored, in their order, from an index on.
func (d *Desk) Finished(ctx context.Context, id string, from int) ([]transcribe.Finished, error) {
	stored, err := d.Store.Windows(ctx, id, from)
	if err != nil {
		return nil, err
	}
	all := make([]transcribe.Finished, len(stored))
	for i, w := range stored {
		if w.Index != from+i {
			return nil, fmt.Errorf("job %s: window %d is missing", id, from+i)
		}
		if err := json.Unmarshal(w.Result, &all[i]); err != nil {
			return nil, fmt.Errorf("window %d of job %s: %w", w.Index, id, err)
		}
	}
	return all, nil
}

// settleTime is how long storing the end of a job may take, after all else has ended.
const settleTime = 10 * time.Second

// settle stores what came of a job.
func (d *Desk) settle(ctx context.Context, j job.Job, result *transcript.Transcript, err error) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	switch {
	case err == nil:
		return d.finish(ctx, j, result)
	case errors.Is(err, job.ErrLost), errors.Is(cause, job.ErrLost):
		d.Log.Warn("another worker has the job now", "job", j.ID)
		return nil
	case errors.Is(cause, errAsked), errors.Is(err, errAsked):
		d.Log.Info("job cancelled", "job", j.ID)
		return d.Store.Requeue(ctx, j.ID, d.Self)
	case cause != nil:
		d.Log.Info("job interrupted; it goes on at its next window", "job", j.ID)
		return d.Store.Requeue(ctx, j.ID, d.Self)
	}
	f := job.FailureOf(err)
	d.Log.Error("job failed", "job", j.ID, "code", f.Code, "error", err)
	return d.Store.Fail(ctx, j.ID, d.Self, f)
}

// finish stores the transcript. The recording has served its purpose.
func (d *Desk) finish(ctx context.Context, j job.Job, result *transcript.Transcript) error {
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	if err := d.Store.Finish(ctx, j.ID, d.Self, data); err != nil {
		return err
	}
	d.Log.Info("job done", "job", j.ID, "model", result.Model, "language", result.Language,
		"audio_seconds", result.Duration.Seconds(), "segments", len(result.Segments))
	media, err := d.Store.DropMedia(ctx, j.ID)
	if err != nil {
		return err
	}
	return d.remove(media)
}

// keepAlive renews a job's lease, and ends the job where that is gone or a
// cancel was asked for.
func (d *Desk) keepAlive(ctx context.Context, id string, cancel context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			sleep(ctx, beat)
			if ctx.Err() != nil {
				return
			}
			canceling, err := d.Store.Renew(ctx, id, d.Self)
			switch {
			case canceling:
				cancel(errAsked)
			case errors.Is(err, job.ErrLost):
				cancel(err)
			case err != nil && ctx.Err() == nil:
				d.Log.Warn("the job's lease cannot be renewed", "job", id, "error", err)
			}
		}
	}()
	return func() { end(); <-gone }
}

// keeper stores a job's windows as they are done.
type keeper struct {
	ctx  context.Context
	desk *Desk
	id   string
	next int // index of the next window
}

// Plan is transcribe.Keeper's.
func (k *keeper) Plan(p transcribe.Plan) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	canceling, err := k.desk.Store.Plan(k.ctx, k.id, k.desk.Self, job.Plan{Duration: p.Duration, Plan: data})
	return asked(canceling, err)
}

// Window is transcribe.Keeper's.
func (k *keeper) Window(f transcribe.Finished) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	canceling, err := k.desk.Store.Window(k.ctx, k.id, k.desk.Self,
		job.Window{Index: k.next, Start: f.Start, End: f.End, Result: data}, f.Language)
	if err == nil {
		k.next++
		k.desk.tell(k.id)
	}
	return asked(canceling, err)
}

func asked(canceling bool, err error) error {
	if err == nil && canceling {
		return errAsked
	}
	return err
}
