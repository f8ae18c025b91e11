package release

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Limits are what a release may be at most: what its Custom says.
type Limits struct {
	Bytes int64 // of all files together, without the manifest
	Files int   // without the manifest
}

const (
	maxManifest = 8 << 20 // bytes
	perMember   = 4 << 10 // bytes of the archive beside a member's contents: headers and padding
)

// archive is what an archive may have within l, in bytes.
func (l Limits) archive() int64 {
	return min(l.Bytes, maxBytes) + maxManifest + perMember*(2*int64(min(l.Files, maxFiles))+8)
}

// Unpack makes the release in the artefact r a tree in to, an empty directory,
// and gives its manifest. It takes regular files, and the directories that they
// are in, and holds each against the manifest, which has to come first, while it
// writes it; the manifest itself is written last. progress is told how many
// bytes of files were written; it may be nil. Nothing is synced to the disk.
//
// A release that is refused leaves the directory empty. The error is then a
// fault of kind BadInput: "path_escape", "link", "special_file", "setuid",
// "duplicate", "bomb" (more than l, or than its own manifest says),
// "damaged_release" (not what its manifest says), "bad_archive". What this
// machine is to blame for has another kind: "disk_full", "not_empty", or no
// code.
func Unpack(ctx context.Context, r io.Reader, to string, l Limits, progress func(done int64)) (m slot.Manifest, err error) {
	root, err := os.OpenRoot(to)
	if err != nil {
		return m, fmt.Errorf("unpack: %w", err)
	}
	defer root.Close()
	if err := vacant(root); err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			m, err = slot.Manifest{}, errors.Join(err, empty(root))
		}
	}()
	src := &source{r: until(ctx, r)}
	one := newFrame(src)
	z, err := zstd.NewReader(one, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return m, src.blame("its beginning", err)
	}
	defer z.Close()
	content := &bounded{r: z, left: l.archive()}
	u := &unpacker{root: root, to: to, src: src, archive: tar.NewReader(content), limits: l, progress: progress}
	if err := u.tree(); err != nil {
		return m, err
	}
	if err := ended(content, one); err != nil {
		return m, src.blame("its end", err)
	}
	return u.manifest, u.keepManifest()
}

// ended is nil where archive and file end together.
func ended(content io.Reader, one *frame) error {
	n, err := io.ReadFull(content, make([]byte, 1))
	if n > 0 {
		return errors.New("more follows its end")
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return one.ended()
}

// vacant refuses a directory that holds something, which must not be lost.
func vacant(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if len(entries) > 0 {
		return fault.New(fault.Conflict, "not_empty", "%s is not empty: %s is in it", root.Name(), fault.Short(entries[0].Name())).
			Try("name an empty directory")
	}
	return nil
}

// empty removes everything in the directory.
func empty(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, entry := range entries {
		err = errors.Join(err, root.RemoveAll(entry.Name()))
	}
	return err
}

// bad is a release that is refused.
func bad(code, format string, args ...any) *fault.Error {
	return fault.New(fault.BadInput, code, "the release is refused: "+format, args...).
		Try("fetch it again; where that does not help, its publisher has to publish it anew")
}

// source remembers what came of reading the artefact itself: a disk that fails
// is no fault of the release.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame gives an error of reading to whom it belongs.
func (s *source) blame(where string, err error) error {
	var f *fault.Error
	switch {
	case s.err != nil:
		return fmt.Errorf("read the release: %w", s.err)
	case errors.As(err, &f):
		return err
	case errors.Is(err, errWindow), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return bad("bomb", "it asks for more than %s of memory", fault.Bytes(maxWindow))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return bad("bad_archive", "it is cut short, at %s", where)
	}
	return bad("bad_archive", "it cannot be read at %s", where).Because(err)
}

// bounded ends with a fault where more comes out than may.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, bad("bomb", "more comes out of it than was announced")
	}
	return n, err
}

// next is the next member's header, nil at the end of the archive. Its name has
// no slash at its end.
func (u *unpacker) next() (*tar.Header, error) {
	h, err := u.archive.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // which checkMember finds, too
		return nil, u.src.blame(u.place(), err)
	}
	if h.Typeflag == tar.TypeDir {
		h.Name = strings.TrimSuffix(h.Name, "/")
	}
	u.at = h.Name
	return h, checkMember(h)
}

// place is where in the archive the next member is, for people.
func (u *unpacker) place() string {
	if u.at == "" {
		return "its beginning"
	}
	return fmt.Sprintf("what follows %q", fault.Short(u.at))
}

// checkMember refuses what has no place in any release.
func checkMember(h *tar.Header) error {
	if err := checkPath(h.Name); err != nil {
		return err
	}
	name := fault.Short(h.Name)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeLink, tar.TypeSymlink:
		return bad("link", "%q is a link to %q", name, fault.Short(h.Linkname))
	default:
		return bad("special_file", "%q is neither a file nor a directory (kind %q)", name, h.Typeflag)
	}
	if h.Mode&^0o777 != 0 {
		return bad("setuid", "%q has mode %o: no setuid, setgid or sticky file belongs in a release", name, h.Mode)
	}
	for key := range h.PAXRecords {
		if key != "path" {
			return bad("bad_archive", "%q has the property %q, which no release has", name, fault.Short(key))
		}
	}
	return nil
}

func checkPath(name string) error {
	if fs.ValidPath(name) && name != "." {
		return nil
	}
	return bad("path_escape", "the path %q leads out of it, or is not written plainly", fault.Short(name))
}
