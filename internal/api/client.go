package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// Client talks to a server.
type Client struct {
	Base string // "http://127.0.0.1:5001", without a slash at the end
	Key  string // API key; "" where none is needed
	HTTP *http.Client
}

// OverSocket is a client of the server behind a Unix socket.
func OverSocket(path string) *Client {
	return &Client{Base: "http://local", HTTP: &http.Client{Transport: &http.Transport{
		ExpectContinueTimeout: time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		},
	}}}
}

// Request is a recording and what is wanted of it.
type Request struct {
	Path        string // of the recording
	Model       string // "" = the one in use
	Language    string // "" = detect
	Prompt      string
	Task        transcript.Task
	Temperature string // as typed; the server checks it
	Words       bool
}

// Transcribe sends a recording and follows the events. sent is told how much of
// size was uploaded; progress and segment may be nil. Errors of the server are
// faults with its words.
func (c *Client) Transcribe(ctx context.Context, q Request, sent func(done, size int64), progress func(Progress)) (*transcript.Transcript, error) {
	f, err := os.Open(q.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fault.New(fault.BadInput, "is_directory", "%s is a directory", q.Path).Try("name the recordings in it: %s", filepath.Join(q.Path, "*"))
	}
	size := int64(-1)
	if st.Mode().IsRegular() {
		size = st.Size()
	}
	return c.TranscribeFrom(ctx, f, size, q, func(n int64) { sent(n, st.Size()) }, progress)
}

// TranscribeFrom is Transcribe for a recording that r gives: size bytes, or -1
// where that is not known. q.Path only names it.
func (c *Client) TranscribeFrom(ctx context.Context, r io.Reader, size int64, q Request, sent func(done int64), progress func(Progress)) (*transcript.Transcript, error) {
	head, tail, contentType, err := q.form()
	if err != nil {
		return nil, err
	}
	file := &counter{r: r, sent: sent}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Base+"/api/v1/transcriptions",
		io.MultiReader(bytes.NewReader(head), file, bytes.NewReader(tail)))
	if err != nil {
		return nil, err
	}
	if size >= 0 {
		req.ContentLength = int64(len(head)) + size + int64(len(tail))
	}
	req.Header.Set("Content-Type", contentType)
	// A server that will not have it says so before all of it is on its way.
	req.Header.Set("Expect", "100-continue")
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return follow(resp.Body, progress)
}

// form is what comes before and after the recording in the request's body.
func (q Request) form() (head, tail []byte, contentType string, err error) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for _, field := range [][2]string{
		{"model", q.Model}, {"language", q.Language}, {"prompt", q.Prompt}, {"task", string(q.Task)},
		{"temperature", q.Temperature}, {"words", wordsField(q.Words)},
	} {
		if field[1] == "" {
			continue
		}
		if err := form.WriteField(field[0], field[1]); err != nil {
			return nil, nil, "", err
		}
	}
	if _, err := form.CreateFormFile("file", filepath.Base(q.Path)); err != nil {
		return nil, nil, "", err
	}
	n := b.Len()
	if err := form.Close(); err != nil {
		return nil, nil, "", err
	}
	return b.Bytes()[:n:n], b.Bytes()[n:], form.FormDataContentType(), nil
}

func wordsField(on bool) string {
	if on {
		return "true"
	}
	return ""
}

type counter struct {
	r    io.Reader
	n    int64
	sent func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.sent(c.n)
	return n, err
}

// ErrCutOff means that the answer ended before it was whole.
var ErrCutOff = errors.New("the server broke off its answer")

// follow reads events until done or error.
func follow(r io.Reader, progress func(Progress)) (*transcript.Transcript, error) {
	t := &transcript.Transcript{}
	lines := bufio.NewReader(r)
	name := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCutOff, err)
		}
		line = strings.TrimSuffix(line, "\n")
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		if done, err := take(t, name, []byte(data), progress); done || err != nil {
			return t, err
		}
	}
}

