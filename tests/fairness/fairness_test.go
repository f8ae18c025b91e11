package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/tests/clips"
	"whisper-appliance/tests/report"
)

// fake is a server that takes the long file until its client hangs up, and
// says hello to all others. Where long is not nil the long file is answered
// with it at once.
type fake struct {
	t    *testing.T
	long func(w http.ResponseWriter)

	mu   sync.Mutex
	keys map[string]int // requests of each
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, header, err := r.FormFile("file")
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	f.keys[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]++
	f.mu.Unlock()
	switch {
	case !strings.HasPrefix(header.Filename, "long"):
		io.WriteString(w, `{"text":"hello"}`)
	case f.long != nil:
		f.long(w)
	default:
		<-r.Context().Done()
	}
}

// measure makes a measurement of f with so little to do.
func (f *fake) measure(l load) *measurement {
	f.t.Helper()
	f.keys = map[string]int{}
	http := httptest.NewServer(f)
	f.t.Cleanup(http.Close)
	dir := f.t.TempDir()
	put := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("sound"), 0o644); err != nil {
			f.t.Fatal(err)
		}
		return path
	}
	return &measurement{
		say:    func(string, ...any) {},
		sounds: sounds{clips: []string{put("a.wav"), put("b.wav")}, window: put("window.wav")},
		server: server{name: oneLane, load: l, long: file{put("long.wav"), time.Hour}, request: func(user int, path string) clips.Request {
			return clips.Request{URL: http.URL, Key: string(rune('a' + user)), Path: path}
		}},
	}
}

func TestAll(t *testing.T) {
	f := &fake{t: t}
	m := f.measure(load{idle: 3, clips: 4, every: time.Millisecond, rounds: 2})
	r, err := m.all(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.idle) != 3 || len(r.window) != 5 || len(r.beside) != 4 || len(r.crowd) != 2*users || r.differ != 0 || r.finished != 0 {
		t.Errorf("result %+v", r)
	}
	// Clips: 3 warming, 3 idle, 5 windows, one beside, two of the crowd.
	if f.keys["a"] != 3+3+5+1+2 || f.keys["j"] != 2 || f.keys["k"] != 2 || f.keys["l"] != 1 {
		t.Errorf("requests by user: %v; want ten users with clips, two with long files", f.keys)
	}
}

func TestLongFilesAreBegunAnew(t *testing.T) {
	f := &fake{t: t}
	m := f.measure(load{idle: 1, clips: 2, every: 20 * time.Millisecond, rounds: 1})
	f.long = func(w http.ResponseWriter) { io.WriteString(w, `{"text":"long"}`) }
	if r, err := m.all(t.Context()); err != nil || r.finished < 2 {
		t.Errorf("%d long files came to their end, %v", r.finished, err)
	}
}

func TestALongFileThatFailsEndsIt(t *testing.T) {
	f := &fake{t: t}
	m := f.measure(load{idle: 1, clips: 3, every: time.Minute, rounds: 1})
	f.long = func(w http.ResponseWriter) { w.WriteHeader(http.StatusInsufficientStorage) }
	if _, err := m.all(t.Context()); err == nil || !strings.Contains(err.Error(), "ours, one lane: the long file: ") || errors.Is(err, t.Context().Err()) {
		t.Errorf("got %v, want what became of the long file", err)
	}
}

func TestTables(t *testing.T) {
	seconds := func(list ...float64) (d []time.Duration) {
		for _, s := range list {
			d = append(d, time.Duration(s*float64(time.Second)))
		}
		return d
	}
	l := load{clips: 2, rounds: 1}
	results := []*result{
		{name: twoLanes, load: l, idle: seconds(1, 1), window: seconds(2), beside: seconds(1, 2.5), crowd: seconds(1, 30), differ: 1},
		{name: oneLane, load: l, idle: seconds(1, 1), window: seconds(2), beside: seconds(1, 2.5), crowd: seconds(1, 30.5)},
		{name: theirs, load: l, idle: seconds(1, 1), window: seconds(2), beside: seconds(1, 40), crowd: seconds(1, 50)},
	}
	out := report.New("Test", "unknown")
	write(out, results)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"ours, two lanes nothing 2 1.000 s 1.000 s 1.000 s two long files 2 1.750 s 2.500 s 2.500 s 2.50 missed, ≤ 2.000 s: 2 times the idle p95",
		"ours, one lane nothing 2 1.000 s 1.000 s 1.000 s two long files 2 1.750 s 2.500 s 2.500 s 2.50 met, ≤ 3.000 s: idle p95 and a window of 10 s, 2.000 s",
		"ours, two lanes 1 15.500 s 30.000 s 10.000 s 3.00 met, 3 times",
		"ours, one lane 1 15.750 s 30.500 s 10.000 s 3.05 missed, 3 times",
		"whisper-server 1 25.500 s 50.000 s 10.000 s 5.00 goals:", "goals: 2 of 4 met",
		"1 of 4 clips had another text than idle",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestMakeSounds(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	root := filepath.Join(t.TempDir(), "checkout")
	if _, err := makeSounds(t.Context(), root, t.TempDir(), true); err == nil || !strings.Contains(err.Error(), "reference.wav") {
		t.Errorf("without any clip: %v", err)
	}
	path := filepath.Join(root, "tests", "testdata", "reference.wav")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (clips.Sound{}).Fit(4 * time.Second).WriteWAV(path); err != nil {
		t.Fatal(err)
	}
	s, err := makeSounds(t.Context(), root, t.TempDir(), true)
	if err != nil || len(s.clips) != 1 || s.long.duration <= s.theirs.duration {
		t.Fatalf("%+v, %v", s, err)
	}
	for path, want := range map[string]time.Duration{s.clips[0]: clipLength, s.window: 10 * time.Second, s.long.path: s.long.duration} {
		if sound, err := clips.Read(t.Context(), path); err != nil || sound.Duration() != want {
			t.Errorf("%s lasts %v, %v; want %v", filepath.Base(path), sound.Duration(), err, want)
		}
	}
}

func TestAboutClipLength(t *testing.T) {
	var list []clips.Spoken
	for _, s := range []int{1, 2, 3, 4} {
		list = append(list, clips.Spoken{Sound: clips.Sound{}.Fit(time.Duration(s) * time.Second)})
	}
	var lasting []int
	for _, s := range aboutClipLength(list) {
		lasting = append(lasting, int(s.Sound.Duration().Seconds()))
	}
	if !slices.Equal(lasting, []int{2, 3}) || len(aboutClipLength(list[3:])) != 1 {
		t.Errorf("lasting %v seconds, want 2 and 3", lasting)
	}
}

func TestExitCode(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"-clips", "0"}, {"-every", "0s"}} {
		var stderr bytes.Buffer
		if code := report.ExitCode(program, run(t.Context(), args, io.Discard, &stderr), &stderr); code != report.ExitUsage || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
	var stderr bytes.Buffer
	if code := report.ExitCode(program, run(t.Context(), []string{"-quick", "-peer", t.TempDir()}, io.Discard, &stderr), &stderr); code != report.ExitError || !strings.Contains(stderr.String(), "peer.sh") {
		t.Errorf("no peer: exit code %d, %q", code, stderr.String())
	}
}
