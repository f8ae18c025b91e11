package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
)

// Artefact is a release in one file, after it was unpacked to be looked at.
type Artefact struct {
	File     string        `json:"file"`
	Length   int64         `json:"length"` // bytes
	SHA256   string        `json:"sha256"` // hex digits
	Manifest slot.Manifest `json:"-"`
	slot.Info
	Unpacked int64 `json:"unpacked"` // bytes of all files
	Files    int   `json:"files"`
}

// generous are the limits for a release whose publisher has yet to say what it
// holds: those of a manifest.
func generous() release.Limits { return release.Limits{Bytes: 8 << 30, Files: 20_000} }

// Inspect unpacks the artefact in a directory of its own below scratch, which is
// gone afterwards. The error is that of release.Unpack, or of reading.
func Inspect(ctx context.Context, file, scratch string) (Artefact, error) {
	f, err := openRegular(file)
	if err != nil {
		return Artefact{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return Artefact{}, fmt.Errorf("read %s: %w", file, err)
	}
	m, err := tryUnpack(ctx, f, scratch, generous())
	if err != nil {
		return Artefact{}, err
	}
	return Artefact{
		File: file, Length: n, SHA256: hex.EncodeToString(sum.Sum(nil)),
		Manifest: m, Info: m.Info, Unpacked: m.Size(), Files: len(m.Files),
	}, nil
}

// tryUnpack unpacks r and throws the tree away.
func tryUnpack(ctx context.Context, r io.Reader, scratch string, l release.Limits) (m slot.Manifest, err error) {
	dir, err := os.MkdirTemp(scratch, "release-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return release.Unpack(ctx, r, dir, l, nil)
}

func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fault.New(fault.BadInput, "not_regular", "%s is no regular file", path).Try("name a file *.tar.zst, as `build` makes it")
	}
	if err != nil {
		return nil, fault.New(fault.NotFound, "no_file", "there is no %s", path).Because(err).Try("name a file *.tar.zst, as `build` makes it")
	}
	return os.Open(path)
}

// custom is what the artefact says of itself.
func (a Artefact) custom() release.Custom {
	return release.Custom{
		Version: a.Version, Arch: a.Arch, Commit: a.Commit, UnitContract: a.Contract, Unpacked: a.Unpacked, Files: a.Files,
	}
}

// Build packs the sealed release in dir into the directory out, under the name
// that it is published with. Two builds of the same tree are the same, byte for
// byte.
func Build(ctx context.Context, dir, out string) (Artefact, error) {
	diffs, m, err := slot.Verify(ctx, dir, slot.Check{})
	if err != nil {
		return Artefact{}, err
	}
	if len(diffs) > 0 {
		return Artefact{}, fault.New(fault.BadInput, "damaged_release", "%s is not what its manifest says: %s", dir, diffs[0]).
			Try("seal it again, with --version and --commit, if it was changed on purpose")
	}
	if err := release.ValidVersion(m.Version); err != nil {
		return Artefact{}, err
	}
	if err := makeDir(out); err != nil {
		return Artefact{}, cannotWrite(out, err)
	}
	a := Artefact{File: filepath.Join(out, release.TargetName(m.Version, m.Arch)), Manifest: m, Info: m.Info, Unpacked: m.Size(), Files: len(m.Files)}
	sum := sha256.New()
	err = durable.Write(a.File, 0o644, func(w io.Writer) error {
		counted := &counter{w: io.MultiWriter(w, sum)}
		_, err := release.Pack(ctx, dir, counted)
		a.Length = counted.n
		return err
	})
	if err != nil {
		return Artefact{}, cannotWrite(a.File, err)
	}
	a.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return a, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func digestBytes(digits string) ([]byte, error) { return hex.DecodeString(digits) }
