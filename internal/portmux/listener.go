// Package portmux carries HTTP and HTTPS on one listening socket: it looks at
// the first byte that a client sends, and 0x16 begins a TLS handshake. Accept
// gives a *tls.Conn for those, which is what net/http looks for to speak
// HTTP/2, and the plain connection for all others.
//
// It trusts no client. One that says nothing costs a descriptor for
// ClassifyTimeout and never holds up Accept; MaxPending of them are kept and the
// oldest makes room for a new one, because an honest client speaks at once. At MaxConns it
// leaves further connections in the kernel's queue, where another server on
// the same socket may take them. What happens after the first byte (a slow
// handshake, a slow header) is for the HTTP server's own timeouts.
//
// Closing loses nothing: a connection that was taken from the kernel is still
// handed out by Accept, and only when none is left does Accept return
// net.ErrClosed. A server therefore closes the listener, lets Serve return and
// then shuts down. It writes nothing.
package portmux

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Listener's fields.
const (
	DefaultClassifyTimeout = 10 * time.Second
	DefaultDrainTimeout    = 1500 * time.Millisecond
	DefaultMaxPending      = 256
	DefaultMaxConns        = 1024
)

// Listener is a net.Listener for both protocols. Its fields are set before the
// first Accept and not after.
type Listener struct {
	ClassifyTimeout time.Duration // a client's time for its first byte; 0 = DefaultClassifyTimeout
	DrainTimeout    time.Duration // after Close, the time for what was taken already; 0 = DefaultDrainTimeout
	MaxPending      int           // connections that may be silent at once, at most half of MaxConns; 0 = DefaultMaxPending
	MaxConns        int           // open connections, silent ones included; 0 = DefaultMaxConns

	inner net.Listener
	tls   *tls.Config
	local bool // a Unix socket: no TLS, nothing to tell apart

	start       sync.Once
	classifiers sync.WaitGroup
	slots       chan struct{} // one per open connection
	ready       chan result   // unbuffered: nothing classified can lie forgotten in it
	done        chan struct{} // closed when nothing can come through ready any more
	final       error         // what Accept returns from then on; written before done is closed

	drain    sync.Once
	closing  chan struct{} // closed by Close
	abandon  chan struct{} // closed DrainTimeout later
	closeErr error

	mu       sync.Mutex
	room     chan struct{} // a pending one left; one signal is enough
	pending  []*conn       // without a first byte yet, oldest first
	deadline *time.Timer

	open, silent, evicted atomic.Int64
}

// Stats is what a Listener saw so far.
type Stats struct {
	Open    int64 // connections taken and not closed yet, silent ones included
	Pending int   // of these, without a first byte
	Silent  int64 // closed because they sent nothing, since the start
	Evicted int64 // closed early to make room for newer ones, since the start
}

type result struct {
	conn net.Conn
	err  error
}

// New wraps inner. tlsConfig serves the TLS side; with none in NextProtos it
// offers HTTP/2 and HTTP/1.1. A nil tlsConfig means no TLS: all bytes are
// handed on as they come, which is also what happens on a Unix socket.
func New(inner net.Listener, tlsConfig *tls.Config) *Listener {
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		if len(tlsConfig.NextProtos) == 0 {
			tlsConfig.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	return &Listener{
		inner:   inner,
		tls:     tlsConfig,
		local:   strings.HasPrefix(inner.Addr().Network(), "unix"),
		room:    make(chan struct{}, 1),
		ready:   make(chan result),
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		abandon: make(chan struct{}),
	}
}

// Accept gives the next connection whose first byte has come: a *tls.Conn,
// before its handshake, or a plain one. After Close it goes on giving out what
// was taken already, then returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	if l.local {
		return l.inner.Accept()
	}
	l.start.Do(l.run)
	select {
	case r := <-l.ready:
		return r.conn, r.err
	case <-l.done:
		return nil, l.final
	}
}

// Close takes no further connection. It returns at once; whoever accepts goes
// on until Accept returns net.ErrClosed, at most DrainTimeout later.
func (l *Listener) Close() error {
	if l.local {
		return l.inner.Close()
	}
	l.beginDrain()
	l.start.Do(func() { l.finish(net.ErrClosed) }) // where Accept was never called
	return l.closeErr
}

// Addr is the address of the socket.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Stats is the state of this moment, for metrics and the log.
func (l *Listener) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Open:    l.open.Load(),
		Pending: len(l.pending),
		Silent:  l.silent.Load(),
		Evicted: l.evicted.Load(),
	}
}
