package updaterd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"whisper-appliance/internal/deployment"
)

// Server is the updater's end. Its exported fields are set before Run and not
// changed after.
type Server struct {
	Socket  string // path of the bus' socket
	Handler Handler
	Log     *slog.Logger

	// ServerUID gives the user that the appliance's server runs as; false, or
	// nil: there is none, and root alone is served. It is asked at every call.
	ServerUID func() (uid uint32, known bool)

	admin   uint32         // who may all: root, in tests whoever runs them
	working sync.WaitGroup // calls

	mu      sync.Mutex
	values  values        // the properties; nil before the first Publish
	news    chan struct{} // has a token where values have changed
	owned   bool          // the name is ours
	calls   int           // under way
	servers int           // of these, the server's user's
	last    time.Time     // of the end of the latest call, or of the start
}

// Times of Run: between two attempts to reach the bus, growing from the first
// to the second; and how long a stop waits for calls that are under way.
const (
	againSoon  = 200 * time.Millisecond
	againLate  = 5 * time.Second
	drainLimit = 10 * time.Second
)

// Run has the name on the bus and answers there until ctx ends. Without a bus,
// and after it broke, it tries again; calls that are under way then go on, and
// their answers are lost.
func (s *Server) Run(ctx context.Context) {
	defer s.working.Wait()
	s.touch()
	wait, told := againSoon, ""
	for ctx.Err() == nil {
		had, err := s.attend(ctx)
		if had {
			wait, told = againSoon, ""
		}
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			s.Log.Warn("not on D-Bus, will try again", "error", err)
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
		wait = min(2*wait, againLate)
	}
}

// attend is one connection, from the name's being ours until it breaks or ctx
// ends. had tells that the name was ours.
func (s *Server) attend(ctx context.Context) (had bool, err error) {
	told := s.now()
	l, err := s.open(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	signals, err := l.own(ctx)
	if err != nil {
		return false, err
	}
	s.own(true)
	defer s.own(false)
	s.Log.Info("on D-Bus", "name", Name)
	for {
		select {
		case <-s.newsOf():
			now := s.now()
			if err := l.emit(now.since(told)); err != nil {
				return true, err
			}
			told = now
		case sig, ok := <-signals:
			if !ok {
				return true, errors.New("the bus has closed the connection")
			}
			if lost(sig) {
				return true, errors.New("the bus has taken the name away")
			}
		case <-ctx.Done():
			l.drain()
			return true, nil
		}
	}
}

// Publish makes st what the properties say, and has those that changed
// signalled. It waits for nobody.
func (s *Server) Publish(st deployment.Status) {
	now := valuesOf(st)
	news := s.newsOf()
	s.mu.Lock()
	s.values = now
	s.mu.Unlock()
	select {
	case news <- struct{}{}:
	default:
	}
}

// now is the properties as they are. Nobody changes what it returns.
func (s *Server) now() values {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = valuesOf(deployment.Status{State: deployment.Idle})
	}
	return s.values
}

func (s *Server) newsOf() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.news == nil {
		s.news = make(chan struct{}, 1)
	}
	return s.news
}

func (s *Server) own(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned = is
}

// Owned reports whether the name is ours now, so that callers find us.
func (s *Server) Owned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned
}

// Idle is how long nobody has called; 0 while a call is under way.
func (s *Server) Idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls > 0 || s.last.IsZero() {
		return 0
	}
	return time.Since(s.last)
}

func (s *Server) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
}

// callsOfServer is how many calls the server's user may have under way.
const callsOfServer = 8

// begin counts a call in; false where its caller has enough of them.
func (s *Server) begin(c Caller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Server && s.servers >= callsOfServer {
		return false
	}
	if c.Server {
		s.servers++
	}
	s.calls++
	return true
}

func (s *Server) end(c Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Server {
		s.servers--
	}
	s.calls--
	s.last = time.Now()
}
