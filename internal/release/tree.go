package release

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// unpacker writes the members of one archive.
type unpacker struct {
	root     *os.Root
	to       string // root's path
	src      *source
	archive  *tar.Reader
	limits   Limits
	progress func(done int64)

	at       string // the member that was read last
	words    []byte // the manifest as it was written
	manifest slot.Manifest
	files    map[string]slot.File // what the manifest lists
	dirs     map[string]bool      // what the files are in
	seen     map[string]bool      // the members so far
	done     int64                // bytes written
}

// tree writes everything but the manifest.
func (u *unpacker) tree() error {
	if err := u.first(); err != nil {
		return err
	}
	if err := u.makeDirs(); err != nil {
		return err
	}
	for {
		h, err := u.next()
		if err != nil {
			return err
		}
		if h == nil {
			break
		}
		if err := u.member(h); err != nil {
			return err
		}
	}
	for _, f := range u.manifest.Files {
		if !u.seen[f.Path] {
			return bad("damaged_release", "%q is missing", fault.Short(f.Path))
		}
	}
	return nil
}

// first takes the manifest in, and holds it against the limits.
func (u *unpacker) first() (err error) {
	h, err := u.next()
	if err != nil {
		return err
	}
	if h == nil || h.Name != slot.ManifestName || h.Typeflag != tar.TypeReg || h.Mode != 0o644 {
		return bad("bad_archive", "it does not begin with %s", slot.ManifestName)
	}
	if h.Size > maxManifest {
		return bad("bomb", "its manifest has %d bytes; at most %d are allowed", h.Size, maxManifest)
	}
	if u.words, err = io.ReadAll(u.archive); err != nil {
		return u.src.blame(slot.ManifestName, err)
	}
	if err := u.readManifest(); err != nil {
		return err
	}
	if size := u.manifest.Size(); size > u.limits.Bytes {
		return bad("bomb", "its files have %d bytes; at most %d were announced", size, u.limits.Bytes)
	}
	if n := len(u.manifest.Files); n > u.limits.Files {
		return bad("bomb", "it has %d files; at most %d were announced", n, u.limits.Files)
	}
	return u.expect()
}

// readManifest has package slot judge the manifest, which it does in a
// directory alone. The name is taken away again: a directory with a manifest is
// a whole release.
func (u *unpacker) readManifest() error {
	if err := u.keepManifest(); err != nil {
		return err
	}
	var f *fault.Error
	m, err := slot.Read(u.to)
	if errors.As(err, &f) {
		return bad("bad_archive", "its manifest cannot be relied on").Because(f.Err)
	}
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	u.manifest = m
	return u.root.Remove(slot.ManifestName)
}

// keepManifest writes the manifest.
func (u *unpacker) keepManifest() error {
	out, err := u.create(slot.ManifestName)
	if err != nil {
		return err
	}
	_, err = out.Write(u.words)
	return u.finish(out, slot.ManifestName, 0o644, err)
}

// expect lists what has to come.
func (u *unpacker) expect() error {
	u.files, u.dirs = map[string]slot.File{}, map[string]bool{}
	u.seen = map[string]bool{slot.ManifestName: true}
	for _, f := range u.manifest.Files {
		u.files[f.Path] = f
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			u.dirs[dir] = true
		}
	}
	for dir := range u.dirs {
		if _, both := u.files[dir]; both {
			return bad("bad_archive", "its manifest has %q for a file and for a directory", fault.Short(dir))
		}
	}
	return nil
}

// makeDirs makes every directory, whatever the umask.
func (u *unpacker) makeDirs() error {
	for dir := range u.dirs {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return u.cannotWrite(dir, err)
		}
	}
	for dir := range u.dirs {
		if err := u.root.Chmod(dir, 0o755); err != nil {
			return u.cannotWrite(dir, err)
		}
	}
	return nil
}

// member writes one member, which checkMember has found harmless.
func (u *unpacker) member(h *tar.Header) error {
	name := fault.Short(h.Name)
	f, listed := u.files[h.Name]
	switch {
	case u.seen[h.Name]:
		return bad("duplicate", "%q is in it twice", name)
	case u.dirs[h.Name] && h.Typeflag == tar.TypeDir:
		u.seen[h.Name] = true
		return nil
	case !listed || h.Typeflag != tar.TypeReg:
		return bad("damaged_release", "%q is not in its manifest", name)
	case h.Size != f.Size:
		return bad("damaged_release", "%q has %d bytes, want %d", name, h.Size, f.Size)
	case fmt.Sprintf("%04o", h.Mode) != f.Mode:
		return bad("damaged_release", "%q has mode %04o, want %s", name, h.Mode, f.Mode)
	}
	u.seen[h.Name] = true
	return u.file(f)
}

func (u *unpacker) file(f slot.File) error {
	out, err := u.create(f.Path)
	if err != nil {
		return err
	}
	sum := sha256.New()
	to := &output{to: io.MultiWriter(out, sum), wrote: u.wrote}
	if _, err = io.Copy(to, u.archive); err != nil && to.err == nil {
		err = u.src.blame(fmt.Sprintf("%q", fault.Short(f.Path)), err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); err == nil && got != f.SHA256 {
		err = bad("damaged_release", "%q has digest %s, want %s", fault.Short(f.Path), got, f.SHA256)
	}
	var mode fs.FileMode
	if _, bad := fmt.Sscanf(f.Mode, "%o", &mode); err == nil && bad != nil {
		err = bad
	}
	return u.finish(out, f.Path, mode, err)
}

func (u *unpacker) create(name string) (*os.File, error) {
	out, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, u.cannotWrite(name, err)
	}
	return out, nil
}

// finish closes a file; err is how writing it went.
func (u *unpacker) finish(out *os.File, name string, mode fs.FileMode, err error) error {
	if err == nil {
		err = out.Chmod(mode)
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if f := (*fault.Error)(nil); err == nil || errors.As(err, &f) {
		return err
	}
	return u.cannotWrite(name, err)
}

func (u *unpacker) wrote(n int) {
	u.done += int64(n)
	if u.progress != nil {
		u.progress(u.done)
	}
}

// cannotWrite is what the machine is to blame for.
func (u *unpacker) cannotWrite(name string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", u.to).Because(err).Try("free some disk space; `df -h` shows the disks")
	}
	return fmt.Errorf("unpack %s: %w", name, err)
}

// output tells an error of writing from one of reading.
type output struct {
	to    io.Writer
	wrote func(n int)
	err   error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.err = err
	o.wrote(n)
	return n, err
}
