package portmux

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"
)

const recordTypeHandshake = 0x16 // RFC 8446, 5.1

// patience is how long a connection may be silent whatever the crowd: after a
// burst its byte may well be here and only its goroutine not have run yet.
const patience = 100 * time.Millisecond

// run starts taking connections.
func (l *Listener) run() {
	l.slots = make(chan struct{}, orDefault(l.MaxConns, DefaultMaxConns))
	go l.take()
}

// maxPending keeps room for those who speak: silent clients must never fill
// all places, as nothing would evict them there.
func (l *Listener) maxPending() int {
	return max(1, min(orDefault(l.MaxPending, DefaultMaxPending), cap(l.slots)/2))
}

func orDefault[T time.Duration | int](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// take accepts until the socket is closed or fails for good.
func (l *Listener) take() {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.closing:
			l.finish(net.ErrClosed)
			return
		}
		c, err := l.inner.Accept()
		if err == nil {
			l.classifiers.Add(1)
			go l.classify(l.track(c))
			continue
		}
		<-l.slots
		if !l.passOn(err) {
			l.finish(l.reason(err))
			return
		}
	}
}

// passOn hands a passing failure, such as no free descriptor, to the caller of
// Accept, who waits a little before calling again: net/http does. It reports
// whether it is worth going on.
func (l *Listener) passOn(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 net/http decides by the same method
	if !errors.As(err, &ne) || !ne.Temporary() {
		return false
	}
	select {
	case l.ready <- result{err: err}:
		return true
	case <-l.closing:
		return false
	}
}

// reason is what Accept returns in the end, err being the socket's own answer.
func (l *Listener) reason(err error) error {
	select {
	case <-l.closing:
		return net.ErrClosed
	default:
		return err
	}
}

// finish waits until every connection was handed out or closed, then lets
// Accept return err.
func (l *Listener) finish(err error) {
	l.beginDrain()
	l.classifiers.Wait()
	l.deadline.Stop()
	l.final = err
	close(l.done)
}

// beginDrain closes the socket and shortens the time of all that is pending.
func (l *Listener) beginDrain() {
	l.drain.Do(func() {
		left := orDefault(l.DrainTimeout, DefaultDrainTimeout)
		l.mu.Lock()
		close(l.closing)
		l.deadline = time.AfterFunc(left, func() { close(l.abandon) })
		for _, c := range l.pending {
			c.SetReadDeadline(time.Now().Add(left))
		}
		l.mu.Unlock()
		l.closeErr = l.inner.Close()
	})
}

// track counts c in and gives it its time.
func (l *Listener) track(inner net.Conn) *conn {
	l.open.Add(1)
	c := &conn{Conn: inner, since: time.Now(), release: func() {
		l.open.Add(-1)
		<-l.slots
	}}
	l.makeRoom()
	l.mu.Lock()
	defer l.mu.Unlock()
	left := orDefault(l.ClassifyTimeout, DefaultClassifyTimeout)
	select {
	case <-l.closing:
		left = min(left, orDefault(l.DrainTimeout, DefaultDrainTimeout))
	default:
	}
	c.SetReadDeadline(time.Now().Add(left))
	l.pending = append(l.pending, c)
	return c
}

// makeRoom returns when one more connection may be pending. Where all have
// been silent for a while already, the oldest goes.
func (l *Listener) makeRoom() {
	for {
		wait := l.evict()
		if wait <= 0 {
			return
		}
		select {
		case <-l.room:
		case <-time.After(wait):
		case <-l.closing:
			return
		}
	}
}

// evict closes the oldest pending connection where that is needed and due; it
// returns how long to wait before it is, 0 when there is room.
func (l *Listener) evict() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) < l.maxPending() {
		return 0
	}
	oldest := l.pending[0]
	if left := patience - time.Since(oldest.since); left > 0 {
		return left
	}
	l.pending = slices.Delete(l.pending, 0, 1)
	l.evicted.Add(1)
	oldest.Close()
	return 0
}

// untrack ends c's time as a silent one; false means it was evicted.
func (l *Listener) untrack(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.pending, c)
	if i < 0 {
		return false
	}
	l.pending = slices.Delete(l.pending, i, i+1)
	select {
	case l.room <- struct{}{}:
	default:
	}
	return true
}

// classify waits for the first byte and hands the connection to Accept.
func (l *Listener) classify(c *conn) {
	defer l.classifiers.Done()
	err := c.peek()
	if !l.untrack(c) {
		return
	}
	if err != nil {
		l.silent.Add(1)
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	var out net.Conn = c
	if l.tls != nil && c.first[0] == recordTypeHandshake {
		out = tls.Server(c, l.tls)
	}
	select {
	case l.ready <- result{conn: out}:
	case <-l.abandon:
		c.Close()
	}
}
