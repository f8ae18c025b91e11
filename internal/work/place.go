package work

import (
	"context"

	"whisper-appliance/internal/job"
)

const (
	// fetchesAtOnce is for how many jobs a recording is fetched at once, and
	// awayAtOnce for how many in all, those that wait until they may ask again
	// among them. One owner's are half of fetchesAtOnce, whether they are fetched
	// or wait.
	fetchesAtOnce = 4
	awayAtOnce    = 16
)

// place is that of one job. While its recording is fetched it is none of those
// that jobs are done in, so that a server that is slow holds nobody else's job up.
// Once that is here it is one of them, be there one left or not: there are never
// more than fetchesAtOnce too many. Its methods are called one after the other; nil
// is the place of a job that needs none.
type place struct {
	in    *places
	class job.Class
	away  bool
}

// take is a place for a job.
func (p *places) take(j job.Job) *place {
	l := &place{p, j.Class, away(j)}
	if !l.away {
		p.enter(l.class, 1)
		return l
	}
	p.fetches(1, 0)
	return l
}

// fetches notes that so many more are fetched, and so many more wait.
func (p *places) fetches(fetching, resting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching += fetching
	p.resting += resting
}

// rest leaves the fetching to others until wake: the job waits.
func (l *place) rest() {
	if l != nil && l.away {
		l.in.fetches(-1, 1)
		token(l.in.ended)
	}
}

// wake ends a rest when there is a place to fetch in again, or ctx ends.
func (l *place) wake(ctx context.Context) {
	if l == nil || !l.away {
		return
	}
	for !l.in.fetchAgain(ctx.Err() != nil) {
		sleep(ctx, pauseLeast)
	}
}

// fetchAgain takes a place to fetch in for one that waits; anyway, be there one
// or not.
func (p *places) fetchAgain(anyway bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetching >= fetchesAtOnce && !anyway {
		return false
	}
	p.fetching++
	p.resting--
	return true
}

// here ends the fetching.
func (l *place) here() {
	if l == nil || !l.away {
		return
	}
	l.away = false
	l.in.enter(l.class, 1)
	l.in.fetches(-1, 0)
	token(l.in.ended)
}

// leave gives the place back.
func (l *place) leave() {
	l.here()
	l.in.enter(l.class, -1)
	token(l.in.ended)
}

// share is how many recordings of one owner may be fetched just now; 0 where there
// is no place for any.
func (p *places) share() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fetching >= fetchesAtOnce || p.fetching+p.resting >= awayAtOnce {
		return 0
	}
	return fetchesAtOnce / 2
}
