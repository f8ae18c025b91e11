package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
)

// TestRootAddsKeyForServer: the server, which runs as the state directory's
// owner, can read a file that root made, and where it cannot, that is said
// after the key was shown.
func TestRootAddsKeyForServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	b := newBench(t)
	b.paths.State = filepath.Dir(b.paths.Settings)
	above := filepath.Dir(b.paths.State)
	if err := errors.Join(os.Chmod(filepath.Dir(above), 0o755), os.Mkdir(b.paths.State, 0o711), os.Chown(b.paths.State, 12345, 12346)); err != nil {
		t.Fatal(err)
	}
	if out, err := b.run("keys add one"); err != nil || !strings.HasPrefix(out, "wa_") {
		t.Fatalf("%q, %v", out, err)
	}
	info, err := os.Stat(b.paths.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 12346 || info.Mode().Perm() != 0o600 {
		t.Errorf("the file belongs to %d:%d with mode %v", s.Uid, s.Gid, info.Mode())
	}
	if err := os.Chown(b.paths.Keys, 0, 0); err != nil {
		t.Fatal(err)
	}
	out, err := b.run("keys add two")
	if !strings.HasPrefix(out, "wa_") || fault.KindOf(err) != fault.Forbidden || fault.Hint(err) != "chown 12345:12346 "+b.paths.Keys {
		t.Errorf("%q, %v, %q", out, err, fault.Hint(err))
	}
}
