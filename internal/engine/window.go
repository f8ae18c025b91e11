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
	l, err := s.lanes.of(req.Lane)
	if err != nil {
		fail(w, err)
		return
	}
	// A model in memory serves on though its file was removed meanwhile.
	if !s.has(req.Model) {
		if _, err := s.path(req.Model); err != nil {
			fail(w, err)
			return
		}
	}
	s.keep(req.Stay)
	t, ok := s.gate.enter(r.Context(), req.Lane, func() bool { return !s.has(req.Model) })
	if !ok {
		return
	}
	defer t.leave()
	out := newEvents(w)
	done, err := s.window(r.Context(), t, l, req, pcm, out.send)
	if err != nil {
		out.send(Event{Error: failure(err)})
		return
	}
	out.send(Event{Done: &done})
}

// window is one request in its turn: the model is loaded where that has to be,
// which is why it is alone then.
func (s *Server) window(ctx context.Context, t *turn, l *lane, req WindowRequest, pcm []float32, emit func(Event)) (done Done, err error) {
	if t.alone {
		emit(Event{Loading: &Loading{Model: req.Model}})
		if err := s.load(req.Model, l); err != nil {
			return done, err
		}
		t.share()
	}
	req.Threads = s.threads(req.Threads)
	l.do(func() { done, err = s.decode(ctx, l, req, pcm, emit) })
	if err == nil {
		s.windows.Add(1)
		l.windows.Add(1)
	}
	return done, err
}

// decode has a window decoded, and listens to its signs of life; the caller has
// the lane's turn, and this is called on its thread.
func (s *Server) decode(ctx context.Context, l *lane, req WindowRequest, pcm []float32, emit func(Event)) (Done, error) {
	most := l.pulse.limit()
	beat, end := s.watch(l.call("window"), most)
	defer end()
	l.pulse.begin(beat, most)
	defer l.pulse.end()
	faultpoint.Here("engine.window")
	if err := s.ready(l); err != nil {
		return Done{}, err
	}
	heard := func() {
		l.pulse.heard()
		if l.name == LaneShort {
			s.lanes.long.pulse.lend()
		}
	}
	done, err := l.state.Transcribe(ctx, req, pcm, func(ev Event) {
		heard()
		if !ev.Alive {
			emit(ev)
		}
	})
	heard()
	return done, err
}

func (s *Server) detect(w http.ResponseWriter, r *http.Request) {
	var req VADRequest
	pcm, err := readPCM(r.Body, &req, MaxVAD)
	if err != nil {
		fail(w, err)
		return
	}
	l, err := s.lanes.of(req.Lane)
	if err != nil {
		fail(w, err)
		return
	}
	path, err := s.path(req.Model)
	if err != nil {
		fail(w, err)
		return
	}
	t, ok := s.gate.enter(r.Context(), req.Lane, never)
	if !ok {
		return
	}
	defer t.leave()
	started := time.Now()
	var speech []Span
	l.do(func() { speech, err = s.detectIn(l, path, req, pcm) })
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, VADResponse{Speech: speech, Took: time.Since(started)})
}

// detectIn has the lane's detector look for speech; the caller is on the lane's thread.
func (s *Server) detectIn(l *lane, path string, req VADRequest, pcm []float32) ([]Span, error) {
	if err := s.readyVAD(l, path); err != nil {
		return nil, err
	}
	_, end := s.watch(l.call("speech detection"), windowMost)
	defer end()
	return l.vad.Detect(req, pcm)
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

// readyVAD has the detector in memory; the caller is on the lane's thread.
func (s *Server) readyVAD(l *lane, path string) error {
	if l.vad != nil && l.vadFile == path {
		return nil
	}
	l.dropVAD()
	_, end := s.watch("load "+filepath.Base(path), loadMost)
	v, err := s.Backend.LoadVAD(path, vadThreads)
	end()
	if err != nil {
		return fmt.Errorf("load %s: %w", filepath.Base(path), err)
	}
	l.vad, l.vadFile = v, path
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
