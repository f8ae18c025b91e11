package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/systemd"
)

// Times of the sampler: between two samples, and what one part of a sample may
// take. What takes longer is reported as not available until it comes.
const (
	sampleEvery = 5 * time.Second
	sampleLimit = 2 * time.Second
)

// errNotSampled is what is said of a value before its first sample.
var errNotSampled = errors.New("not looked at yet")

// seen is a value that is taken in the background, because taking it may be
// slow or hang, and read from memory.
type seen[T any] struct {
	mu    sync.Mutex
	value T
	err   error
	at    time.Time // of value; zero before the first
	busy  bool      // it is being taken
	stale bool      // something has happened since
}

// take takes the value by f, in a goroutine of its own that lasts as long as f
// does. The channel is closed then; at once where an earlier call has not
// returned.
func (v *seen[T]) take(ctx context.Context, f func(context.Context) (T, error)) <-chan struct{} {
	done := make(chan struct{})
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy {
		close(done)
		return done
	}
	v.busy, v.stale = true, false
	go func() {
		defer close(done)
		limited, cancel := context.WithTimeout(ctx, sampleLimit)
		defer cancel()
		value, err := f(limited)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.value, v.err, v.at, v.busy = value, err, time.Now(), false
	}()
	return done
}

// get is the value as it was last seen, and when. An error says why there is none.
func (v *seen[T]) get() (value T, at time.Time, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.at.IsZero() && v.err == nil {
		return v.value, v.at, errNotSampled
	}
	return v.value, v.at, v.err
}

// fresh reports whether the value is worth showing: nothing has happened
// since, and the sampler lives.
func (v *seen[T]) fresh() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.stale && time.Since(v.at) < 3*sampleEvery
}

func (v *seen[T]) outdate() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stale = true
}

// samples is what health is told from memory.
type samples struct {
	engine    seen[*engine.Status] // nil while none runs
	units     seen[[]systemd.Unit]
	resources seen[Resources]
	updates   seen[updateFacts] // taken when metrics are asked for
	again     chan struct{}     // asks for a sample now
	sampling  atomic.Bool       // somebody samples
}

// sampleUntil takes samples until ctx ends. What hangs is left behind.
func (s *Server) sampleUntil(ctx context.Context) {
	beat, end := s.Watchdog.Loop("health sampler", 12*sampleEvery)
	defer end()
	s.seen.sampling.Store(true)
	defer s.seen.sampling.Store(false)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		s.sample(ctx)
		beat()
		select {
		case <-tick.C:
		case <-s.seen.again:
		case <-ctx.Done():
			return
		}
	}
}

// sample takes one sample of everything, in sampleLimit at most.
func (s *Server) sample(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, sampleLimit)
	defer cancel()
	for _, taken := range []<-chan struct{}{
		s.seen.engine.take(ctx, s.askEngine),
		s.seen.units.take(ctx, s.askUnits),
		s.seen.resources.take(ctx, s.look),
	} {
		select {
		case <-taken:
		case <-limited.Done():
		}
	}
}

// changed says that the engine is no longer as it was last seen.
func (s *Server) changed() {
	s.seen.engine.outdate()
	select {
	case s.seen.again <- struct{}{}:
	default: // one is on its way, or nobody samples
	}
}

// askEngine asks the engine how it is. It never starts one.
func (s *Server) askEngine(ctx context.Context) (*engine.Status, error) {
	if s.EngineRunning != nil && !s.EngineRunning() {
		return nil, nil
	}
	st, err := s.Engine.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &st, nil
}

func (s *Server) askUnits(ctx context.Context) ([]systemd.Unit, error) {
	if s.Units == nil {
		return nil, errors.New("the appliance does not run under systemd")
	}
	return s.Units(ctx)
}
