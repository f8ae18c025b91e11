package server

import (
	"context"
	"net/http"
	"time"

	"whisper-appliance/internal/faultpoint"
	"whisper-appliance/internal/watchdog"
)

// Probe is the watchdog's question to the server: it has /livez answered in
// memory, through all that a request passes, and takes the locks that every
// recording needs. What comes of it does not matter, only that it returns
// within limit.
func (s *Server) Probe(limit time.Duration) watchdog.Probe {
	return watchdog.Probe{Name: "answer /livez in memory", Limit: limit, Ask: func(ctx context.Context) {
		faultpoint.Here("server.probe")
		s.Service.Waiting()
		s.Config()
		h := s.inside.Load()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/livez", http.NoBody)
		if h == nil || err != nil { // the doors are not open yet
			return
		}
		r.RemoteAddr = "127.0.0.1:0"
		(*h).ServeHTTP(nowhere{}, r)
	}}
}

// nowhere is an answer that nobody reads.
type nowhere struct{}

// Header is http.ResponseWriter's.
func (nowhere) Header() http.Header { return http.Header{} }

// Write is http.ResponseWriter's.
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader is http.ResponseWriter's.
func (nowhere) WriteHeader(int) {}

// Jobs is how many transcriptions are under way.
func (s *Server) Jobs() int64 {
	n := s.jobs.Load()
	if desk := s.desk(); desk != nil {
		n += int64(desk.Active())
	}
	return n
}

// Draining tells whether the server is stopping.
func (s *Server) Draining() bool { return s.draining.Load() }
