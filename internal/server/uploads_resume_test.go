package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/inbox"
)

// TestResumeAnywhere breaks the connection off at every 100 kB of 1 MB, and goes
// on where HEAD says; what arrives is what was sent.
func TestResumeAnywhere(t *testing.T) {
	noLeaks(t)
	hold := make(chan bool)
	r := newRig(t, func(ctx context.Context, n int, req engine.WindowRequest, observe func(engine.Event)) (engine.Done, error) {
		<-hold
		return talks(ctx, n, req, observe)
	}).withDesk(t)
	sent := talk(1 << 20)
	for name, stop := range map[string]bool{"the client": false, "the server": true} {
		t.Run(name, func(t *testing.T) {
			srv := r.start(t)
			at := begin(t, srv.URL, len(sent))
			pieces := 0
			for offset, breakAt := 0, 100_000; offset < len(sent); breakAt += 100_000 {
				if breakAt < len(sent) {
					c := sendHalf(t, srv.Listener.Addr().String(), strings.TrimPrefix(at, srv.URL), sent, offset, breakAt)
					if stop {
						eventually(t, "the piece's arrival", func() bool { return r.active.Load() > 0 })
						srv.CloseClientConnections()
						srv.Close()
						srv = r.start(t)
						at = srv.URL + "/api/v1/uploads/" + filepath.Base(at)
					}
					c.Close()
				} else {
					// The piece before may arrive only now, and come between.
					a := tus(t, "PATCH", at, bytes.NewReader(sent[offset:]), "Upload-Offset", strconv.Itoa(offset))
					if a.status != 409 {
						a.want(t, 204)
					}
				}
				pieces++
				a := tus(t, "HEAD", at, nil)
				a.want(t, 200)
				now, err := strconv.Atoi(a.header.Get("Upload-Offset"))
				if err != nil || now < offset || now > breakAt && now != len(sent) {
					t.Fatalf("offset %d after %d bytes, %v", now, breakAt, err)
				}
				offset = now
			}
			id := tus(t, "HEAD", at, nil).header.Get("Job-ID")
			j, err := r.Desk().Store.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(r.Desk().Dir, j.Media))
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes arrived of %d, the same: %t, %v", len(got), len(sent), bytes.Equal(got, sent), err)
			}
			t.Logf("%d pieces", pieces)
		})
	}
	close(hold)
}

// sendHalf announces the rest of an upload and sends a part of it.
func sendHalf(t *testing.T, address, path string, sent []byte, from, to int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: %d\r\nContent-Length: %d\r\n\r\n",
		path, from, len(sent)-from)
	if _, err := c.Write(sent[from:to]); err != nil {
		t.Error(err)
	}
	return c
}

// TestTwoPieces: who comes later has the upload, as the first one's connection is
// dead most likely.
func TestTwoPieces(t *testing.T) {
	noLeaks(t)
	for _, second := range []string{"HEAD", "PATCH"} {
		t.Run(second, func(t *testing.T) {
			r := newRig(t, talks).withDesk(t)
			srv := r.start(t)
			at := begin(t, srv.URL, 1000)
			body, feed := io.Pipe()
			first := make(chan answered, 1)
			go func() { first <- tus(t, "PATCH", at, body, "Upload-Offset", "0") }()
			feed.Write(talk(100))
			id := filepath.Base(at)
			eventually(t, "the first bytes", func() bool { u, err := r.Desk().Inbox.Get(id); return err == nil && u.Offset == 100 })
			a := tus(t, second, at, nil, "Upload-Offset", "0")
			if second == "HEAD" {
				if a.want(t, 200); a.header.Get("Upload-Offset") != "100" {
					t.Errorf("offset %s", a.header.Get("Upload-Offset"))
				}
			} else {
				a.want(t, 409, "wrong_offset")
			}
			feed.Close()
			(<-first).want(t, 409, "upload_interrupted")
			tus(t, "DELETE", at, nil).want(t, 204)
		})
	}
}

