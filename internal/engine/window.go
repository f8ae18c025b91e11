package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"whisper-appliance/internal/faultpoint"
)

// transcribe answers with one JSON line an event. The status is 200 as soon as
// the PCM is there, because loading and decoding report as they go; the last
// line tells how it ended.
func (s *Server) transcribe(w http.ResponseWriter, r *http.Request) {
	var req WindowRequest
	pcm, err := readPCM(r.Body, &req, MaxWindow)
	if err != nil {
		fail(w, err)
		return
	}
	// A model in memory serves on though its file was removed meanwhile.
	if have := s.info.Load(); have == nil || have.File != req.Model {
		if _, err := s.path(req.Model); err != nil {
			fail(w, err)
			return
		}
	}
	s.keep(req.Stay)
	if !s.takeTurn(r.Context()) {
		return
	}
	defer s.giveTurn()
	out := newEvents(w)
	if err := s.ensure(req.Model, func() { out.send(Event{Loading: &Loading{Model: req.Model}}) }); err != nil {
		out.send(Event{Error: failure(err)})
		return
	}
	req.Threads = s.threads(req.Threads)
	done, err := s.decode(r.Context(), req, pcm, out.send)
	if err != nil {
		out.send(Event{Error: failure(err)})
		return
	}
	s.windows.Add(1)
	out.send(Event{Done: &done})
}

// decode has the model decode a window, and listens to its signs of life; the
// caller holds the turn.
func (s *Server) decode(ctx context.Context, req WindowRequest, pcm []float32, emit func(Event)) (Done, error) {
	beat, end := s.watch("window", s.silenceMost())
	defer end()
	faultpoint.Here("engine.window")
	var mu sync.Mutex // the backend may tell of progress while it hands over segments
	var longest time.Duration
	last := time.Now()
	heard := func() {
		mu.Lock()
		defer mu.Unlock()
		longest, last = max(longest, time.Since(last)), time.Now()
		beat()
	}
	done, err := s.model.Transcribe(ctx, req, pcm, func(ev Event) {
		heard()
		if !ev.Alive {
			emit(ev)
		}
	})
	heard()
	s.silence = max(s.silence, longest)
	return done, err
}

func (s *Server) detect(w http.ResponseWriter, r *http.Request) {
	var req VADRequest
	pcm, err := readPCM(r.Body, &req, MaxVAD)
	if err != nil {
		fail(w, err)
		return
	}
	path, err := s.path(req.Model)
	if err != nil {
		fail(w, err)
		return
	}
	if !s.takeTurn(r.Context()) {
		return
	}
	defer s.giveTurn()
	started := time.Now()
	if err := s.ensureVAD(path); err != nil {
		fail(w, err)
		return
	}
	_, end := s.watch("speech detection", windowMost)
	speech, err := s.vad.Detect(req, pcm)
	end()
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, VADResponse{Speech: speech, Took: time.Since(started)})
}

// How long calls into the backend may be silent: what does not return or show
// life by then never will. A model's first window tells how fast it is here.
const (
	loadMost      = 20 * time.Minute // a large model from a slow disk
	windowMost    = 10 * time.Minute
	silenceFactor = 10
)

// silenceMost is how long a window may be silent; the caller holds the turn.
func (s *Server) silenceMost() time.Duration {
	if s.silence == 0 {
		return windowMost
	}
	return silenceFactor * s.silence
}

func (s *Server) watch(call string, most time.Duration) (beat, end func()) {
	if s.Watch == nil {
		return func() {}, func() {}
	}
	return s.Watch(call, most)
}

// vadThreads is best for a detector so small: a second thread would spend its
// time waiting for the first, and minutes of sound take twenty times as long.
const vadThreads = 1

// ensureVAD has the detector in memory; the caller holds the turn.
func (s *Server) ensureVAD(path string) error {
	if s.vad != nil && s.vadFile == path {
		return nil
	}
	if s.vad != nil {
		s.vad.Close()
		s.vad = nil
	}
	_, end := s.watch("load "+filepath.Base(path), loadMost)
	v, err := s.Backend.LoadVAD(path, vadThreads)
	end()
	if err != nil {
		return fmt.Errorf("load %s: %w", filepath.Base(path), err)
	}
	s.vad, s.vadFile = v, path
	return nil
}

// readPCM reads a request: one JSON line into req, then samples to the end.
func readPCM(body io.Reader, req any, longest time.Duration) ([]float32, error) {
	in := bufio.NewReaderSize(body, 64<<10)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, &Failure{CodeBadRequest, "the request does not begin with a line of JSON"}
	}
	if err := json.Unmarshal(line, req); err != nil {
		return nil, &Failure{CodeBadRequest, "the request's first line is not the JSON that is wanted: " + err.Error()}
	}
	most := int64(longest.Seconds() * SampleRate * 4)
	raw, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return nil, &Failure{CodeBadRequest, "the PCM ended early: " + err.Error()}
	case int64(len(raw)) > most:
		return nil, &Failure{CodeBadRequest, fmt.Sprintf("the PCM is longer than %v", longest)}
	case len(raw) == 0 || len(raw)%4 != 0:
		return nil, &Failure{CodeBadRequest, fmt.Sprintf("%d bytes are no float32 samples", len(raw))}
	}
	pcm := make([]float32, len(raw)/4)
	for i := range pcm {
		v := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		if v != v || v > 16 || v < -16 { // not a number, or not audio
			return nil, &Failure{CodeBadRequest, fmt.Sprintf("sample %d is %g: PCM is −1 to 1", i, v)}
		}
		pcm[i] = v
	}
	return pcm, nil
}

// events writes Event lines, each flushed; safe for the watcher and the decoder.
type events struct {
	mu  sync.Mutex
	enc *json.Encoder
	rc  *http.ResponseController
}

func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &events{enc: json.NewEncoder(w), rc: http.NewResponseController(w)}
}

func (e *events) send(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.enc.Encode(ev) == nil {
		e.rc.Flush() //nolint:errcheck // a client that has left ends the request's context
	}
}
