package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
	"whisper-appliance/internal/trust"
	"whisper-appliance/internal/update"
)

// writeRelease makes a sealed release of a version.
func writeRelease(t *testing.T, dir, version string) {
	t.Helper()
	base, _, _ := strings.Cut(version, "+")
	for path, text := range map[string]string{"VERSION": base + "\n", "bin/whisper-appliance-server": "server " + version, "share/doc/copyright": "free"} {
		file := filepath.Join(dir, path)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "bin/") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slot.Seal(t.Context(), dir, slot.Info{Version: version, Commit: "c0ffee", Arch: runtime.GOARCH, Contract: slot.Contract}); err != nil {
		t.Fatal(err)
	}
}

// standing is a systemd whose server runs what the link names.
type standing struct {
	slots *slot.Slots
	proc  string

	mu    sync.Mutex
	state map[string]slot.State
	did   []string
	fail  string // a unit that does not start

	// meet is called where a unit is about to be started; nil = not at all.
	meet func(ctx context.Context, unit string)
}

func (u *standing) start(ctx context.Context, unit, dir string) error {
	u.mu.Lock()
	meet := u.meet
	u.mu.Unlock()
	if meet != nil {
		meet(ctx, unit)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.did = append(u.did, unit)
	if unit == u.fail {
		u.state[unit] = slot.State{Active: "failed"}
		return errors.New("it fails")
	}
	tree, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	pid := len(u.did)
	at := filepath.Join(u.proc, strconv.Itoa(pid))
	u.state[unit] = slot.State{Active: "active", PID: pid, Invocation: at}
	return errors.Join(os.Mkdir(at, 0o755), os.Symlink(filepath.Join(tree, slot.ServerPath), filepath.Join(at, "exe")))
}

func (u *standing) Start(ctx context.Context, unit string) error {
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		return u.start(ctx, unit, u.slots.Path(name))
	}
	return u.start(ctx, unit, u.slots.Current)
}

func (u *standing) Restart(ctx context.Context, unit string) error { return u.Start(ctx, unit) }

func (u *standing) Stop(_ context.Context, unit string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state[unit] = slot.State{Active: "inactive"}
	return nil
}

func (u *standing) ResetFailed(context.Context, string) error { return nil }

func (u *standing) State(_ context.Context, unit string) (slot.State, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if st, known := u.state[unit]; known {
		return st, nil
	}
	return slot.State{Active: "inactive"}, nil
}

func (u *standing) set(change func(u *standing)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(u)
}

// bench is an appliance with a golden release 9.0.0 and empty slots.
type bench struct {
	t     *testing.T
	paths paths.Paths
	slots *slot.Slots
	sys   *standing // nil = systemd does not run
	repo  *publish.Repository
	out   bytes.Buffer
	err   bytes.Buffer
	euid  int

	mu      sync.Mutex
	trial   time.Duration
	sources []string
	smoke   trial.Smoke // what looks at the server give
	looks   int
	journal []string // entries

	// fetch stands for the fetcher, where sources are addresses; nil = there is none.
	fetch func(ctx context.Context, o update.Order) error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	home := t.TempDir()
	at := func(path ...string) string { return filepath.Join(append([]string{home}, path...)...) }
	b := &bench{t: t, trial: time.Hour, smoke: trial.Smoke{OK: true}}
	b.paths = paths.Paths{
		Kind: paths.Installed, Slots: at("opt", "slots"), Current: at("opt", "current"), Stable: at("opt", "stable"), Golden: at("lib", "golden"),
		Updater: at("updater"), UpdaterRun: at("run"), Fetched: at("fetch"), APISocket: at("api.sock"),
	}
	writeRelease(t, b.paths.Golden, "9.0.0")
	b.slots = slot.Of(b.paths.Slots, b.paths.Current, b.paths.Stable, b.paths.Golden)
	b.slots.Owned = false
	if err := b.slots.Prepare(); err != nil {
		t.Fatal(err)
	}
	return b
}

// live gives the bench a systemd, and has version 9.0.0 serve.
func (b *bench) live() *bench {
	b.t.Helper()
	b.sys = &standing{slots: b.slots, proc: b.t.TempDir(), state: map[string]slot.State{}}
	if code := b.run("deploy"); code != exitOK {
		b.t.Fatalf("the first deployment: %d, %s", code, &b.err)
	}
	return b
}

func (b *bench) swap(tell func(step, text string)) *slot.Switch {
	return &slot.Switch{
		Slots: b.slots, Units: b.sys, Service: "server", Proc: b.sys.proc, Settle: 60 * time.Millisecond, Progress: tell,
		Next:   func(name string) (string, string) { return "next-" + name, "door-" + name },
		Engine: func(name string) string { return "engine-" + name },
		Smoke:  func(context.Context, string) error { return nil },
	}
}

func (b *bench) settings() (update.Settings, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := update.Settings{Update: config.Default().Update}
	s.Trial, s.Sources = b.trial, b.sources
	return s, nil
}

// look is a sample of a server that does as it is told to.
func (b *bench) look(context.Context, bool) (trial.Sample, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looks++
	smoke := b.smoke
	return trial.Sample{At: time.Duration(b.looks) * time.Minute, Up: true, Active: "active", PID: 1, Invocation: "i", Smoke: &smoke}, nil
}

