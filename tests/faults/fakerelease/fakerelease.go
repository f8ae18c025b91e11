// Package fakerelease makes releases for tests: whole, sealed slot trees of a
// few megabytes around a small server that does as it is told (see
// tests/faults/fakeserver). It trusts the Go tool, which compiles that server,
// and writes nothing outside the directories it is given.
package fakerelease

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/slot"
)

const source = "whisper-appliance/tests/faults/fakeserver"

// Maker makes releases around one compiled server.
type Maker struct{ server []byte }

// New is Compile for a test.
func New(t testing.TB) *Maker {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no Go tool to compile the server with")
	}
	m, err := Compile(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Compile builds the server in dir, which is not needed afterwards. The working
// directory must be in this module.
func Compile(ctx context.Context, dir string) (*Maker, error) {
	to := filepath.Join(dir, "fakeserver")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "nethttpomithttp2", "-ldflags", "-s -w", "-o", to, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the fake server: %w: %s", err, out)
	}
	defer os.Remove(to)
	program, err := os.ReadFile(to)
	return &Maker{program}, err
}

// Release is what is made. Only Version must be set.
type Release struct {
	Version  string            // "9.8.7", or with a suffix: "9.8.7+dev"
	Mode     string            // of the server: "good", "crash-after 2s", … (tests/faults/fakeserver/mode.go); "" = good
	Takes    time.Duration     // of a transcription; 0 = 5 ms
	Grace    time.Duration     // how long a stop goes on answering; 0 = 1.5 s, as the real server's
	Padding  int64             // bytes more, which cannot be compressed
	Known    map[string]string // text of the recordings that are to be understood, by the recordings' bytes
	Commit   string            // "" = "c0ffee"
	Arch     string            // "" = this machine's
	Contract int               // 0 = slot.Contract
}

// Make makes the release in dir, which is made too and must be new or empty.
// The same release is made of the same bytes, and each has a server of its own:
// it differs in what stands behind the program's end.
func (m *Maker) Make(ctx context.Context, dir string, r Release) (slot.Manifest, error) {
	number, _, _ := strings.Cut(r.Version, "+")
	mark := fmt.Sprintf("\nrelease %s mode %s\n", r.Version, r.Mode)
	files := map[string][]byte{
		"VERSION":                      []byte(number + "\n"),
		slot.ServerPath:                append(append([]byte{}, m.server...), mark...),
		slot.EnginePath:                []byte("#!/bin/false\n# stands in for the engine of " + r.Version + "\n"),
		"lib/engine/ld.so":             []byte("stands in for a loader\n"),
		"share/doc/README":             []byte("A release for tests.\n"),
		filepath.Join("share", "mode"): []byte(r.modeFile()),
	}
	for recording, text := range r.Known {
		sum := sha256.Sum256([]byte(recording))
		files["share/known/"+hex.EncodeToString(sum[:])] = []byte(text + "\n")
	}
	if r.Padding > 0 {
		files["share/padding"] = padding(r.Version, r.Padding)
	}
	for name, data := range files {
		if err := place(dir, name, data); err != nil {
			return slot.Manifest{}, fmt.Errorf("make release %s: %w", r.Version, err)
		}
	}
	return slot.Seal(ctx, dir, slot.Info{Version: r.Version, Commit: cmp.Or(r.Commit, "c0ffee"),
		Arch: cmp.Or(r.Arch, runtime.GOARCH), Contract: cmp.Or(r.Contract, slot.Contract)})
}

// In is Make for a test, in a directory of its own.
func (m *Maker) In(t testing.TB, r Release) (dir string, manifest slot.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "release")
	manifest, err := m.Make(t.Context(), dir, r)
	if err != nil {
		t.Fatal(err)
	}
	return dir, manifest
}

func (r Release) modeFile() string {
	text := cmp.Or(r.Mode, "good") + "\n"
	if r.Takes > 0 {
		text += "takes " + r.Takes.String() + "\n"
	}
	if r.Grace > 0 {
		text += "grace " + r.Grace.String() + "\n"
	}
	return text
}

// padding are bytes that only the seed tells.
func padding(seed string, size int64) []byte {
	data := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(data) //nolint:errcheck // never fails
	return data
}

// place writes a file with the modes that a release has, whatever the umask.
func place(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(name, "bin/") || strings.HasSuffix(name, ".so") {
		mode = 0o755
	}
	if err := errors.Join(os.WriteFile(path, data, mode), os.Chmod(path, mode)); err != nil {
		return err
	}
	for at := filepath.Dir(path); ; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil || at == filepath.Clean(dir) {
			return err
		}
	}
}
