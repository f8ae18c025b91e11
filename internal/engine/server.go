package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/version"
)

// Server is the engine's end of the protocol: one model at a time, one window
// at a time.
type Server struct {
	Backend Backend
	Models  string // directory of model files
	Bundled string // the release's own, looked in after Models; "" = none. No other file is opened
	Threads int    // for a window that does not say; 0 = every core
	Stay    Stay   // until a request says otherwise
	Log     *slog.Logger

	// Watch is told of each call into the backend, and how long it may be silent
	// at most; it gives what is to be called at each sign of life, and at its
	// end. nil = nobody watches.
	Watch func(call string, most time.Duration) (beat, end func())

	turn     chan struct{} // holds the token of whoever may use model and vad
	model    LoadedModel   // guarded by turn
	vad      LoadedVAD     // guarded by turn
	vadFile  string        // guarded by turn
	info     atomic.Pointer[Model]
	busy     atomic.Int32 // requests under way
	windows  atomic.Int64
	lastUsed atomic.Int64 // UnixNano of the last request's end
	stay     atomic.Pointer[Stay]
	silence  time.Duration // the longest between two signs of life of this model; guarded by turn
}

// Serve answers on l until ctx ends or the engine has been idle for as long as Stay says.
// It closes l first, so that a caller who comes too late waits in the socket's
// backlog for the next engine, and finishes what it has accepted.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.turn = make(chan struct{}, 1)
	s.turn <- struct{}{}
	s.keep(&s.Stay)
	s.touch()
	srv := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.watchIdle(ctx, idle) })
	defer wg.Wait()
	defer cancel()

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	case <-idle:
	}
	l.Close()
	<-served // every accepted connection is known to srv now
	finish, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer stop()
	if err := srv.Shutdown(finish); err != nil {
		srv.Close()
	}
	<-s.turn
	s.unload()
	return nil
}

// keep takes over how long to stay, where a request says so.
func (s *Server) keep(stay *Stay) {
	if stay != nil {
		s.stay.Store(stay)
	}
}

func (s *Server) touch() { s.lastUsed.Store(time.Now().UnixNano()) }

// watchIdle unloads the model and closes idle when nobody has asked for long enough.
func (s *Server) watchIdle(ctx context.Context, idle chan<- struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		unused := time.Since(time.Unix(0, s.lastUsed.Load()))
		if s.busy.Load() > 0 {
			continue
		}
		stay := *s.stay.Load()
		if stay.Exit > 0 && unused >= stay.Exit {
			close(idle)
			return
		}
		if stay.Unload > 0 && unused >= stay.Unload && s.info.Load() != nil {
			select {
			case <-s.turn:
				s.unload()
				s.turn <- struct{}{}
			default: // somebody has just come
			}
		}
	}
}

// unload drops model and detector; the caller holds the turn.
func (s *Server) unload() {
	_, end := s.watch("unload", windowMost)
	defer end()
	if s.model != nil {
		s.model.Close()
		s.model = nil
		s.info.Store(nil)
		s.Log.Info("model unloaded")
	}
	if s.vad != nil {
		s.vad.Close()
		s.vad = nil
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("POST /v1/model", s.counted(s.load))
	mux.HandleFunc("DELETE /v1/model", s.counted(s.drop))
	mux.HandleFunc("POST /v1/transcribe", s.counted(s.transcribe))
	mux.HandleFunc("POST /v1/vad", s.counted(s.detect))
	return mux
}

// counted keeps the engine from being idle while h works.
func (s *Server) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.busy.Add(1)
		defer func() {
			s.touch()
			s.busy.Add(-1)
		}()
		h(w, r)
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	d, build := s.Backend.Describe(), version.Build()
	reply(w, http.StatusOK, Status{
		Version: build.Version, Commit: build.Commit,
		Whisper: d.Whisper, Backend: d.Backend, System: d.System,
		Model: s.info.Load(), Busy: s.busy.Load() > 0, Windows: s.windows.Load(), PID: os.Getpid(),
	})
}

func (s *Server) load(w http.ResponseWriter, r *http.Request) {
	var req LoadRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil {
		fail(w, &Failure{CodeBadRequest, "the request is not JSON: " + err.Error()})
		return
	}
	s.keep(req.Stay)
	if !s.takeTurn(r.Context()) {
		return
	}
	defer s.giveTurn()
	if err := s.ensure(req.Model, func() {}); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, s.info.Load())
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) {
	if !s.takeTurn(r.Context()) {
		return
	}
	defer s.giveTurn()
	s.unload()
	w.WriteHeader(http.StatusNoContent)
}

// takeTurn waits until nobody else uses the model; false where the client left first.
func (s *Server) takeTurn(ctx context.Context) bool {
	select {
	case <-s.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) giveTurn() { s.turn <- struct{}{} }

// ensure has the model in memory; the caller holds the turn.
func (s *Server) ensure(file string, loading func()) error {
	if have := s.info.Load(); have != nil && have.File == file {
		return nil
	}
	path, err := s.path(file)
	if err != nil {
		return err
	}
	loading()
	s.unload()
	started := time.Now()
	_, end := s.watch("load "+file, loadMost)
	m, err := s.Backend.Load(path)
	end()
	if err != nil {
		return fmt.Errorf("load %s: %w", file, err)
	}
	info := m.Info()
	info.File, info.LoadTime = file, time.Since(started)
	s.model, s.silence = m, 0
	s.info.Store(&info)
	s.Log.Info("model loaded", "model", file, "type", info.Type, "took", info.LoadTime)
	return nil
}

// path keeps a request inside the directories of models.
func (s *Server) path(file string) (string, error) {
	if file == "" || file != filepath.Base(file) || file[0] == '.' {
		return "", &Failure{CodeBadRequest, fmt.Sprintf("model %q is not a file name in the model directory", file)}
	}
	path := filepath.Join(s.Models, file)
	_, err := os.Stat(path)
	if err != nil && s.Bundled != "" {
		bundled := filepath.Join(s.Bundled, file)
		if _, err := os.Stat(bundled); err == nil {
			return bundled, nil
		}
	}
	if err != nil {
		return "", &Failure{CodeNoModel, fmt.Sprintf("no model file %s: %v", file, errors.Unwrap(err))}
	}
	return path, nil
}

func (s *Server) threads(asked int) int {
	switch {
	case asked > 0:
		return asked
	case s.Threads > 0:
		return s.Threads
	}
	return runtime.NumCPU()
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has left
}

// fail answers with a Failure before any event was sent.
func fail(w http.ResponseWriter, err error) {
	f := failure(err)
	status := http.StatusInternalServerError
	switch f.Code {
	case CodeBadRequest:
		status = http.StatusBadRequest
	case CodeNoModel:
		status = http.StatusNotFound
	case CodeBadModel:
		status = http.StatusUnprocessableEntity
	case CodeNoMemory:
		status = http.StatusInsufficientStorage
	case CodeDown:
		status = http.StatusServiceUnavailable
	}
	reply(w, status, f)
}

func failure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return &Failure{f.Code, err.Error()}
	}
	return &Failure{CodeDecode, err.Error()}
}
