package engine

import (
	"context"
	"slices"
	"sync"
)

// gate lets windows in, one a lane, and alone whoever changes the model. Of two
// that exclude each other the one who came first goes first, so that windows
// that keep coming cannot hold off a model that is to be loaded. The zero value
// is ready.
type gate struct {
	mu     sync.Mutex
	inside []*turn
	queue  []*turn // in the order in which they came
}

// turn is somebody's stay inside the gate, or in front of it.
type turn struct {
	gate  *gate
	lane  Lane
	alone bool          // as admit saw it last; true inside = nobody else is in
	wants func() bool   // whether it has to be alone: asked until it is let in, as models come and go meanwhile
	in    chan struct{} // closed when it is let in
}

// enter waits for the lane's turn, or to be alone where wants says so; false
// where ctx ends first. Whoever is let in ends it with leave.
func (g *gate) enter(ctx context.Context, lane Lane, wants func() bool) (*turn, bool) {
	t := &turn{gate: g, lane: lane, wants: wants, in: make(chan struct{})}
	g.mu.Lock()
	g.queue = append(g.queue, t)
	g.admit()
	g.mu.Unlock()
	select {
	case <-t.in:
		return t, true
	case <-ctx.Done():
		t.leave()
		return nil, false
	}
}

// try is enter for whoever would not wait.
func (g *gate) try(lane Lane, wants func() bool) (*turn, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &turn{gate: g, lane: lane, alone: wants()}
	if slices.ContainsFunc(g.inside, t.excludes) || slices.ContainsFunc(g.queue, t.excludes) {
		return nil, false
	}
	g.inside = append(g.inside, t)
	return t, true
}

// admit lets in who may come in now. The caller holds mu.
func (g *gate) admit() {
	var waiting []*turn
	for _, t := range g.queue {
		t.alone = t.wants()
		if slices.ContainsFunc(g.inside, t.excludes) || slices.ContainsFunc(waiting, t.excludes) {
			waiting = append(waiting, t)
			continue
		}
		g.inside = append(g.inside, t)
		close(t.in)
	}
	g.queue = waiting
}

func (t *turn) excludes(other *turn) bool {
	return t.alone || other.alone || t.lane == other.lane
}

// share turns a stay alone into the lane's turn: what was loaded is there for
// the window that it was loaded for, and for others.
func (t *turn) share() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.alone = false
	t.gate.admit()
}

// leave ends the stay, or the wait for it.
func (t *turn) leave() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	is := func(other *turn) bool { return other == t }
	g.inside = slices.DeleteFunc(g.inside, is)
	g.queue = slices.DeleteFunc(g.queue, is)
	g.admit()
}

// always is for whoever has to be alone, and never for who has not.
func always() bool { return true }
func never() bool  { return false }
