// Package work does the jobs. What was accepted is a job with an id, stored
// with its recording before anybody is told so, and each of its windows is
// stored as it is done: after a crash, an update or a power cut it goes on at
// the next one, here or on another appliance that shares the database.
//
// A request that waits for its answer is a job where its caller gave it a key to
// ask for it by again: it is done here and at once, and goes on without him.
//
// A recording may also be fetched from a URL, once its job's turn has come, and
// the end of a job may be told to one. Where that may be is package outbound's to
// judge.
//
// It trusts the store and the files in its directory, and writes both: a
// recording is there before its job is, and is removed after it.
package work

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/webhook"
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

	// Standby is a desk beside another one: it does what requests bring, and claims
	// nothing.
	Standby bool

	// Ended is told of each job that is done or has failed; nil = nobody.
	Ended func(t transcribe.Job, took time.Duration, result *transcript.Transcript, err error)

	Inbox  *inbox.Inbox      // of recordings that arrive in pieces, on Dir's file system; nil = none do
	AtOnce func() int        // how many jobs are done at once, beside requests; nil = 4
	Most   func() int        // how many may wait; nil = any number
	Limits func() job.Limits // what is kept; Bytes bounds the recordings of all jobs. nil = all

	From    *outbound.Places // that recordings may be fetched from; nil = none
	Largest func() int64     // bytes that one may have; nil = any number

	// Webhooks tells the ends of jobs to who asked for that, by what Event makes of
	// a job that has ended; nil = nobody is told. Told is told of each attempt, with
	// what the delivery's state is then; nil = nobody.
	Webhooks *webhook.Sender
	Event    func(job.Job) ([]byte, error)
	Told     func(state string)

	pause time.Duration                   // before what failed is tried for the second time; 0 = 1 s
	free  func(dir string) (int64, error) // bytes of a disk; nil = durable.Free

	setup   sync.Once
	base    context.Context // of all jobs
	endAll  context.CancelCauseFunc
	claims  context.Context // ends with Stop
	stop    context.CancelFunc
	doing   sync.WaitGroup // jobs
	arrived chan struct{}  // has a token when a job was queued here
	untold  chan struct{}  // has a token when a job has ended here, or an attempt to tell of one

	mu      sync.Mutex
	live    map[string]*active       // jobs that are done here
	waiters map[string]int           // of jobs, wherever these are done
	news    map[string]chan struct{} // for waiters
}

// active is a job that is done here.
type active struct {
	cancel context.CancelCauseFunc
	last   Progress
}

// Progress is how a job does that is done here: finer than its windows.
type Progress struct {
	Update transcribe.Update // the last one, without its segments
	Held   string            // why it is not getting on just now; "" = it is

	Fetched, Size int64 // bytes of a recording that is being fetched; Size is 0 where that is not known

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

// Why a job's context ends.
var (
	errAsked = errors.New("a cancel was asked for")
	errStops = errors.New("the server stops")
	errLate  = errors.New("the job's deadline has passed")
)

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
		d.live, d.waiters, d.news = map[string]*active{}, map[string]int{}, map[string]chan struct{}{}
		d.arrived, d.untold = make(chan struct{}, 1), make(chan struct{}, 1)
		d.pause = cmp.Or(d.pause, pauseLeast)
		if d.free == nil {
			d.free = durable.Free
		}
		d.base, d.endAll = context.WithCancelCause(context.Background())
		d.claims, d.stop = context.WithCancel(d.base)
	})
}

// Run does jobs until ctx ends, then gives back what is not done: whoever comes
// next goes on with it. Stop comes before.
func (d *Desk) Run(ctx context.Context) (err error) {
	d.init()
	unlock := func() {}
	defer func() {
		d.endAll(errStops)
		d.doing.Wait()
		unlock() // last: who comes next frees what is still leased
	}()
	if d.Standby {
		<-ctx.Done()
		return nil
	}
	claiming, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(d.claims, end)()
	if unlock, err = d.alone(claiming); err != nil {
		return err
	}
	d.takeUp(claiming)
	d.doing.Go(func() { d.tidy(claiming) })
	d.doing.Go(func() { d.deliver(claiming) })
	d.serve(claiming)
	<-ctx.Done()
	return nil
}

// Stop has no more jobs begun, and ends those that nobody waits for: they go on
// with the next server. The others are done until Run ends.
func (d *Desk) Stop() {
	d.init()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop()
	for id, a := range d.live {
		if d.waiters[id] == 0 {
			a.cancel(errStops)
		}
	}
}

