package auth

import (
	"os"
	"path/filepath"
	"syscall"

	"whisper-appliance/internal/fault"
)

// Bits of a file's mode, for its owner; group and others have theirs three and
// six to the right.
const (
	mayRead  = 0o400
	mayEnter = 0o100
)

// CheckReader says whether the server can read the keys file at path: it runs
// as the owner of home, the directory in which it keeps its state. Where there
// is no home yet, nobody can tell. A file out of its reach is a Forbidden with
// the command that hands it over; further groups of the server's user are not
// looked at.
func CheckReader(home, path string) error {
	info, err := os.Stat(home)
	if err != nil {
		return nil
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fault.New(fault.Internal, "unreadable", "the keys file %s cannot be looked at", path).Because(err).
			Try("see that the disk is well")
	}
	if !may(owner, target, mayRead) {
		return outOfReach(path, owner.Uid).Try("chown %d:%d %s", owner.Uid, owner.Gid, path)
	}
	for dir := filepath.Dir(target); ; dir = filepath.Dir(dir) {
		if !may(owner, dir, mayEnter) {
			return outOfReach(path, owner.Uid).Try("chmod o+x %s", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func outOfReach(path string, uid uint32) *fault.Error {
	return fault.New(fault.Forbidden, "keys_out_of_reach",
		"the key is saved but of no use yet: the server, which runs as user %d, cannot read %s", uid, path)
}

// may reports whether the user that owns something may use the file or
// directory at path: as its owner, by its group, or as anybody.
func may(user *syscall.Stat_t, path string, bit uint32) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	file, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return false
	case file.Uid == user.Uid:
	case file.Gid == user.Gid:
		bit >>= 3
	default:
		bit >>= 6
	}
	return file.Mode&bit != 0
}
