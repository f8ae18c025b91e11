package work

import "whisper-appliance/internal/job"

// fetchesAtOnce is for how many jobs a recording is fetched at once.
const fetchesAtOnce = 4

// place is that of one job. While its recording is fetched it is none of those
// that jobs are done in, so that a server that is slow holds nobody else's job up.
// Once that is here it is one of them, be there one left or not: there are never
// more than fetchesAtOnce too many. Its methods are called one after the other.
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetching++
	return l
}

// here ends the fetching.
func (l *place) here() {
	if !l.away {
		return
	}
	l.away = false
	l.in.enter(l.class, 1)
	l.in.mu.Lock()
	l.in.fetching--
	l.in.mu.Unlock()
	token(l.in.ended)
}

// leave gives the place back.
func (l *place) leave() {
	l.here()
	l.in.enter(l.class, -1)
	token(l.in.ended)
}

// full tells whether no further recording is fetched just now.
func (p *places) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetching >= fetchesAtOnce
}
