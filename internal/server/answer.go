package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// renderer is one format of an answer, whole or in parts.
type renderer struct {
	contentType string
	// headers are further ones of a success, by name and value.
	headers map[string]string
	// whole is the complete body.
	whole func(io.Writer, *transcript.Transcript) error
	// lines begins a body whose finished windows can be sent ahead; nil for a
	// format that is only whole.
	lines func(io.Writer) (lineWriter, error)
	// see is shown every update, before whole is called.
	see func(transcribe.Update)
}

// lineWriter writes a transcript segment by segment; *transcript.Streamer is one.
type lineWriter interface {
	Header() error // what stands before the first segment; Segment and Close do it where it was not done
	Segment(transcript.Segment) error
	Close() error // what stands behind the last
}

// streamed is how a format that Streams begins.
func streamed(f transcript.Format) func(io.Writer) (lineWriter, error) { return laidOut(f, nil) }

// laidOut is streamed with a layout for cues; nil is none.
func laidOut(f transcript.Format, layout *transcript.Layout) func(io.Writer) (lineWriter, error) {
	return func(w io.Writer) (lineWriter, error) {
		s, err := transcript.NewStreamer(w, f)
		if err != nil {
			return nil, err
		}
		s.Layout = layout
		return s, nil
	}
}

// announce sets the headers of a success.
func (f renderer) announce(h http.Header) {
	h.Set("Content-Type", f.contentType)
	for name, value := range f.headers {
		h.Set(name, value)
	}
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
	run := s.follow(ctx, job)
	defer run.wait()
	defer cancel()
	b := &beginning{w: w, rc: http.NewResponseController(w), format: format}
	var early <-chan time.Time // set when decoding has succeeded
	for {
		select {
		case <-run.news:
			if b.take(run.updates()) && early == nil && format.mayBegin(r) {
				tick := time.NewTicker(s.Config().Transcription.HeaderWait)
				defer tick.Stop()
				early = tick.C
			}
		case <-early:
			b.keepAlive()
		case <-run.ended:
			b.take(run.updates())
			return b.finish(s, r, run)
		}
	}
}

// mayBegin reports whether an answer to r can begin before its end is known.
// HTTP/1.0, which some proxies speak, marks the end by closing: half a text
// would look like a whole one. Half a JSON does not.
func (f renderer) mayBegin(r *http.Request) bool {
	return f.lines == nil || r.ProtoAtLeast(1, 1)
}

func writeWhole(w http.ResponseWriter, format renderer, t *transcript.Transcript) error {
	var body bytes.Buffer
	if err := format.whole(&body, t); err != nil {
		return err
	}
	format.announce(w.Header())
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(http.StatusOK)
	w.Write(body.Bytes()) //nolint:errcheck // the client has left
	return nil
}

// beginning is an answer that may begin before its end is known.
type beginning struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	format  renderer
	begun   bool                 // the header is out
	lines   lineWriter           // once begun; nil for JSON
	pending []transcript.Segment // until then
}

// take takes updates in; true once the recording has been decoded.
func (b *beginning) take(updates []transcribe.Update) (decoded bool) {
	for _, u := range updates {
		decoded = decoded || u.Phase != transcribe.Decoding
		if b.format.see != nil {
			b.format.see(u)
		}
		b.pending = append(b.pending, u.Segments...)
	}
	if b.begun {
		b.send()
	}
	return decoded
}

// send writes the segments that wait. A client that has left ends the
// request's context, so no error of writing matters here or below.
func (b *beginning) send() {
	if b.lines != nil {
		for _, seg := range b.pending {
			b.lines.Segment(seg) //nolint:errcheck // see above
		}
	}
	b.pending = nil
	b.rc.Flush() //nolint:errcheck // see above
}

// keepAlive shows the client that work goes on; the first time it begins the answer.
func (b *beginning) keepAlive() {
	if !b.begun {
		b.begin()
	}
	if b.lines == nil {
		io.WriteString(b.w, " ") //nolint:errcheck // see above
	}
	b.send()
}

func (b *beginning) begin() {
	b.begun = true
	b.format.announce(b.w.Header())
	b.w.Header().Set("X-Accel-Buffering", "no") // a proxy that holds bytes back defeats it
	b.w.WriteHeader(http.StatusOK)
	if b.format.lines != nil {
		if lines, err := b.format.lines(b.w); err == nil {
			b.lines = lines
			lines.Header() //nolint:errcheck // see above
		}
	}
}

// finish writes the rest, or breaks the transfer off. Before the header is
// out, an error is returned instead.
func (b *beginning) finish(s *Server, r *http.Request, run *underway) error {
	switch {
	case !b.begun && run.err != nil:
		return run.err
	case !b.begun:
		return writeWhole(b.w, b.format, run.result)
	}
	err := run.err
	if err == nil && b.lines != nil {
		err = b.lines.Close()
	} else if err == nil {
		err = b.format.whole(b.w, run.result)
	}
	if err != nil {
		s.asFault(r.Context(), err) // logs it
		panic(http.ErrAbortHandler)
	}
	return nil
}
