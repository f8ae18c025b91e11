//go:build e2e && faults

package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/tests/faults/cut"
	"whisper-appliance/tests/faults/disk"
	"whisper-appliance/tests/faults/fakerelease"
	"whisper-appliance/tests/faults/supervise"
)

// What there is in the world: golden is the package's, first serves, next is
// the update. The others misbehave in one place.
const (
	golden = "0.9.0"
	older  = "0.9.5"
	first  = "1.0.0"
	next   = "2.0.0"
	after  = "2.9.0"
)

// bad are releases by where and how they fail.
func bad() map[string]string {
	return map[string]string{
		"2.1.1": "in preflight crash", "2.1.2": "in preflight hang", "2.1.3": "in preflight not-ready",
		"2.2.1": "in next crash", "2.2.2": "in next hang", "2.2.3": "in next not-ready",
		"2.3.1": "in server crash", "2.3.2": "in server hang", "2.3.3": "in server not-ready",
		"2.4.1": "in server crash-after 300ms", "2.4.2": "in server wedge-after 300ms", "2.4.3": "in server degrade-after 300ms not-ready",
		"2.4.4": "in server degrade-after 300ms errors 60", "2.4.5": "in server slow 8", "2.4.6": "in server degrade-after 300ms leak 300",
		"2.4.7": "in server degrade-after 30s crash",
	}
}

// Times of the servers and of the trial.
const (
	grace     = 30 * time.Millisecond
	trialTime = 600 * time.Millisecond
	tickTime  = 60 * time.Millisecond
	jobLimit  = 90 * time.Second

	startTimeout = 1500 * time.Millisecond
	smokeTime    = time.Second
)

const memory = "/dev/shm"

// goods are what all worlds are made of. They are made once.
type goods struct {
	dir  string // repo, keys, trees
	keys *publish.Keys
}

// goodsDir is where the goods of this process are.
func goodsDir() string {
	root := os.TempDir()
	if free, err := durable.Free(memory); err == nil && free > 1<<30 {
		root = memory // they are synced many times
	}
	return filepath.Join(root, "wa-goods-"+strconv.Itoa(os.Getpid()))
}

var made = sync.OnceValues(func() (*goods, error) {
	g := &goods{dir: goodsDir()}
	return g, g.make(context.Background())
})

func (g *goods) tree(version string) string { return filepath.Join(g.dir, "trees", version) }
func (g *goods) repo() string               { return filepath.Join(g.dir, "repo") }
func (g *goods) root() string               { return filepath.Join(g.dir, "keys", publish.RootName) }

// clearLeft takes away what runs that were killed have left.
func clearLeft() {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(goodsDir()), "wa-goods-*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "wa-goods-"))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			os.RemoveAll(dir) //nolint:errcheck // the next run meets it again
		}
	}
}

func (g *goods) make(ctx context.Context) error {
	clearLeft()
	if err := os.MkdirAll(filepath.Join(g.dir, "artefacts"), 0o755); err != nil {
		return err
	}
	maker, err := fakerelease.Compile(ctx, g.dir)
	if err != nil {
		return err
	}
	modes := map[string]string{golden: "good", older: "good", first: "marked", next: "good", after: "good"}
	for version, mode := range bad() {
		modes[version] = mode
	}
	if g.keys, err = publish.InitKeys(filepath.Join(g.dir, "keys"), 1, time.Now()); err != nil {
		return err
	}
	clip, _ := smoke.Clip()
	sound, err := io.ReadAll(clip)
	if err != nil {
		return err
	}
	said, err := os.ReadFile(filepath.Join("..", "..", "..", "internal", "smoke", "reference.txt"))
	if err != nil {
		return err
	}
	var all []publish.Release
	for version, mode := range modes {
		r := fakerelease.Release{Version: version, Mode: mode, Grace: grace, Takes: 10 * time.Millisecond,
			Known: map[string]string{string(sound): strings.TrimSpace(string(said))}}
		if _, err := maker.Make(ctx, g.tree(version), r); err != nil {
			return err
		}
		if version == golden || version == first {
			continue
		}
		a, err := publish.Build(ctx, g.tree(version), filepath.Join(g.dir, "artefacts"))
		if err != nil {
			return err
		}
		all = append(all, publish.Release{File: a.File, Channel: release.Stable, Rollout: 100})
	}
	_, err = (&publish.Repository{Dir: g.repo(), Keys: g.keys}).Publish(ctx, all...)
	return err
}

// world is an appliance on two disks.
type world struct {
	testing.TB
	*goods
	place
	home, state *disk.Disk
	sup         *supervise.Supervisor
	slots       *slot.Slots
	source      *source
	boots       int
	faults      string // file of package faultpoint
	away        bool   // systemd did not answer: what came of it is not the release's fault
}

