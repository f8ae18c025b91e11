package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
)

func TestFetch(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0+dev", noise(artefactBytes))
	s := newSite(t, r.dir)
	f := fetcher(t, r)
	for what, source := range map[string]string{"web": s.URL, "web with a slash": s.URL + "/", "directory": r.dir} {
		t.Run(what, func(t *testing.T) {
			f.Dir = t.TempDir()
			res, err := f.Run(t.Context(), Request{Sources: []string{source}, Target: target})
			check(t, err)
			brought(t, f, r, target)
			if res.Source != source || res.Resumed != 0 || len(res.Tried) != 0 {
				t.Errorf("the result is %+v", res)
			}
		})
	}
	for _, req := range s.seen {
		if got := req.Header.Get("User-Agent"); got != "whisper-appliance-fetch/9.8.7" {
			t.Errorf("%s was asked for by %q", req.URL, got)
		}
	}
	if uri := s.asked()[0].RequestURI; strings.Contains(uri, "+") || !strings.Contains(uri, "1.4.0%2Bdev") {
		t.Errorf("the plus in %s is one that stores take for a space", uri)
	}
}

func TestMetadataAlone(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(1000))
	r.newRoot(2)
	r.newRoot(3)
	f := fetcher(t, r)
	_, err := f.Run(t.Context(), Request{Sources: []string{newSite(t, r.dir).URL}})
	check(t, err)
	want := []string{"1.snapshot.json", "1.targets.json", "2.root.json", "3.root.json", "timestamp.json"}
	if got := names(t, f.metadata()); !slices.Equal(got, want) {
		t.Errorf("metadata/ holds %v, want %v", got, want)
	}
	if res := resultOf(t, f); res.Index != 1 || res.Bytes != 0 || res.Target != "" {
		t.Errorf("the result is %+v", res)
	}
	// An index without an artefact leaves the artefact that is there.
	_, err = f.Run(t.Context(), Request{Sources: []string{r.dir}, Target: target})
	check(t, err)
	_, err = f.Run(t.Context(), Request{Sources: []string{r.dir}})
	check(t, err)
	if got := names(t, f.targets()); len(got) != 1 {
		t.Errorf("targets/ holds %v", got)
	}
}

// TestOldFilesGo: one release at a time, and no metadata that nobody needs.
func TestOldFilesGo(t *testing.T) {
	r := newRepository(t)
	first := r.publish("1.4.0", noise(1000))
	f := fetcher(t, r)
	_, err := f.Run(t.Context(), Request{Sources: []string{r.dir}, Target: first})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(f.targets(), "x.part"), []byte("half"), 0o644))
	check(t, os.Mkdir(filepath.Join(f.targets(), "dir"), 0o755))
	check(t, os.WriteFile(filepath.Join(f.metadata(), ".timestamp.json.123"), nil, 0o600))
	second := r.publish("1.5.0", noise(2000))
	_, err = f.Run(t.Context(), Request{Sources: []string{r.dir}, Target: second})
	check(t, err)
	brought(t, f, r, second)
	want := []string{"2.snapshot.json", "2.targets.json", "timestamp.json"}
	if got := names(t, f.metadata()); !slices.Equal(got, want) {
		t.Errorf("metadata/ holds %v, want %v", got, want)
	}
}

// TestThereAlready: a second run brings nothing, unless the first one's was spoiled.
func TestThereAlready(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	s := newSite(t, r.dir)
	f := fetcher(t, r)
	for range 2 {
		_, err := f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
		check(t, err)
		brought(t, f, r, target)
	}
	if n := len(s.ranges()); n != 1 || resultOf(t, f).Resumed != artefactBytes {
		t.Errorf("it was asked for %d times, %+v", n, resultOf(t, f))
	}
	path := filepath.Join(f.targets(), r.hashed(target))
	check(t, os.WriteFile(path, noise(artefactBytes)[1:], 0o644))
	_, err := f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
}

