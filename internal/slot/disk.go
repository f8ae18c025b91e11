package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// oneDisk refuses slots across file systems: a rename there is a copy, which a
// power cut leaves in halves.
func (s *Slots) oneDisk(name string) error {
	var first unix.Stat_t
	for i, dir := range []string{s.Dir, s.staging(), s.trash(), s.Path(name)} {
		var st unix.Stat_t
		err := unix.Lstat(dir, &st)
		if dir == s.Path(name) && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if i == 0 {
			first = st
		}
		if st.Dev != first.Dev {
			return fault.New(fault.Conflict, "two_file_systems", "%s and %s are on different file systems", s.Dir, dir).
				Try("mount one file system at %s or above, none below it", filepath.Dir(s.Dir))
		}
	}
	return nil
}

// defaultRoom stays free beside a release that is placed.
const defaultRoom = 16 << 20

// enough refuses a release that will not fit, with the bytes that are missing.
func (s *Slots) enough(bytes, inodes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.staging(), &st); err != nil {
		return fmt.Errorf("free space of %s: %w", s.staging(), err)
	}
	room := s.Room
	if room == 0 {
		room = defaultRoom
	}
	if missing := bytes + room - int64(st.Bavail)*st.Bsize; missing > 0 {
		return fault.New(fault.NoSpace, "disk_full", "%d bytes (%s) are missing on the disk of %s: the release needs %s, and %s must stay free",
			missing, fault.Bytes(missing), s.Dir, fault.Bytes(bytes), fault.Bytes(room)).
			Try("free some disk space; `df -h` shows the disks")
	}
	// Some file systems count no inodes, and say 0 of 0.
	if missing := inodes - int64(st.Ffree); st.Files > 0 && missing > 0 {
		return fault.New(fault.NoSpace, "no_inodes", "%d inodes are missing on the disk of %s", missing, s.Dir).
			Try("remove files there; `df -i` shows which disks hold too many")
	}
	return nil
}

// block is what a file's size is rounded up to. Some file systems have larger
// blocks, and room for that.
const block = 4096

// needs is what m takes on a disk.
func needs(m Manifest) (bytes, inodes int64) {
	dirs := map[string]bool{}
	for _, f := range m.Files {
		bytes += (f.Size + block - 1) / block * block
		for dir := filepath.Dir(f.Path); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	own := int64(len(m.encode()))
	return bytes + own + int64(len(dirs)+2)*block, int64(len(m.Files) + len(dirs) + 2)
}

// copyTree copies what m lists, and nothing else, and m itself at last.
func copyTree(ctx context.Context, from, to string, m Manifest, progress func(done, total int64)) error {
	in, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := makeDirs(out, m); err != nil {
		return err
	}
	var done int64
	total := m.Size()
	for _, f := range m.Files {
		if err := copyFile(ctx, in, out, f); err != nil {
			return err
		}
		done += f.Size
		progress(done, total)
	}
	return durable.WriteFile(filepath.Join(to, ManifestName), m.encode(), 0o644)
}

// makeDirs makes every directory of m, whatever the umask.
func makeDirs(out *os.Root, m Manifest) error {
	made := map[string]bool{}
	for _, f := range m.Files {
		for i, r := range f.Path {
			dir := f.Path[:i]
			if r != '/' || made[dir] {
				continue
			}
			if err := out.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if err := out.Chmod(dir, 0o755); err != nil {
				return err
			}
			made[dir] = true
		}
	}
	return out.Chmod(".", 0o755)
}

// copyFile holds what it reads against the manifest at once.
func copyFile(ctx context.Context, in, out *os.Root, f File) (err error) {
	src, err := in.Open(f.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := out.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return cannotWrite(f.Path, err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	got, err := digest(ctx, dst, src)
	if err != nil {
		return cannotWrite(f.Path, err)
	}
	if got != f.SHA256 {
		return damaged(in.Name(), []Difference{{f.Path, Digest, f.SHA256, got}})
	}
	return dst.Chmod(f.perm())
}

// toDisk writes the tree out and drops it from memory, so that what is read
// next is what the disk holds.
func toDisk(dir string, m Manifest) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return cannotWrite(dir, fmt.Errorf("syncfs: %w", err))
	}
	for _, f := range m.Files {
		if err := forget(filepath.Join(dir, f.Path)); err != nil {
			return err
		}
	}
	return nil
}

func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("fadvise %s: %w", path, err)
	}
	return nil
}
