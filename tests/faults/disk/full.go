package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// What fills the file system, beside what is tested.
const (
	filler    = ".filler"
	fillerDir = ".fillers"
)

const refinements = 20 // until just so much is free

// Free is what is left for everybody: bytes and inodes.
func (d *Disk) Free() (bytes, inodes int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.Dir, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", d.Dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Ffree), nil
}

// Fill leaves that many bytes free, in whole blocks and two blocks fewer at
// most. Called again it leaves more or less than before.
func (d *Disk) Fill(leaving int64) (err error) {
	f, err := os.OpenFile(filepath.Join(d.Dir, filler), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for range refinements {
		if err := f.Sync(); err != nil { // what was freed counts once it is in the journal
			return fmt.Errorf("fill: %w", err)
		}
		free, _, err := d.Free()
		if err != nil {
			return err
		}
		surplus := free - leaving
		if surplus <= 0 && surplus > -2*block {
			return nil
		}
		err = resize(f, surplus)
		if errors.Is(err, unix.ENOSPC) { // others were quicker: it is full
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return fmt.Errorf("fill: %s does not come down to %d free bytes", d.Dir, leaving)
}

// resize makes f larger by so many bytes, or smaller, in whole blocks.
func resize(f *os.File, by int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if by < 0 {
		return f.Truncate(max(0, size-(-by+block-1)/block*block))
	}
	err = unix.Fallocate(int(f.Fd()), 0, size, (by+block-1)/block*block)
	if errors.Is(err, unix.ENOSPC) && by > block { // its own index takes blocks as well
		return resize(f, by/2)
	}
	return err
}

// Unfill takes away what Fill and FillInodes have made.
func (d *Disk) Unfill() error {
	err := os.RemoveAll(filepath.Join(d.Dir, fillerDir))
	if e := os.Remove(filepath.Join(d.Dir, filler)); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	dir, e := os.Open(d.Dir)
	if e != nil {
		return errors.Join(err, e)
	}
	defer dir.Close()
	return errors.Join(err, unix.Syncfs(int(dir.Fd())))
}

// FillInodes leaves that many inodes free: so many files can still be made.
func (d *Disk) FillInodes(leaving int64) error {
	dir := filepath.Join(d.Dir, fillerDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("fill inodes: %w", err)
	}
	for n := 0; ; n++ {
		_, free, err := d.Free()
		if err != nil || free <= leaving {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return fmt.Errorf("fill inodes: %w", err)
		}
		f.Close() //nolint:errcheck // nothing was written
	}
}
