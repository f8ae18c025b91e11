package transcribe

import (
	"container/list"
	"context"
	"sync"
)

// turns lets so many through at a time, in the order of asking. A job asks
// anew for every window, so that jobs take turns at the engine.
type turns struct {
	limit int // at a time; 0 = 1

	mu      sync.Mutex
	taken   int
	waiting list.List // of chan struct{}
}

// take waits for the turn. The error is the context's, and then there is no turn to give back.
func (t *turns) take(ctx context.Context) error {
	t.mu.Lock()
	if t.taken < max(t.limit, 1) {
		t.taken++
		t.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	place := t.waiting.PushBack(ready)
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-ready: // it came at the same moment: pass it on
		t.next()
	default:
		t.waiting.Remove(place)
	}
	return ctx.Err()
}

// give passes the turn on.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next wakes whoever has waited longest; mu is held.
func (t *turns) next() {
	first := t.waiting.Front()
	if first == nil {
		t.taken--
		return
	}
	t.waiting.Remove(first)
	close(first.Value.(chan struct{}))
}

// count is how many wait.
func (t *turns) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting.Len()
}