func TestTheSecondSourceIsTaken(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	good := newSite(t, r.dir).URL
	gone := newSite(t, r.dir)
	gone.Close()
	forger := repositoryOf(t, "forger")
	forger.publish("1.4.0", noise(artefactBytes))
	incomplete := r.copyTo(filepath.Join(t.TempDir(), "mirror"))
	check(t, os.Remove(filepath.Join(incomplete, "targets", r.hashed(target))))
	damaged := r.copyTo(filepath.Join(t.TempDir(), "mirror"))
	check(t, os.WriteFile(filepath.Join(damaged, "targets", r.hashed(target)), make([]byte, artefactBytes), 0o644))
	redirects := httptest.NewServer(http.RedirectHandler("/", http.StatusFound))
	t.Cleanup(redirects.Close)
	status := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(server.Close)
		return server.URL
	}
	for _, test := range []struct{ what, source, code string }{
		{"down", gone.URL, "source_unreachable"},
		{"no such host", "http://host.invalid", "source_unreachable"},
		{"no such directory", filepath.Join(t.TempDir(), "none"), "source_unreachable"},
		{"empty", newSite(t, t.TempDir()).URL, "no_metadata"},
		{"empty directory", t.TempDir(), "no_metadata"},
		{"500", status(500), "source_refused"},
		{"429", status(429), "source_refused"},
		{"401", status(401), "source_refused"},
		{"403", status(403), "source_refused"},
		{"304", status(304), "source_refused"},
		{"redirect loop", redirects.URL, "bad_redirect"},
		{"another publisher", forger.dir, "bad_signature"},
		{"incomplete", incomplete, "artefact_missing"},
		{"incomplete site", newSite(t, incomplete).URL, "artefact_missing"},
		{"damaged", damaged, "artefact_damaged"},
		{"damaged site", newSite(t, damaged).URL, "artefact_damaged"},
		{"no address", "mirror/releases", "bad_source"},
		{"ftp", "ftp://example.org/x", "bad_source"},
		{"no host", "https:///x", "bad_source"},
		{"query", "https://example.org/x?y", "bad_source"},
		{"nonsense", "https://%zz", "bad_source"},
	} {
		t.Run(test.what, func(t *testing.T) {
			f := fetcher(t, r)
			_, err := f.Run(t.Context(), Request{Sources: []string{test.source}, Target: target})
			wantCode(t, f, err, test.code)
			if left := names(t, f.targets()); len(left) > 0 {
				t.Errorf("targets/ holds %v", left)
			}
			res, err := f.Run(t.Context(), Request{Sources: []string{test.source, good}, Target: target})
			check(t, err)
			brought(t, f, r, target)
			if len(res.Tried) != 1 || res.Tried[0].Code != test.code || res.Tried[0].Source != test.source || res.Source != good {
				t.Errorf("the result is %+v", res)
			}
			// Of several reasons the one of a source that was reached.
			if test.code != "source_unreachable" {
				f.Dir = t.TempDir()
				_, err = f.Run(t.Context(), Request{Sources: []string{gone.URL, test.source}, Target: target})
				if fault.KindOf(err) != fault.Unavailable {
					wantCode(t, f, err, test.code)
				}
			}
		})
	}
}

// TestAnOldMirror: the index of one source, the artefact of another.
func TestAnOldMirror(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	old := r.copyTo(filepath.Join(t.TempDir(), "old"))
	r.publish("1.5.0", noise(10))
	check(t, os.Remove(filepath.Join(r.dir, "targets", r.hashed(target))))
	f := fetcher(t, r)
	res, err := f.Run(t.Context(), Request{Sources: []string{r.dir, old}, Target: target})
	check(t, err)
	brought(t, f, r, target)
	if res.Source != old || res.Tried[0].Code != "artefact_missing" {
		t.Errorf("the result is %+v", res)
	}
	// By itself it is refused: what was trusted is not taken back.
	_, err = f.Run(t.Context(), Request{Sources: []string{old}, Target: target})
	wantCode(t, f, err, "metadata_rolled_back")
	if got := names(t, f.metadata()); !slices.Contains(got, "2.targets.json") || slices.Contains(got, "1.targets.json") {
		t.Errorf("metadata/ holds %v", got)
	}
}

