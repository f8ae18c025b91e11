package slot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
)

// Lock takes the lock that everybody holds who changes slots, and does not wait
// for it. what says for others what it is held for: "deploy of 9.8.7". The lock
// ends with its holder, however that ends; the file stays. A lock that another
// holds is a fault of kind Busy that names the holder.
func Lock(path, what string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, cannotWrite(path, err)
	}
	// Who may open it may hold it for ever: it is its owner's alone.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, busy(path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	note := fmt.Sprintf("%s, process %d, since %s", what, os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if f.Truncate(0) == nil {
		f.WriteAt([]byte(note), 0) //nolint:errcheck // a full disk must not stand in the way; the note is for people
	}
	return func() {
		f.Truncate(0) //nolint:errcheck // the same
		f.Close()
	}, nil
}

func busy(path string) error {
	holder := "another process"
	if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
		holder = fault.Short(strings.TrimSpace(string(data)))
	}
	return fault.New(fault.Busy, "slots_busy", "the slots are being changed: %s", holder).
		Try("wait until that has ended, and try again")
}

// cannotWrite names the place and, where that is the matter, the missing right
// or room.
func cannotWrite(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Forbidden, "slots_not_writable", "%s cannot be written", path).Because(err).Try("do it as root")
	case errors.Is(err, unix.EROFS):
		return fault.New(fault.Forbidden, "slots_not_writable", "%s is on a file system that is mounted read-only", path).
			Because(err).Try("mount it for writing; the kernel does this to a failing disk, see `dmesg`")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", path).Because(err).Try("free some disk space")
	}
	return fmt.Errorf("%s: %w", path, err)
}
