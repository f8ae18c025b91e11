package model

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// A reply is what an odd server does once; false: it then answers as it should.
type reply func(h *hub, w http.ResponseWriter, r *http.Request) bool

// inTurn gives one reply after the other and then the file.
func inTurn(h *hub, replies []reply) {
	h.odd = func(n int, w http.ResponseWriter, r *http.Request) bool {
		return n <= len(replies) && replies[n-1](h, w, r)
	}
}

// broken is how much of the file comes before a connection breaks.
const broken = 400_000

func breakOff(h *hub, w http.ResponseWriter, _ *http.Request) bool { return breakAfter(w, h, broken) }

// breakOffNameless gives nothing that names the file's version.
func breakOffNameless(h *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", strconv.Itoa(len(h.data)))
	w.Write(h.data[:broken])
	panic(http.ErrAbortHandler)
}

// breakOffAndChange has another file by the next request.
func breakOffAndChange(h *hub, w http.ResponseWriter, _ *http.Request) bool {
	good := h.data
	h.data = slices.Clone(good)
	h.data[999] ^= 1
	defer func() { h.data, h.etag = good, `"two"` }()
	return breakAfter(w, h, broken)
}

func breakOffEarly(h *hub, w http.ResponseWriter, r *http.Request) bool {
	from, _ := strconv.Atoi(strings.Trim(r.Header.Get("Range"), "bytes=-"))
	w.Header().Set("ETag", h.etag)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(h.data)-1, len(h.data)))
	w.Header().Set("Content-Length", strconv.Itoa(len(h.data)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(h.data[from : from+100_000])
	panic(http.ErrAbortHandler)
}

func busy(_ *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Retry-After", "0")
	w.WriteHeader(http.StatusTooManyRequests)
	return true
}

func noRange(_ *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	return true
}

func wholeFile(h *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", strconv.Itoa(len(h.data)))
	w.Write(h.data)
	return true
}

func otherRange(h *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(h.data)-1, len(h.data)))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(h.data[7:])
	return true
}

func blindToIfRange(_ *hub, _ http.ResponseWriter, r *http.Request) bool {
	r.Header.Del("If-Range")
	return false
}

// withoutLength ends where nobody can know that it is not the end.
func withoutLength(h *hub, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("ETag", h.etag)
	w.Write(h.data[:broken])
	w.(http.Flusher).Flush()
	return true
}

func silent(h *hub, w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("ETag", h.etag)
	w.Header().Set("Content-Length", strconv.Itoa(len(h.data)))
	w.Write(h.data[:broken])
	w.(http.Flusher).Flush()
	<-r.Context().Done()
	return true
}

// TestPullMends: each server is odd in its way and the file comes all the same.
func TestPullMends(t *testing.T) {
	resume := fmt.Sprintf("bytes=%d-", broken)
	early := breakOffEarly
	for name, c := range map[string]struct {
		replies []reply
		ranges  []string // that are asked for
	}{
		"breaks off once":      {[]reply{breakOff}, []string{"", resume}},
		"breaks off six times": {[]reply{early, early, early, early, early, early}, []string{"", "bytes=100000-", "bytes=200000-", "bytes=300000-", "bytes=400000-", "bytes=500000-", "bytes=600000-"}},
		"is busy twice":        {[]reply{busy, busy}, []string{"", "", ""}},
		"ignores the range":    {[]reply{breakOff, wholeFile}, []string{"", resume}},
		"sends another range":  {[]reply{breakOff, otherRange}, []string{"", resume, ""}},
		"has no such range":    {[]reply{breakOff, noRange}, []string{"", resume, ""}},
		"changes the file":     {[]reply{breakOffAndChange}, []string{"", resume}},
		"is blind to If-Range": {[]reply{breakOffAndChange, blindToIfRange}, []string{"", resume, ""}},
		"says no length":       {[]reply{withoutLength}, []string{"", resume}},
		"falls silent":         {[]reply{silent}, []string{"", resume}},
		"has no ETag":          {[]reply{breakOffNameless}, []string{"", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			h, s, e := newHub(t), &Store{Dir: t.TempDir()}, vadEntry(t)
			inTurn(h, c.replies)
			o := quick(h.URL)
			o.Stall = 300 * time.Millisecond
			if _, err := s.pull(context.Background(), e, o); err != nil {
				t.Fatal(err)
			}
			if got := h.requests(); !slices.Equal(got, c.ranges) {
				t.Errorf("the ranges asked for are %q and have to be %q", got, c.ranges)
			}
			if got := filesIn(t, s.Dir); !slices.Equal(got, []string{e.File(), e.File() + ".json"}) {
				t.Errorf("the directory holds %v", got)
			}
		})
	}
}

// TestPullRefuses: no attempt helps, and nothing is left.
func TestPullRefuses(t *testing.T) {
	wrong := vadFile()
	wrong[999] ^= 1
	answer := func(status int, kind string, body []byte) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			w.Write(body)
			return true
		}
	}
	redirect := func(to string) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, to, http.StatusFound)
			return true
		}
	}
	const binary = "application/octet-stream"
	for name, c := range map[string]struct {
		odd      func(int, http.ResponseWriter, *http.Request) bool
		says     string
		requests int
	}{
		"not there":       {answer(404, "text/plain", nil), "no such file (404", 1},
		"forbidden":       {answer(403, "text/plain", nil), "it answers 403", 1},
		"always busy":     {answer(503, "text/plain", nil), "given up after 5 attempts: it answers 503", 5},
		"web page":        {answer(200, "text/html; charset=utf-8", []byte("<html>")), "a web page", 1},
		"other size":      {answer(200, binary, []byte("lmgg")), "has 4 bytes and has to have 885098", 1},
		"other content":   {answer(200, binary, wrong), "has the digest", 1},
		"other beginning": {answer(200, binary, append([]byte("GGUF"), vadFile()[4:]...)), "is not a model", 1},
		"no model": {answer(200, binary, append(vadFile()[:20], make([]byte, 885_098-20)...)),
			"is not a model that can be used", 1},
		"more than said": {func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Write(vadFile())
			w.(http.Flusher).Flush() // no length is sent
			io.Copy(w, io.LimitReader(zeros{}, 1<<20))
			return true
		}, "sends more than the 885098 bytes", 1},
		"redirects for ever": {redirect("/again"), "redirects more than 5 times", 6},
		"ends at once": {func(int, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
			"given up after 5 attempts", 5},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			h.odd = c.odd
			s := &Store{Dir: t.TempDir()}
			_, err := s.pull(context.Background(), vadEntry(t), quick(h.URL))
			f := wantFault(t, err, fault.Unavailable, "download_failed")
			if !strings.Contains(f.Error(), c.says) || f.Hint == "" {
				t.Errorf("%q does not say %q", f.Error(), c.says)
			}
			if got := len(h.requests()); got != c.requests && name != "ends at once" {
				t.Errorf("%d requests and it has to be %d", got, c.requests)
			}
			if left := filesIn(t, s.Dir); len(left) > 0 {
				t.Errorf("%v were left", left)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
