package fetch

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// behaviour is a site that does something wrong, and what comes of it.
type behaviour struct {
	what   string
	answer func(w http.ResponseWriter, r *http.Request, nth int, data []byte) bool // see site.bad
	code   string                                                                  // "" = the artefact is brought
	ranges []string                                                                // asked for; nil = of no matter
}

const half = artefactBytes / 2

func rest(from int) string { return fmt.Sprintf("bytes=%d-", from) }

// breakOff sends the beginning and ends the connection.
func breakOff(w http.ResponseWriter, data []byte, n int) {
	sendPart(w, data, n)
	panic(http.ErrAbortHandler)
}

// rewritten answers with the rest that was asked for, of other bytes.
func rewritten(w http.ResponseWriter, from, total int) bool {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, total-1, total))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(make([]byte, total-from)) //nolint:errcheck // a test sees what is missing
	return true
}

// aLittle answers with a thousand bytes from where was asked, and breaks off.
func aLittle(w http.ResponseWriter, r *http.Request, data []byte) {
	from := 0
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from) //nolint:errcheck // none is 0
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
	w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(data[from : from+1000])       //nolint:errcheck // a test sees what is missing
	http.NewResponseController(w).Flush() //nolint:errcheck // the same
	panic(http.ErrAbortHandler)
}

type (
	rw = http.ResponseWriter
	rq = *http.Request
)

// tagged are sites that tell by a tag whether the file is still the same.
func tagged() []behaviour {
	first := func(w rw, nth int, data []byte) {
		if nth == 1 {
			w.Header().Set("ETag", `"one"`)
			breakOff(w, data, half)
		}
	}
	return []behaviour{
		{"breaks off once", func(w rw, r rq, nth int, data []byte) bool {
			if first(w, nth, data); r.Header.Get("If-Range") != `"one"` {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
			w.Header().Set("ETag", `"one"`)
			return false
		}, "", []string{"", rest(half)}},
		{"is another file in between", func(w rw, r rq, nth int, data []byte) bool {
			first(w, nth, make([]byte, len(data)))
			w.Header().Set("ETag", `"two"`)
			return false
		}, "", []string{"", rest(half)}},
		{"ignores If-Range for another file", func(w rw, r rq, nth int, data []byte) bool {
			first(w, nth, make([]byte, len(data)))
			r.Header.Del("If-Range")
			w.Header().Set("ETag", `"two"`)
			return false
		}, "", []string{"", rest(half), ""}},
	}
}

// broken are sites whose first transfer ends early, and that have something
// wrong about the rest.
func broken() []behaviour {
	list := []behaviour{
		{"has ranges", func(w rw, r rq, nth int, data []byte) bool { return false }, "", []string{"", rest(half)}},
		{"has no ranges", func(w rw, r rq, nth int, data []byte) bool {
			r.Header.Del("Range")
			return false
		}, "", []string{"", rest(half)}},
		{"sends another range", func(w rw, r rq, nth int, data []byte) bool {
			if nth == 2 {
				r.Header.Set("Range", rest(half-1))
			}
			return false
		}, "", []string{"", rest(half), ""}},
		{"sends a range that is none", func(w rw, r rq, nth int, data []byte) bool {
			if nth == 2 {
				w.Header().Set("Content-Range", "nonsense")
				w.WriteHeader(http.StatusPartialContent)
			}
			return nth == 2
		}, "", []string{"", rest(half), ""}},
		{"cannot do the range", func(w rw, r rq, nth int, data []byte) bool {
			if nth == 2 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			}
			return nth == 2
		}, "", []string{"", rest(half), ""}},
		{"spoils the rest", func(w rw, r rq, nth int, data []byte) bool {
			return nth == 2 && rewritten(w, half, len(data))
		}, "", []string{"", rest(half), ""}},
		{"always spoils the rest", func(w rw, r rq, nth int, data []byte) bool {
			if r.Header.Get("Range") == "" {
				breakOff(w, data, half)
			}
			return rewritten(w, half, len(data))
		}, "artefact_damaged", []string{"", rest(half), "", rest(half)}},
		{"breaks off again and again", func(w rw, r rq, nth int, data []byte) bool {
			if nth < 9 {
				aLittle(w, r, data)
			}
			return false
		}, "", nil},
	}
	for i, b := range list {
		list[i].answer = func(w rw, r rq, nth int, data []byte) bool {
			if nth == 1 {
				breakOff(w, data, half)
			}
			return b.answer(w, r, nth, data)
		}
	}
	return list
}

