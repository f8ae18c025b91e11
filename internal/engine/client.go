package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"
)

// ErrBroken means that the engine went away in the middle of a request: it
// crashed or was killed. The next request finds a new one.
var ErrBroken = errors.New("the engine broke off")

// Client is the server's end of the protocol. The zero value is not usable;
// Socket must be set. It is safe for concurrent use.
type Client struct {
	Socket string // path of the engine's Unix socket

	// Stay is how long the engine is to stay, sent with each request; nil = as
	// it was started.
	Stay func() Stay
}

func (c *Client) stay() *Stay {
	if c.Stay == nil {
		return nil
	}
	s := c.Stay()
	return &s
}

// Status asks the engine what it is and holds.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Load has the engine hold a model.
func (c *Client) Load(ctx context.Context, file string) (Model, error) {
	body, err := json.Marshal(LoadRequest{Model: file, Stay: c.stay()})
	if err != nil {
		return Model{}, err
	}
	var m Model
	return m, c.call(ctx, http.MethodPost, "/v1/model", bytes.NewReader(body), &m)
}

// Unload has the engine drop its model.
func (c *Client) Unload(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, "/v1/model", nil, nil)
}

// Detect asks where speech is in pcm, at most MaxVAD of it.
func (c *Client) Detect(ctx context.Context, req VADRequest, pcm []float32) (VADResponse, error) {
	body, err := encode(req, pcm)
	if err != nil {
		return VADResponse{}, err
	}
	var v VADResponse
	return v, c.call(ctx, http.MethodPost, "/v1/vad", body, &v)
}

// Transcribe decodes one window of at most MaxWindow. observe sees loading,
// progress and segments as they come. The error is a *Failure where the engine
// gave one, ErrBroken where it went away.
func (c *Client) Transcribe(ctx context.Context, req WindowRequest, pcm []float32, observe func(Event)) (Done, error) {
	req.Stay = c.stay()
	body, err := encode(req, pcm)
	if err != nil {
		return Done{}, err
	}
	resp, err := c.do(ctx, http.MethodPost, "/v1/transcribe", body)
	if err != nil {
		return Done{}, err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return Done{}, broken(ctx, err)
		}
		var ev Event
		if err := json.Unmarshal(line, &ev); err != nil {
			return Done{}, fmt.Errorf("the engine's answer: %w", err)
		}
		switch {
		case ev.Done != nil:
			return *ev.Done, nil
		case ev.Error != nil:
			return Done{}, ev.Error
		default:
			observe(ev)
		}
	}
}

// pieceSamples bounds what of a request's samples is encoded at a time.
const pieceSamples = 16 << 10

// request is a request as it goes over the wire: one JSON line, then samples. It is
// encoded as it is read, so that the samples are in memory once.
type request struct {
	rest []byte    // encoded and not read yet
	pcm  []float32 // not encoded yet
	buf  []byte
}

// encode puts a request in front of its samples.
func encode(req any, pcm []float32) (*request, error) {
	head, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return &request{rest: append(head, '\n'), pcm: pcm}, nil
}

// Len is how many bytes are not read yet.
func (r *request) Len() int64 { return int64(len(r.rest)) + 4*int64(len(r.pcm)) }

// Read is io.Reader's.
func (r *request) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(r.pcm) == 0 {
			return 0, io.EOF
		}
		piece := r.pcm[:min(len(r.pcm), pieceSamples)]
		r.pcm, r.buf = r.pcm[len(piece):], r.buf[:0]
		for _, v := range piece {
			r.buf = binary.LittleEndian.AppendUint32(r.buf, math.Float32bits(v))
		}
		r.rest = r.buf
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// call is one request with a JSON answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return broken(ctx, err)
	}
	return nil
}

// do sends a request on a connection of its own: the engine may have exited
// since the last one, and a new connection waits for the next engine. Any
// answer but success comes back as its *Failure.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return nil, err
	}
	if r, ok := body.(*request); ok {
		req.ContentLength = r.Len()
	}
	resp, err := c.transport().RoundTrip(req)
	if err != nil {
		return nil, broken(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	f := &Failure{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(f); err != nil || f.Code == "" {
		return nil, fmt.Errorf("the engine answered %s", resp.Status)
	}
	return nil, f
}

func (c *Client) transport() *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 10 * time.Second}
			return d.DialContext(ctx, "unix", c.Socket)
		},
	}
}

// broken names what a lost connection means. A caller who gave up gets its own
// reason back.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}
