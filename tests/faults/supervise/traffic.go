package supervise

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

// Traffic keeps a server busy while something happens to it. Unlike
// tests/e2e/load it tells connections that were refused from requests that
// failed, and asks again for what failed until it succeeds: that is what is
// promised of an update that goes wrong.
type Traffic struct {
	Address string        // of the port, host:port
	Socket  string        // of api.sock, used in place of the port where it is set
	Small   string        // path of the small requests; "" = /api/status
	Kept    int           // workers that ask over a connection that is kept
	Fresh   int           // workers with a new connection for each request
	Uploads int           // workers that have a recording transcribed
	Record  []byte        // that recording; nil = a few bytes
	Text    string        // what must be heard in it; "" = anything
	Pace    time.Duration // between a worker's requests; 0 = 2 ms
	Limit   time.Duration // until a request that waits has failed; 0 = 10 s
	Again   time.Duration // how long one that failed is repeated; 0 = 20 s
}

// Tally is what came of it.
type Tally struct {
	Asked     int // requests, repetitions not counted
	Succeeded int // at the first time
	Refused   int // connections that nobody took; their requests count as failed, too
	Failed    int
	Repeated  int // of those that failed, the ones that succeeded later
	Slowest   time.Duration
	First     []string // the first failures in words
}

// Lost is how many requests never succeeded.
func (t Tally) Lost() int { return t.Failed - t.Repeated }

// String is one line for people.
func (t Tally) String() string {
	return fmt.Sprintf("%d of %d requests failed, %d connections refused, %d lost, the slowest took %v", t.Failed, t.Asked, t.Refused, t.Lost(), t.Slowest.Round(time.Millisecond))
}

const mostWords = 10

// Begin starts the traffic. end stops it when what was begun has ended, and may
// be called once.
func (tr Traffic) Begin() (end func() Tally) {
	ctx, stop := context.WithCancel(context.Background())
	c := &counting{}
	var workers sync.WaitGroup
	for range tr.Kept {
		workers.Go(func() { tr.ask(ctx, c, true, tr.get) })
	}
	for range tr.Fresh {
		workers.Go(func() { tr.ask(ctx, c, false, tr.get) })
	}
	for range tr.Uploads {
		workers.Go(func() { tr.ask(ctx, c, false, tr.upload) })
	}
	return func() Tally {
		stop()
		workers.Wait()
		return c.tally
	}
}

// counting is a tally that many write.
type counting struct {
	mu    sync.Mutex
	tally Tally
}

func (c *counting) note(took time.Duration, err error, later bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.tally
	t.Slowest = max(t.Slowest, took)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		t.Refused++
	}
	if later {
		if err == nil {
			t.Repeated++
		}
		return
	}
	t.Asked++
	if err == nil {
		t.Succeeded++
		return
	}
	t.Failed++
	if len(t.First) < mostWords {
		t.First = append(t.First, fmt.Sprintf("after %v: %v", took.Round(time.Millisecond), err))
	}
}

type request func(context.Context, *http.Client) error

// ask is one worker.
func (tr Traffic) ask(ctx context.Context, c *counting, kept bool, once request) {
	transport := &http.Transport{DisableKeepAlives: !kept, DialContext: tr.dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	tick := time.NewTicker(cmp.Or(tr.Pace, 2*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if tr.one(c, client, once, false) {
			continue
		}
		for until := time.Now().Add(cmp.Or(tr.Again, 20*time.Second)); !tr.one(c, client, once, true) && time.Now().Before(until); {
			<-tick.C
		}
	}
}

// one makes a request to its end, whatever happens meanwhile.
func (tr Traffic) one(c *counting, client *http.Client, once request, later bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(tr.Limit, 10*time.Second))
	defer cancel()
	began := time.Now()
	err := once(ctx, client)
	c.note(time.Since(began), err, later)
	return err == nil
}

func (tr Traffic) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if tr.Socket != "" {
		network, address = "unix", tr.Socket
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (tr Traffic) url(path string) string { return "http://" + cmp.Or(tr.Address, "localhost") + path }

func (tr Traffic) get(ctx context.Context, c *http.Client) error {
	// Go's client repeats a GET by itself when a kept connection was closed
	// under it. Others would not.
	connections := 0
	trace := httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections++ }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &trace), http.MethodGet, tr.url(cmp.Or(tr.Small, "/api/status")), nil)
	if err != nil {
		return err
	}
	if _, err = answer(c, req); err == nil && connections > 1 {
		err = errors.New("its connection was closed under it")
	}
	return err
}

func (tr Traffic) upload(ctx context.Context, c *http.Client) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "speech.wav")
	if err != nil {
		return err
	}
	record := tr.Record
	if record == nil {
		record = []byte("a recording")
	}
	file.Write(record)                         //nolint:errcheck // into memory
	form.WriteField("response_format", "text") //nolint:errcheck // the same
	if err := form.Close(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, tr.url("/v1/audio/transcriptions"), &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	text, err := answer(c, req)
	if text = strings.TrimSpace(text); err == nil && (text == "" || tr.Text != "" && text != tr.Text) {
		err = fmt.Errorf("%q was heard, want %q", text, tr.Text)
	}
	return err
}

// answer is the body of an answer with 200.
func answer(c *http.Client, req *http.Request) (string, error) {
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", res.Status, body)
	}
	return string(body), err
}
