package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
)

// Where a repository has its files, below its directory or address and in a
// bundle.
const (
	MetadataDir = "metadata"
	TargetsDir  = "targets"
)

// Source gives the bytes of a repository, of which nothing is believed.
type Source interface {
	// Metadata gives the file of that name in metadata/, such as
	// "timestamp.json" or "2.root.json": fs.ErrNotExist where there is none,
	// TooLong where it has more than most bytes.
	Metadata(ctx context.Context, name string, most int64) ([]byte, error)
	// Target opens the file of that name in targets/, which begins with its
	// digest (see Offer.Name): fs.ErrNotExist where there is none.
	Target(ctx context.Context, name string) (io.ReadCloser, error)
}

// isMetadataName tells the files of a repository that a client asks for.
func isMetadataName(name string) bool {
	return regexp.MustCompile(`^(timestamp|[1-9][0-9]{0,17}\.(root|snapshot|targets))\.json$`).MatchString(name)
}

// isTargetName tells names of artefacts with their digest.
func isTargetName(name string) bool {
	if len(name) < 66 || !regexp.MustCompile(`^[0-9a-f]{64}\.`).MatchString(name) {
		return false
	}
	_, _, err := release.ParseTarget(name[65:])
	return err == nil
}

// Directory is the repository below path, in which others may put what they
// like: only regular files are read, no link below path is followed, and a pipe
// keeps nobody waiting.
func Directory(path string) Source { return directory(path) }

type directory string

// Metadata stands at Source.
func (d directory) Metadata(_ context.Context, name string, most int64) ([]byte, error) {
	if !isMetadataName(name) {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	f, err := d.open(MetadataDir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, TooLong(name, most)
	}
	return data, err
}

// Target stands at Source.
func (d directory) Target(_ context.Context, name string) (io.ReadCloser, error) {
	if !isTargetName(name) {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	f, err := d.open(TargetsDir, name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

const openFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

// open opens one regular file two levels below d.
func (d directory) open(dir, name string) (*os.File, error) {
	// An administrator may name a link; the flags see to it that a pipe in its
	// place, which the fetcher's user could make of its own, is no directory.
	base, err := unix.Open(string(d), openFlags&^unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "source_unreachable", "the source %s cannot be read", string(d)).
			Because(&fs.PathError{Op: "open", Path: string(d), Err: err}).Try("see that the directory is there, and mounted where it is on a stick")
	}
	defer unix.Close(base)
	path := filepath.Join(string(d), dir, name)
	sub, err := unix.Openat(base, dir, openFlags|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	defer unix.Close(sub)
	fd, err := unix.Openat(sub, name, openFlags, 0)
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func cannotOpen(path string, err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) {
		return notRegular(path)
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

func notRegular(path string) error {
	return fault.New(fault.BadInput, "not_regular", "%s is no regular file, or a link leads to it", path).
		Try("copy the repository anew, with plain files and directories alone")
}
