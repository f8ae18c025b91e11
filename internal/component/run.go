package component

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"whisper-appliance/internal/fault"
)

// Pauses before what failed is started again: the first, and the longest where
// Every is not longer. Each is twice the one before. What has no Start is looked
// at after Every at the latest.
const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

// leastPause is between two looks at a component that somebody asks for.
const leastPause = time.Second

// Run looks after the components until ctx ends: checks each by its Every, and
// starts again what failed. It returns when its watchers are gone; a call that
// does not return although its context has ended is left behind.
func (r *Registry) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range r.list {
		if c.Planned == "" {
			wg.Go(func() { r.watch(ctx, r.parts[c.Name]) })
		}
	}
	wg.Wait()
}

// watch looks after one component until ctx ends.
func (r *Registry) watch(ctx context.Context, p *part) {
	failures := 0
	for {
		if !r.pause(ctx, p, failures) {
			return
		}
		if r.step(ctx, p) {
			failures = 0
		} else {
			failures++
		}
	}
}

// pause waits for the next look, false when ctx has ended. A component that
// fails is looked at sooner than one that is well.
func (r *Registry) pause(ctx context.Context, p *part, failures int) bool {
	wait := p.every()
	if s, _ := r.State(p.Name); s.Status == Failed {
		most := max(retryMost, p.every())
		if p.Start == nil { // a look costs no more than it does while all is well
			most = p.every()
		}
		wait = min(retryFirst<<min(failures, 16), most)
	}
	least := time.NewTimer(leastPause)
	defer least.Stop()
	next := time.NewTimer(wait)
	defer next.Stop()
	select {
	case <-p.wake:
	case <-next.C:
	case <-ctx.Done():
		return false
	}
	select {
	case <-least.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// step is one look at a component: it is started where it is not well, and
// checked. True where it is well then.
func (r *Registry) step(ctx context.Context, p *part) bool {
	if p.Planned != "" {
		return true
	}
	if down := r.down(p.Needs); down != nil {
		r.settle(p, State{Status: Waiting, Error: "needs " + strings.Join(down, ", "), Code: CodeNeeds}, nil, 0)
		return false
	}
	began := time.Now()
	note, started, err := r.attempt(ctx, p)
	if ctx.Err() != nil && err != nil {
		return false // the appliance stops: what ends with it has not failed
	}
	took := time.Duration(0)
	if started {
		took = time.Since(began)
	}
	s := State{Status: OK, Note: note}
	if err != nil {
		s = failure(err)
	}
	r.settle(p, s, err, took)
	return err == nil
}

// down are those of needs that are not well.
func (r *Registry) down(needs []string) []string {
	var down []string
	for _, need := range needs {
		if s, _ := r.State(need); s.Status != OK {
			down = append(down, need)
		}
	}
	return down
}

// attempt starts the component unless it is well, then checks it. started
// tells that this was a start.
func (r *Registry) attempt(ctx context.Context, p *part) (note string, started bool, err error) {
	r.mu.Lock()
	well := p.started && p.state.Status != Failed
	r.mu.Unlock()
	if !well && p.Start != nil {
		if _, err := p.call(ctx, "start", func(ctx context.Context) (string, error) { return "", p.Start(ctx) }); err != nil {
			return "", true, err
		}
	}
	if p.Check != nil {
		note, err = p.call(ctx, "check", p.Check)
	}
	return note, !well, err
}

// call runs f within the component's Limit. While an earlier call has not
// returned there is no second one.
func (p *part) call(ctx context.Context, what string, f func(context.Context) (string, error)) (string, error) {
	select {
	case p.late <- struct{}{}:
	default:
		return "", p.slow(what)
	}
	ctx, cancel := context.WithTimeout(ctx, p.limit())
	type answer struct {
		note string
		err  error
	}
	came := make(chan answer, 1)
	go func() {
		defer cancel()
		note, err := safely(ctx, f)
		<-p.late
		came <- answer{note, err}
	}()
	select {
	case a := <-came:
		return a.note, p.inTime(ctx, what, a.err)
	case <-ctx.Done():
	}
	select { // it may heed its context
	case a := <-came:
		return a.note, p.inTime(ctx, what, a.err)
	case <-time.After(p.limit() / 10):
		return "", p.slow(what)
	}
}

// inTime words an error that is the deadline's.
func (p *part) inTime(ctx context.Context, what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return p.slow(what).Because(err)
	}
	return err
}

func (p *part) slow(what string) *fault.Error {
	return fault.New(fault.Unavailable, CodeSlow, "its %s has not returned in %v", what, p.limit()).
		Try("see what the machine waits for: a disk or a network that hangs, or too little memory")
}

// safely makes a panic an error.
func safely(ctx context.Context, f func(context.Context) (string, error)) (note string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, CodePanic, "a mistake in the program: %v", p).
				Because(fmt.Errorf("%s", debug.Stack())).Try("report it with this record of the log")
		}
	}()
	return f(ctx)
}

// failure is the state that err makes.
func failure(err error) State {
	s := State{Status: Failed, Error: err.Error(), Code: CodeFailed, Hint: fault.Hint(err)}
	var f *fault.Error
	if errors.As(err, &f) {
		s.Error, s.Code = f.Message, f.Code
		if f.Err != nil && f.Code != CodePanic {
			s.Error = f.Error()
		}
	}
	return s
}

// settle notes how a component is, logs what changed and wakes those who need it.
func (r *Registry) settle(p *part, s State, err error, took time.Duration) {
	now := time.Now()
	r.mu.Lock()
	old, said := p.state, p.said
	s.Name, s.Critical, s.Does, s.Needs, s.Without, s.Search = old.Name, old.Critical, old.Does, old.Needs, old.Without, old.Search
	s.Since, s.Checked, s.Failures, s.Took = old.Since, now, old.Failures, old.Took
	if s.Status != old.Status {
		s.Since = now
	}
	if took > 0 {
		s.Took = took
	}
	switch s.Status {
	case OK:
		p.started, p.cause, p.said = true, nil, State{}
	case Failed:
		s.Failures++
		p.cause, p.said = err, s
	}
	p.state = s
	r.mu.Unlock()
	r.report(p, said, s, err)
	if s.Status != old.Status {
		for _, c := range r.list {
			if slices.Contains(c.Needs, p.Name) {
				r.parts[c.Name].nudge()
			}
		}
	}
}
