// Package schedule decides whose window the engine decodes next. A job asks
// anew for every window, so nobody holds the engine for longer than one:
//
//   - a higher class goes first; whoever has waited for long counts as a higher
//     one, so that nothing starves;
//   - within a class all owners share the engine's time evenly, and so do the
//     jobs of one;
//   - short windows have a lane of their own where there is memory for it, and
//     are decoded beside a long one;
//   - a model stays for a while after it was loaded, so that two in use at once
//     do not spend the time on loading.
//
// It also bounds how many recordings are taken at once. It knows nothing of
// sound or of the engine, trusts its callers, and writes nothing.
package schedule

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Class is how urgent a window is.
type Class int

// The classes, the least urgent first.
const (
	Background Class = iota // nobody waits for it
	Long                    // somebody waits for a long recording
	Short                   // somebody waits for a short one
	Live                    // somebody is speaking
	classes
)

// Lane is one of the engine's two states of the model in memory.
type Lane int

// The lanes. Both may be in use at once.
const (
	LongLane  Lane = iota // takes everything, on threads that stand back
	ShortLane             // takes short windows of urgent jobs alone
	lanes
)

// ShortWindow is the longest window that goes into the short lane.
const ShortWindow = 10 * time.Second

// Ask says for what a turn is wanted.
type Ask struct {
	Class  Class
	Owner  string        // who asked: a key's name, an address
	Job    string        // which of the owner's
	Model  string        // what the engine must have in memory; "" = whatever it has
	Length time.Duration // of the window
}

// Queue is the line in front of one engine. The zero value has one lane and
// takes any number of recordings. Its fields are set before its first use.
type Queue struct {
	// TwoLanes tells whether there is memory for a second lane with a model; nil
	// = there never is. It is asked often and must answer at once.
	TwoLanes func(model string) bool

	// Most is how many recordings may be inside at once, OwnersMost how many of
	// one owner's; nil, or 0 from it = any number.
	Most, OwnersMost func() int

	mu      sync.Mutex
	waiting []*Turn // in the order of asking
	running [lanes]*Turn
	loaded  residence
	oneLane time.Time // until then there is no room for the second
	shorts  time.Time // when one last was in the lane of all
	owners  ledger
	served  [classes]time.Time // when one of each class last had a turn
	inside  map[string]int     // recordings by owner
	pace    time.Duration      // between two places that become free
}

// Turn is the right to one call to the engine.
type Turn struct {
	ask   Ask
	queue *Queue
	asked time.Time
	began time.Time
	lane  Lane
	ready chan struct{} // closed when it is this one's turn
}

// Lane is the lane that the call has to go to.
func (t *Turn) Lane() Lane { return t.lane }

// Take waits for a turn, which the caller gives back. The error is that of
// ctx, and then there is nothing to give back.
func (q *Queue) Take(ctx context.Context, ask Ask) (*Turn, error) {
	q.mu.Lock()
	t := q.join(ask)
	q.dispatch()
	q.mu.Unlock()
	return q.wait(ctx, t)
}

// Next gives the turn back and waits for another. Who does that in one stands
// in line when the lane becomes free: otherwise a job with many windows would
// be passed over each time by whoever waits just then.
func (t *Turn) Next(ctx context.Context, ask Ask) (*Turn, error) {
	q := t.queue
	q.mu.Lock()
	next := q.join(ask)
	q.end(t)
	q.mu.Unlock()
	return q.wait(ctx, next)
}

// Give gives the turn back. It is called once, unless Next is.
func (t *Turn) Give() {
	t.queue.mu.Lock()
	defer t.queue.mu.Unlock()
	t.queue.end(t)
}

// Loaded tells that this turn had the model loaded, and how long that took.
func (t *Turn) Loaded(took time.Duration) {
	t.queue.mu.Lock()
	defer t.queue.mu.Unlock()
	t.queue.loaded.took, t.queue.loaded.since = took, time.Now()
}

// NoRoom tells that the engine has no memory for the lane after all. For a
// while there is one.
func (t *Turn) NoRoom() {
	t.queue.mu.Lock()
	defer t.queue.mu.Unlock()
	t.queue.oneLane = time.Now().Add(oneLaneFor)
}

const oneLaneFor = 10 * time.Minute

// join puts an ask in line; mu is held, here and in end.
func (q *Queue) join(ask Ask) *Turn {
	t := &Turn{ask: ask, queue: q, asked: time.Now(), ready: make(chan struct{})}
	q.enter(ask)
	q.waiting = append(q.waiting, t)
	return t
}

// wait waits until it is t's turn.
func (q *Queue) wait(ctx context.Context, t *Turn) (*Turn, error) {
	select {
	case <-t.ready:
		return t, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, t); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		q.leave(t.ask)
		q.dispatch() // others may have stood back for it
	} else { // the turn came at the same moment
		q.end(t)
	}
	return nil, ctx.Err()
}

// end takes t out and lets others in.
func (q *Queue) end(t *Turn) {
	q.running[t.lane] = nil
	q.charge(t.ask, time.Since(t.began))
	q.leave(t.ask)
	q.dispatch()
}

// Waiting is how many windows wait for their turn.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// Ahead is how many jobs are served before the job's next window, as things
// stand; 0 where it does not wait.
func (q *Queue) Ahead(job string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := map[string]bool{}
	for _, t := range q.running {
		if t != nil && t.ask.Job != job {
			before[t.ask.Job] = true
		}
	}
	for _, t := range q.inOrder(time.Now()) {
		if t.ask.Job == job {
			return len(before)
		}
		before[t.ask.Job] = true
	}
	return 0
}

// crowdedFor is how long a short recording shows that there may be more.
const crowdedFor = time.Minute

// Crowded tells whether class has to share the one lane that there is with
// short recordings: then its windows should be short, too.
func (q *Queue) Crowded(class Class) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return class < Short && time.Since(q.shorts) < crowdedFor
}
