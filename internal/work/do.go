package work

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// poisonous is how often in a row the server may go while it does a job, without
// a window being done: the job may be what ends it.
const poisonous = 5

// do does a job that was claimed, to its end or that of the desk.
func (d *Desk) do(j job.Job, l *place) {
	ctx, cancel := context.WithCancelCause(d.base)
	defer cancel(nil)
	if !j.Deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, j.Deadline, errLate)
		defer stop()
	}
	leave := d.enter(j.ID, cancel)
	defer leave()
	log := d.Log.With("job", j.ID)
	stop := d.keepAlive(ctx, j.ID, cancel)
	defer stop()
	log.Info("job begun", "name", logged(j), "owner", j.Owner, "windows_done", j.WindowsDone, "attempt", j.Attempts)
	began := time.Now()
	result, err := d.attempt(ctx, j, l)
	if err := d.settle(ctx, j, result, err, time.Since(began)); err != nil {
		log.Error("what came of the job cannot be stored", "error", err)
	}
	token(d.untold)
}

// logged is a job's name for the log. That of one from a URL is part of it, and may
// be what lets somebody in.
func logged(j job.Job) string {
	if j.Source != "" {
		return outbound.Host(j.Source)
	}
	return j.Name
}

// Pauses before something that may pass is tried again.
const (
	pauseLeast = time.Second
	pauseMost  = time.Minute
)

// attempt does the job.
func (d *Desk) attempt(ctx context.Context, j job.Job, l *place) (result *transcript.Transcript, err error) {
	if j.Crashes > poisonous {
		return nil, fault.New(fault.Internal, "job_interrupted", "the server went %d times while it did the job, without coming any further", j.Crashes).
			Try("the log says how; send the recording again once that is mended")
	}
	if away(j) {
		if j, err = d.bring(ctx, j, l); err != nil {
			return nil, err
		}
	}
	l.here()
	err = d.patiently(ctx, &j, l, triesFor, func() (err error) {
		result, err = d.once(ctx, j)
		return err
	})
	return result, err
}

// patiently does what a job needs, again after a while where something was missing
// that comes back by itself, most times in all: an outage holds a job up. j is then
// as it has become meanwhile.
func (d *Desk) patiently(ctx context.Context, j *job.Job, l *place, most func(error) int, do func() error) error {
	for tries := 1; ; tries++ {
		err := guarded(do)
		if err == nil || ctx.Err() != nil || !passing(err) || tries >= most(err) {
			return err
		}
		pause := max(min(d.pause<<min(tries-1, 10), pauseMost), min(afterOf(err), pauseMost))
		d.Log.Warn("job held up; trying again", "job", j.ID, "error", err, "after", pause)
		d.held(j.ID, err)
		l.rest()
		*j, err = d.again(ctx, *j, pause)
		l.wake(ctx)
		if err != nil {
			return err
		}
	}
}

// guarded makes a panic a job's failure, and not the server's end.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return do()
}

// afterOf is when who failed so wants to be asked again, 0 where it does not say.
func afterOf(err error) time.Duration {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.After
	}
	return 0
}

// again waits, and gives the job with the windows that it has come to: without
// them one would be done twice.
func (d *Desk) again(ctx context.Context, j job.Job, pause time.Duration) (job.Job, error) {
	for {
		sleep(ctx, pause)
		now, err := d.Store.Get(ctx, j.ID)
		switch {
		case err == nil:
			return now, nil
		case ctx.Err() != nil || !passing(err):
			return j, err
		}
	}
}

// passing tells whether an error may have gone when the job is tried again.
func passing(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.NoSpace || kind == fault.Busy
}

// triesFor is how often a job is tried that fails so: what the recording itself
// may be to blame for, a few times.
func triesFor(err error) int {
	switch job.FailureOf(err).Code {
	case "engine_crashed", "no_memory":
		return triesOfEngine
	}
	return math.MaxInt
}