func (b *bench) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *bench) seen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.looks
}

// updater is one of the appliance, as a process has it.
func (b *bench) updater() *update.Updater {
	began := time.Now()
	u := &update.Updater{
		Slots: b.slots, Dir: b.paths.Updater, Run: b.paths.UpdaterRun, Fetched: filepath.Join(b.paths.Fetched, "repository"),
		Trust: &trust.Store{Dir: filepath.Join(b.paths.Updater, "trust"), Now: time.Now},
		Log:   slog.New(slog.DiscardHandler), Settings: b.settings, Version: "99.0.0", MachineID: "m", BootID: "b",
		Now: time.Now, Clock: func() time.Duration { return time.Since(began) },
	}
	if b.repo != nil {
		u.Trust.Root = b.repo.Keys.Root()
	}
	if b.fetch != nil {
		u.Fetched = b.repo.Dir
		u.Fetch = func(ctx context.Context, o update.Order, _ func(int64)) error { return b.fetch(ctx, o) }
	}
	if b.sys != nil {
		u.Site = update.Site{
			Switch: b.swap, Look: b.look,
			Idle:    func(context.Context) (string, error) { return "", nil },
			Watch:   func(context.Context) error { return nil },
			Restart: func(ctx context.Context) (string, error) { return b.swap(nil).Again(ctx) },
		}
	}
	return u
}

// publish makes a release that the appliance may find, and gives its file.
func (b *bench) publish(version, notes string) string {
	b.t.Helper()
	if b.repo == nil {
		keys, err := publish.InitKeys(filepath.Join(b.t.TempDir(), "keys"), 1, time.Now())
		if err != nil {
			b.t.Fatal(err)
		}
		b.repo = &publish.Repository{Dir: filepath.Join(b.t.TempDir(), "repository"), Keys: keys, Scratch: b.t.TempDir()}
		b.set(func() { b.sources = []string{b.repo.Dir} })
	}
	tree := b.t.TempDir()
	writeRelease(b.t, tree, version)
	a, err := publish.Build(b.t.Context(), tree, b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.repo.Publish(b.t.Context(), publish.Release{File: a.File, Channel: release.Stable, Rollout: 100, Notes: notes}); err != nil {
		b.t.Fatal(err)
	}
	return a.File
}

// bundle is a file *.wa with a published version.
func (b *bench) bundle(version string) string {
	b.t.Helper()
	file, _, err := publish.Bundle(b.t.Context(), b.repo.Dir, b.repo.Keys.Root(), version, runtime.GOARCH, b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	return file
}

// fakeMachine is the bench as the program finds it.
type fakeMachine struct {
	b   *bench
	log *slog.Logger
}

func (m fakeMachine) Updater() (*update.Updater, error) {
	u := m.b.updater()
	u.Log = m.log
	return u, nil
}

func (m fakeMachine) Down(context.Context) bool { return m.b.sys == nil }
func (m fakeMachine) Close() error              { return nil }

func (b *bench) app() *app {
	a := newApp(&b.out, &b.err)
	a.euid, a.journal = b.euid, ""
	a.entries.Reachable = func() bool { return true }
	a.entries.Send = func(message string, _ int, fields map[string]string) error {
		b.set(func() { b.journal = append(b.journal, fields["COMPONENT"]+": "+message) })
		return nil
	}
	a.find = func() (paths.Paths, error) { return b.paths, nil }
	a.machine = func(_ paths.Paths, log *slog.Logger, _ bool) (appliance, error) { return fakeMachine{b, log}, nil }
	return a
}

// run runs a command line and gives the exit code.
func (b *bench) run(args ...string) int { return b.runIn(b.t.Context(), args...) }

func (b *bench) runIn(ctx context.Context, args ...string) int {
	b.out.Reset()
	b.err.Reset()
	return b.app().run(ctx, args)
}

// must runs a line that has to go well, and gives what it printed.
func (b *bench) must(line string) string {
	b.t.Helper()
	if code := b.run(strings.Fields(line)...); code != exitOK {
		b.t.Fatalf("%s: exit code %d, %s", line, code, &b.err)
	}
	return b.out.String()
}

// wants fails where other versions serve, or are the way back.
func (b *bench) wants(serving, stable string) {
	b.t.Helper()
	for link, want := range map[string]string{b.paths.Current: serving, b.paths.Stable: stable} {
		if m, err := slot.Read(link); err != nil || m.Version != want {
			b.t.Errorf("%s is %q, %v; want %q", filepath.Base(link), m.Version, err, want)
		}
	}
}

// status is what everybody can see.
func (b *bench) status() deployment.Status {
	s, err := deployment.ReadStatus(b.paths.UpdaterRun)
	if err != nil {
		return deployment.Status{State: deployment.State(fmt.Sprint(err))}
	}
	return s
}

// last is the newest record.
func (b *bench) last() deployment.Record {
	list, err := deployment.Records(b.paths.Updater, 1)
	if err != nil || len(list) == 0 {
		return deployment.Record{Outcome: fmt.Sprintf("none, %v", err)}
	}
	return list[0]
}

// document reads the one JSON document that data is.
func document(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, data)
	}
	if d.More() {
		t.Fatalf("more than one document:\n%s", data)
	}
	return v
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s never came", what)
		}
	}
}
