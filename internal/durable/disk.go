package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Free is how many bytes users other than root may still write to the disk of
// dir, as statfs(2) has it. Where dir is not there it is that of the directory
// it would be made in.
func Free(dir string) (int64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = syscall.Statfs(dir, &st)
	}
	if err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// ReadRegular reads a file of at most so many bytes: a pipe, a device or a file
// that has no end is an error, and keeps nobody waiting. Links are followed, for
// people keep their settings behind them: what lies in a directory that another
// user writes is read by ReadForeign.
func ReadRegular(path string, most int64) ([]byte, error) { return read(path, most, 0) }

// ReadForeign is ReadRegular where somebody else may put what they like in the
// file's place: a link, which could lead to what only the reader may read, is an
// error as well.
func ReadForeign(path string, most int64) ([]byte, error) {
	return read(path, most, syscall.O_NOFOLLOW)
}

func read(path string, most int64, flags int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return data, err
}
