// Package disk gives tests a disk of their own that can lose its power, fill up
// or become read-only: an ext4 file system with its journal, in an image behind
// a loop device.
//
// It is for root alone, and skips the test for anybody else. It trusts the
// kernel and mkfs.ext4. It writes an image and a mount point below a directory
// of memory or, where there is none, of temporary files, and takes them away when
// the test has ended; what a run that was killed has left the next run removes.
package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	shutdown   = 0x8004587D // FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
	noLogFlush = 2          // what is not in the journal yet never gets there: the plug is out

	block     = 4096
	inodes    = "2048" // few, so that they can be used up quickly
	busyLimit = time.Second
	options   = "data=ordered,barrier=1,errors=remount-ro"
	prefix    = "wa-disk-"
)

// Disk is a mounted file system. Its methods are for one goroutine at a time.
type Disk struct {
	Dir string // where it is mounted; the same for the whole test

	base  string // holds image, its copies, and Dir
	image string
	saved string // copy that Back returns to, "" = none
	turn  int    // number of the next image
}

// New mounts a new file system of size bytes, 16 MiB at least, for the length of
// the test.
func New(t testing.TB, size int64) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system needs root to mount")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("there is no mkfs.ext4 (package e2fsprogs)")
	}
	if _, err := os.Stat(loopControl); err != nil {
		t.Skip("there are no loop devices here")
	}
	d, err := create(size)
	if d != nil {
		t.Cleanup(func() {
			if err := d.remove(); err != nil {
				t.Error(err)
			}
		})
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("root of this container may not mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// create gives a disk also with an error, to be removed.
func create(size int64) (*Disk, error) {
	root := memory(size)
	if err := clearLeft(root); err != nil {
		return nil, err
	}
	base, err := os.MkdirTemp(root, prefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	d := &Disk{Dir: filepath.Join(base, "m"), base: base}
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(d.Dir, 0o755)); err != nil {
		return d, err
	}
	d.image = d.next()
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return d, err
	}
	if err := os.Truncate(d.image, max(size, 16<<20)); err != nil {
		return d, err
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(block), "-m", "0", "-N", inodes, "-J", "size=4",
		"-E", "lazy_itable_init=0,lazy_journal_init=0", d.image).CombinedOutput()
	if err != nil {
		return d, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return d, d.mount()
}

func (d *Disk) next() string {
	d.turn++
	return filepath.Join(d.base, "image"+strconv.Itoa(d.turn))
}

// memory is where images are quick to sync: a file system in memory with room.
func memory(size int64) string {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(shm, &st) == nil && st.Type == unix.TMPFS_MAGIC && int64(st.Bavail)*st.Bsize > 4*size {
		return shm
	}
	return os.TempDir()
}

// clearLeft takes away what runs that were killed have left.
func clearLeft(root string) error {
	left, err := filepath.Glob(filepath.Join(root, prefix+"*"))
	if err != nil {
		return err
	}
	for _, base := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(base), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		d := &Disk{Dir: filepath.Join(base, "m"), base: base}
		if err := d.remove(); err != nil {
			return fmt.Errorf("left by process %d: %w", pid, err)
		}
	}
	return nil
}

func (d *Disk) remove() error {
	err := d.unmount()
	if errors.Is(err, unix.EBUSY) { // whoever holds it keeps the loop device until it ends
		err = unix.Unmount(d.Dir, unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // nothing is mounted
		err = nil
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", d.Dir, err)
	}
	return os.RemoveAll(d.base)
}

func (d *Disk) mount() error {
	loop, err := attach(d.image)
	if err != nil {
		return fmt.Errorf("loop device for %s: %w", d.image, err)
	}
	defer loop.Close() // from then on the mount alone keeps it
	if err := unix.Mount(loop.Name(), d.Dir, "ext4", unix.MS_NOATIME, options); err != nil {
		return fmt.Errorf("mount %s: %w", d.Dir, err)
	}
	return nil
}

// unmount gives those who are about to let go a moment.
func (d *Disk) unmount() error {
	for limit := time.Now().Add(busyLimit); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(d.Dir, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(limit) {
			return err
		}
	}
}

// Cut takes the power away: nothing is written any more, and everything that is
// asked of the file system fails, until Revive.
func (d *Disk) Cut() error {
	dir, err := os.Open(d.Dir)
	if err != nil {
		return fmt.Errorf("cut: %w", err)
	}
	defer dir.Close()
	flag := uint32(noLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flag)))
	if errno != 0 {
		return fmt.Errorf("cut %s: %w", d.Dir, errno)
	}
	return nil
}

// Revive gives the power back: the file system is mounted anew, and its journal
// is played. Where somebody still has it open it goes on with a copy of the
// image, so that nothing of the old one can reach it.
func (d *Disk) Revive() error {
	err := d.unmount()
	if errors.Is(err, unix.EBUSY) {
		fresh := d.next()
		if err = copyImage(d.image, fresh); err != nil {
			return fmt.Errorf("revive: %w", err)
		}
		err = unix.Unmount(d.Dir, unix.MNT_DETACH)
		d.image = fresh
	}
	if err != nil {
		return fmt.Errorf("revive: unmount %s: %w", d.Dir, err)
	}
	return d.mount()
}

// Check has e2fsck look at the file system, which nobody may have open.
func (d *Disk) Check() error {
	if err := d.unmount(); err != nil {
		return fmt.Errorf("check: unmount %s: %w", d.Dir, err)
	}
	out, err := exec.Command("e2fsck", "-f", "-n", d.image).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("e2fsck: %w: %s", err, out)
	}
	return errors.Join(err, d.mount())
}

// Save keeps a copy of the file system as it is, to which Back returns. Nobody
// may have it open.
func (d *Disk) Save() error {
	if err := d.unmount(); err != nil {
		return fmt.Errorf("save: unmount %s: %w", d.Dir, err)
	}
	fresh := d.next()
	err := copyImage(d.image, fresh)
	if err == nil {
		d.saved = fresh
	}
	return errors.Join(err, d.mount())
}

// Back returns to what Save has kept, also from a cut.
func (d *Disk) Back() error {
	if d.saved == "" {
		return errors.New("back: nothing was saved")
	}
	if err := d.unmount(); errors.Is(err, unix.EBUSY) {
		if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("back: unmount %s: %w", d.Dir, err)
		}
	} else if err != nil {
		return fmt.Errorf("back: unmount %s: %w", d.Dir, err)
	}
	if d.image != d.saved {
		os.Remove(d.image) //nolint:errcheck // remove takes it away at the latest
	}
	d.image = d.next()
	if err := copyImage(d.saved, d.image); err != nil {
		return fmt.Errorf("back: %w", err)
	}
	return d.mount()
}

// ReadOnly makes the file system refuse writes, or take them again. It fails
// with unix.EBUSY while a file is open for writing.
func (d *Disk) ReadOnly(on bool) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_NOATIME)
	if on {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", d.Dir, "", flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", d.Dir, err)
	}
	return nil
}
