package engine

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowd are visitors of a gate, each with a name.
type crowd struct {
	t    *testing.T
	gate gate
	mu   sync.Mutex
	in   map[string]*turn
	gone []string // whoever gave up waiting
}

// comes has somebody come, who waits for as long as patience says; it returns
// when nothing moves any more.
func (c *crowd) comes(name string, lane Lane, patience time.Duration, wants func() bool) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		t, ok := c.gate.enter(ctx, lane, wants)
		c.mu.Lock()
		defer c.mu.Unlock()
		if !ok {
			c.gone = append(c.gone, name)
			return
		}
		c.in[name] = t
	}()
	synctest.Wait()
}

func (c *crowd) leaves(name string) {
	c.mu.Lock()
	t := c.in[name]
	delete(c.in, name)
	c.mu.Unlock()
	t.leave()
	synctest.Wait()
}

// inside wants exactly those to be in.
func (c *crowd) inside(names ...string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []string
	for name := range c.in {
		got = append(got, name)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		c.t.Errorf("inside are %v, want %v", got, names)
	}
}

func gathering(t *testing.T, story func(*crowd)) {
	synctest.Test(t, func(t *testing.T) { story(&crowd{t: t, in: map[string]*turn{}}) })
}

const patient = 24 * time.Hour

// TestGateLetsOneALaneIn, the others in the order in which they came.
func TestGateLetsOneALaneIn(t *testing.T) {
	gathering(t, func(c *crowd) {
		c.comes("long 1", LaneLong, patient, never)
		c.comes("long 2", LaneLong, patient, never)
		c.comes("long 3", LaneLong, patient, never)
		c.inside("long 1")
		c.comes("short 1", LaneShort, patient, never)
		c.comes("short 2", LaneShort, patient, never)
		c.inside("long 1", "short 1")
		c.leaves("long 1")
		c.inside("long 2", "short 1")
		c.leaves("short 1")
		c.leaves("long 2")
		c.inside("long 3", "short 2")
	})
}

// TestGateHoldsBackWhoComesAfterALoad: it waits for both lanes, and nobody
// passes it; what it shared goes on beside the other lane.
func TestGateHoldsBackWhoComesAfterALoad(t *testing.T) {
	gathering(t, func(c *crowd) {
		c.comes("long 1", LaneLong, patient, never)
		c.comes("load", LaneLong, patient, always)
		c.comes("short 1", LaneShort, patient, never)
		c.comes("long 2", LaneLong, patient, never)
		c.inside("long 1")
		c.leaves("long 1")
		c.inside("load")
		c.in["load"].share()
		synctest.Wait()
		c.inside("load", "short 1")
		c.comes("another load", LaneShort, patient, always)
		c.leaves("load")
		c.inside("long 2", "short 1")
		c.leaves("short 1")
		c.inside("long 2")
		c.leaves("long 2")
		c.inside("another load")
	})
}

// TestGateAsksAgain: whether somebody must be alone is seen when they could come
// in, not when they came.
func TestGateAsksAgain(t *testing.T) {
	gathering(t, func(c *crowd) {
		var mu sync.Mutex
		loaded := false
		missing := func() bool { mu.Lock(); defer mu.Unlock(); return !loaded }
		c.comes("first", LaneLong, patient, missing)
		c.comes("second", LaneShort, patient, missing)
		c.inside("first")
		mu.Lock()
		loaded = true
		mu.Unlock()
		c.in["first"].share()
		synctest.Wait()
		c.inside("first", "second")
		if c.in["second"].alone {
			t.Error("the second believes it is alone, and would load the model again")
		}
	})
}

// TestGateForgetsWhoGaveUp: those behind a load that nobody waits for any more
// come in.
func TestGateForgetsWhoGaveUp(t *testing.T) {
	gathering(t, func(c *crowd) {
		c.comes("long", LaneLong, patient, never)
		c.comes("load", LaneLong, time.Second, always)
		c.comes("short", LaneShort, patient, never)
		c.inside("long")
		time.Sleep(2 * time.Second) // on the bubble's clock
		synctest.Wait()
		c.inside("long", "short")
		if !slices.Equal(c.gone, []string{"load"}) {
			t.Errorf("gave up: %v", c.gone)
		}
	})
}

// TestGateTry never waits, and passes nobody.
func TestGateTry(t *testing.T) {
	gathering(t, func(c *crowd) {
		c.comes("long", LaneLong, patient, never)
		for _, tc := range []struct {
			lane  Lane
			wants func() bool
			want  bool
		}{{LaneShort, never, true}, {LaneLong, never, false}, {LaneShort, always, false}} {
			turn, ok := c.gate.try(tc.lane, tc.wants)
			if ok != tc.want {
				t.Errorf("lane %q, alone %v: let in %v", tc.lane, tc.wants(), ok)
			}
			if ok {
				turn.leave()
			}
		}
		c.comes("load", LaneLong, patient, always)
		if _, ok := c.gate.try(LaneShort, never); ok {
			t.Error("a load that waits was passed")
		}
		c.leaves("long")
		c.leaves("load")
		if turn, ok := c.gate.try(LaneLong, always); !ok {
			t.Error("nobody is there, and yet")
		} else {
			turn.leave()
		}
	})
}
