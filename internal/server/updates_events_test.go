package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

// TestUpdateEvents: the status at once and when it changes; nothing twice, not
// even to a client that comes back; an end when the server stops.
func TestUpdateEvents(t *testing.T) {
	r, f := updating(t)
	s := serve(t, r, 20*time.Second)
	open := func(headers ...string) connection {
		c := s.dial(t)
		fmt.Fprintf(c, "GET /api/v1/updates/events HTTP/1.1\r\nHost: x\r\n%s\r\n", strings.Join(headers, ""))
		return c
	}
	// next is the next line that begins with what.
	next := func(c connection, what string) string {
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatalf("no %q: %v", what, err)
			}
			if rest, ok := strings.CutPrefix(line, what); ok {
				return strings.TrimSpace(rest)
			}
		}
	}
	c := open()
	next(c, "Content-Type: text/event-stream")
	next(c, "retry: 1000")
	first := next(c, "id: ")
	if data := next(c, "data: "); !strings.Contains(data, `"state":"idle"`) {
		t.Errorf("first event %s", data)
	}
	f.set(func() { f.status.Updated = time.Now() }) // written anew, nothing new
	f.set(func() {
		f.status.State, f.status.Phase, f.status.Transaction = deployment.Updating, deployment.Stage, "tx9"
	})
	second := next(c, "id: ")
	if data := next(c, "data: "); !strings.Contains(data, `"phase":"stage"`) || second == first {
		t.Errorf("second event %s of the name %s", data, second)
	}
	f.set(func() { f.unread = io.ErrUnexpectedEOF }) // for a while
	again := open("Last-Event-ID: " + second + "\r\n")
	next(again, "HTTP/1.1 503")
	f.set(func() { f.unread = nil })
	again = open("Last-Event-ID: " + second + "\r\n")
	next(again, "retry: ")
	f.set(func() { f.status.State = deployment.Trial })
	for _, conn := range []connection{c, again} {
		if data := next(conn, "data: "); !strings.Contains(data, `"state":"trial"`) {
			t.Errorf("event %s", data)
		}
	}
	s.stop()
	next(c, "0\r\n") // the last chunk: the stream has ended, it was not broken off
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

// TestEventsStayAlive: a comment shows that the stream lives.
func TestEventsStayAlive(t *testing.T) {
	t.Parallel()
	r, _ := updating(t)
	reader, writer := io.Pipe()
	out := &sse{w: pipeWriter{writer}, rc: http.NewResponseController(pipeWriter{writer})}
	ctx, cancel := context.WithCancel(t.Context())
	alive, ended := make(chan time.Time, 1), make(chan struct{})
	go func() { r.tell(ctx, out, "", nil, alive); close(ended) }()
	alive <- time.Now()
	said := make([]byte, 64)
	n, err := reader.Read(said)
	if err != nil || !strings.HasPrefix(string(said[:n]), ": ") {
		t.Errorf("%q, %v", said[:n], err)
	}
	cancel()
	<-ended
}

// pipeWriter is an answer that somebody reads as it comes.
type pipeWriter struct{ *io.PipeWriter }

func (pipeWriter) Header() http.Header { return http.Header{} }
func (pipeWriter) WriteHeader(int)     {}

// TestStreamsShareTheirLooks: as many as there are, the status is read once in a
// while; one that cannot be read is told to nobody, and none from before it.
func TestStreamsShareTheirLooks(t *testing.T) {
	t.Parallel()
	w := &watching{}
	reads, failing := 0, false
	read := func() (deployment.Status, error) {
		reads++
		if failing {
			return deployment.Status{}, io.ErrUnexpectedEOF
		}
		return deployment.Status{State: deployment.Idle, Updated: time.Now()}, nil
	}
	first := w.look(read)
	for range 100 {
		if again := w.look(read); again.id != first.id || first.id == "" {
			t.Fatalf("event %q after %q", again.id, first.id)
		}
	}
	if reads != 1 {
		t.Errorf("%d looks at once", reads)
	}
	later := func() { w.at = time.Now().Add(-statusEvery) }
	later()
	if again := w.look(read); reads != 2 || again.id != first.id {
		t.Errorf("%d looks, and %q where nothing has changed", reads, again.id)
	}
	failing = true
	later()
	if none := w.look(read); none.id != "" || reads != 3 {
		t.Errorf("%d looks, event %q of none", reads, none.id)
	}
	var said strings.Builder
	out := &sse{w: unsent{&said}}
	if told := out.status(statusEvent{}, "x"); told != "x" || said.Len() > 0 {
		t.Errorf("no event is told as %q: %q", told, &said)
	}
}

// unsent is an answer that is not sent.
type unsent struct{ io.Writer }

func (unsent) Header() http.Header { return http.Header{} }
func (unsent) WriteHeader(int)     {}

// TestStreamsAreBounded: whoever comes when there are enough is told what to do
// instead, and there is room again when one leaves.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	r, _ := updating(t)
	url := r.start(t).URL
	for range mostWatchers {
		if err := r.watching.enter(); err != nil {
			t.Fatal(err)
		}
	}
	do(t, "GET", url+"/api/v1/updates/events", nil).want(t, 503, "too_many_streams", "GET /api/v1/updates")
	do(t, "GET", url+"/api/v1/updates", nil).want(t, 200)
	r.watching.leave()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/updates/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != 200 {
		t.Errorf("with room: %d", a.StatusCode)
	}
	cancel()
	a.Body.Close()
	eventually(t, "its end", func() bool {
		r.watching.mu.Lock()
		defer r.watching.mu.Unlock()
		return r.watching.streams == mostWatchers-1
	})
}
