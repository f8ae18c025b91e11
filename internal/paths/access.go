package paths

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a check of access asks for.
const (
	mayRead   = unix.R_OK
	mayWrite  = unix.W_OK
	maySearch = unix.X_OK
)

// access asks the kernel, which knows of access lists and read-only file
// systems, too, for this process as it runs.
func access(path string, how uint32) error {
	return unix.Faccessat(unix.AT_FDCWD, path, how, unix.AT_EACCESS)
}

// User is somebody whose access is checked.
type User struct {
	Name string
	UID  int
	GIDs []int
}

// Me is the user of this process.
func Me() User {
	gids, _ := os.Getgroups() //nolint:errcheck // the kernel is asked for this process
	u := User{UID: os.Geteuid(), GIDs: append(gids, os.Getegid())}
	u.Name = userName(u.UID)
	return u
}

// ServiceUser is the user that an installed server runs as, false where there
// is none.
func ServiceUser() (User, bool) {
	found, err := user.Lookup(product)
	if err != nil {
		return User{}, false
	}
	u := User{Name: found.Username}
	if u.UID, err = strconv.Atoi(found.Uid); err != nil {
		return User{}, false
	}
	ids, err := found.GroupIds()
	if err != nil {
		ids = []string{found.Gid}
	}
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil {
			u.GIDs = append(u.GIDs, gid)
		}
	}
	return u, true
}

// MayRead reports whether u may read the file at path: its mode and those of
// the directories above it are looked at.
func (u User) MayRead(path string) bool { return u.may(path, mayRead) }

// may reports whether u may do what how says with path. For this process the
// kernel answers; for others modes and owners do, from the root downward.
func (u User) may(path string, how uint32) bool {
	if u.UID == os.Geteuid() {
		return access(path, how) == nil
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !u.granted(dir, maySearch) {
			return false
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return u.granted(path, how) && (how&mayWrite == 0 || !readOnly(path))
}

// granted reads one file's mode as the kernel would for u.
func (u User) granted(path string, how uint32) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := uint32(info.Mode().Perm())
	switch {
	case u.UID == 0:
		return true
	case int(st.Uid) == u.UID:
		mode >>= 6
	case slices.Contains(u.GIDs, int(st.Gid)):
		mode >>= 3
	}
	return mode&how == how
}

// readOnly reports whether path lies on a file system that takes no writes.
func readOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// owner is who owns a file, by name where there is one: "root:root".
func owner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	group := strconv.Itoa(int(st.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return userName(int(st.Uid)) + ":" + group
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
