package release

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// window is how far back the compressor looks, in bytes: enough to find in the
// second program what the first one has, and little to ask of who unpacks.
const window = 16 << 20

// Pack writes the sealed release in dir as an artefact, and gives its manifest:
// the manifest first, then every file that it lists, in its order, without
// times and owners, so that the same tree gives the same bytes with the same
// build of this program. A tree that is not what its manifest says is refused
// with the code "damaged_release"; what was written to w by then is of no use.
func Pack(ctx context.Context, dir string, w io.Writer) (slot.Manifest, error) {
	diffs, m, err := slot.Verify(ctx, dir, slot.Check{Shallow: true})
	if err != nil {
		return m, err
	}
	if len(diffs) > 0 {
		return m, unlike(dir, diffs[0].String())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, fmt.Errorf("pack: %w", err)
	}
	defer root.Close()
	// Two compressors at work would cut the blocks as their timing has it.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return m, fmt.Errorf("pack: %w", err)
	}
	if err := packTree(ctx, root, m, z); err != nil {
		z.Close() //nolint:errcheck // what it would write is of no use
		return m, fmt.Errorf("pack %s: %w", dir, err)
	}
	if err := z.Close(); err != nil {
		return m, fmt.Errorf("pack %s: %w", dir, err)
	}
	return m, nil
}

func packTree(ctx context.Context, root *os.Root, m slot.Manifest, w io.Writer) error {
	t := tar.NewWriter(w)
	manifest, err := root.ReadFile(slot.ManifestName)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(header(slot.ManifestName, int64(len(manifest)), 0o644)); err != nil {
		return err
	}
	if _, err := t.Write(manifest); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := packFile(ctx, root, f, t); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return t.Close()
}

func packFile(ctx context.Context, root *os.Root, f slot.File, t *tar.Writer) error {
	mode, err := strconv.ParseInt(f.Mode, 8, 32)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(header(f.Path, f.Size, mode)); err != nil {
		return err
	}
	in, err := root.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(t, sum), until(ctx, in)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return unlike(root.Name(), fmt.Sprintf("%s has digest %s, want %s", f.Path, got, f.SHA256))
	}
	return nil
}

func header(name string, size, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: time.Unix(0, 0)}
}

func unlike(dir, how string) error {
	return fault.New(fault.BadInput, "damaged_release", "the release in %s is not what its manifest says: %s", dir, how).
		Try("build it again, and seal it after the last change")
}

// readFunc is a reader made of a function.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// until is r, which ends with ctx.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}