// take takes one event into t; done after the last.
func take(t *transcript.Transcript, name string, data []byte, progress func(Progress)) (done bool, err error) {
	switch name {
	case EventProgress:
		var p Progress
		if err = json.Unmarshal(data, &p); err == nil && progress != nil {
			progress(p)
		}
	case EventSegment:
		var s transcript.Segment
		if err = json.Unmarshal(data, &s); err == nil {
			t.Segments = append(t.Segments, s)
		}
	case EventDone:
		var d Done
		err = json.Unmarshal(data, &d)
		t.Task, t.Language, t.Duration, t.Model, t.Notes = transcript.Task(d.Task), d.Language, time.Duration(d.Duration), d.Model, d.Notes
		return true, err
	case EventError:
		var e Error
		if err = json.Unmarshal(data, &e); err == nil {
			err = e.fault(http.StatusInternalServerError)
		}
	}
	return false, err
}

// Get asks for a JSON document.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// UseModel makes an installed model the one in use and gives its name.
func (c *Client) UseModel(ctx context.Context, name string) (string, error) {
	body, err := json.Marshal(map[string]string{"model": name})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.Base+"/api/v1/models/current", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var used struct {
		Model string `json:"model"`
	}
	return used.Model, json.NewDecoder(resp.Body).Decode(&used)
}

// mostAnswer bounds an answer that is kept whole.
const mostAnswer = 4 << 20

// Raw asks for path and gives the answer as it comes, whatever its status: at
// most 4 MiB. An error is that there is no answer, or with what there is of it
// that it is longer or broken off.
func (c *Client) Raw(ctx context.Context, path string) (status int, body []byte, err error) {
	resp, body, err := c.raw(ctx, path)
	if resp != nil {
		status = resp.StatusCode
	}
	return status, body, err
}

func (c *Client) raw(ctx context.Context, path string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+path, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	if err != nil {
		return resp, body, fmt.Errorf("%w: %w", ErrCutOff, err)
	}
	if len(body) > mostAnswer {
		return resp, body[:mostAnswer], fault.New(fault.Internal, "bad_answer", "the server's answer to %s is longer than %d bytes", path, mostAnswer)
	}
	return resp, body, nil
}

// Health asks how the server is and gives its answer, a JSON document with a
// status: also that something is missing, which is no success (503).
func (c *Client) Health(ctx context.Context) (json.RawMessage, error) {
	resp, data, err := c.raw(ctx, "/health")
	if err != nil {
		return nil, err
	}
	var health struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(data, &health) != nil || health.Status == "" {
		return nil, c.refusal(resp, data)
	}
	return data, nil
}

// do sends req with the key; an answer that is no success comes back as a fault.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.send(req)
	if err != nil || resp.StatusCode < 300 {
		return resp, err
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // what there is of it
	return nil, c.refusal(resp, data)
}

// refusal is an answer that is no success, as a fault with the server's words.
func (c *Client) refusal(resp *http.Response, data []byte) error {
	var e Error
	if err := json.Unmarshal(data, &e); err != nil || e.Error == "" {
		return fault.New(fault.Internal, "bad_answer", "the server at %s answered %s", c.Base, resp.Status)
	}
	return e.fault(resp.StatusCode)
}

// send sends req with the key.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		if req.Context().Err() != nil {
			return nil, context.Cause(req.Context())
		}
		if err := distrusted(c.Base, err); err != nil {
			return nil, err
		}
		return nil, fault.New(fault.Unavailable, "no_server", "the server at %s does not answer", c.Base).Because(err).
			Try("is it running? `systemctl status whisper-appliance`")
	}
	return resp, nil
}

// fault gives the server's words back their kind.
func (e Error) fault(status int) error {
	return &fault.Error{Kind: fault.OfStatus(status), Code: e.Code, Field: e.Field, Message: e.Error, Hint: e.Hint}
}
