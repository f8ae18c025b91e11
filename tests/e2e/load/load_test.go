package load

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRun: all kinds ask, every third small request fails and is counted, and
// what was begun is ended though the time is up.
func TestRun(t *testing.T) {
	var small, uploads, connections atomic.Int64
	long := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		if small.Add(1)%3 == 0 {
			http.Error(w, "it is away", http.StatusBadGateway)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	mux.HandleFunc("POST /v1/audio/transcriptions", func(w http.ResponseWriter, r *http.Request) {
		uploads.Add(1)
		file, _, err := r.FormFile("file")
		if err != nil {
			t.Error(err)
			return
		}
		data, _ := io.ReadAll(file)
		if string(data) == "long" && small.Load() > 100 {
			cancel()
			<-long
		}
		io.WriteString(w, "Open the Window.\n") //nolint:errcheck
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		connections.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	go func() {
		<-ctx.Done()
		close(long)
	}()
	l := Load{Dial: dial, URL: server.URL, Small: "/livez", Kept: 2, Fresh: 2,
		Short: []byte("short"), Long: []byte("long"), Expect: "open the window", Seen: new(atomic.Int64)}
	c := l.Run(ctx)
	if got := int64(c.Kept.Asked + c.Fresh.Asked); got != small.Load() {
		t.Errorf("%d small requests counted, %d came", got, small.Load())
	}
	if got := int64(c.Short.Asked + c.Long.Asked); got != uploads.Load() || c.Short.Failed+c.Long.Failed != 0 {
		t.Errorf("%d uploads counted, %d came: %v", got, uploads.Load(), c.First)
	}
	if asked, _ := c.Total(); l.Seen.Load() != int64(asked) {
		t.Errorf("%d requests were seen to end, %d counted", l.Seen.Load(), asked)
	}
	if asked, failed := c.Total(); failed != int(small.Load()/3) || asked == 0 {
		t.Errorf("%v, want %d failed", c, small.Load()/3)
	}
	if len(c.First) == 0 || !strings.Contains(c.First[0], "it is away") {
		t.Errorf("the first errors are %q", c.First)
	}
	if least := int64(c.Fresh.Asked + c.Short.Asked); connections.Load() < least {
		t.Errorf("%d connections for %d requests that each want one", connections.Load(), least)
	}
	if c.Kept.P99 == 0 || c.Kept.P99 > c.Kept.Slowest {
		t.Errorf("99 of 100 within %v, the slowest %v", c.Kept.P99, c.Kept.Slowest)
	}
}

func TestWrongAnswers(t *testing.T) {
	var text atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, text.Load().(string)) //nolint:errcheck
	}))
	defer server.Close()
	l := Load{Dial: (&net.Dialer{}).DialContext, URL: server.URL}
	for answer, want := range map[string]string{"": "without", "close the door": "without", "Open it": ""} {
		text.Store(answer)
		err := l.upload(t.Context(), server.Client(), []byte("wav"), "open")
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q gives %v, want %q", answer, err, want)
		}
	}
	server.Close()
	if err := l.get(t.Context(), &http.Client{Timeout: time.Second}); err == nil {
		t.Error("nobody listens, and it did not fail")
	}
}

// TestClosedUnderTheRequest: what Go's client repeats in silence has failed.
func TestClosedUnderTheRequest(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	l, client := Load{URL: server.URL}, &http.Client{}
	for i, want := range []string{"", "closed under the request", ""} {
		err := l.get(t.Context(), client)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("request %d gives %v, want %q", i+1, err, want)
		}
	}
}

// TestRepeat: what failed is asked once more, and counted where that fails too;
// who is refused is counted as well.
func TestRepeat(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n == 2 || n == 4 || n == 5 {
			http.Error(w, "it is away", http.StatusBadGateway)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	l := Load{Dial: (&net.Dialer{}).DialContext, URL: server.URL, Kept: 1, Repeat: 1, Seen: new(atomic.Int64)}
	done := make(chan Counts, 1)
	go func() { done <- l.Run(ctx) }()
	for l.Seen.Load() < 6 {
		runtime.Gosched()
	}
	cancel()
	if c := <-done; c.Kept.Failed != 2 || c.Lost != 1 || c.Refused != 0 {
		t.Errorf("%d failed, %d lost, %d refused, want 2, 1 and 0: %v", c.Kept.Failed, c.Lost, c.Refused, c.First)
	}
	server.Close()
	ctx, cancel = context.WithCancel(t.Context())
	l.Seen.Store(0)
	go func() { done <- l.Run(ctx) }()
	for l.Seen.Load() < 2 {
		runtime.Gosched()
	}
	cancel()
	if c := <-done; c.Refused != c.Kept.Failed || c.Lost != c.Kept.Failed {
		t.Errorf("nobody listens: %d failed, %d refused, %d lost", c.Kept.Failed, c.Refused, c.Lost)
	}
}
