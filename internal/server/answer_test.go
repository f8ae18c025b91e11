package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
)

// gated says a window's text when the gate lets it: nobody needs to guess how
// long a job takes.
func gated(gate <-chan error) engineFunc {
	return func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		select {
		case err := <-gate:
			if err != nil {
				return engine.Done{}, err
			}
			return talks(ctx, n, req, observe)
		case <-ctx.Done():
			return engine.Done{}, context.Cause(ctx)
		}
	}
}

// early is a rig whose answers begin after 30 ms, and its gate.
func early(t *testing.T) (*rig, chan error) {
	gate := make(chan error, 3)
	r := newRig(t, gated(gate))
	r.conf.Transcription.HeaderWait = 30 * time.Millisecond
	return r, gate
}

// open sends a form and returns with the header; the body is still to come.
func open(t *testing.T, url string, parts ...part) *http.Response {
	t.Helper()
	body, kind := encode(parts...)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestLongJSON: the header comes before the job is done, then spaces, then
// the same JSON as ever.
func TestLongJSON(t *testing.T) {
	for format, path := range map[string]string{
		"json": "/v1/audio/transcriptions", "verbose_json": "/v1/audio/transcriptions", "": "/transcribe",
	} {
		t.Run(format+path, func(t *testing.T) {
			r, gate := early(t)
			parts := []part{recording("audio")}
			if format != "" {
				parts = []part{recording("file"), {name: "response_format", value: format}}
			}
			resp := open(t, r.start(t).URL+path, parts...)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Accel-Buffering") != "no" {
				t.Errorf("%s %v", resp.Status, resp.Header)
			}
			padding := make([]byte, 3)
			if _, err := io.ReadFull(resp.Body, padding); err != nil || string(padding) != "   " {
				t.Errorf("%q, %v before the job is done", padding, err)
			}
			for range 3 {
				gate <- nil
			}
			a := read(resp)
			a.want(t, 200)
			if text := a.json(t)["text"]; text != whole {
				t.Errorf("text %q", text)
			}
		})
	}
}

// TestLongText: finished windows come while the job goes on, and in the end
// every byte is as in an answer in one piece.
func TestLongText(t *testing.T) {
	for _, format := range []string{"text", "srt", "vtt", "tsv", "words", "lrc"} {
		t.Run(format, func(t *testing.T) {
			r, gate := early(t)
			url := r.start(t).URL + "/v1/audio/transcriptions"
			parts := []part{recording("file"), {name: "response_format", value: format}}
			gate <- nil // the first window is done before the header is out
			resp := open(t, url, parts...)
			got := bufio.NewReader(resp.Body)
			first, err := got.ReadString('0') // of "Part 0" or a time before it
			if err != nil {
				t.Fatalf("after %q: %v", first, err)
			}
			gate <- nil
			gate <- nil
			rest, err := io.ReadAll(got)
			if err != nil || resp.ContentLength >= 0 {
				t.Errorf("%v; Content-Length %d in an answer of parts", err, resp.ContentLength)
			}
			r.conf.Transcription.HeaderWait = time.Hour
			for range 3 {
				gate <- nil
			}
			at := post(t, url, parts...)
			if at.length < 0 || first+string(rest) != at.body {
				t.Errorf("in parts %q\nat once  %q", first+string(rest), at.body)
			}
		})
	}
}

// TestFailureAfterHeader: the client can tell that the text is not whole.
func TestFailureAfterHeader(t *testing.T) {
	for _, format := range []string{"json", "verbose_json", "text", "srt", "vtt"} {
		t.Run(format, func(t *testing.T) {
			r, gate := early(t)
			resp := open(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"), part{name: "response_format", value: format})
			gate <- nil
			gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
			if a := read(resp); a.status != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) {
				t.Errorf("status %d, then %q, %v: that looks whole", a.status, a.body, a.err)
			}
		})
	}
}

