package site

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

// fakeBus is a systemd that does what a test says.
type fakeBus struct {
	mu     sync.Mutex
	did    []string
	units  map[string]systemd.Unit // by name; others are not found
	answer error                   // to every question

	// start does what a unit does when it is started; nil = all goes well.
	start func(ctx context.Context, unit string) error
	stop  func(unit string) error
}

func (b *fakeBus) note(verb string, units []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, verb+" "+strings.Join(units, " "))
}

func (b *fakeBus) notes() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.did, ", ")
}

func (b *fakeBus) Start(ctx context.Context, units ...string) error {
	b.note("start", units)
	if b.start == nil {
		return nil
	}
	return b.start(ctx, units[0])
}

func (b *fakeBus) Stop(_ context.Context, units ...string) error {
	b.note("stop", units)
	if b.stop == nil {
		return nil
	}
	return b.stop(units[0])
}

func (b *fakeBus) Restart(_ context.Context, units ...string) error {
	b.note("restart", units)
	return nil
}

func (b *fakeBus) ResetFailed(_ context.Context, units ...string) error {
	b.note("reset", units)
	return nil
}

func (b *fakeBus) Units(_ context.Context, names ...string) ([]systemd.Unit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []systemd.Unit
	for _, name := range names {
		u, ok := b.units[name]
		if !ok {
			u = systemd.Unit{Load: "not-found", Active: "inactive"}
		}
		u.Name = name
		list = append(list, u)
	}
	return list, b.answer
}

func (b *fakeBus) Close() error { return b.answer }

// newMachine is an installed appliance, empty, with that systemd; nil = none.
func newMachine(t *testing.T, b *fakeBus) *Machine {
	t.Helper()
	home := t.TempDir()
	at := func(path ...string) string { return filepath.Join(append([]string{home}, path...)...) }
	m := &Machine{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Paths: paths.Paths{
		Kind: paths.Installed, Slots: at("slots"), Current: at("current"), Stable: at("stable"), Golden: at("golden"),
		Updater: at("updater"), UpdaterRun: at("run-updater"), Fetched: at("fetch"), Run: at("run"), APISocket: at("run", "api.sock"),
		Config: at("etc", "config.toml"), ConfigDir: at("etc", "config.d"), Source: at("source"), TrustRoot: at("root.json"), MachineID: at("machine-id"),
	}}
	if b != nil {
		m.bus = b
	}
	return m
}

// put writes a file, and the directories that it needs.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// wantCode fails where err is no fault with that code; "" is no error.
func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var f *fault.Error
	if code == "" && err != nil || code != "" && (!errors.As(err, &f) || f.Code != code) {
		t.Errorf("%s: error %v, want %q", what, err, code)
	} else if code != "" && fault.Hint(err) == "" {
		t.Errorf("%s: %v has no hint", what, err)
	}
}
