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

// Server is the engine's end of the protocol: one model at a time, one window a
// lane at a time.
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

	// Spare is how many bytes of memory can be had; false = not known. A second
	// state is made only where there is room: whisper.cpp ends the process when its
	// memory gives out, rather than say so. nil = it is tried.
	Spare func() (int64, bool)

	gate       gate
	lanes      lanes
	model      LoadedModel // for whoever is inside the gate; it changes when one is alone there
	info       atomic.Pointer[Model]
	stateBytes atomic.Int64 // of a state of this model
	busy       atomic.Int32 // requests under way
	windows    atomic.Int64
	lastUsed   atomic.Int64 // UnixNano of the last request's end
	stay       atomic.Pointer[Stay]
}

// Serve answers on l until ctx ends or the engine has been idle for as long as Stay says.
// It closes l first, so that a caller who comes too late waits in the socket's
// backlog for the next engine, and finishes what it has accepted.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.lanes = newLanes()
	stopLanes := s.lanes.start(s.Log)
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

	var broken error
	select {
	case broken = <-served:
	case <-ctx.Done():
	case <-idle:
	}
	l.Close()
	if broken == nil {
		<-served // every accepted connection is known to srv now
	}
	finish, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer stop()
	if err := srv.Shutdown(finish); err != nil {
		srv.Close()
	}
	s.gate.enter(context.WithoutCancel(ctx), LaneLong, always) // and nobody comes in any more
	s.unload()
	stopLanes()
	return broken
}

// keep takes over how long to stay, where a request says so.
func (s *Server) keep(stay *Stay) {
	if stay != nil {
		s.stay.Store(stay)
	}
}

func (s *Server) touch() { s.lastUsed.Store(time.Now().UnixNano()) }

// watchIdle drops what nobody has asked for long enough, and closes idle when
// that is the engine itself.
func (s *Server) watchIdle(ctx context.Context, idle chan<- struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.sweep(*s.stay.Load()) {
			close(idle)
			return
		}
	}
}

// sweep is one look at what has been without work for too long; true = the engine has.
func (s *Server) sweep(stay Stay) bool {
	unused := time.Since(time.Unix(0, s.lastUsed.Load()))
	switch {
	case s.busy.Load() > 0:
		short := s.lanes.short // the long lane's windows keep the model, and need not keep this
		if stay.Unload > 0 && short.held.Load() && time.Since(time.Unix(0, short.used.Load())) >= stay.Unload {
			s.dropShort()
		}
	case stay.Exit > 0 && unused >= stay.Exit:
		return true
	case stay.Unload > 0 && unused >= stay.Unload && s.info.Load() != nil:
		if t, ok := s.gate.try(LaneLong, always); ok { // else somebody has just come
			s.unload()
			t.leave()
		}
	}
	return false
}

// unload drops model, states and detectors; the caller is alone.
func (s *Server) unload() {
	_, end := s.watch("unload", windowMost)
	defer end()
	for _, l := range s.lanes.all() {
		l.drop()
		l.dropVAD()
		l.pulse.forget()
	}
	if s.model != nil {
		s.model.Close()
		s.model = nil
		s.info.Store(nil)
		s.stateBytes.Store(0)
		s.Log.Info("model unloaded")
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("POST /v1/model", s.counted(s.hold))
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
	var lanes []LaneStatus
	for _, l := range s.lanes.all() {
		lanes = append(lanes, LaneStatus{Lane: l.name, Busy: l.busy.Load(), State: l.held.Load(), Windows: l.windows.Load()})
	}
	reply(w, http.StatusOK, Status{
		Version: build.Version, Commit: build.Commit,
		Whisper: d.Whisper, Backend: d.Backend, System: d.System,
		Model: s.info.Load(), Busy: s.busy.Load() > 0, Windows: s.windows.Load(), PID: os.Getpid(),
		Lanes: lanes, StateBytes: s.stateBytes.Load(),
	})
}

func (s *Server) hold(w http.ResponseWriter, r *http.Request) {
	var req LoadRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil {
		fail(w, &Failure{CodeBadRequest, "the request is not JSON: " + err.Error()})
		return
	}
	s.keep(req.Stay)
	if have := s.info.Load(); have != nil && have.File == req.Model {
		reply(w, http.StatusOK, have)
		return
	}
	t, ok := s.gate.enter(r.Context(), LaneLong, func() bool { return !s.has(req.Model) })
	if !ok {
		return
	}
	defer t.leave()
	if t.alone {
		if err := s.load(req.Model, s.lanes.long); err != nil {
			fail(w, err)
			return
		}
	}
	reply(w, http.StatusOK, s.info.Load())
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) {
	t, ok := s.gate.enter(r.Context(), LaneLong, always)
	if !ok {
		return
	}
	defer t.leave()
	s.unload()
	w.WriteHeader(http.StatusNoContent)
}

// has tells whether the model in memory is of that file.
func (s *Server) has(file string) bool {
	have := s.info.Load()
	return have != nil && have.File == file
}

// load puts a model in the place of the one in memory, with a state for the
// lane that asks for it; the caller is alone. Where it fails there is none.
func (s *Server) load(file string, l *lane) error {
	path, err := s.path(file)
	if err != nil {
		return err
	}
	s.unload()
	started := time.Now()
	_, end := s.watch("load "+file, loadMost)
	defer end()
	if s.model, err = s.Backend.Load(path); err == nil {
		l.do(func() { err = s.ready(l) })
	}
	if err != nil {
		s.unload()
		return fmt.Errorf("load %s: %w", file, err)
	}
	info := s.model.Info()
	info.File, info.LoadTime = file, time.Since(started)
	if st, err := os.Stat(path); err == nil {
		info.Bytes = st.Size()
	}
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
