package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/deployment"
)

// Times of the event stream: between two looks at the status, which is a file;
// between two signs of life; and how long a client waits before it comes back,
// which is how it gets from the server that ends to the one that takes over.
const (
	statusEvery = 300 * time.Millisecond
	aliveEvery  = 15 * time.Second
	comeBack    = time.Second
)

// eventsOp documents the stream.
func eventsOp(op huma.Operation) huma.Operation {
	op.Description = "Each event is named status and holds what GET /api/v1/updates gives. The first comes at once, unless Last-Event-ID names it. " +
		"A comment comes every 15 seconds. The stream ends when the server stops: come back, and it goes on."
	op.Responses = map[string]*huma.Response{"200": {Description: "Events, until either side ends.", Content: map[string]*huma.MediaType{"text/event-stream": {}}}}
	return op
}

// updateEvents tells the status whenever it changes, until the client leaves or
// the server stops. A look that fails is passed over: the stream begins only
// where one succeeds.
func (s *Server) updateEvents(w http.ResponseWriter, r *http.Request) error {
	st, err := s.updateStatus()
	if err != nil {
		return err
	}
	out := beginSSE(w)
	io.WriteString(w, "retry: "+strconv.FormatInt(comeBack.Milliseconds(), 10)+"\n\n") //nolint:errcheck // a client that has left ends the request's context
	out.rc.Flush()                                                                     //nolint:errcheck // the same
	look, alive := time.NewTicker(statusEvery), time.NewTicker(aliveEvery)
	defer look.Stop()
	defer alive.Stop()
	s.tell(r.Context(), out, out.status(st, r.Header.Get("Last-Event-ID")), look.C, alive.C)
	return nil
}

// tell goes on from the status named told until ctx ends or the server stops.
func (s *Server) tell(ctx context.Context, out *sse, told string, look, alive <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-alive:
			out.keepAlive()
		case <-look:
			if st, err := s.updateStatus(); err == nil {
				told = out.status(st, told)
			}
		}
		if s.draining.Load() {
			return
		}
	}
}

// status sends st unless it is what told names, and gives its name. The name is
// that of what st says, whoever sends it: two servers have the same for the same.
func (e *sse) status(st deployment.Status, told string) string {
	quiet := st
	quiet.Updated = time.Time{} // written anew is not changed
	id := fingerprint(quiet)
	if id == told {
		return told
	}
	io.WriteString(e.w, "id: "+id+"\n") //nolint:errcheck // a client that has left ends the request's context
	e.send("status", UpdateStatus(st))
	return id
}

// fingerprint names a status by what it says.
func fingerprint(st deployment.Status) string {
	data, err := json.Marshal(st)
	if err != nil { // only our own types come here
		return ""
	}
	return digest(data)
}
