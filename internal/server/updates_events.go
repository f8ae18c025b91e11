package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Times of the event stream: between two looks at the status, which is a file;
// between two signs of life; and how long a client waits before it comes back,
// which is how it gets from the server that ends to the one that takes over.
const (
	statusEvery = 300 * time.Millisecond
	aliveEvery  = 15 * time.Second
	comeBack    = time.Second
)

// mostWatchers is how many streams there may be at once.
const mostWatchers = 64

// watching is the streams, and the look at the status that they share: as many
// as there are, the file is read once in statusEvery, and not at all without them.
type watching struct {
	mu      sync.Mutex
	streams int
	at      time.Time // of the look
	event   statusEvent
}

// statusEvent is a status as it is sent. Its id names what the status says,
// whoever sends it: two servers have the same for the same. "" is none.
type statusEvent struct {
	id   string
	data []byte // JSON
}

// eventOf words st.
func eventOf(st deployment.Status) statusEvent {
	data, err := json.Marshal(UpdateStatus(st))
	if err != nil { // only our own types come here
		return statusEvent{}
	}
	st.Updated = time.Time{} // written anew is not changed
	quiet, err := json.Marshal(st)
	if err != nil {
		return statusEvent{}
	}
	return statusEvent{digest(quiet), data}
}

// enter counts a stream in, where there is room.
func (w *watching) enter() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams >= mostWatchers {
		return fault.New(fault.Unavailable, "too_many_streams", "%d clients follow the updates, and no more can", mostWatchers).
			Try("close one of them, such as a page that is open elsewhere; GET /api/v1/updates gives the same when asked")
	}
	w.streams++
	return nil
}

func (w *watching) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams--
}

// look is the status not longer ago than the streams look, as read gives it; none
// where it cannot be read.
func (w *watching) look(read func() (deployment.Status, error)) statusEvent {
	const early = statusEvery / 10 // tickers are no more exact
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.Sub(w.at) >= statusEvery-early {
		w.at, w.event = now, statusEvent{}
		if st, err := read(); err == nil {
			w.event = eventOf(st)
		}
	}
	return w.event
}

// eventsOp documents the stream.
func eventsOp(op huma.Operation) huma.Operation {
	op.Description = "Each event is named status and holds what GET /api/v1/updates gives. The first comes at once, unless Last-Event-ID names it. " +
		"A comment comes every 15 seconds. The stream ends when the server stops: come back, and it goes on. There may be 64 of them at once."
	op.Parameters = []*huma.Param{headerParam(lastEventHeader, false, "The last event's id that the client has: it does not come again.")}
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
	if onlyHead(r) {
		beginSSE(w)
		return nil
	}
	if err := s.watching.enter(); err != nil {
		return err
	}
	defer s.watching.leave()
	out := beginSSE(w)
	io.WriteString(w, "retry: "+strconv.FormatInt(comeBack.Milliseconds(), 10)+"\n\n") //nolint:errcheck // a client that has left ends the request's context
	out.rc.Flush()                                                                     //nolint:errcheck // the same
	look, alive := time.NewTicker(statusEvery), time.NewTicker(aliveEvery)
	defer look.Stop()
	defer alive.Stop()
	s.tell(r.Context(), out, out.status(eventOf(st), r.Header.Get(lastEventHeader)), look.C, alive.C)
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
			told = out.status(s.watching.look(s.updateStatus), told)
		}
		if s.draining.Load() {
			return
		}
	}
}

// status sends an event unless it is what told names, and gives its name.
func (e *sse) status(event statusEvent, told string) string {
	if event.id == "" || event.id == told {
		return told
	}
	io.WriteString(e.w, "id: "+event.id+"\nevent: status\ndata: "+string(event.data)+"\n\n") //nolint:errcheck // a client that has left ends the request's context
	e.rc.Flush()                                                                             //nolint:errcheck // the same
	return event.id
}
