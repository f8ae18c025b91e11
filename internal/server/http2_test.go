package server

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/engine"
)

// startHTTP2 serves the rig over TLS, where clients speak HTTP/2.
func (r *rig) startHTTP2(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(r.Handler())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// send posts a form by the test server's own client and returns with the header.
func send(ctx context.Context, t *testing.T, srv *httptest.Server, path string, parts ...part) (*http.Response, error) {
	t.Helper()
	form, kind := encode(parts...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := srv.Client().Transport.RoundTrip(req)
	if err == nil && resp.ProtoMajor != 2 {
		t.Errorf("this is %s", resp.Proto)
	}
	return resp, err
}

// TestHTTP2: there a deadline that passes resets the stream, even while nothing
// is read or written; pauses in a job must not meet one.
func TestHTTP2(t *testing.T) {
	for name, format := range map[string]part{
		"whole": {name: "response_format", value: "json"}, "in parts": {name: "response_format", value: "text"}, "events": {name: "stream", value: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			r, gate := early(t)
			r.Stall = 50 * time.Millisecond
			if name != "in parts" {
				r.conf.Transcription.HeaderWait = time.Hour
			}
			go func() {
				for range 3 {
					time.Sleep(3 * r.Stall)
					gate <- nil
				}
			}()
			resp, err := send(t.Context(), t, r.startHTTP2(t), "/v1/audio/transcriptions", recording("file"), format)
			if err != nil {
				t.Fatal(err)
			}
			read(resp).want(t, 200, "Part 0", "Part 2")
		})
	}
}

func TestHTTP2Failure(t *testing.T) {
	r, gate := early(t)
	resp, err := send(t.Context(), t, r.startHTTP2(t), "/v1/audio/transcriptions", recording("file"), part{name: "response_format", value: "srt"})
	if err != nil {
		t.Fatal(err)
	}
	gate <- nil
	gate <- &engine.Failure{Code: engine.CodeNoMemory, Message: "no"}
	if a := read(resp); a.err == nil {
		t.Errorf("%q looks whole", a.body)
	}
}

func TestHTTP2HangUp(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	ended := make(chan bool)
	r := newRig(t, func(ctx context.Context, _ int, _ engine.WindowRequest, _ func(engine.Event)) (engine.Done, error) {
		hangUp()
		<-ctx.Done()
		close(ended)
		return engine.Done{}, context.Cause(ctx)
	})
	if _, err := send(ctx, t, r.startHTTP2(t), "/transcribe", recording("audio")); err == nil {
		t.Error("the client got an answer")
	}
	<-ended
}

// TestHTTP2SlowReader: a client that takes nothing loses its stream.
func TestHTTP2SlowReader(t *testing.T) {
	r := newRig(t, func(_ context.Context, _ int, _ engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		say(observe, " "+strings.Repeat("blah ", 1<<19))
		return engine.Done{Language: "en"}, nil
	})
	r.Stall = 200 * time.Millisecond
	resp, err := send(t.Context(), t, r.startHTTP2(t), "/api/v1/transcriptions", recording("file"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the request", func() bool { return r.active.Load() == 0 })
	if a := read(resp); a.err == nil {
		t.Error("the answer looks whole")
	}
}

// TestHTTP2Streams: what one connection may ask at once is bounded and said in
// the first frame, before anybody asks.
func TestHTTP2Streams(t *testing.T) {
	r := newRig(t, talks)
	srv := r.httpServer()
	plain := httptest.NewUnstartedServer(srv.Handler)
	plain.Config.HTTP2, plain.EnableHTTP2 = srv.HTTP2, true
	plain.StartTLS()
	t.Cleanup(plain.Close)
	c, err := tls.Dial("tcp", plain.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") //nolint:errcheck // reading tells
	head := make([]byte, 9)                                                                   // length, type, flags, stream: RFC 9113, 4.1
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("%x is no SETTINGS frame, %v", head, err)
	}
	settings := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, settings); err != nil {
		t.Fatal(err)
	}
	for i := 0; i+6 <= len(settings); i += 6 {
		if binary.BigEndian.Uint16(settings[i:]) == 3 { // SETTINGS_MAX_CONCURRENT_STREAMS
			if got := binary.BigEndian.Uint32(settings[i+2:]); got != maxStreams {
				t.Errorf("%d streams, want %d", got, maxStreams)
			}
			return
		}
	}
	t.Errorf("settings %x name no limit", settings)
}