// stopping tells whether Stop was called.
func (d *Desk) stopping() bool { return d.claims.Err() != nil }

// Active is how many jobs are being done here.
func (d *Desk) Active() int {
	d.init()
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.live)
}

// takeUp frees what the server before has left.
func (d *Desk) takeUp(ctx context.Context) {
	for ctx.Err() == nil {
		freed, err := d.Store.Free(ctx, d.Self)
		if err == nil {
			if freed > 0 {
				d.Log.Info("going on with jobs that were interrupted", "jobs", freed)
			}
			return
		}
		d.Log.Error("the jobs cannot be read", "error", err)
		sleep(ctx, poll)
	}
}

// alone waits until no other process works on the file of jobs: that of a
// server which is about to end may.
func (d *Desk) alone(ctx context.Context) (unlock func(), err error) {
	unlock = func() {}
	if d.Lock == "" {
		return unlock, nil
	}
	lock := flock.New(d.Lock)
	if ok, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil && ctx.Err() == nil || !ok && ctx.Err() == nil {
		return unlock, fault.New(fault.Internal, "jobs_locked", "the lock of the jobs, %s, cannot be had", d.Lock).Because(err)
	}
	return func() { lock.Unlock() }, nil //nolint:errcheck // the process's end unlocks it, too
}

// places are those that jobs are done in.
type places struct {
	ended chan struct{} // has a token when one became free

	mu         sync.Mutex
	busy       int
	background int // of these
	fetching   int // beside these
	resting    int // until they fetch again
}

func (p *places) enter(class job.Class, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy += n
	if class == job.Background {
		p.background += n
	}
}

// open are the classes that there is a place for: the last one is not for what
// may wait.
func (p *places) open(most int) []job.Class {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.busy >= most:
		return nil
	case most > 1 && p.background >= most-1:
		return job.Classes()[job.Long:]
	}
	return job.Classes()
}

// serve claims jobs while there are places.
func (d *Desk) serve(ctx context.Context) {
	p := &places{ended: make(chan struct{}, 1)}
	for ctx.Err() == nil {
		if j, found := d.claim(ctx, p); found {
			place := p.take(j)
			d.doing.Go(func() {
				d.do(j, place)
				place.leave()
			})
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.ended:
		case <-d.arrived:
		case <-time.After(poll):
		}
	}
}

func (d *Desk) claim(ctx context.Context, p *places) (job.Job, bool) {
	most := defaultAtOnce
	if d.AtOnce != nil {
		most = d.AtOnce()
	}
	classes := p.open(most)
	if len(classes) == 0 {
		return job.Job{}, false
	}
	j, found, err := d.Store.ClaimFetching(ctx, d.Self, p.share(), classes...)
	if err != nil && ctx.Err() == nil {
		d.Log.Error("no job can be claimed", "error", err)
	}
	return j, found
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
	a := &active{cancel: cancel}
	d.live[id] = a
	if d.stopping() && d.waiters[id] == 0 {
		cancel(errStops)
	}
	return func() {
		d.mu.Lock()
		if d.live[id] == a { // one that was lost may have come back meanwhile
			delete(d.live, id)
		}
		d.mu.Unlock()
		d.tell(id)
	}
}

// attending notes that somebody waits for a job; leave ends that.
func (d *Desk) attending(id string) (leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiters[id]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.waiters[id]--; d.waiters[id] > 0 {
			return
		}
		delete(d.waiters, id)
		delete(d.news, id)
		if a := d.live[id]; a != nil && d.stopping() {
			a.cancel(errStops)
		}
	}
}

// progress notes how a job that is done here does.
func (d *Desk) progress(id string, u transcribe.Update) {
	d.mu.Lock()
	if a := d.live[id]; a != nil {
		u.Segments, u.Tokens = nil, nil
		if a.last.Update, a.last.Held = u, ""; a.last.began.IsZero() && (u.Phase == transcribe.Waiting || u.Phase == transcribe.Recognising) {
			a.last.began, a.last.from = time.Now(), u.Done
		}
	}
	d.mu.Unlock()
	d.tell(id)
}

// held notes why a job is not getting on.
func (d *Desk) held(id string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.live[id]; a != nil {
		a.last.Held = job.FailureOf(err).Message
	}
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