// newWorld is one in which first serves, saved.
func newWorld(t testing.TB) *world {
	t.Helper()
	g, err := made()
	must(t, err)
	home, state := disk.New(t, 72<<20), disk.New(t, 56<<20)
	base, err := os.MkdirTemp("", "wa")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	w := &world{TB: t, goods: g, home: home, state: state, faults: filepath.Join(base, "faults")}
	w.source = newSource(t, g.repo())
	w.place = place{Home: home.Dir, State: state.Dir, Run: filepath.Join(base, "r"), Package: filepath.Join(base, "p"), Root: g.root(), Sources: []string{w.source.URL},
		Buses: []string{filepath.Join(base, "private"), filepath.Join(base, "bus")}, Clock: filepath.Join(base, "clock"), Trial: trialTime, Tick: tickTime}
	w.slots = w.place.slots()
	must(t, os.MkdirAll(w.Package, 0o755), os.CopyFS(w.paths().Golden, os.DirFS(g.tree(golden))), os.MkdirAll(w.paths().Updater, 0o755), os.MkdirAll(w.paths().Fetched, 0o755))
	w.sup = supervise.New(t, supervise.Config{Home: home.Dir, Run: w.Run, Gate: gate(t), Package: w.Package, Path: quick(t) + ":" + os.Getenv("PATH"),
		StartTimeout: startTimeout, Watchdog: 600 * time.Millisecond, StopTimeout: 400 * time.Millisecond, RestartPause: 20 * time.Millisecond})
	for _, b := range w.Buses {
		must(t, w.sup.Serve(b))
	}
	w.boots = 1
	w.Boot = "boot 1"
	w.mustDo("deploy " + g.tree(first))
	w.sup.PowerOff()
	must(t, home.Save(), state.Save())
	return w
}

func gate(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../../../units/gate")
	must(t, err)
	return path
}

// quick is a directory with a sleep in which a second is a tenth.
func quick(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "sleep"), []byte("#!/bin/sh\nexec /bin/sleep \"$(echo \"$1\" | awk '{ print $1 / 10 }')\"\n"), 0o755))
	return dir
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// fresh is the world as it was saved, with its server running.
func (w *world) fresh() {
	w.Helper()
	w.sup.PowerOff()
	for _, b := range w.Buses {
		w.sup.Mute(b, false)
	}
	must(w, w.home.Back(), w.state.Back(), os.RemoveAll(filepath.Join(w.Run, "u")))
	for _, file := range []string{filepath.Join(w.Run, "mode"), w.Clock, w.faults} {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			w.Fatal(err)
		}
	}
	must(w, os.RemoveAll(w.paths().Golden), os.CopyFS(w.paths().Golden, os.DirFS(w.tree(golden))))
	w.Trial, w.Tick, w.Sources = trialTime, tickTime, []string{w.source.URL}
	w.source.reset()
	w.on()
}

// on is a machine whose disks are there being started, the updater's recovery
// left out.
func (w *world) on() {
	w.Helper()
	must(w, w.sup.PowerOn())
	w.sup.Start(context.Background(), supervise.Service) //nolint:errcheck // whether it serves is looked at
}

// boot is the start of a machine after its power was cut.
func (w *world) boot() {
	w.Helper()
	w.boots++
	w.Boot = "boot " + strconv.Itoa(w.boots)
	w.mustDo("recover boot")
	w.on()
}

// env is that of an updater with a job.
func (w *world) env(what string, fault ...string) []string {
	p, err := json.Marshal(w.place)
	must(w, err)
	if len(fault) > 0 {
		must(w, os.WriteFile(w.faults, []byte(strings.Join(fault, "\n")+"\n"), 0o600))
	}
	return append(os.Environ(), jobIs+"="+what, placeIs+"="+string(p), "WHISPER_APPLIANCE_FAULTS="+w.faults)
}

// do runs a job to its end.
func (w *world) do(what string, fault ...string) (exit int, output string) {
	w.Helper()
	return w.begin(what, fault...).end()
}

// mustDo is do of what must go well.
func (w *world) mustDo(what string) {
	w.Helper()
	if exit, output := w.do(what); exit != 0 {
		w.Fatalf("%s ends with %d:\n%s", what, exit, output)
	}
}

// cutCommand is a job to be cut.
func (w *world) cutCommand(what string) cut.Command {
	return cut.Command{Args: []string{os.Args[0]}, Env: w.env(what), Watch: []string{w.Home, w.State}}
}

// source is a repository over HTTP, in which a test can have transfers stand
// still and count those that go on where one broke off.
type source struct {
	*httptest.Server
	mu      sync.Mutex
	stall   chan struct{} // closed when a transfer stands still in its middle; nil = none does
	resumed int
	gone    bool
	dir     string // in place of the repository
}

func newSource(t testing.TB, dir string) *source {
	s := &source{}
	files := http.FileServer(http.Dir(dir))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		stall, gone, other := s.stall, s.gone, s.dir
		if r.Header.Get("Range") != "" {
			s.resumed++
		}
		if strings.Contains(r.URL.Path, ".tar.zst") {
			s.stall = nil
		}
		s.mu.Unlock()
		switch {
		case gone:
			http.Error(w, "no network", http.StatusServiceUnavailable)
		case stall != nil && strings.Contains(r.URL.Path, ".tar.zst"):
			files.ServeHTTP(&half{ResponseWriter: w, left: 300 << 10, stall: stall, done: r.Context().Done()}, r)
		case other != "":
			http.FileServer(http.Dir(other)).ServeHTTP(w, r)
		default:
			files.ServeHTTP(w, r)
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	return s
}

func (s *source) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall, s.resumed, s.gone, s.dir = nil, 0, false, ""
}

// half lets so many bytes through and waits for its client to go away.
type half struct {
	http.ResponseWriter
	left  int
	stall chan struct{}
	done  <-chan struct{}
}

func (h *half) Write(b []byte) (int, error) {
	if h.left -= len(b); h.left >= 0 {
		return h.ResponseWriter.Write(b)
	}
	if f, ok := h.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	close(h.stall)
	<-h.done
	return 0, io.ErrClosedPipe
}

// stallOnce has the next transfer of an artefact stand still; the channel is
// closed when it does.
func (s *source) stallOnce() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall = make(chan struct{})
	return s.stall
}

// resumes is how many transfers went on where one had broken off.
func (s *source) resumes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumed
}
