package transcribe

import (
	"cmp"
	"context"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/schedule"
)

// shortRecording is the longest recording that is Short: one window, mostly.
const shortRecording = 30 * time.Second

// classify takes what is long for long.
func (r *run) classify() {
	if r.job.Class == schedule.Short && r.result.Duration > shortRecording && !r.job.OnlyLanguage {
		r.job.Class = schedule.Long
	}
}

// takeTurn waits for a turn at the engine for a window of a length. The one
// before is given back with that.
func (r *run) takeTurn(ctx context.Context, length time.Duration) (err error) {
	ask := schedule.Ask{Class: r.job.Class, Owner: cmp.Or(r.job.Share, r.job.Owner), Job: r.job.ID, Model: r.job.ModelFile, Length: length}
	if turn := r.turn; turn != nil {
		r.turn = nil
		r.turn, err = turn.Next(ctx, ask)
		return err
	}
	r.turn, err = r.Queue.Take(ctx, ask)
	return err
}

// lane is the engine's name of the lane that the turn is for.
func (r *run) lane() engine.Lane {
	if r.turn.Lane() == schedule.ShortLane {
		return engine.LaneShort
	}
	return engine.LaneLong
}

// rest gives the turn back, where there is one.
func (r *run) rest() {
	if r.turn != nil {
		r.turn.Give()
		r.turn = nil
	}
}

// decoders bounds how many recordings are decoded to PCM at once: each is an
// ffmpeg with its memory. Long ones have places of their own, so that short
// ones need not wait for them.
type decoders struct {
	setup        sync.Once
	small, large *semaphore.Weighted
}

// smallFile is the largest recording that counts as short, in bytes: a minute of
// CD quality.
const smallFile = 10 << 20

// take waits for a place; give gives it back. The error is that of ctx.
func (d *decoders) take(ctx context.Context, f *os.File) (give func(), err error) {
	d.setup.Do(func() {
		d.small = semaphore.NewWeighted(int64(max(2, runtime.NumCPU())))
		d.large = semaphore.NewWeighted(int64(max(1, runtime.NumCPU()/2)))
	})
	places := d.small
	if info, err := f.Stat(); err == nil && info.Size() > smallFile {
		places = d.large
	}
	if err := places.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { places.Release(1) }, nil
}
