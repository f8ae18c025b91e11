package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestNamelessIsKept: a file without a name leaves nothing behind unless it is
// given one, and then it is the same file or, where that cannot be, a copy.
func TestNamelessIsKept(t *testing.T) {
	proc := string(filepath.Separator) + "proc"
	for name, create := range map[string]func(string, os.FileMode) (*os.File, error){"unnamed": Nameless, "unlinked": unlinked} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f, err := create(dir, 0o444)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("sound"); err != nil {
				t.Fatal(err)
			}
			if n := names(t, dir); len(n) != 0 {
				t.Errorf("it has a name: %v", n)
			}
			path := filepath.Join(dir, "kept")
			if err := Keep(proc, f, path); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil || string(data) != "sound" {
				t.Errorf("kept %q, %v", data, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
				t.Errorf("%v, %v", info, err)
			}
			if err := Keep(proc, f, path); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a second file of that name: %v", err)
			}
			if n := names(t, dir); len(n) != 1 {
				t.Errorf("more than the file is there: %v", n)
			}
		})
	}
	if _, err := Nameless(filepath.Join(t.TempDir(), "gone"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}
