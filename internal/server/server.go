// Package server is the appliance's doors on the network: OpenAI's audio API,
// the original appliance's endpoints, the page, and what operators ask. Each
// door speaks its own dialect exactly; behind them all is one transcribe.Service,
// so the text is the same through every one.
//
// It trusts nobody: each request is judged by where it comes from and the key
// it brings (package auth), bodies are streamed and bounded, and media are
// never parsed here. It writes uploads to the spool, into files without a
// name, and settings.toml when an administrator chooses a model. Of updates it
// knows what the updater shows, and asks the updater for the rest.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/watchdog"
	"whisper-appliance/internal/work"
)

// Server answers requests. Its exported fields are set before Handler or Serve
// is called and not changed after.
type Server struct {
	Config      func() *config.Config // as it is now; never nil
	SaveSetting func(key, value string) error
	Service     *transcribe.Service
	Engine      *engine.Client
	Models      *model.Store
	Keys        auth.Keys
	Spool       string   // directory for uploads
	Programs    []string // files that must be there for a recording to be transcribed
	Log         *slog.Logger

	// Stall is how long a client may take for its next bytes; 0 = 60 s.
	Stall time.Duration

	// Free gives the bytes left to us on the file system of a directory; nil =
	// what the kernel says.
	Free func(dir string) (int64, error)

	// TLSReady tells whether HTTPS can be served; nil = it can. While it cannot,
	// nobody is sent there.
	TLSReady func() bool

	// EngineRunning tells whether asking the engine would start one; nil = ask anyway.
	EngineRunning func() bool

	// EngineDown is why no engine can be started, "" where none is known; nil =
	// none ever is.
	EngineDown func() string

	// Desk is where jobs are kept and done; nil, or nil from it = there is none,
	// and recordings are transcribed for those who wait.
	Desk func() *work.Desk

	// Components are the appliance's parts, for health and for the doors that
	// depend on them; nil = none are known.
	Components *component.Registry

	// Watchdog is told of loops of the server; nil = nobody watches.
	Watchdog *watchdog.Guard

	// Units asks systemd for the appliance's units; nil = there is no systemd.
	Units func(context.Context) ([]systemd.Unit, error)

	// Updates is the updater; nil = there is none here.
	Updates Updates

	// Environment is where the appliance runs, Slot the slot that it runs from:
	// "a", "b", "golden" or "".
	Environment Surroundings
	Slot        string

	// Proc and Cgroup are the kernel's file systems, Directories the ones whose
	// free space is shown.
	Proc, Cgroup string
	Directories  []Directory

	// Connections are what the doors have seen; nil = not known.
	Connections func() Connections

	// ReadyAfter is the time from the start of the process to its readiness, 0
	// until then; nil = not known.
	ReadyAfter func() time.Duration

	metering sync.Once
	meters   *meters
	mistakes mistakes
	asking   asking
	watching watching
	follows  follows
	seen     samples
	inside   atomic.Pointer[http.Handler] // of the last Handler, without the measuring
	jobs     atomic.Int64

	started     time.Time
	transcribed atomic.Int64
	failed      atomic.Int64
	active      atomic.Int64
	draining    atomic.Bool
}

// Connections is what the listening sockets have seen.
type Connections struct {
	Open    int64 // connections taken and not closed yet
	Pending int   // of these, without a first byte
	Silent  int64 // closed because they sent nothing, since the start
	Evicted int64 // closed early to make room, since the start
}

// grace is how long a server that stops goes on answering, each time with
// Connection: close: a connection that was accepted but is not yet known to
// net/http would be lost by Shutdown alone.
const grace = 1500 * time.Millisecond

// maxStreams bounds the requests that one HTTP/2 connection may have under way:
// [server] max_connections counts connections alone.
const maxStreams = 32

// httpServer is net/http's, with limits on what strangers may hold.
func (s *Server) httpServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ConnContext:       connContext,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// Serve answers on the listeners until ctx ends, then finishes what it has
// accepted, for at most drain. The listeners are closed first, and only our
// copies of them: another process may hold the same socket.
func (s *Server) Serve(ctx context.Context, drain time.Duration, listeners ...net.Listener) error {
	srv := s.httpServer()
	if s.Components == nil { // they speak for themselves
		for _, reason := range s.missing() {
			s.Log.Warn("not ready: a recording sent now is refused", "reason", reason)
		}
	}
	var background sync.WaitGroup
	defer background.Wait()
	sampling, stopSampling := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSampling()
	background.Go(func() { s.sampleUntil(sampling) })
	served := make(chan error, len(listeners))
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { served <- srv.Serve(l) })
	}
	var failed error
	select {
	case failed = <-served:
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.Log.Info("stopping", "requests_under_way", s.active.Load(), "wait_at_most", drain)
	for _, l := range listeners {
		l.Close()
	}
	wg.Wait()
	// A pause by intent: it gives what was accepted a moment before, and idle
	// connections about to be used, their answer. SetKeepAlivesEnabled would
	// close the idle ones here and now.
	pause := time.NewTimer(grace)
	<-pause.C
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := srv.Shutdown(finish)
	if errors.Is(err, context.DeadlineExceeded) {
		s.Log.Warn("requests cut off: they took longer than the stop may", "limit", drain)
		srv.Close()
		err = nil
	}
	if failed != nil && ctx.Err() == nil {
		return failed
	}
	return err
}

// JobEnded counts a job of the desk, which no request did.
func (s *Server) JobEnded(t transcribe.Job, took time.Duration, result *transcript.Transcript, err error) {
	s.count(t, took, result, err)
}

// count keeps the statistics and the log of a job that has ended.
func (s *Server) count(job transcribe.Job, took time.Duration, result *transcript.Transcript, err error) {
	s.changed()
	if err != nil {
		s.failed.Add(1)
		s.meter().failure(wordsOf(err))
		return
	}
	if job.OnlyLanguage {
		s.Log.Info("language detected", logging.Job, job.ID, "model", job.Model, "language", result.Language)
		return
	}
	s.transcribed.Add(1)
	s.meter().transcribedIn(took, result)
	s.Log.Info("transcribed", logging.Job, job.ID, "model", job.Model, "language", result.Language,
		"audio_seconds", result.Duration.Seconds(), "segments", len(result.Segments))
}
