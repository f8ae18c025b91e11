package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// vadEntry is the catalogue's Silero with the digest of the test's own file.
func vadEntry(t *testing.T) Entry {
	t.Helper()
	e, err := Lookup("silero-v6.2.0")
	if err != nil {
		t.Fatal(err)
	}
	e.SHA256 = sum(vadFile())
	return e
}

// hub is a server of one file whose behaviour each request can change.
type hub struct {
	*httptest.Server
	data []byte
	etag string
	odd  func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered; n counts from 1

	mu     sync.Mutex
	ranges []string // the Range of each request
}

func newHub(t *testing.T) *hub {
	h := &hub{data: vadFile(), etag: `"one"`}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.ranges = append(h.ranges, r.Header.Get("Range"))
	n := len(h.ranges)
	h.mu.Unlock()
	if h.odd != nil && h.odd(n, w, r) {
		return
	}
	w.Header().Set("ETag", h.etag)
	http.ServeContent(w, r, "model.bin", time.Time{}, bytes.NewReader(h.data))
}

func (h *hub) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ranges)
}

// breakAfter sends the head of a whole answer and n bytes, then breaks off.
func breakAfter(w http.ResponseWriter, h *hub, n int) bool {
	w.Header().Set("ETag", h.etag)
	w.Header().Set("Content-Length", strconv.Itoa(len(h.data)))
	w.Write(h.data[:n])
	panic(http.ErrAbortHandler)
}

func quick(sources ...string) PullOptions {
	return PullOptions{Sources: sources, NoUpstream: true, Pause: time.Millisecond, Stall: 5 * time.Second}.withDefaults()
}

func TestPull(t *testing.T) {
	h := newHub(t)
	s := &Store{Dir: filepath.Join(t.TempDir(), "models")}
	e := vadEntry(t)
	var seen []Progress
	o := quick(h.URL + "/")
	o.Progress = func(p Progress) { seen = append(seen, p) }
	r, err := s.pull(context.Background(), e, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Source != h.URL+"/"+e.File() || r.Already() || r.Report.Against != againstCatalogue || r.Resumed != 0 {
		t.Errorf("%+v", r)
	}
	var phases []Phase
	for _, p := range seen {
		phases = append(phases, p.Phase)
	}
	if got := slices.Compact(phases); !slices.Equal(got, []Phase{Checking, Downloading, Verifying, Done}) {
		t.Errorf("phases %v", got)
	}
	if got := filesIn(t, s.Dir); !slices.Equal(got, []string{e.File(), e.File() + ".json"}) {
		t.Errorf("the directory holds %v", got)
	}
	r, err = s.pull(context.Background(), e, quick(h.URL))
	if err != nil || !r.Already() || len(h.requests()) != 1 {
		t.Errorf("the second time: %+v, %v after %d requests", r, err, len(h.requests()))
	}
	spoilt := vadFile()
	spoilt[700] ^= 1
	write(t, s.path(e.Name), spoilt)
	r, err = s.pull(context.Background(), e, quick(h.URL))
	if err != nil || r.Already() || len(r.Warnings) != 1 {
		t.Errorf("in place of a damaged one: %+v, %v", r, err)
	}
}

func TestPullGoesOnAfterTheProcessEnded(t *testing.T) {
	h := newHub(t)
	s := &Store{Dir: t.TempDir()}
	e := vadEntry(t)
	h.odd = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			return breakAfter(w, h, 300_000)
		}
		http.Error(w, "down", http.StatusBadGateway)
		return true
	}
	_, err := s.pull(context.Background(), e, quick(h.URL))
	wantFault(t, err, fault.Unavailable, "download_failed")
	if got := s.partialSize(e.Name); got != 300_000 {
		t.Fatalf("%d bytes were kept", got)
	}
	before := len(h.requests())
	h.odd = nil
	r, err := s.pull(context.Background(), e, quick(h.URL))
	if err != nil || r.Resumed != 300_000 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := h.requests()[before:]; !slices.Equal(got, []string{"bytes=300000-"}) {
		t.Errorf("asked for %q", got)
	}
}