func TestBadRequests(t *testing.T) {
	r := newRepository(t)
	r.publish("1.4.0", noise(10))
	f := fetcher(t, r)
	path := filepath.Join(t.TempDir(), "request.json")
	for text, code := range map[string]string{
		"":                                  "bad_request",
		"null":                              "no_source",
		"{}":                                "no_source",
		`{"sources": []}`:                   "no_source",
		`{"sources": "x"}`:                  "bad_request",
		`{"sources": ["/x"], "tarjet":"x"}`: "bad_request",
		`{"sources": ["/x"]} {}`:            "bad_request",
		`{"sources": ["/x"], "most": -1}`:   "bad_request",
		`{"sources": ["/x"], "target": "../../x"}`:                       "bad_target",
		`{"sources": [` + strings.Repeat(`"/x",`, maxSources) + `"/x"]}`: "bad_request",
		strings.Repeat(" ", maxRequest+1):                                "bad_request",
	} {
		check(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := f.RunFile(t.Context(), path)
		wantCode(t, f, err, code)
	}
	check(t, os.Remove(path))
	_, err := f.RunFile(t.Context(), path)
	wantCode(t, f, err, "bad_request")
	check(t, unix.Mkfifo(path, 0o644))
	_, err = f.RunFile(t.Context(), path)
	wantCode(t, f, err, "bad_request")

	check(t, os.Remove(path))
	check(t, os.WriteFile(path, fmt.Appendf(nil, `{"sources": [%q], "target": "", "most": 1000000}`, r.dir), 0o644))
	_, err = f.RunFile(t.Context(), path)
	check(t, err)
	if resultOf(t, f).Error != nil {
		t.Errorf("the result is %+v", resultOf(t, f))
	}
}

func TestNoRootOfTrust(t *testing.T) {
	r := newRepository(t)
	r.publish("1.4.0", noise(10))
	f := fetcher(t, r)
	for code, root := range map[string][]byte{"no_trust_root": nil, "bad_trust_root": []byte("{}")} {
		f.Root = root
		_, err := f.Run(t.Context(), Request{Sources: []string{"/nowhere", r.dir}})
		wantCode(t, f, err, code)
	}
}

func TestOneAtATime(t *testing.T) {
	r := newRepository(t)
	r.publish("1.4.0", noise(10))
	f := fetcher(t, r)
	unlock, err := f.lock()
	check(t, err)
	var busy *fault.Error
	if _, err := f.Run(t.Context(), Request{Sources: []string{r.dir}}); !errors.As(err, &busy) || busy.Code != "fetch_busy" || busy.Kind != fault.Busy {
		t.Errorf("a second fetcher: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.Dir, resultName)); err == nil {
		t.Error("a second fetcher wrote a result")
	}
	unlock()
	_, err = f.Run(t.Context(), Request{Sources: []string{r.dir}})
	check(t, err)
}

func TestNoDirectory(t *testing.T) {
	r := newRepository(t)
	f := fetcher(t, r)
	f.Dir = filepath.Join(f.Dir, "none")
	var is *fault.Error
	if _, err := f.Run(t.Context(), Request{Sources: []string{r.dir}}); !errors.As(err, &is) || is.Code != "no_directory" || is.Hint == "" {
		t.Errorf("%v", err)
	}
}

func TestDiskFull(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	s := newSite(t, r.dir)
	f := fetcher(t, r)
	f.Free = func(string) (int64, error) { return room + artefactBytes - 1, nil }
	_, err := f.Run(t.Context(), Request{Sources: []string{s.URL, r.dir}, Target: target})
	wantCode(t, f, err, "disk_full")
	if !strings.Contains(err.Error(), "1 bytes (1 bytes) are missing") || fault.KindOf(err) != fault.NoSpace || len(s.ranges()) > 0 || len(resultOf(t, f).Tried) != 1 {
		t.Errorf("%v; asked for %v", err, s.ranges())
	}
	if left := names(t, f.targets()); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	// What is there need not be brought.
	check(t, os.WriteFile(filepath.Join(f.targets(), r.hashed(target)+partSuffix), noise(artefactBytes)[:1], 0o644))
	_, err = f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
}

// TestTheDiskFillsUp: there was room when it was asked for.
func TestTheDiskFillsUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system needs root to mount")
	}
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	f := fetcher(t, r)
	f.Free = func(string) (int64, error) { return 1 << 40, nil }
	if err := unix.Mount("none", f.Dir, "tmpfs", 0, "mode=755,size=200k"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { check(t, unix.Unmount(f.Dir, unix.MNT_DETACH)) })
	_, err := f.Run(t.Context(), Request{Sources: []string{newSite(t, r.dir).URL}, Target: target})
	wantCode(t, f, err, "disk_full")
	if left := names(t, f.targets()); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestToldToStop: what has come is kept, and the next run goes on with it.
func TestToldToStop(t *testing.T) {
	r := newRepository(t)
	target := r.publish("1.4.0", noise(artefactBytes))
	s := newSite(t, r.dir)
	const half = artefactBytes / 2
	f := fetcher(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	s.bad = func(w http.ResponseWriter, req *http.Request, nth int) bool {
		if nth > 1 {
			return false
		}
		sendPart(w, r.artefact[r.hashed(target)], half)
		awaitPart(f, half)
		if res := resultOf(t, f); res.Error == nil || res.Error.Code != "interrupted" {
			t.Errorf("under way the result is %+v", res)
		}
		cancel()
		<-req.Context().Done()
		return true
	}
	_, err := f.Run(ctx, Request{Sources: []string{s.URL, r.dir}, Target: target})
	wantCode(t, f, err, "canceled")
	if got := resultOf(t, f); len(got.Tried) != 0 {
		t.Errorf("the result is %+v", got)
	}
	res, err := f.Run(t.Context(), Request{Sources: []string{s.URL}, Target: target})
	check(t, err)
	brought(t, f, r, target)
	if got := s.ranges(); res.Resumed != half || got[1] != fmt.Sprintf("bytes=%d-", half) {
		t.Errorf("%d bytes were there, ranges %v", res.Resumed, got)
	}
}

// sendPart sends the beginning of an artefact and leaves the rest out.
func sendPart(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data[:n])                     //nolint:errcheck // a test sees what is missing
	http.NewResponseController(w).Flush() //nolint:errcheck // the same
}

// awaitPart waits until so much has come.
func awaitPart(f *Fetcher, bytes int64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Second)
	for {
		parts, _ := filepath.Glob(filepath.Join(f.targets(), "*"+partSuffix))
		if len(parts) == 1 {
			if info, err := os.Stat(parts[0]); err == nil && info.Size() >= bytes {
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			return
		}
	}
}
