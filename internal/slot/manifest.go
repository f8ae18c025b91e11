// Package slot is the one place that knows what a release on disk is: a tree of
// files and the manifest that names every one of them, the slots that such
// trees lie in, the links that say which slot serves, and how the running
// server goes from one slot to another without refusing a connection.
//
// It trusts a manifest as far as its form; whether its maker may be believed is
// for those to say who bring a release. It trusts no byte that it has not read
// back from the disk. It writes the slots, the two links, .staging and .trash
// beside the slots, and nothing else. Every step can be undone or done again:
// whoever finds what a killed run has left goes on from there.
package slot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode"

	"whisper-appliance/internal/fault"
)

// ManifestName is the file in a release that lists all others.
const ManifestName = "manifest.json"

// ServerPath is the server's program in a release.
const ServerPath = "bin/whisper-appliance-server"

// versionPath is the file with the version as people write it, without +dev.
const versionPath = "VERSION"

// Contract is what this build and its unit files agree on: program names,
// options, sockets, readiness. It rises when a release needs other units.
const Contract = 1

const (
	format       = 1
	maxManifest  = 8 << 20 // bytes
	maxFiles     = 20_000
	maxTreeBytes = 8 << 30
)

// Info is what is said of a release beside its files.
type Info struct {
	Version  string `json:"version"`  // as the programs print it, with +dev for a build without release keys
	Commit   string `json:"commit"`   // of the sources
	Arch     string `json:"arch"`     // as Go calls it: "amd64", "arm64"
	Contract int    `json:"contract"` // see Contract
}

// File is one regular file of a release.
type File struct {
	Path   string `json:"path"` // below the release's directory, with slashes
	Size   int64  `json:"size"` // bytes
	Mode   string `json:"mode"` // permissions, four octal digits: "0755"
	SHA256 string `json:"sha256"`
}

// Manifest lists a release. Files are sorted by path.
type Manifest struct {
	Format int `json:"format"`
	Info
	Files []File `json:"files"`
}

// File is the entry of path, false where there is none.
func (m Manifest) File(path string) (File, bool) {
	for _, f := range m.Files {
		if f.Path == path {
			return f, true
		}
	}
	return File{}, false
}

// Size is what the files hold, in bytes.
func (m Manifest) Size() (sum int64) {
	for _, f := range m.Files {
		sum += f.Size
	}
	return sum
}

// Fits tells whether this machine and the units on it can run the release: a
// fault of kind Unsupported where they cannot.
func (m Manifest) Fits() error {
	if m.Arch != runtime.GOARCH {
		return fault.New(fault.Unsupported, "wrong_arch", "release %s is for %s and this machine is %s", m.Version, fault.Short(m.Arch), runtime.GOARCH).
			Try("take the package for %s", runtime.GOARCH)
	}
	if m.Contract != Contract && m.Contract != Contract-1 {
		return fault.New(fault.Unsupported, "wrong_contract", "release %s wants units of contract %d and these are of %d", m.Version, m.Contract, Contract).
			Try("install the package of that release: it brings the units")
	}
	return nil
}

// Same tells whether both list the same release: every file, and all that is
// said of it.
func (m Manifest) Same(other Manifest) bool {
	return bytes.Equal(m.encode(), other.encode())
}

// Digest is the SHA-256 of the manifest as it is written, in hex: it names the
// release and every byte of it.
func (m Manifest) Digest() string {
	sum := sha256.Sum256(m.encode())
	return hex.EncodeToString(sum[:])
}

// perm is f's mode; the manifest's form was checked before.
func (f File) perm() fs.FileMode {
	var mode fs.FileMode
	fmt.Sscanf(f.Mode, "%o", &mode) //nolint:errcheck // checked when it was decoded
	return mode
}

// encode is the one way in which a manifest is written.
func (m Manifest) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	e.Encode(m) //nolint:errcheck // strings and numbers alone
	return b.Bytes()
}

// decode is strict: what would not be written again byte for byte is refused,
// which keeps out unknown and doubled keys and anything after the end.
func decode(data []byte) (Manifest, error) {
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, err
	}
	if m.Format != format {
		return Manifest{}, fmt.Errorf("format %d; this version reads %d", m.Format, format)
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(m.encode(), data) {
		return Manifest{}, errors.New("it is not written as `slot seal` writes it")
	}
	return m, nil
}

// check holds everything that is said against what may be.
func (m Manifest) check() error {
	if m.Version == "" || m.Commit == "" || m.Arch == "" || m.Contract < 1 {
		return errors.New("version, commit, arch or contract is missing")
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return fmt.Errorf("%d files; there must be 1 to %d", len(m.Files), maxFiles)
	}
	var total int64
	for i, f := range m.Files {
		if err := f.check(); err != nil {
			return fmt.Errorf("file %q: %w", fault.Short(f.Path), err)
		}
		if i > 0 && m.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %q is not in order, or there twice", fault.Short(f.Path))
		}
		if total += f.Size; total > maxTreeBytes {
			return fmt.Errorf("more than %s", fault.Bytes(maxTreeBytes))
		}
	}
	return nil
}

func (f File) check() error {
	if err := checkPath(f.Path); err != nil {
		return err
	}
	if f.Size < 0 || f.Size > maxTreeBytes {
		return fmt.Errorf("size %d", f.Size)
	}
	mode := f.perm()
	if modeWords(mode) != f.Mode {
		return fmt.Errorf("mode %q is not four octal digits", fault.Short(f.Mode))
	}
	if err := checkMode(mode); err != nil {
		return err
	}
	if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 || f.SHA256 != strings.ToLower(f.SHA256) {
		return fmt.Errorf("sha256 %q is not 64 digits", fault.Short(f.SHA256))
	}
	return nil
}

func checkPath(path string) error {
	switch {
	case !fs.ValidPath(path) || path == ".":
		return errors.New("the path leads out of the release, or is not written plainly")
	case path == ManifestName:
		return errors.New("a manifest does not list itself")
	case len(path) > 1000 || strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("no name for a file of a release")
	}
	return nil
}

// checkMode: everybody reads a release and nobody but root changes it.
func checkMode(mode fs.FileMode) error {
	switch {
	case mode&^fs.ModePerm != 0 || mode > 0o777:
		return fmt.Errorf("mode %s: no setuid, setgid or sticky file belongs in a release", mode)
	case mode&0o022 != 0:
		return fmt.Errorf("mode %s: others may write it", modeWords(mode))
	case mode&0o444 != 0o444:
		return fmt.Errorf("mode %s: not everybody may read it", modeWords(mode))
	}
	return nil
}

func modeWords(mode fs.FileMode) string { return fmt.Sprintf("%04o", uint32(mode.Perm())) }

// Read gives the manifest of the release in dir, without a look at its files.
// The error is a fault, "no_manifest" or "bad_manifest".
func Read(dir string) (Manifest, error) {
	path := filepath.Join(dir, ManifestName)
	data, err := readManifest(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return Manifest{}, fault.New(fault.NotFound, "no_manifest", "there is no release in %s: it has no %s", dir, ManifestName).
			Try("name a slot or a directory with a release in it; `whisper-appliance slot list` shows the slots")
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := decode(data)
	if err != nil {
		return Manifest{}, fault.New(fault.BadInput, "bad_manifest", "%s is no manifest that can be relied on", path).
			Because(err).Try("install the package again: `apt reinstall whisper-appliance`")
	}
	return m, nil
}

// readManifest reads a regular file of bounded size, and follows no link.
func readManifest(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxManifest+1)) // one byte too many is no JSON any more
}
