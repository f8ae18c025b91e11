package engine

import (
	"sync"
	"time"
)

// How long calls into the backend may be silent: what does not return or show
// life by then never will. A lane's first window tells how fast it is here.
const (
	loadMost      = 20 * time.Minute // a large model from a slow disk
	windowMost    = 10 * time.Minute
	silenceFactor = 10
)

// slowest is how much longer the long lane may take for the same while the
// short one works: its threads get less than half of a core that both want, and
// wait for each other.
const slowest = 10

// pulse is a lane's signs of life while it decodes. Each lane has its own: two
// windows may be under way, and one that hangs must not be thought alive
// because of the other. The zero value is ready; it is safe for concurrent use.
type pulse struct {
	mu      sync.Mutex
	beat    func()        // tells the watchdog of the window under way; nil = there is none
	most    time.Duration // how long that may be silent
	last    time.Time     // its last sign of life
	lent    bool          // the other lane has spoken for it since
	silence time.Duration // the longest between two signs of this model, undisturbed
}

// limit is how long the next window may be silent.
func (p *pulse) limit() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silence == 0 {
		return windowMost
	}
	return silenceFactor * p.silence
}

// begin is called when a window begins that may be silent for most.
func (p *pulse) begin(beat func(), most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat, p.most, p.last, p.lent = beat, most, time.Now(), false
}

// end is called when it has ended.
func (p *pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = nil
}

// heard is called at each sign of life of the window.
func (p *pulse) heard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.lent {
		p.silence = max(p.silence, now.Sub(p.last))
	}
	p.last, p.lent = now, false
	p.beat()
}

// lend speaks for the window under way, if there is one, at a sign of life of
// the lane that goes before it; not for ever, or one that hangs would go unseen
// while others come.
func (p *pulse) lend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beat == nil || time.Since(p.last) > slowest*p.most {
		return
	}
	p.lent = true
	p.beat()
}

// forget is called when another model comes, which is as fast as it is.
func (p *pulse) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silence = 0
}
