package update

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// ballastBytes are kept on each of the two file systems, so that a rollback has
// room on a disk that somebody else has filled. They are random: a file system
// that compresses or leaves holes keeps nothing of zeros.
const ballastBytes = 4 << 20

func (u *Updater) ballasts() []string {
	return []string{filepath.Join(filepath.Dir(u.Slots.Dir), ".ballast"), filepath.Join(u.Dir, "ballast")}
}

// takeBallast makes the ballast where it is not whole.
func (u *Updater) takeBallast() error {
	for _, path := range u.ballasts() {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() == ballastBytes {
			continue
		}
		err := durable.Write(path, 0o600, func(w io.Writer) error {
			var seed [32]byte
			rand.Read(seed[:]) //nolint:errcheck // never fails
			_, err := io.CopyN(w, mathrand.NewChaCha8(seed), ballastBytes)
			return err
		})
		if err != nil {
			return cannotWrite(path, err)
		}
	}
	return nil
}

// dropBallast gives the room back: the link, the state and the record need it.
func (u *Updater) dropBallast() {
	for _, path := range u.ballasts() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			u.Log.Warn("the ballast stays", "error", err)
		}
	}
}

// cannotWrite names the missing right or room.
func cannotWrite(path string, err error) error {
	var worded *fault.Error
	switch {
	case errors.As(err, &worded):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Forbidden, "not_writable", "%s cannot be written", path).Because(err).Try("do it as root")
	case errors.Is(err, unix.EROFS):
		return fault.New(fault.Unavailable, "read_only", "%s is on a file system that is mounted read-only", path).
			Because(err).Try("mount it for writing; the kernel does this to a failing disk, see `dmesg`")
	case errors.Is(err, unix.EIO):
		return fault.New(fault.Unavailable, "disk_fails", "the disk of %s fails", path).Because(err).Try("see `dmesg`; save what matters from it")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", path).Because(err).Try("free some disk space; `df -h` and `df -i` show the disks")
	}
	return fmt.Errorf("%s: %w", path, err)
}