// A beginning that a power cut spoilt fails at the end, and the file is fetched anew.
func TestPullMendsASpoiltBeginning(t *testing.T) {
	h := newHub(t)
	e := vadEntry(t)
	for name, size := range map[string]int{"zeros": 200_000, "longer than the file": 900_000} {
		s := &Store{Dir: t.TempDir()}
		partial := s.path(e.Name) + partialSuffix
		write(t, partial, make([]byte, size))
		write(t, partial+stateSuffix, fmt.Appendf(nil, `{"url":%q,"validator":"\"one\""}`, h.URL+"/"+e.File()))
		if _, err := s.pull(context.Background(), e, quick(h.URL)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := &Store{Dir: t.TempDir()}
	write(t, s.path(e.Name)+partialSuffix, make([]byte, 1000)) // of nobody knows which address
	if r, err := s.pull(context.Background(), e, quick(h.URL)); err != nil || r.Resumed != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPullCanceledLeavesNothing(t *testing.T) {
	h := newHub(t)
	s := &Store{Dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	h.odd = func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("ETag", h.etag)
		w.Header().Set("Content-Length", strconv.Itoa(len(h.data)))
		w.Write(h.data[:500_000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
		return true
	}
	_, err := s.pull(ctx, vadEntry(t), quick(h.URL))
	wantFault(t, err, fault.Canceled, "canceled")
	if !errors.Is(err, context.Canceled) {
		t.Error("the cause is lost")
	}
	if left := filesIn(t, s.Dir); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

func TestPullAsksSourcesInOrder(t *testing.T) {
	e := vadEntry(t)
	empty, mirror, h := t.TempDir(), t.TempDir(), newHub(t)
	spoilt := vadFile()
	spoilt[999] ^= 1
	write(t, filepath.Join(mirror, e.File()), spoilt)
	s := &Store{Dir: t.TempDir()}
	r, err := s.pull(context.Background(), e, quick(empty, mirror, h.URL))
	if err != nil || r.Source != h.URL+"/"+e.File() {
		t.Fatalf("%+v, %v", r, err)
	}
	write(t, filepath.Join(mirror, e.File()), vadFile())
	for _, source := range []string{mirror, "file://" + mirror} {
		s = &Store{Dir: t.TempDir()}
		r, err = s.pull(context.Background(), e, quick(empty, source, h.URL))
		if err != nil || r.Source != filepath.Join(mirror, e.File()) || len(h.requests()) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	s = &Store{Dir: t.TempDir()}
	_, err = s.pull(context.Background(), e, quick(empty, "http://\x7f"))
	f := wantFault(t, err, fault.Unavailable, "download_failed")
	if !strings.Contains(f.Error(), empty) || !strings.Contains(f.Error(), "not an address") {
		t.Errorf("%q does not name each source", f.Error())
	}
	if left := filesIn(t, s.Dir); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

// roundTrip stands in for the network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPullAsksUpstreamLast(t *testing.T) {
	var asked []string
	client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		return &http.Response{StatusCode: 404, Status: "404 Not Found", Body: http.NoBody, Request: r}, nil
	})}
	s := &Store{Dir: t.TempDir()}
	for _, name := range []string{"large", "silero-v6.2.0"} {
		_, err := s.Pull(context.Background(), name, PullOptions{Client: client, Sources: []string{"http://mirror.test/m"}})
		wantFault(t, err, fault.Unavailable, "download_failed")
	}
	want := []string{
		"http://mirror.test/m/ggml-large-v3.bin",
		"https://huggingface.co/ggerganov/whisper.cpp/resolve/main/ggml-large-v3.bin",
		"http://mirror.test/m/ggml-silero-v6.2.0.bin",
		"https://huggingface.co/ggml-org/whisper-vad/resolve/main/ggml-silero-v6.2.0.bin",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	_, err := s.Pull(context.Background(), "tinny", PullOptions{})
	wantFault(t, err, fault.NotFound, "unknown_model")
}

func TestPullKeepsUnderTLS(t *testing.T) {
	plain := newHub(t)
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	s := &Store{Dir: t.TempDir()}
	o := quick(secure.URL)
	_, err := s.pull(context.Background(), vadEntry(t), o)
	if f := wantFault(t, err, fault.Unavailable, "download_failed"); !strings.Contains(f.Error(), "certificate cannot be trusted") {
		t.Errorf("%q", f.Error())
	}
	o.Client = secure.Client()
	_, err = s.pull(context.Background(), vadEntry(t), o.withDefaults())
	if f := wantFault(t, err, fault.Unavailable, "download_failed"); !strings.Contains(f.Error(), "from https to http") {
		t.Errorf("%q", f.Error())
	}
	if len(plain.requests()) != 0 {
		t.Error("the plain server was asked")
	}
}

func TestPullRefusesWithoutRoom(t *testing.T) {
	h := newHub(t)
	s := &Store{Dir: t.TempDir(), free: func() (int64, error) { return diskMargin + 885_097, nil }}
	_, err := s.pull(context.Background(), vadEntry(t), quick(h.URL))
	wantFault(t, err, fault.NoSpace, "disk_full")
	if len(h.requests()) != 0 {
		t.Error("it was fetched all the same")
	}
	s.free = func() (int64, error) { return diskMargin + 885_098, nil }
	if _, err := s.pull(context.Background(), vadEntry(t), quick(h.URL)); err != nil {
		t.Error(err)
	}
}

func TestPullWarnsOfMemory(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "meminfo"), []byte("MemAvailable: 100 kB\n"))
	s := &Store{Dir: t.TempDir(), Proc: proc}
	r, err := s.pull(context.Background(), vadEntry(t), quick(newHub(t).URL))
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPullOneAtATime(t *testing.T) {
	h := newHub(t)
	s := &Store{Dir: t.TempDir()}
	h.odd = func(n int, w http.ResponseWriter, r *http.Request) bool {
		_, err := s.pull(context.Background(), vadEntry(t), quick(h.URL))
		if f, ok := err.(*fault.Error); !ok || f.Code != "model_busy" {
			t.Errorf("the second pull: %v", err)
		}
		return false
	}
	if _, err := s.pull(context.Background(), vadEntry(t), quick(h.URL)); err != nil {
		t.Error(err)
	}
}

func TestPullIntoADirectoryThatIsNone(t *testing.T) {
	dir := write(t, filepath.Join(t.TempDir(), "file"), nil)
	_, err := (&Store{Dir: filepath.Join(dir, "models")}).Pull(context.Background(), "tiny", PullOptions{NoUpstream: true})
	if err == nil || fault.KindOf(err) == fault.Unavailable {
		t.Errorf("%v", err)
	}
	if os.Geteuid() == 0 {
		return // root may write anywhere
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err = (&Store{Dir: closed}).Pull(context.Background(), "tiny", PullOptions{NoUpstream: true})
	wantFault(t, err, fault.Forbidden, "models_not_writable")
}

func TestPausesGrowAndAreBounded(t *testing.T) {
	d := &download{o: PullOptions{Pause: time.Second}}
	for failures, least := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 8 * time.Second} {
		for range 50 {
			if got := d.pauseFor(failures, 0); got < least || got > least*3/2 {
				t.Errorf("after %d failures %v", failures, got)
			}
		}
	}
	if got := d.pauseFor(1, time.Hour); got != longestPause {
		t.Errorf("a server's wish of an hour gives %v", got)
	}
}
