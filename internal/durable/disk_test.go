package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFree(t *testing.T) {
	dir := t.TempDir()
	here, err := Free(dir)
	if err != nil || here <= 0 {
		t.Fatalf("%d bytes are free (%v)", here, err)
	}
	if later, err := Free(filepath.Join(dir, "to", "come")); err != nil || later <= 0 {
		t.Errorf("a directory that is yet to be made: %d, %v", later, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Free(filepath.Join(file, "x")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("below a file: %v", err)
	}
}

func TestReadRegular(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadRegular(file, 5); err != nil || string(data) != "12345" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := ReadRegular(file, 4); err == nil || data != nil {
		t.Errorf("more than was wanted: %q, %v", data, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadRegular(link, 5); err != nil || string(data) != "12345" {
		t.Errorf("behind a link: %q, %v", data, err)
	}
	if data, err := ReadForeign(link, 5); !errors.Is(err, syscall.ELOOP) || data != nil {
		t.Errorf("behind a stranger's link: %q, %v", data, err)
	}
	if data, err := ReadForeign(file, 5); err != nil || string(data) != "12345" {
		t.Errorf("a stranger's file: %q, %v", data, err)
	}
	for _, path := range []string{pipe, dir} {
		if _, err := ReadRegular(path, 5); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := ReadRegular(filepath.Join(dir, "none"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
}