// once does the job from its last stored window on.
func (d *Desk) once(ctx context.Context, j job.Job) (*transcript.Transcript, error) {
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
	t.Name, t.ID, t.Owner, t.Class, t.Patient = j.Name, j.ID, j.Owner, schedule.Class(j.Class), true
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
func (d *Desk) settle(ctx context.Context, j job.Job, result *transcript.Transcript, err error, took time.Duration) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	log := d.Log.With("job", j.ID)
	switch {
	case err == nil:
		d.ended(j, took, result, nil)
		return d.finish(ctx, j, result)
	case errors.Is(err, job.ErrLost), errors.Is(cause, job.ErrLost):
		log.Warn("another worker has the job now")
		return nil
	case errors.Is(cause, errAsked), errors.Is(err, errAsked):
		log.Info("job cancelled")
		return d.Store.Requeue(ctx, j.ID, d.Self)
	case errors.Is(cause, errLate):
		err = fault.New(fault.Unavailable, "deadline_passed", "the job's time was over before it was done").
			Try("try again, with more time or when less is going on")
	case cause != nil:
		log.Info("job interrupted; it goes on at its next window")
		return d.Store.Requeue(ctx, j.ID, d.Self)
	}
	f := job.FailureOf(err)
	log.Error("job failed", "code", f.Code, "error", err)
	d.ended(j, took, nil, err)
	return d.Store.Fail(ctx, j.ID, d.Self, f)
}

// ended tells who counts.
func (d *Desk) ended(j job.Job, took time.Duration, result *transcript.Transcript, err error) {
	if d.Ended != nil {
		d.Ended(transcribe.Job{ID: j.ID, Model: j.Model}, took, result, err)
	}
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
	return d.dropMedia(ctx, j.ID)
}

// dropMedia removes the recording of a job that has ended.
func (d *Desk) dropMedia(ctx context.Context, id string) error {
	media, err := d.Store.DropMedia(ctx, id)
	if err != nil {
		return err
	}
	return d.remove(media)
}

// dropSpent removes the recordings of jobs that are done whose worker was ended
// before it could. A job that somebody has deleted meanwhile has none.
func (d *Desk) dropSpent(ctx context.Context) error {
	for {
		spent, err := d.Store.Spent(ctx)
		if err != nil || len(spent) == 0 {
			return err
		}
		for _, id := range spent {
			if err := d.dropMedia(ctx, id); err != nil && fault.KindOf(err) != fault.NotFound {
				return err
			}
		}
	}
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

// storeTime is how long a write may take before the job is held up: it holds a
// place, and may hold a turn.
const storeTime = 15 * time.Second

// store writes, within storeTime.
func (k *keeper) store(write func(ctx context.Context) (canceling bool, err error)) error {
	ctx, cancel := context.WithTimeout(k.ctx, storeTime)
	defer cancel()
	canceling, err := write(ctx)
	switch {
	case err != nil && ctx.Err() != nil && k.ctx.Err() == nil:
		return fault.New(fault.Unavailable, "database_slow", "the database took more than %v for a write", storeTime).Because(err)
	case err == nil && canceling:
		return errAsked
	}
	return err
}

// Plan is transcribe.Keeper's.
func (k *keeper) Plan(p transcribe.Plan) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return k.store(func(ctx context.Context) (bool, error) {
		return k.desk.Store.Plan(ctx, k.id, k.desk.Self, p.Duration, data)
	})
}

// Window is transcribe.Keeper's. One that is there already was stored by a write
// whose answer got lost: it is the same.
func (k *keeper) Window(f transcribe.Finished) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	err = k.store(func(ctx context.Context) (bool, error) {
		return k.desk.Store.Window(ctx, k.id, k.desk.Self,
			job.Window{Index: k.next, Start: f.Start, End: f.End, Result: data}, f.Language)
	})
	if errors.Is(err, job.ErrStored) {
		err = nil
	}
	if err == nil {
		k.next++
		k.desk.tell(k.id)
	}
	return err
}
