package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// NewJob is a recording for whose text nobody waits at the door.
type NewJob struct {
	Request
	Name     string // as the job is to be called; "" = as the file
	Priority string // normal or background; "" = normal
	Deadline string // a moment, or how long from now; "" = none
	Key      string // idempotency key; "" = none
	URL      string // that the server fetches the recording from, in place of Path
	Webhook  string // URL that the job's end is told to; "" = to none
}

func (q NewJob) fields() [][2]string {
	return append(q.Request.fields(), [2]string{"priority", q.Priority}, [2]string{"deadline", q.Deadline}, [2]string{"webhook", q.Webhook})
}

func (q NewJob) name() string { return cmp.Or(q.Name, filepath.Base(q.Path)) }

// idempotencyHeader is by which a request is named that may come again.
const idempotencyHeader = "Idempotency-Key"

// AddJobFrom has the server fetch a recording from q.URL.
func (c *Client) AddJobFrom(ctx context.Context, q NewJob) (j Job, err error) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for _, field := range append(q.fields(), [2]string{"url", q.URL}) {
		if field[1] == "" {
			continue
		}
		if err := form.WriteField(field[0], field[1]); err != nil {
			return j, err
		}
	}
	if err := form.Close(); err != nil {
		return j, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Base+"/api/v1/jobs", &b)
	if err != nil {
		return j, err
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	if q.Key != "" {
		req.Header.Set(idempotencyHeader, q.Key)
	}
	return j, c.decode(req, &j)
}

// AddJob sends a recording whole. sent is told how much of size was sent, which is
// 0 where it is not known.
func (c *Client) AddJob(ctx context.Context, q NewJob, sent func(done, size int64)) (j Job, err error) {
	f, size, err := openRecording(q.Path)
	if err != nil {
		return j, err
	}
	defer f.Close()
	body := &counter{r: f, sent: func(n int64) { sent(n, max(size, 0)) }}
	req, err := c.formRequest(ctx, "/api/v1/jobs", q.name(), q.fields(), body, size)
	if err != nil {
		return j, err
	}
	if q.Key != "" {
		req.Header.Set(idempotencyHeader, q.Key)
	}
	return j, c.decode(req, &j)
}

// JobsQuery says which jobs are listed. Zero values are the server's defaults.
type JobsQuery struct {
	State  string
	Before string // id of the last job of the page before
	Limit  int
	All    bool // everybody's; for administrators
}

// Jobs lists jobs, the newest first.
func (c *Client) Jobs(ctx context.Context, q JobsQuery) (list JobList, err error) {
	values := url.Values{}
	for name, value := range map[string]string{"state": q.State, "before": q.Before} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Limit > 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.All {
		values.Set("all", "true")
	}
	return list, c.Get(ctx, "/api/v1/jobs?"+values.Encode(), &list)
}

// jobPath is where a job is, or what follows of it.
func jobPath(id, rest string) string { return "/api/v1/jobs/" + url.PathEscape(id) + rest }

// Job shows a job, with its text as far as there is any.
func (c *Client) Job(ctx context.Context, id string) (j JobDetail, err error) {
	return j, c.Get(ctx, jobPath(id, ""), &j)
}

// CancelJob stops a job.
func (c *Client) CancelJob(ctx context.Context, id string) (Job, error) {
	return c.changeJob(ctx, jobPath(id, "/cancel"))
}

// RetryJob goes on with a job that failed or was cancelled.
func (c *Client) RetryJob(ctx context.Context, id string) (Job, error) {
	return c.changeJob(ctx, jobPath(id, "/retry"))
}

func (c *Client) changeJob(ctx context.Context, path string) (j Job, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Base+path, nil)
	if err != nil {
		return j, err
	}
	return j, c.decode(req, &j)
}

// DeleteJob removes a job and all that belongs to it.
func (c *Client) DeleteJob(ctx context.Context, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, c.Base+jobPath(id, ""), nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// JobText writes the text of a job that is done to w.
func (c *Client) JobText(ctx context.Context, id string, format transcript.Format, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+jobPath(id, "/transcript?format="+url.QueryEscape(string(format))), nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err = io.Copy(w, resp.Body); errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.Join(ErrCutOff, err)
	}
	return err
}

// decode sends req and reads the JSON document of its answer.
func (c *Client) decode(req *http.Request, out any) error {
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// Follower is told of a job that is followed. Its functions may be nil.
type Follower struct {
	Job      func(Job)                            // at first, and whenever its state changes
	Progress func(Progress)                       // finer than that
	Away     func(why error, again time.Duration) // the server does not answer; it is asked again
	Retry    Retry
}

// FollowJob waits for the end of a job and gives its transcript. A server that
// goes away meanwhile is asked again, for what comes after what is here. The
// error of a job that failed is a fault with the server's words, and of one that
// was cancelled one of kind Canceled.
func (c *Client) FollowJob(ctx context.Context, id string, f Follower) (*transcript.Transcript, error) {
	e := &events{progress: f.Progress, job: f.Job}
	retry := f.Retry.begin()
	for {
		told, err := c.events(ctx, id, e, retry)
		if told || ctx.Err() != nil {
			if ctx.Err() != nil && !told {
				err = context.Cause(ctx)
			}
			return &e.t, err
		}
		pause, more := retry.after(err)
		if !more {
			return nil, err
		}
		if f.Away != nil {
			f.Away(err, pause)
		}
		if !rest(ctx, pause) {
			return nil, context.Cause(ctx)
		}
	}
}

// events reads one answer of a job's events.
func (c *Client) events(ctx context.Context, id string, e *events, retry *retrying) (told bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+jobPath(id, "/events"), nil)
	if err != nil {
		return false, err
	}
	if e.seen != "" {
		req.Header.Set("Last-Event-ID", e.seen)
	}
	resp, err := c.do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	retry.well()
	return e.read(resp.Body)
}

// Retry is how long and how often what may pass is tried again.
type Retry struct {
	First time.Duration // the first pause, which doubles from then on; 0 = 500 ms
	Most  time.Duration // the longest pause; 0 = 10 s
	Until time.Duration // without success, until it is given up; 0 = 10 minutes
}

// retrying is a Retry under way.
type retrying struct {
	Retry
	pause time.Duration
	since time.Time // when it went well for the last time
}

func (r Retry) begin() *retrying {
	for of, standard := range map[*time.Duration]time.Duration{&r.First: 500 * time.Millisecond, &r.Most: 10 * time.Second, &r.Until: 10 * time.Minute} {
		if *of == 0 {
			*of = standard
		}
	}
	t := &retrying{Retry: r}
	t.well()
	return t
}

// well notes that it went well.
func (t *retrying) well() { t.pause, t.since = t.First, time.Now() }

// after is how long to wait after err; more is false where waiting is no use.
func (t *retrying) after(err error) (pause time.Duration, more bool) {
	if !passes(err) || time.Since(t.since) > t.Until {
		return 0, false
	}
	pause = t.pause
	t.pause = min(2*t.pause, t.Most)
	return pause, true
}

// passes tells whether err may be gone when the same is asked again.
func passes(err error) bool {
	var f *fault.Error
	if !errors.As(err, &f) {
		return errors.Is(err, ErrCutOff) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	switch f.Code {
	case "wrong_offset", "upload_busy", "upload_interrupted", "upload_stalled", "unexpected_eof", "bad_answer":
		return true
	}
	return f.Kind == fault.Unavailable || f.Kind == fault.Busy
}

// rest waits; false where ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