// lying are sites that do not send what they say, or not what is signed.
func lying() []behaviour {
	return []behaviour{
		{"promises more", func(w rw, r rq, nth int, data []byte) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)+1))
			w.Write(data) //nolint:errcheck // a test sees what is missing
			return true
		}, "artefact_damaged", []string{""}},
		{"promises less", func(w rw, r rq, nth int, data []byte) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)-1))
			w.Write(data[1:]) //nolint:errcheck // a test sees what is missing
			return true
		}, "artefact_damaged", []string{""}},
		{"never ends", func(w rw, r rq, nth int, data []byte) bool {
			http.NewResponseController(w).Flush() //nolint:errcheck // a test sees what is missing
			for r.Context().Err() == nil {
				w.Write(data) //nolint:errcheck // it never ends by itself
			}
			return true
		}, "artefact_damaged", []string{""}},
		{"sends less and says it is all", func(w rw, r rq, nth int, data []byte) bool {
			if nth == 1 {
				http.NewResponseController(w).Flush() //nolint:errcheck // a test sees what is missing
				w.Write(data[:half])                  //nolint:errcheck // the same
			}
			return nth == 1
		}, "", []string{"", rest(half)}},
		{"sends a login page", func(w rw, r rq, nth int, data []byte) bool {
			fmt.Fprint(w, "<html>Who are you?</html>")
			return true
		}, "artefact_damaged", []string{""}},
		{"sends nothing", func(w rw, r rq, nth int, data []byte) bool { panic(http.ErrAbortHandler) }, "source_unreachable", nil},
	}
}

// refusing are sites that answer with another status.
func refusing() []behaviour {
	status := func(code int) func(rw, rq, int, []byte) bool {
		return func(w rw, _ rq, _ int, _ []byte) bool { w.WriteHeader(code); return true }
	}
	return []behaviour{
		{"404", status(404), "artefact_missing", []string{""}},
		{"410", status(410), "artefact_missing", []string{""}},
		{"403", status(403), "source_refused", []string{""}},
		{"500", status(500), "source_refused", slices.Repeat([]string{""}, attempts)},
		{"503 and recovers", func(w rw, r rq, nth int, data []byte) bool {
			if nth < 3 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(503)
			}
			return nth < 3
		}, "", []string{"", "", ""}},
		{"redirects for ever", func(w rw, r rq, nth int, data []byte) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, "bad_redirect", slices.Repeat([]string{""}, maxRedirects+1)},
		{"redirects to nowhere", status(302), "source_refused", []string{""}},
	}
}

func TestSitesThatDoWrong(t *testing.T) {
	for _, b := range slices.Concat(tagged(), broken(), lying(), refusing()) {
		t.Run(b.what, func(t *testing.T) {
			r := newRepository(t)
			target := r.publish("1.4.0", noise(artefactBytes))
			s := newSite(t, r.dir)
			s.bad = func(w http.ResponseWriter, req *http.Request, nth int) bool {
				return b.answer(w, req, nth, r.artefact[r.hashed(target)])
			}
			f := fetcher(t, r)
			_, err := f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
			if b.code != "" {
				wantCode(t, f, err, b.code)
			} else {
				check(t, err)
				brought(t, f, r, target)
			}
			if got := s.ranges(); b.ranges != nil && !slices.Equal(got, b.ranges) {
				t.Errorf("it was asked for %q, want %q", got, b.ranges)
			}
			if b.code == "artefact_damaged" && len(names(t, f.targets())) > 0 {
				t.Errorf("%v is left", names(t, f.targets()))
			}
		})
	}
}