func TestFailureBeforeHeader(t *testing.T) {
	r, gate := early(t)
	r.conf.Transcription.HeaderWait = time.Hour
	gate <- nil
	gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
	post(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"), part{name: "response_format", value: "srt"}).
		want(t, 503, `"code":"no_memory"`)
}

// TestHTTP10: there the end of a body is the end of the connection, so text
// that breaks off would look whole. It waits for its end.
func TestHTTP10(t *testing.T) {
	for format, status := range map[string]int{"srt": 503, "json": 200} {
		t.Run(format, func(t *testing.T) {
			r, gate := early(t)
			body, kind := encode(recording("file"), part{name: "response_format", value: format})
			conn := dial(t, r.start(t))
			fmt.Fprintf(conn, "POST /v1/audio/transcriptions HTTP/1.0\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
			gate <- nil
			answer := bufio.NewReader(conn)
			if format == "json" {
				answer.Peek(1) //nolint:errcheck // the header is out: seen below
			} else {
				time.Sleep(4 * r.conf.Transcription.HeaderWait)
			}
			gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				t.Fatal(err)
			}
			a := read(resp)
			if a.status != status {
				t.Errorf("status %d, want %d: %q", a.status, status, a.body)
			}
			if format == "json" && json.Valid([]byte(a.body)) {
				t.Errorf("%q looks whole", a.body)
			}
		})
	}
}

func dial(t *testing.T, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
	return conn
}

// events reads server-sent events: the data of each, under the name it has.
func events(t *testing.T, body string) (list []struct{ name, data string }) {
	t.Helper()
	for block := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		var e struct{ name, data string }
		for line := range strings.SplitSeq(block, "\n") {
			if v, ok := strings.CutPrefix(line, "event: "); ok {
				e.name = v
			} else if v, ok := strings.CutPrefix(line, "data: "); ok {
				e.data = v
			} else if !strings.HasPrefix(line, ":") {
				t.Errorf("line %q", line)
			}
		}
		if e.data != "" {
			list = append(list, e)
		}
	}
	return list
}

func TestSSEDeltas(t *testing.T) {
	r := newRig(t, talks)
	a := post(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"), part{name: "stream", value: "true"}, part{name: "include[]", value: "logprobs"})
	a.want(t, 200)
	if a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("headers %v", a.header)
	}
	text, deltas, done := "", 0, ""
	logprobs := 0
	list := events(t, a.body)
	for _, e := range list[:len(list)-1] {
		var v struct {
			Type, Delta, Text string
			Logprobs          []logprob
		}
		if err := json.Unmarshal([]byte(e.data), &v); err != nil {
			t.Fatalf("%v in %q", err, e.data)
		}
		switch v.Type {
		case "transcript.text.delta":
			text += v.Delta
			deltas++
			logprobs += len(v.Logprobs)
		case "transcript.text.done":
			done = v.Text
			if len(v.Logprobs) != logprobs || logprobs != 3 {
				t.Errorf("%d tokens in the deltas, %d in the end", logprobs, len(v.Logprobs))
			}
		default:
			t.Errorf("event %s", e.data)
		}
	}
	if text != done || done != whole || deltas != 3 || list[len(list)-1].data != "[DONE]" {
		t.Errorf("%d deltas give %q; done says %q; then %q", deltas, text, done, list[len(list)-1].data)
	}
}

// TestSSELive: the text of a window comes when it is done, and signs of life between.
func TestSSELive(t *testing.T) {
	r, gate := early(t)
	resp := open(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"), part{name: "stream", value: "true"})
	lines := bufio.NewReader(resp.Body)
	until := func(want string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%v before %q", err, want)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	until(": still at work")
	for i := range 3 {
		gate <- nil
		until(fmt.Sprintf("Part %d", i))
	}
	until("transcript.text.done")
	until("[DONE]")
}

func TestSSEFailure(t *testing.T) {
	for path, shape := range map[string]string{
		"/v1/audio/transcriptions": `"error":{"message":`,
		"/api/v1/transcriptions":   `"error":"`,
	} {
		t.Run(path, func(t *testing.T) {
			r, gate := early(t)
			parts := []part{recording("file")}
			if path == "/v1/audio/transcriptions" {
				parts = append(parts, part{name: "stream", value: "true"})
			}
			resp := open(t, r.start(t).URL+path, parts...)
			gate <- nil
			gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
			a := read(resp)
			if a.status != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) {
				t.Errorf("status %d, %v: want a transfer that breaks off", a.status, a.err)
			}
			list := events(t, a.body)
			last := list[len(list)-1]
			if last.name != "error" || !strings.Contains(last.data, shape) || !strings.Contains(last.data, "no_memory") {
				t.Errorf("the last event is %+v", last)
			}
			if strings.Contains(a.body, "[DONE]") || strings.Contains(a.body, "event: done") {
				t.Errorf("it claims to be whole: %q", a.body)
			}
		})
	}
}

// TestHangUp: a client that leaves ends its job at once, however its body was sent.
func TestHangUp(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		for _, stream := range []string{"false", "true"} {
			t.Run(fmt.Sprintf("chunked=%v stream=%s", chunked, stream), func(t *testing.T) {
				began, ended := make(chan bool), make(chan error, 1)
				r := newRig(t, func(ctx context.Context, _ int, _ engine.WindowRequest, _ func(engine.Event)) (engine.Done, error) {
					close(began)
					<-ctx.Done()
					ended <- ctx.Err()
					return engine.Done{}, context.Cause(ctx)
				})
				srv := r.start(t)
				form, kind := encode(recording("file"), part{name: "stream", value: stream})
				var body io.Reader = strings.NewReader(form)
				if chunked {
					body = io.MultiReader(body) // of a length that nobody knows
				}
				ctx, hangUp := context.WithCancel(t.Context())
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/audio/transcriptions", body)
				req.Header.Set("Content-Type", kind)
				client := make(chan error, 1)
				go func() {
					resp, err := http.DefaultTransport.RoundTrip(req)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					client <- err
				}()
				<-began
				hangUp()
				select {
				case <-ended:
				case <-time.After(20 * time.Second):
					t.Error("the engine goes on for nobody")
				}
				if err := <-client; err == nil {
					t.Error("the client got an answer")
				}
			})
		}
	}
}

