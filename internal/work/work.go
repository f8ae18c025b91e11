// Package work does the jobs. What was accepted is a job with an id, stored
// with its recording before anybody is told so, and each of its windows is
// stored as it is done: after a crash, an update or a power cut it goes on at
// the next one, here or on another appliance that shares the database.
//
// A request that waits for its answer is a job, too, which is done here and at
// once. It is kept only so that a crash can be told from an end, unless its
// caller gave it a key to ask for it by again.
//
// It trusts the store and the files in its directory, and writes both: a
// recording is there before its job is, and is removed after it.
package work

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/transcribe"
)

// Desk does jobs. Its fields are set before its first use and not changed after.
type Desk struct {
	Store   *job.Store
	Service *transcribe.Service
	Self    job.Worker
	Dir     string // of recordings; shared, where the store is
	Proc    string // the kernel's file system of processes
	Lock    string // file that the one desk of a directory holds; "" = several may work on the store
	Log     *slog.Logger

	Inbox  *inbox.Inbox      // of recordings that arrive in pieces, on Dir's file system; nil = none do
	AtOnce func() int        // how many jobs are done at once, beside requests; nil = 4
	Most   func() int        // how many may wait; nil = any number
	Limits func() job.Limits // what is kept; Bytes bounds the recordings of all jobs. nil = all

	mu      sync.Mutex
	live    map[string]*active // jobs that are done here
	news    map[string]chan struct{}
	arrived chan struct{} // has a token when a job was queued here
	setup   sync.Once
}

// active is a job that is done here.
type active struct {
	cancel context.CancelCauseFunc
	last   Progress
}

// Progress is how a job does that is done here: finer than its windows.
type Progress struct {
	Update transcribe.Update // the last one, without its segments

	began time.Time     // with recognising, here
	from  time.Duration // of the recording, where that was
}

// Left is about how long the job will take still, going by how long it has taken
// so far; ok is false where that says too little.
func (p Progress) Left() (left time.Duration, ok bool) {
	took, did := time.Since(p.began), p.Update.Done-p.from
	if p.began.IsZero() || took < 2*time.Second || did <= 0 {
		return 0, false
	}
	return time.Duration(float64(took) / float64(did) * float64(p.Update.Total-p.Update.Done)), true
}

// errAsked is why a job's context ends where somebody wants that.
var errAsked = errors.New("a cancel was asked for")

const (
	defaultAtOnce = 4
	// poll is how often jobs of other machines, and of dead ones, are looked for.
	poll = 2 * time.Second
	// beat is how often a lease is renewed between two windows: a few times
	// within one.
	beat = 15 * time.Second
	// tidying is how often what is too old is removed.
	tidying = 10 * time.Minute
)

func (d *Desk) init() {
	d.setup.Do(func() {
		d.live, d.news, d.arrived = map[string]*active{}, map[string]chan struct{}{}, make(chan struct{}, 1)
	})
}

// Run does jobs until ctx ends, then gives back what is not done: whoever comes
// next goes on with it.
func (d *Desk) Run(ctx context.Context) error {
	d.init()
	unlock, err := d.alone(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for ctx.Err() == nil {
		freed, err := d.Store.Free(ctx, d.Self)
		if err == nil {
			if freed > 0 {
				d.Log.Info("going on with jobs that were interrupted", "jobs", freed)
			}
			break
		}
		d.Log.Error("the jobs cannot be read", "error", err)
		sleep(ctx, poll)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.tidy(ctx) })
	d.serve(ctx, &wg)
	return nil
}

// alone waits until no other process works on the file of jobs: that of a
// server which is about to end may.
func (d *Desk) alone(ctx context.Context) (unlock func(), err error) {
	if d.Lock == "" {
		return func() {}, nil
	}
	lock := flock.New(d.Lock)
	if ok, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil && ctx.Err() == nil || !ok && ctx.Err() == nil {
		return nil, fault.New(fault.Internal, "jobs_locked", "the lock of the jobs, %s, cannot be had", d.Lock).Because(err)
	}
	return func() { lock.Unlock() }, nil //nolint:errcheck // the process's end unlocks it, too
}

// serve claims jobs while there are places.
func (d *Desk) serve(ctx context.Context, wg *sync.WaitGroup) {
	most := defaultAtOnce
	ended := make(chan struct{}, 1)
	busy := 0
	var mu sync.Mutex
	for ctx.Err() == nil {
		if d.AtOnce != nil {
			most = d.AtOnce()
		}
		mu.Lock()
		full := busy >= most
		mu.Unlock()
		if !full {
			j, found, err := d.Store.Claim(ctx, d.Self)
			if err != nil && ctx.Err() == nil {
				d.Log.Error("no job can be claimed", "error", err)
			}
			if found {
				mu.Lock()
				busy++
				mu.Unlock()
				wg.Go(func() {
					d.do(ctx, j)
					mu.Lock()
					busy--
					mu.Unlock()
					token(ended)
				})
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-ended:
		case <-d.arrived:
		case <-time.After(poll):
		}
	}
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// enter notes that a job is done here; leave ends that.
func (d *Desk) enter(id string, cancel context.CancelCauseFunc) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[id] = &active{cancel: cancel}
	return func() {
		d.mu.Lock()
		delete(d.live, id)
		d.mu.Unlock()
		d.tell(id)
	}
}

// progress notes how a job that is done here does.
func (d *Desk) progress(id string, u transcribe.Update) {
	d.mu.Lock()
	if a := d.live[id]; a != nil {
		u.Segments, u.Tokens = nil, nil
		if a.last.Update = u; a.last.began.IsZero() && (u.Phase == transcribe.Waiting || u.Phase == transcribe.Recognising) {
			a.last.began, a.last.from = time.Now(), u.Done
		}
	}
	d.mu.Unlock()
	d.tell(id)
}

// Progress is how a job does just now that is done here.
func (d *Desk) Progress(id string) (p Progress, here bool) {
	d.init()
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.live[id]; a != nil {
		return a.last, true
	}
	return Progress{}, false
}

// tell wakes who waits for news of a job.
func (d *Desk) tell(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.news[id]; c != nil {
		close(c)
		delete(d.news, id)
	}
}

// newsOf is closed at the next news of a job that this process has.
func (d *Desk) newsOf(id string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.news[id]
	if c == nil {
		c = make(chan struct{})
		d.news[id] = c
	}
	return c
}
