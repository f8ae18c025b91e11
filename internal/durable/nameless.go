package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nameless makes a file without a name on the file system of dir: its space is
// free again when it is closed, and after a crash. Keep can give it one.
func Nameless(dir string, perm os.FileMode) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		return unlinked(dir, perm) // NFS, say
	case err != nil:
		return nil, &fs.PathError{Op: "create a file in", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(dir, "nameless"))
	if err := f.Chmod(perm); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unlinked is Nameless where a file has to have a name first.
func unlinked(dir string, perm os.FileMode) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".nameless-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), f.Chmod(perm)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Keep gives the file f, which has no name, the name path, under which nothing
// may be yet. When it returns, file and name survive a power cut. f stays open.
// Where it cannot have a name, as it is on another file system, a copy gets it.
// proc is where the kernel shows its processes.
func Keep(proc string, f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	self := filepath.Join(proc, "self", "fd", strconv.Itoa(int(f.Fd())))
	err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		return duplicate(f, path)
	case err != nil:
		return &fs.PathError{Op: "name the file", Path: path, Err: err}
	}
	return SyncDir(filepath.Dir(path))
}

// duplicate writes what is in f to path.
func duplicate(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("name the file: %w", errors.Join(fs.ErrExist, err))
	}
	return Write(path, info.Mode().Perm(), func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, 0, info.Size()))
		return err
	})
}