// TestChunkedTail: the form ends before the body does, the last chunk comes
// late; a client that hangs up then is noticed all the same.
func TestChunkedTail(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	r := newRig(t, func(ctx context.Context, _ int, _ engine.WindowRequest, _ func(engine.Event)) (engine.Done, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return engine.Done{}, context.Cause(ctx)
	})
	conn := dial(t, r.start(t))
	form, kind := encode(recording("audio"))
	fmt.Fprintf(conn, "POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", kind, len(form), form)
	time.Sleep(20 * time.Millisecond)
	io.WriteString(conn, "0\r\n\r\n") //nolint:errcheck // the job would not begin
	<-began
	conn.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the engine goes on for nobody")
	}
}

// slowReader sends a recording whose transcript is long, and never reads it.
func slowReader(t *testing.T, stall time.Duration) (*rig, net.Conn, *atomic.Int32) {
	t.Helper()
	long := " " + strings.Repeat("blah ", 1<<18)
	var windows atomic.Int32
	r := newRig(t, func(_ context.Context, _ int, _ engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		say(observe, long)
		windows.Add(1)
		return engine.Done{Language: "en"}, nil
	})
	r.Stall = stall
	r.conf.Transcription.SecondLook = false // what so repeats itself would be decoded again
	conn := dial(t, r.start(t))
	conn.(*net.TCPConn).SetReadBuffer(4096) //nolint:errcheck // what the system has is enough
	form, kind := encode(recording("file"))
	fmt.Fprintf(conn, "POST /api/v1/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(form), form)
	return r, conn, &windows
}

// TestSlowReaderHoldsNoEngine: the job goes on to its end without the client.
func TestSlowReaderHoldsNoEngine(t *testing.T) {
	r, conn, windows := slowReader(t, time.Minute)
	eventually(t, "the last window", func() bool { return windows.Load() == 3 })
	if r.active.Load() != 1 {
		t.Error("the whole answer was taken: nobody was slow")
	}
	conn.Close()
}

// TestSlowReaderIsLetGo: in the end the connection is given up.
func TestSlowReaderIsLetGo(t *testing.T) {
	r, _, windows := slowReader(t, 200*time.Millisecond)
	eventually(t, "the first window", func() bool { return windows.Load() > 0 })
	eventually(t, "the end of the request", func() bool { return r.active.Load() == 0 })
}

// TestPanicInJob: a mistake of ours costs one job, not the server.
func TestPanicInJob(t *testing.T) {
	bug := true
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		if bug {
			panic("a bug in our own code")
		}
		return talks(ctx, n+2, req, observe)
	})
	srv := r.start(t)
	a := post(t, srv.URL+"/v1/audio/transcriptions", recording("file"))
	a.want(t, 500, `"code":"internal_error"`)
	if strings.Contains(a.body, "a bug") {
		t.Error("the client sees our insides")
	}
	bug = false
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 200, whole)
	do(t, "GET", srv.URL+"/api/status", nil).want(t, 200, `"failed_transcriptions":1`)
}

// TestManyAtOnce: many clients, some of whom leave, on one server.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t, func(_ context.Context, _ int, _ engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		say(observe, " same")
		return engine.Done{Language: "en"}, nil
	})
	r.conf.Transcription.HeaderWait = time.Millisecond
	srv := r.start(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
			}
			format := []string{"json", "srt", "text", "verbose_json"}[i%4]
			form, kind := encode(recording("file"), part{name: "response_format", value: format})
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/audio/transcriptions", strings.NewReader(form))
			req.Header.Set("Content-Type", kind)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if i%3 == 0 {
				if err == nil {
					resp.Body.Close()
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if a := read(resp); a.status != 200 || a.err != nil || strings.Count(a.body, "same") < 3 {
				t.Errorf("%d %v %q", a.status, a.err, a.body)
			}
		})
	}
	wg.Wait()
}
