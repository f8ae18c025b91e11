package trust

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"whisper-appliance/internal/fault"
)

const (
	maxMembers = 2 * maxRoots
	maxPadding = 64 << 10 // bytes of zeros after the last member, as tars are padded
)

// Bundle is a repository in one file, a plain tar with the members metadata/…
// and targets/… and nothing else.
type Bundle struct {
	f        *os.File
	members  map[string]span
	artefact string
}

// span is where a member lies in the file.
type span struct{ offset, size int64 }

// OpenBundle looks at every member of the bundle at name, without reading what
// is in them. The error is a fault, "bad_bundle" or "no_bundle".
func OpenBundle(name string) (*Bundle, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fault.New(fault.NotFound, "no_bundle", "the bundle %s cannot be opened", name).Because(err).
			Try("name a file that `whisper-appliance-release bundle` made: *.wa")
	}
	b := &Bundle{f: f, members: map[string]span{}}
	if err := b.look(); err != nil {
		f.Close()
		return nil, fault.New(fault.BadInput, "bad_bundle", "%s is no bundle of a release", name).Because(err).
			Try("copy or download it again; a bundle is made by `whisper-appliance-release bundle`")
	}
	return b, nil
}

// Artefact is the one release in the bundle, by the name that Offer.Name has.
func (b *Bundle) Artefact() string { return b.artefact }

// Close ends the use of the bundle and of what Target gave.
func (b *Bundle) Close() error { return b.f.Close() }

func (b *Bundle) look() error {
	info, err := b.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	archive := tar.NewReader(b.f)
	for {
		h, err := archive.Next()
		if err == io.EOF && b.artefact == "" {
			return errors.New("there is no release in it")
		}
		if err == io.EOF {
			return b.checkRest(info.Size())
		}
		if err != nil {
			return err
		}
		if err := b.add(h, info.Size()); err != nil {
			return fmt.Errorf("member %q: %w", fault.Short(h.Name), err)
		}
	}
}

// add notes where a member is: the reader has no buffer, so the file stands at
// the member's first byte.
func (b *Bundle) add(h *tar.Header, size int64) error {
	for key := range h.PAXRecords {
		if key != "path" {
			return fmt.Errorf("it has the property %q", fault.Short(key))
		}
	}
	if h.Typeflag != tar.TypeReg {
		return errors.New("it is no regular file")
	}
	dir, name := path.Split(h.Name)
	if !(dir == MetadataDir+"/" && isMetadataName(name)) && !(dir == TargetsDir+"/" && isTargetName(name)) {
		return errors.New("no such file belongs in a bundle")
	}
	if _, twice := b.members[h.Name]; twice {
		return errors.New("it is there twice")
	}
	if len(b.members) == maxMembers {
		return fmt.Errorf("there are more than %d", maxMembers)
	}
	offset, err := b.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if h.Size < 0 || h.Size > size-offset {
		return errors.New("the file ends in the middle of it")
	}
	if dir == TargetsDir+"/" {
		if b.artefact != "" {
			return errors.New("it is a second release")
		}
		b.artefact = name
	}
	b.members[h.Name] = span{offset, h.Size}
	return nil
}

// checkRest: nothing hides behind the end of the archive.
func (b *Bundle) checkRest(size int64) error {
	offset, err := b.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if size-offset > maxPadding {
		return errors.New("it goes on after its end")
	}
	rest, err := io.ReadAll(b.f)
	if err == nil && len(bytes.Trim(rest, "\x00")) > 0 {
		err = errors.New("it goes on after its end")
	}
	return err
}

// Metadata stands at Source.
func (b *Bundle) Metadata(_ context.Context, name string, most int64) ([]byte, error) {
	s, there := b.members[MetadataDir+"/"+name]
	if !there {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	if s.size > most {
		return nil, TooLong(name, most)
	}
	return io.ReadAll(io.NewSectionReader(b.f, s.offset, s.size))
}

// Target stands at Source.
func (b *Bundle) Target(_ context.Context, name string) (io.ReadCloser, error) {
	s, there := b.members[TargetsDir+"/"+name]
	if !there {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(b.f, s.offset, s.size)), nil
}
