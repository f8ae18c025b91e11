// Package watchdog decides whether the service manager is told that this
// process is alive. It knows the calls of ours that are under way and the time
// by which each must have returned, and says nothing more as soon as one has
// not. Errors never count here: a database that refuses and a disk that is
// full are no reason to be killed, a call that hangs is.
//
// It trusts the deadlines it is given, sends what it sends through the function
// it is given, and writes to the log which call hangs and what every goroutine
// does, before systemd ends the process.
package watchdog

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// alive is what the service manager is told.
const alive = "WATCHDOG=1"

// defaultInterval is between two looks where nobody waits for a sign of life.
const defaultInterval = 5 * time.Second

// maxStacks bounds the goroutines' stacks in the log, in bytes.
const maxStacks = 64 << 10

// MessageOverdue is the id of the record that says which call hangs.
const MessageOverdue = "b6d1f84e39c04a7795e20c1fd8a3764b"

// Guard knows the calls under way. The zero value is ready; a nil one takes
// calls and knows nothing of them. It is safe for concurrent use.
type Guard struct {
	mu     sync.Mutex
	next   uint64
	calls  map[uint64]*call
	probes []Probe
	asked  []uint64 // of each probe, the call under way; 0 = none
	status Status
}

// call is one call under way, or one loop.
type call struct {
	name  string
	since time.Time
	limit time.Duration
	said  bool // that it is overdue stands in the log
}

// Probe is a call that is made before each sign of life, to see that it
// returns: a request answered in memory, a lock taken and given back.
type Probe struct {
	Name  string
	Limit time.Duration         // by when it must have returned, whatever it found
	Ask   func(context.Context) // its context ends with Limit
}

// Call is a call under way, for people.
type Call struct {
	Name  string        `json:"name"`
	Since time.Time     `json:"since"`
	Limit time.Duration `json:"limit_ns"`
}

// Status is how the watchdog is doing.
type Status struct {
	Listening bool          `json:"listening" doc:"The service manager waits for signs of life."`
	Interval  time.Duration `json:"interval_ns" doc:"Between two signs of life."`
	Last      time.Time     `json:"last,omitzero" doc:"When the last one was sent."`
	Sent      int64         `json:"sent" doc:"Signs of life since the start."`
	Withheld  int64         `json:"withheld" doc:"How many were not sent because a call was overdue."`
	Calls     int           `json:"calls" doc:"Calls under way."`
	Overdue   []Call        `json:"overdue,omitempty" doc:"Calls that should have returned."`
}

// Begin notes that a call of ours has begun, which must return within limit;
// end is called when it has, whatever came of it, any number of times.
func (g *Guard) Begin(name string, limit time.Duration) (end func()) {
	if g == nil {
		return func() {}
	}
	g.mu.Lock()
	id := g.begin(name, limit)
	g.mu.Unlock()
	return func() { g.end(id) }
}

// begin is Begin with mu held.
func (g *Guard) begin(name string, limit time.Duration) uint64 {
	if g.calls == nil {
		g.calls = map[uint64]*call{}
	}
	g.next++
	g.calls[g.next] = &call{name: name, since: time.Now(), limit: limit}
	return g.next
}

func (g *Guard) end(id uint64) {
	g.mu.Lock()
	delete(g.calls, id)
	g.mu.Unlock()
}

// Loop notes a loop of ours that must come round within limit each time, and
// calls beat when it does; end is called when the loop has.
func (g *Guard) Loop(name string, limit time.Duration) (beat, end func()) {
	if g == nil {
		return func() {}, func() {}
	}
	g.mu.Lock()
	id := g.begin(name, limit)
	g.mu.Unlock()
	return func() { g.beat(id) }, func() { g.end(id) }
}

func (g *Guard) beat(id uint64) {
	now := time.Now()
	g.mu.Lock()
	if c := g.calls[id]; c != nil {
		c.since, c.said = now, false
	}
	g.mu.Unlock()
}

// Add adds a probe. It is called before Run.
func (g *Guard) Add(p Probe) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probes = append(g.probes, p)
	g.asked = append(g.asked, 0)
}

// Overdue are the names of the calls that should have returned, sorted.
func (g *Guard) Overdue() []string {
	var names []string
	for _, c := range g.Status().Overdue {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// Status is how the watchdog is doing now, the longest overdue first.
func (g *Guard) Status() Status {
	if g == nil {
		return Status{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.status
	s.Calls = len(g.calls)
	now := time.Now()
	for _, c := range g.calls {
		if c.overdue(now) {
			s.Overdue = append(s.Overdue, Call{Name: c.name, Since: c.since, Limit: c.limit})
		}
	}
	slices.SortFunc(s.Overdue, func(a, b Call) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	return s
}

func (c *call) overdue(now time.Time) bool { return now.Sub(c.since) > c.limit }

// Run gives a sign of life every interval until ctx ends, by notify, which says
// whether anybody listens; 0 is a common interval. It asks the probes each
// time, and while a call is overdue it withholds the sign and logs why. It
// returns at once when ctx ends; a probe that hangs is left behind.
func (g *Guard) Run(ctx context.Context, interval time.Duration, notify func(state string) (bool, error), log *slog.Logger) {
	interval = cmp.Or(interval, defaultInterval)
	g.mu.Lock()
	g.status.Interval = interval
	g.mu.Unlock()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	unheard := "" // the last error of notify
	for {
		g.ask(ctx)
		err := g.sign(notify, log)
		if err != nil && err.Error() != unheard {
			unheard = err.Error()
			log.Warn("the service manager cannot be told that all is well", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask begins every probe that is not under way. Nobody waits for it here: one
// that does not return in time is a call that is overdue.
func (g *Guard) ask(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, p := range g.probes {
		if g.asked[i] != 0 && g.calls[g.asked[i]] != nil {
			continue
		}
		id := g.begin(p.Name, p.Limit)
		g.asked[i] = id
		go func() {
			defer g.end(id)
			defer func() { recover() }() //nolint:errcheck // it returned, which is all that counts here
			asking, cancel := context.WithTimeout(ctx, p.Limit)
			defer cancel()
			p.Ask(asking)
		}()
	}
}

// sign gives one sign of life, or says why there is none.
func (g *Guard) sign(notify func(string) (bool, error), log *slog.Logger) error {
	fresh, late := g.news()
	if late {
		g.mu.Lock()
		g.status.Withheld++
		g.mu.Unlock()
	}
	if len(fresh) > 0 {
		g.tell(log, fresh)
	}
	if late {
		return nil
	}
	listening, err := notify(alive)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status.Listening = listening
	if err == nil {
		g.status.Sent++
		g.status.Last = time.Now()
	}
	return err
}

// news are the calls that became overdue since it was last asked, and whether
// any is overdue at all.
func (g *Guard) news() (fresh []Call, late bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		if !c.overdue(now) {
			continue
		}
		late = true
		if !c.said {
			c.said = true
			fresh = append(fresh, Call{Name: c.name, Since: c.since, Limit: c.limit})
		}
	}
	return fresh, late
}

// tell logs calls that hang, the last with the stacks.
func (g *Guard) tell(log *slog.Logger, calls []Call) {
	for i, c := range calls {
		attrs := []any{"message_id", MessageOverdue, "call", c.Name, "since", c.Since, "limit", c.Limit}
		if i == len(calls)-1 {
			stacks := make([]byte, maxStacks)
			attrs = append(attrs, "stacks", string(stacks[:runtime.Stack(stacks, true)]))
		}
		log.Error("a call does not return: the watchdog is not fed any more", attrs...)
	}
}