// TestStalls: a byte that does not come, as the first and in the middle.
func TestStalls(t *testing.T) {
	for what, n := range map[string]int{"first byte": 0, "in the middle": half} {
		t.Run(what, func(t *testing.T) {
			r := newRepository(t)
			target := r.publish("1.4.0", noise(artefactBytes))
			s := newSite(t, r.dir)
			s.bad = func(w http.ResponseWriter, req *http.Request, nth int) bool {
				if nth > 1 {
					return false
				}
				if n > 0 {
					sendPart(w, r.artefact[r.hashed(target)], n)
				}
				<-req.Context().Done()
				return true
			}
			f := fetcher(t, r)
			f.Stall = 200 * time.Millisecond
			started := time.Now()
			_, err := f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
			check(t, err)
			brought(t, f, r, target)
			if took := time.Since(started); took < f.Stall || len(s.ranges()) != 2 {
				t.Errorf("it took %v and %d requests", took, len(s.ranges()))
			}
		})
	}
}

// TestMetadataThatDoNotCome: what holds for the artefact holds for them.
func TestMetadataThatDoNotCome(t *testing.T) {
	r := newRepository(t)
	r.publish("1.4.0", noise(10))
	files := http.FileServer(http.Dir(r.dir))
	for what, test := range map[string]struct {
		code   string
		answer http.HandlerFunc
	}{
		"stalls":   {"source_unreachable", func(w http.ResponseWriter, req *http.Request) { <-req.Context().Done() }},
		"trickles": {"too_slow", trickle},
		"is endless": {"bad_metadata", func(w http.ResponseWriter, req *http.Request) {
			for req.Context().Err() == nil {
				w.Write(make([]byte, 64<<10)) //nolint:errcheck // it never ends by itself
			}
		}},
		"is huge":           {"bad_metadata", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "99999999999") }},
		"is a login page":   {"bad_metadata", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Who are you?</html>") }},
		"has a huge header": {"source_unreachable", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }},
	} {
		t.Run(what, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, "timestamp.json") {
					test.answer(w, req)
					return
				}
				files.ServeHTTP(w, req)
			}))
			t.Cleanup(server.Close)
			f := fetcher(t, r)
			f.Stall, f.MetadataLimit = 50*time.Millisecond, time.Second
			_, err := f.Run(t.Context(), Request{Sources: []string{server.URL}})
			wantCode(t, f, err, test.code)
			if got := names(t, f.metadata()); len(got) > 0 {
				t.Errorf("metadata/ holds %v", got)
			}
		})
	}
}

// trickle sends a byte as often as keeps a client from calling it stalled.
func trickle(w http.ResponseWriter, req *http.Request) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.Write([]byte(" "))                  //nolint:errcheck // it ends with the request
			http.NewResponseController(w).Flush() //nolint:errcheck // the same
		case <-req.Context().Done():
			return
		}
	}
}

