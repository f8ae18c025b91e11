package auth

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
)

// The server's user in these tests; nobody here has these numbers.
const serverUID, serverGID = 12345, 12346

// openTemp is a temporary directory that every user may enter.
func openTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// home is a state directory that belongs to the server's user.
func home(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	dir := filepath.Join(openTemp(t), "state")
	if err := errors.Join(os.Mkdir(dir, 0o711), os.Chown(dir, serverUID, serverGID)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAddForServer: a key that root adds in root's directory is readable to
// the server, and the owner that an administrator chose stays.
func TestAddForServer(t *testing.T) {
	state := home(t)
	path := filepath.Join(openTemp(t), "keys.toml")
	_, one := newKey(t, "one", Transcribe)
	_, two := newKey(t, "two", Transcribe)
	wantOwner := func(uid, gid uint32) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != uid || s.Gid != gid || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("the file belongs to %d:%d with mode %v, want %d:%d", s.Uid, s.Gid, info.Mode(), uid, gid)
		}
	}
	if err := AddFor(state, path, one); err != nil {
		t.Fatal(err)
	}
	wantOwner(serverUID, serverGID)
	if err := CheckReader(state, path); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Chown(path, 0, serverGID), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
	if err := AddFor(state, path, two); err != nil {
		t.Fatal(err)
	}
	wantOwner(0, serverGID)
	if err := CheckReader(state, path); err != nil {
		t.Error(err)
	}
	if err := Remove(path, "one"); err != nil {
		t.Fatal(err)
	}
	wantOwner(0, serverGID)
}

func TestCheckReader(t *testing.T) {
	state := home(t)
	for _, c := range []struct {
		name      string
		file, dir os.FileMode
		uid, gid  int
		hint      string // "" = readable
	}{
		{"its own", 0o600, 0o755, serverUID, 0, ""},
		{"root's alone", 0o600, 0o755, 0, 0, "chown 12345:12346"},
		{"by group", 0o640, 0o755, 0, serverGID, ""},
		{"its group may not", 0o604, 0o755, 0, serverGID, "chown 12345:12346"},
		{"anybody's", 0o644, 0o755, 0, 0, ""},
		{"behind a closed directory", 0o600, 0o700, serverUID, serverGID, "chmod o+x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openTemp(t)
			path := filepath.Join(dir, "keys.toml")
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, c.uid, c.gid), os.Chmod(path, c.file), os.Chmod(dir, c.dir)); err != nil {
				t.Fatal(err)
			}
			err := CheckReader(state, path)
			if c.hint == "" {
				if err != nil {
					t.Errorf("%v, %s", err, fault.Hint(err))
				}
				return
			}
			if fault.KindOf(err) != fault.Forbidden || !strings.HasPrefix(fault.Hint(err), c.hint) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, %q; want the hint %q", err, fault.Hint(err), c.hint)
			}
		})
	}
}

// TestCheckReaderCannotTell: no state directory, or one of root's.
func TestCheckReaderCannotTell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.toml")
	if err := CheckReader(filepath.Join(t.TempDir(), "missing"), path); err != nil {
		t.Error(err)
	}
	_, key := newKey(t, "one", Transcribe)
	own := t.TempDir()
	if err := AddFor(own, path, key); err != nil {
		t.Fatal(err)
	}
	if err := CheckReader(own, path); err != nil {
		t.Errorf("a file of ours in a home of ours: %v", err)
	}
}
