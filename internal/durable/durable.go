// Package durable writes files that survive a power cut: the bytes are on disk
// before the name is, and the name is before the call returns. It trusts the
// directory it is given and leaves no temporary file behind after an error.
// Around that it reads files that somebody else may have put in place, and
// measures the room that is left.
package durable

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteFile writes data to path atomically: a reader sees the old file or the
// whole new one, and after it returns so does a machine that lost power.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Write is WriteFile for content that fill produces.
func Write(path string, perm os.FileMode, fill func(io.Writer) error) error {
	return Fill(path, perm, func(f *os.File) error { return fill(f) })
}

// Fill is Write for a fill that needs the file itself, to give it to another
// owner before it has its name.
func Fill(path string, perm os.FileMode, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	return Publish(f, path)
}

// Publish syncs f, closes it and gives it the name path, which must be on the
// same file system.
func Publish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