// TestRootsThatAreForbidden: a store that says 403 for what it has not.
func TestRootsThatAreForbidden(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(10))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := os.Stat(filepath.Join(r.dir, filepath.FromSlash(req.URL.Path))); err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.FileServer(http.Dir(r.dir)).ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	f := fetcher(t, r)
	_, err := f.Run(t.Context(), Request{Sources: []string{server.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
}

func TestTLS(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(10))
	plain := newSite(t, r.dir)
	secure := httptest.NewTLSServer(http.FileServer(http.Dir(r.dir)))
	t.Cleanup(secure.Close)
	downgrade := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	t.Cleanup(downgrade.Close)
	f := fetcher(t, r)
	_, err := f.Run(t.Context(), Request{Sources: []string{secure.URL}, Target: target})
	wantCode(t, f, err, "source_unreachable")
	if !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	f.Client = secure.Client()
	_, err = f.Run(t.Context(), Request{Sources: []string{secure.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
	f.Client = downgrade.Client()
	_, err = f.Run(t.Context(), Request{Sources: []string{downgrade.URL}, Target: target})
	wantCode(t, f, err, "bad_redirect")
	if len(plain.seen) > 0 {
		t.Error("a redirect from https to http was followed")
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, secure.URL+req.URL.Path, http.StatusFound)
	}))
	t.Cleanup(up.Close)
	f.Client, f.Dir = secure.Client(), t.TempDir()
	_, err = f.Run(t.Context(), Request{Sources: []string{up.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
}

// TestPace: as fast as was allowed and no faster, however slow that is.
func TestPace(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	for what, source := range map[string]string{"web": newSite(t, r.dir).URL, "directory": r.dir} {
		t.Run(what, func(t *testing.T) {
			f := fetcher(t, r)
			f.Stall = 100 * time.Millisecond // of no matter to a pace that we set
			started := time.Now()
			_, err := f.Run(t.Context(), Request{Sources: []string{source}, Target: target, Most: 2 * artefactBytes})
			check(t, err)
			brought(t, f, r, target)
			if took := time.Since(started); took < 450*time.Millisecond || took > 4*time.Second {
				t.Errorf("it took %v, want about half a second", took)
			}
		})
	}
}

// TestPartOfAnotherSource: the digest is what counts, and the other's tag is not.
func TestPartOfAnotherSource(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	first, second := newSite(t, r.dir), newSite(t, r.dir)
	first.bad = func(w http.ResponseWriter, _ *http.Request, nth int) bool {
		if nth > 1 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("ETag", `"first"`)
		breakOff(w, r.artefact[r.hashed(target)], half)
		return true
	}
	second.bad = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Set("ETag", `"second"`)
		return false
	}
	f := fetcher(t, r)
	res, err := f.Run(t.Context(), Request{Sources: []string{first.URL, second.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
	if got := second.ranges(); res.Resumed != half || !slices.Equal(got, []string{rest(half)}) {
		t.Errorf("%d bytes were there, ranges %v", res.Resumed, got)
	}
}

// TestPartsThatAreWrong: what lies there is used only where it is good.
func TestPartsThatAreWrong(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	good := r.artefact[r.hashed(target)]
	for what, test := range map[string]struct {
		part    []byte
		resumed int64
	}{
		"whole":        {good, artefactBytes},
		"good half":    {good[:half], half},
		"bad half":     {make([]byte, half), 0},
		"bad and full": {make([]byte, artefactBytes), 0},
		"too long":     {append(slices.Clone(good), 0), 0},
		"empty":        {nil, 0},
	} {
		for _, source := range []string{newSite(t, r.dir).URL, r.dir} {
			t.Run(what, func(t *testing.T) {
				f := fetcher(t, r)
				check(t, f.makeDirs(f.targets()))
				check(t, os.WriteFile(filepath.Join(f.targets(), r.hashed(target)+partSuffix), test.part, 0o600))
				res, err := f.Run(t.Context(), Request{Sources: []string{source}, Target: target})
				check(t, err)
				brought(t, f, r, target)
				if res.Resumed != test.resumed {
					t.Errorf("%d bytes were of use, want %d", res.Resumed, test.resumed)
				}
			})
		}
	}
}

// TestNewClient: no step before the body is without a bound.
func TestNewClient(t *testing.T) {
	transport := NewClient().Transport.(*http.Transport)
	if transport.ResponseHeaderTimeout == 0 || transport.TLSHandshakeTimeout == 0 || transport.IdleConnTimeout == 0 || transport.MaxResponseHeaderBytes == 0 || transport.Proxy == nil {
		t.Errorf("%+v", transport)
	}
}
