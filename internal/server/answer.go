package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// outcome is how a job ended.
type outcome struct {
	result *transcript.Transcript
	err    error
}

// follow runs a job beside its request: updates come one by one, then the
// outcome. The job ends with ctx; both channels are then closed.
func (s *Server) follow(ctx context.Context, job transcribe.Job) (<-chan transcribe.Update, <-chan outcome) {
	updates, ended := make(chan transcribe.Update), make(chan outcome, 1)
	go func() {
		defer close(ended)
		defer close(updates)
		result, err := s.Service.Run(ctx, job, func(u transcribe.Update) {
			select {
			case updates <- u:
			case <-ctx.Done():
			}
		})
		s.count(job, result, err)
		ended <- outcome{result, err}
	}()
	return updates, ended
}

// renderer is one format of an answer, whole or in parts.
type renderer struct {
	contentType string
	// whole is the complete body.
	whole func(io.Writer, *transcript.Transcript) error
	// lines is set for the formats whose finished windows can be sent ahead.
	lines transcript.Format
	// see is shown every update, before whole is called.
	see func(transcribe.Update)
}

// answer runs job and writes its result. Until the header wait is over the
// status is still open; after it the answer has begun with 200 and is kept
// alive: JSON by spaces, which it may begin with, text by its finished
// windows. A failure from then on breaks the transfer off, so that nobody
// takes half a text for the whole.
//
// A client that sees no byte for five minutes gives up and sends the whole
// file again; that is what this is for.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, job transcribe.Job, format renderer) error {
	ctx, cancel := context.WithCancel(r.Context())
	updates, ended := s.follow(ctx, job)
	defer drain(updates, ended)
	defer cancel()

	wait := s.Config().Transcription.HeaderWait
	var early <-chan time.Time // set when decoding has succeeded
	var begun *begunAnswer
	var pending []transcript.Segment
	for {
		select {
		case u, more := <-updates:
			if !more {
				updates = nil
				break
			}
			if format.see != nil {
				format.see(u)
			}
			if early == nil && u.Phase != transcribe.Decoding {
				tick := time.NewTicker(wait)
				defer tick.Stop()
				early = tick.C
			}
			if begun != nil {
				begun.segments(u.Segments)
			} else {
				pending = append(pending, u.Segments...)
			}
		case <-early:
			if begun == nil {
				begun = s.begin(w, format)
				begun.segments(pending)
				pending = nil
			}
			begun.keepAlive()
		case end := <-ended:
			if begun != nil {
				begun.finish(s, r, end)
				return nil
			}
			if end.err != nil {
				return end.err
			}
			return writeWhole(w, format, end.result)
		}
	}
}

// drain waits until the job has gone: its files and its turn are then free.
func drain(updates <-chan transcribe.Update, ended <-chan outcome) {
	if updates != nil {
		for range updates {
		}
	}
	for range ended {
	}
}

func writeWhole(w http.ResponseWriter, format renderer, t *transcript.Transcript) error {
	var body bytes.Buffer
	if err := format.whole(&body, t); err != nil {
		return err
	}
	w.Header().Set("Content-Type", format.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(http.StatusOK)
	w.Write(body.Bytes()) //nolint:errcheck // the client has left
	return nil
}

// begunAnswer is one whose header is out.
type begunAnswer struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	format renderer
	lines  *transcript.Streamer // nil for JSON
}

func (s *Server) begin(w http.ResponseWriter, format renderer) *begunAnswer {
	b := &begunAnswer{w: w, rc: http.NewResponseController(w), format: format}
	w.Header().Set("Content-Type", format.contentType)
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that holds bytes back defeats it
	w.WriteHeader(http.StatusOK)
	if format.lines != "" {
		if lines, err := transcript.NewStreamer(w, format.lines); err == nil {
			b.lines = lines
			lines.Header() //nolint:errcheck // a client that has left ends the request's context
		}
	}
	return b
}

func (b *begunAnswer) segments(segments []transcript.Segment) {
	if b.lines == nil {
		return
	}
	for _, seg := range segments {
		b.lines.Segment(seg) //nolint:errcheck // a client that has left ends the request's context
	}
	b.rc.Flush() //nolint:errcheck // the same
}

func (b *begunAnswer) keepAlive() {
	if b.lines == nil {
		b.w.Write([]byte(" ")) //nolint:errcheck // a client that has left ends the request's context
	}
	b.rc.Flush() //nolint:errcheck // the same
}

// finish writes the rest, or breaks the transfer off.
func (b *begunAnswer) finish(s *Server, r *http.Request, end outcome) {
	err := end.err
	if err == nil && b.lines != nil {
		err = b.lines.Close()
	} else if err == nil {
		err = b.format.whole(b.w, end.result)
	}
	if err != nil {
		s.asFault(r.Context(), err) // logs it
		panic(http.ErrAbortHandler)
	}
}

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

// send writes one event; name may be empty.
func (e *sse) send(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // only our own types come here
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
	updates, ended := s.follow(ctx, job)
	defer drain(updates, ended)
	defer cancel()
	tick := time.NewTicker(s.Config().Transcription.HeaderWait)
	defer tick.Stop()
	var out *sse
	for {
		select {
		case u, more := <-updates:
			if !more {
				updates = nil
				break
			}
			if out == nil && u.Phase != transcribe.Decoding {
				out = beginSSE(w)
			}
			if out != nil {
				emit(out, u)
			}
		case <-tick.C:
			if out != nil {
				out.keepAlive()
			}
		case end := <-ended:
			switch {
			case end.err != nil && out == nil:
				return end.err
			case end.err != nil:
				fail(out, s.asFault(r.Context(), end.err))
				panic(http.ErrAbortHandler)
			}
			if out == nil {
				out = beginSSE(w)
			}
			done(out, end.result)
			return nil
		}
	}
}
