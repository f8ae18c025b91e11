package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// sse writes server-sent events.
type sse struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func beginSSE(w http.ResponseWriter) *sse {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	return &sse{w: w, rc: http.NewResponseController(w)}
}

// onlyHead tells whether r asks for the header alone: a stream has no end that
// the answer could wait for.
func onlyHead(r *http.Request) bool { return r.Context().Value(headKey{}) != nil }

// send writes one event; name may be empty.
func (e *sse) send(name string, v any) { e.sendAs("", name, v) }

// sendAs is send for an event with an id, by which a client that comes back says
// what it has.
func (e *sse) sendAs(id, name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // only our own types come here
	}
	if id != "" {
		io.WriteString(e.w, "id: "+id+"\n") //nolint:errcheck // a client that has left ends the request's context
	}
	if name != "" {
		io.WriteString(e.w, "event: "+name+"\n") //nolint:errcheck // a client that has left ends the request's context
	}
	io.WriteString(e.w, "data: "+string(data)+"\n\n") //nolint:errcheck // the same
	e.rc.Flush()                                      //nolint:errcheck // the same
}

func (e *sse) keepAlive() {
	io.WriteString(e.w, ": still at work\n\n") //nolint:errcheck // a client that has left ends the request's context
	e.rc.Flush()                               //nolint:errcheck // the same
}

// stream runs job and hands its updates to emit as they come. The status
// stays open until decoding has succeeded, so that a bad recording is an
// error with its own status; a later failure is told by fail and then the
// transfer is broken off.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, job transcribe.Job,
	emit func(*sse, transcribe.Update), done func(*sse, *transcript.Transcript), fail func(*sse, *fault.Error)) error {
	ctx, cancel := context.WithCancel(r.Context())
	run := s.follow(ctx, job)
	defer run.wait()
	defer cancel()
	tick := time.NewTicker(s.Config().Transcription.HeaderWait)
	defer tick.Stop()
	var out *sse
	take := func() {
		for _, u := range run.updates() {
			if out == nil && u.Phase != transcribe.Decoding {
				out = beginSSE(w)
			}
			if out != nil {
				emit(out, u)
			}
		}
	}
	for {
		select {
		case <-run.news:
			take()
		case <-tick.C:
			if out != nil {
				out.keepAlive()
			}
		case <-run.ended:
			take()
			if run.err != nil && out == nil {
				return run.err
			}
			if run.err != nil {
				fail(out, s.asFault(r.Context(), run.err))
				panic(http.ErrAbortHandler)
			}
			if out == nil {
				out = beginSSE(w)
			}
			done(out, run.result)
			return nil
		}
	}
}
