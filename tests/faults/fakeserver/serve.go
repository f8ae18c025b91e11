package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	drainLimit = 30 * time.Second
	mostLeaked = 1 << 30
)

// server is one run.
type server struct {
	own     release
	first   mode
	mode    atomic.Pointer[mode] // as it is now
	manager notifier
	started time.Time
	stuck   chan struct{} // never closed: who waits there hangs
	ended   chan error    // what ends the process

	draining              atomic.Bool
	active                atomic.Int64
	transcribed           atomic.Int64
	failed, calls         atomic.Int64
	workNanos, soundNanos atomic.Int64

	mu       sync.Mutex
	leaked   [][]byte
	requests map[string]int64 // by their labels in the metrics
}

func newServer(own release, m mode, n notifier) *server {
	s := &server{own: own, first: m, manager: n, started: time.Now(), stuck: make(chan struct{}), ended: make(chan error, 1), requests: map[string]int64{}}
	if m.name == degradeAfter {
		s.mode.Store(&mode{name: good})
	} else {
		s.mode.Store(&m)
	}
	return s
}

func (s *server) is(name string) bool { return s.mode.Load().name == name }

// serve answers at the doors until ctx ends, or the mode wants otherwise.
func (s *server) serve(ctx context.Context, doors []net.Listener) error {
	switch {
	case s.is(crash):
		return errCrash
	case s.is(hang):
		s.manager.tell("STATUS=starting")
		<-s.stuck // a signal's default is not in force: only a kill ends this
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	go s.misbehave(work)
	go s.signs(work)
	srv := &http.Server{Handler: s.handler()}
	var serving sync.WaitGroup
	for _, l := range doors {
		serving.Go(func() { srv.Serve(l) }) //nolint:errcheck // it ends when the door is closed
	}
	s.manager.tell("READY=1\nSTATUS=serving version " + s.own.Version)
	select {
	case err := <-s.ended:
		return err
	case <-ctx.Done():
	}
	s.manager.tell("STOPPING=1\nSTATUS=stopping")
	return s.drain(srv, doors, &serving)
}

// drain ends without losing a request: first nobody is accepted any more, then
// those who were accepted a moment before get their answers.
func (s *server) drain(srv *http.Server, doors []net.Listener, serving *sync.WaitGroup) error {
	s.draining.Store(true)
	for _, l := range doors {
		l.Close() //nolint:errcheck // our copy
	}
	serving.Wait()
	<-time.After(s.first.grace)
	if m := s.mode.Load(); m.name == slowStop {
		<-time.After(m.after)
	}
	finish, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	err := srv.Shutdown(finish)
	if errors.Is(err, context.DeadlineExceeded) {
		return srv.Close()
	}
	return err
}

// signs tells the watchdog that all is well, as long as it is.
func (s *server) signs(ctx context.Context) {
	every := signsEvery()
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if !s.is(noWatchdog) && !s.is(hang) {
			s.manager.tell("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// misbehave does what the mode wants to happen by itself.
func (s *server) misbehave(ctx context.Context) {
	if s.first.name == degradeAfter {
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.first.after):
		}
		s.mode.Store(s.first.then)
	}
	switch m := s.mode.Load(); m.name {
	case crash:
		s.ended <- errCrash
	case leak:
		s.leak(ctx, int(m.value))
	}
}

// leak takes ten times a second a tenth of so many MiB, and touches them.
func (s *server) leak(ctx context.Context, mib int) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for total := 0; total < mostLeaked; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lost := make([]byte, mib<<20/10)
		for i := 0; i < len(lost); i += 4096 {
			lost[i] = 1
		}
		total += len(lost)
		s.mu.Lock()
		s.leaked = append(s.leaked, lost)
		s.mu.Unlock()
	}
}
