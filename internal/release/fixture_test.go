package release

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"whisper-appliance/internal/slot"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), mode))
	must(t, os.Chmod(path, mode))
}

// noise is text that does not compress, the same each time.
func noise(n int) string {
	r, b := rand.NewChaCha8([32]byte{1}), make([]byte, n)
	r.Read(b) //nolint:errcheck // it always fills
	return string(b)
}

// sealed makes a release, and gives its directory.
func sealed(t testing.TB) (string, slot.Manifest) { return sealedOf(t, 300_000) }

// sealedOf is sealed with a server of so many bytes.
func sealedOf(t testing.TB, size int) (string, slot.Manifest) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	write(t, filepath.Join(dir, "VERSION"), "1.4.0\n", 0o644)
	write(t, filepath.Join(dir, slot.ServerPath), noise(size), 0o755)
	write(t, filepath.Join(dir, "lib/engine/ld.so"), "loader", 0o755)
	write(t, filepath.Join(dir, "share/doc/x y ü.txt"), "", 0o644)
	write(t, filepath.Join(dir, "share", "a-name-that-is-longer-than-what-the-oldest-archives-hold-in-one-field-of-theirs-of-a-hundred-bytes-in-all.txt"), "long", 0o644)
	m, err := slot.Seal(t.Context(), dir, slot.Info{Version: "1.4.0", Commit: "c0ffee", Arch: "amd64", Contract: 1})
	must(t, err)
	return dir, m
}

func limits(m slot.Manifest) Limits { return Limits{Bytes: m.Size(), Files: len(m.Files)} }

func pack(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := Pack(t.Context(), dir, &b)
	must(t, err)
	return b.Bytes()
}

// member is one of an archive.
type member struct {
	tar.Header
	data string
}

// members takes an artefact apart.
func members(t testing.TB, artefact []byte) []member {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(artefact))
	must(t, err)
	defer z.Close()
	var list []member
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		data, err := io.ReadAll(archive)
		must(t, err)
		list = append(list, member{*h, string(data)})
	}
}

// archive puts members together again, without compression.
func archive(t testing.TB, list []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range list {
		if m.Typeflag == tar.TypeReg {
			m.Size = int64(len(m.data))
		}
		must(t, w.WriteHeader(&m.Header))
		_, err := io.WriteString(w, m.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func compressed(t testing.TB, data []byte, o ...zstd.EOption) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, append(o, zstd.WithEncoderConcurrency(1))...)
	must(t, err)
	return z.EncodeAll(data, nil)
}

func artefactOf(t testing.TB, list []member) []byte {
	t.Helper()
	return compressed(t, archive(t, list))
}

func file(name, data string, mode int64) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data}
}