// TestUploadWhileStopping: a piece ends with the server, and what came is kept.
func TestUploadWhileStopping(t *testing.T) {
	noLeaks(t)
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	at := begin(t, srv.URL, 1000)
	body, feed := io.Pipe()
	first := make(chan answered, 1)
	go func() { first <- tus(t, "PATCH", at, body, "Upload-Offset", "0") }()
	feed.Write(talk(100))
	id := filepath.Base(at)
	eventually(t, "the first bytes", func() bool { u, err := r.Desk().Inbox.Get(id); return err == nil && u.Offset == 100 })
	r.draining.Store(true)
	go feed.Write(talk(200)[100:])
	(<-first).want(t, 503, "stopping", "HEAD")
	feed.Close()
	r.draining.Store(false)
	u := decoded[api.Upload](t, tus(t, "GET", at, nil))
	tus(t, "PATCH", at, bytes.NewReader(talk(1000)[u.Offset:]), "Upload-Offset", strconv.FormatInt(u.Offset, 10)).want(t, 204)
}

// TestStalledPiece: a client that sends no more loses its connection, and not
// what it has sent.
func TestStalledPiece(t *testing.T) {
	noLeaks(t)
	r := newRig(t, talks).withDesk(t)
	r.Stall = 100 * time.Millisecond
	srv := r.start(t)
	at := begin(t, srv.URL, 1000)
	body, feed := io.Pipe()
	go feed.Write(talk(100))
	tus(t, "PATCH", at, body, "Upload-Offset", "0").want(t, 409, "upload_stalled")
	feed.Close()
	if a := tus(t, "HEAD", at, nil); a.header.Get("Upload-Offset") != "100" {
		t.Errorf("at %s", a.header.Get("Upload-Offset"))
	}
}

// TestHTTP2Upload is TestUpload with refusals, over HTTP/2.
func TestHTTP2Upload(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	r.Stall = 200 * time.Millisecond
	srv := r.startHTTP2(t)
	tus2 := func(method, url string, body io.Reader, headers ...string) answered {
		req, err := http.NewRequestWithContext(t.Context(), method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Tus-Resumable", "1.0.0")
		req.Header.Set("Content-Type", "application/offset+octet-stream")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := srv.Client().Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return read(resp)
	}
	sent := talk(3 << 20)
	at := srv.URL + tus2("POST", srv.URL+"/api/v1/uploads", nil, "Upload-Length", strconv.Itoa(len(sent)), "Content-Type", "x/y").header.Get("Location")
	tus2("PATCH", at, bytes.NewReader(sent), "Upload-Offset", "7").want(t, 409, "wrong_offset")
	tus2("PATCH", at, bytes.NewReader(sent[:1<<20]), "Upload-Offset", "0").want(t, 204)
	body, feed := io.Pipe()
	go feed.Write(sent[1<<20 : 2<<20])
	tus2("PATCH", at, body, "Upload-Offset", strconv.Itoa(1<<20)).want(t, 409, "upload_stalled")
	feed.Close()
	a := tus2("HEAD", at, nil)
	offset, _ := strconv.Atoi(a.header.Get("Upload-Offset"))
	a = tus2("PATCH", at, bytes.NewReader(sent[offset:]), "Upload-Offset", strconv.Itoa(offset))
	if a.want(t, 204); offset != 2<<20 || a.header.Get("Job-ID") == "" {
		t.Errorf("went on at %d: %v", offset, a.header)
	}
	eventually(t, "the job's end", func() bool {
		j, err := r.Desk().Store.Get(t.Context(), a.header.Get("Job-ID"))
		return err == nil && j.State.Ended()
	})
}

// TestInboxOfAnother: two servers on one directory, as while one takes over from
// the other, keep each other from writing to one upload.
func TestInboxOfAnother(t *testing.T) {
	r := newRig(t, talks).withDesk(t)
	srv := r.start(t)
	at := begin(t, srv.URL, 10)
	other := &inbox.Inbox{Dir: r.Desk().Inbox.Dir, Log: r.Log}
	unlock, ok := other.TryLock(filepath.Base(at))
	if !ok {
		t.Fatal("it is locked already")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Desk().Inbox.Lock(ctx, filepath.Base(at), func() {}); err == nil {
		t.Error("both have it")
	}
	unlock()
	tus(t, "PATCH", at, strings.NewReader("1234567890"), "Upload-Offset", "0").want(t, 204)
}
