// Package load keeps an appliance busy from many sides while something happens
// to it, and counts what failed: small requests, half of them over connections
// that are kept and half over new ones, uploads of a short recording, and long
// recordings one after the other. A request that was begun is always ended, so
// that whatever is missing was lost by the appliance. It trusts nothing it is
// answered and writes nothing.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	smallLimit  = time.Minute     // for a small request to be answered: a server that hangs takes its time to be found out
	uploadLimit = 5 * time.Minute // for a recording to be transcribed
	firstErrors = 10              // so many are kept in words
)

// Load is what is done. Dial and URL must be set; what is zero is left out.
type Load struct {
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	URL    string        // of the appliance: "http://127.0.0.1:5001"
	Small  string        // path of the small requests: "/livez"
	Kept   int           // workers with small requests over a kept connection
	Fresh  int           // workers with a new connection for each
	Pace   time.Duration // between a worker's small requests; 0 = none
	Short  []byte        // a WAV file that one worker uploads over and over
	Long   []byte        // one that another worker does
	Expect string        // words, in lower case, that must be in the text of Short
	Repeat int           // a request that failed is asked again, so often at most
	Seen   *atomic.Int64 // counts the requests as they end; nil = nobody looks
}

// Counts is what came of it. Failed are those not answered with 200, and those
// of the wrong text.
type Counts struct {
	Kept, Fresh, Short, Long Kind
	Refused                  int      // of those that failed: nobody listened
	Lost                     int      // of those that failed: asked again, they failed again
	First                    []string // the first errors in words
}

// Kind counts one kind of requests.
type Kind struct {
	Asked, Failed int
	Slowest       time.Duration
	P99           time.Duration // 99 of 100 were answered in that time
	took          []time.Duration
}

// Total adds the kinds up.
func (c Counts) Total() (asked, failed int) {
	for _, k := range []Kind{c.Kept, c.Fresh, c.Short, c.Long} {
		asked, failed = asked+k.Asked, failed+k.Failed
	}
	return asked, failed
}

// String is one line for people.
func (c Counts) String() string {
	asked, failed := c.Total()
	return fmt.Sprintf("%d of %d requests failed (%d over kept connections, %d over new ones, %d uploads, %d long recordings)",
		failed, asked, c.Kept.Asked, c.Fresh.Asked, c.Short.Asked, c.Long.Asked)
}

// tally is Counts while many write it.
type tally struct {
	mu     sync.Mutex
	counts Counts
}

func (t *tally) add(kind *Kind, name string, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kind.Asked++
	kind.took = append(kind.took, took)
	if err == nil {
		return
	}
	kind.Failed++
	if errors.Is(err, syscall.ECONNREFUSED) {
		t.counts.Refused++
	}
	if len(t.counts.First) < firstErrors {
		t.counts.First = append(t.counts.First, fmt.Sprintf("%s after %v: %v", name, took.Round(time.Millisecond), err))
	}
}

// again asks anew for what had failed, and counts what fails every time.
func (t *tally) again(name string, times int, ask func() error) {
	var err error
	for range times {
		if err = ask(); err == nil {
			return
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Lost++
	t.counts.First = append(t.counts.First, fmt.Sprintf("%s, asked again: %v", name, err))
}

// worker is one side from which the appliance is kept busy.
type worker struct {
	name string
	kind *Kind
	pace time.Duration
	kept bool
	once func(ctx context.Context, c *http.Client) error
}

// Run keeps the appliance busy until ctx ends, and then waits for what was
// begun before.
func (l Load) Run(ctx context.Context) Counts {
	var t tally
	small := func(ctx context.Context, c *http.Client) error { return l.get(ctx, c) }
	short := func(ctx context.Context, c *http.Client) error { return l.upload(ctx, c, l.Short, l.Expect) }
	long := func(ctx context.Context, c *http.Client) error { return l.upload(ctx, c, l.Long, "") }
	workers := slices.Concat(
		slices.Repeat([]worker{{"kept connection", &t.counts.Kept, l.Pace, true, small}}, l.Kept),
		slices.Repeat([]worker{{"new connection", &t.counts.Fresh, l.Pace, false, small}}, l.Fresh),
	)
	if l.Short != nil {
		workers = append(workers, worker{"upload", &t.counts.Short, 0, false, short})
	}
	if l.Long != nil {
		workers = append(workers, worker{"long recording", &t.counts.Long, 0, false, long})
	}
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() { l.work(ctx, w, &t) })
	}
	group.Wait()
	for _, k := range []*Kind{&t.counts.Kept, &t.counts.Fresh, &t.counts.Short, &t.counts.Long} {
		k.summarise()
	}
	return t.counts
}

func (l Load) work(ctx context.Context, w worker, t *tally) {
	transport := &http.Transport{DialContext: l.Dial, DisableKeepAlives: !w.kept}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ctx.Err() == nil {
		begin := time.Now()
		err := w.once(context.WithoutCancel(ctx), client)
		t.add(w.kind, w.name, time.Since(begin), err)
		if err != nil && l.Repeat > 0 {
			t.again(w.name, l.Repeat, func() error { return w.once(context.WithoutCancel(ctx), client) })
		}
		if l.Seen != nil {
			l.Seen.Add(1)
		}
		rest(ctx, w.pace)
	}
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (k *Kind) summarise() {
	if len(k.took) == 0 {
		return
	}
	slices.Sort(k.took)
	k.P99 = k.took[(len(k.took)-1)*99/100]
	k.Slowest = k.took[len(k.took)-1]
}

func (l Load) get(ctx context.Context, c *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, smallLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL+l.Small, nil)
	if err != nil {
		return err
	}
	// Go's client repeats such a request by itself when a kept connection was
	// closed under it. Others would not.
	attempts := 0
	trace := httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { attempts++ }}
	_, err = answer(c, req.WithContext(httptrace.WithClientTrace(ctx, &trace)))
	if err == nil && attempts > 1 {
		err = fmt.Errorf("it took %d connections: one was closed under the request", attempts)
	}
	return err
}

// upload sends a recording and wants its text. The request is one that no
// client library may repeat by itself: it is not idempotent.
func (l Load) upload(ctx context.Context, c *http.Client, wav []byte, expect string) error {
	ctx, cancel := context.WithTimeout(ctx, uploadLimit)
	defer cancel()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "speech.wav")
	if err != nil {
		return err
	}
	file.Write(wav)                            //nolint:errcheck // into memory
	form.WriteField("response_format", "text") //nolint:errcheck
	if err := form.Close(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.URL+"/v1/audio/transcriptions", &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	text, err := answer(c, req)
	if err == nil && (strings.TrimSpace(text) == "" || !strings.Contains(strings.ToLower(text), expect)) {
		err = fmt.Errorf("the text is %.100q, without %q", text, expect)
	}
	return err
}

// answer is the whole body of an answer with 200.
func answer(c *http.Client, req *http.Request) (string, error) {
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return string(body), nil
}
