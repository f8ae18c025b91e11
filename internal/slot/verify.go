package slot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// What can be wrong with a file.
const (
	Missing = "missing" // listed and not there
	Extra   = "extra"   // there and not listed
	Kind    = "kind"    // neither a regular file nor a directory, or the one in place of the other
	Size    = "size"
	Mode    = "mode"
	Digest  = "digest"
	Owner   = "owner" // not root's
)

// Difference is one thing in which a tree is not what its manifest says.
type Difference struct {
	Path string `json:"path"` // below the release's directory
	What string `json:"what"` // missing, extra, kind, size, mode, digest, owner
	Want string `json:"want,omitempty"`
	Got  string `json:"got,omitempty"`
}

// String is the difference for people, in a line.
func (d Difference) String() string {
	switch d.What {
	case Missing:
		return d.Path + " is missing"
	case Extra:
		return d.Path + " is in no manifest"
	}
	return fmt.Sprintf("%s has %s %s, want %s", d.Path, d.What, d.Got, d.Want)
}

// Check says how a tree is looked at. The zero value reads every file.
type Check struct {
	Shallow  bool                    // names, kinds, sizes and modes; no file is read
	Owned    bool                    // everything must be root's
	Progress func(done, total int64) // bytes read; may be nil
}

// Verify compares the tree in dir with its manifest and gives what is
// different, sorted by path. The error is for a tree that cannot be compared:
// no manifest, an unreadable file, the end of ctx.
func Verify(ctx context.Context, dir string, c Check) ([]Difference, Manifest, error) {
	m, err := Read(dir)
	if err != nil {
		return nil, Manifest{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, m, fmt.Errorf("verify: %w", err)
	}
	defer root.Close()
	diffs, sound, err := compare(root, m, c.Owned)
	if err == nil && !c.Shallow {
		var changed []Difference
		changed, err = digests(ctx, root, sound, c.Progress)
		diffs = append(diffs, changed...)
	}
	if err != nil {
		return diffs, m, fmt.Errorf("verify %s: %w", dir, err)
	}
	slices.SortFunc(diffs, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.What, b.What))
	})
	return diffs, m, nil
}

// compare looks at everything but the contents. sound are the files whose
// contents are worth a look.
func compare(root *os.Root, m Manifest, owned bool) (diffs []Difference, sound []File, err error) {
	listed := map[string]File{}
	dirs := map[string]bool{".": true}
	for _, f := range m.Files {
		listed[f.Path] = f
		for dir := filepath.Dir(f.Path); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		f, isFile := listed[path]
		delete(listed, path)
		var found []Difference
		switch {
		case path == ManifestName:
			found = modeDiff(path, "0644", info)
		case isFile:
			if found = fileDiffs(f, info); !slices.ContainsFunc(found, unreadable) {
				sound = append(sound, f)
			}
		case dirs[path]:
			found = dirDiffs(path, info)
		default:
			diffs = append(diffs, Difference{Path: path, What: Extra})
			if info.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if owned {
			found = append(found, ownerDiff(path, info)...)
		}
		diffs = append(diffs, found...)
		return nil
	})
	for path := range listed {
		diffs = append(diffs, Difference{Path: path, What: Missing})
	}
	return diffs, sound, err
}

// unreadable tells differences that leave nothing to be said of the contents.
func unreadable(d Difference) bool { return d.What == Kind || d.What == Size }

func fileDiffs(f File, info fs.FileInfo) []Difference {
	if !info.Mode().IsRegular() {
		return []Difference{{f.Path, Kind, "regular file", kindWords(info)}}
	}
	diffs := modeDiff(f.Path, f.Mode, info)
	if info.Size() != f.Size {
		diffs = append(diffs, Difference{f.Path, Size, strconv.FormatInt(f.Size, 10), strconv.FormatInt(info.Size(), 10)})
	}
	return diffs
}

func dirDiffs(path string, info fs.FileInfo) []Difference {
	if !info.IsDir() {
		return []Difference{{path, Kind, "directory", kindWords(info)}}
	}
	return modeDiff(path, "0755", info)
}

func modeDiff(path, want string, info fs.FileInfo) []Difference {
	got := modeWords(info.Mode())
	if special := info.Mode() & (fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); special != 0 {
		got = info.Mode().String()
	}
	if got == want {
		return nil
	}
	return []Difference{{path, Mode, want, got}}
}

func ownerDiff(path string, info fs.FileInfo) []Difference {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && st.Uid == 0 {
		return nil
	}
	got := "unknown"
	if ok {
		got = "uid " + strconv.FormatUint(uint64(st.Uid), 10)
	}
	return []Difference{{path, Owner, "root", got}}
}

func kindWords(info fs.FileInfo) string {
	switch mode := info.Mode(); {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "link"
	case mode.IsRegular():
		return "regular file"
	}
	return "special file"
}

// digests reads every file of the list.
func digests(ctx context.Context, root *os.Root, list []File, progress func(done, total int64)) ([]Difference, error) {
	var done, total int64
	for _, f := range list {
		total += f.Size
	}
	var diffs []Difference
	for _, f := range list {
		got, err := digestIn(ctx, root, f.Path)
		if errors.Is(err, syscall.EIO) {
			got, err = "unreadable", nil // a failing disk is a difference, and there may be more
		}
		if err != nil {
			return diffs, err
		}
		if got != f.SHA256 {
			diffs = append(diffs, Difference{f.Path, Digest, f.SHA256, got})
		}
		if done += f.Size; progress != nil {
			progress(done, total)
		}
	}
	return diffs, nil
}

func digestIn(ctx context.Context, root *os.Root, path string) (string, error) {
	f, err := root.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest(ctx, io.Discard, f)
}

// digest copies from to to and gives the SHA-256 of what went through.
func digest(ctx context.Context, to io.Writer, from io.Reader) (string, error) {
	sum := sha256.New()
	_, err := io.Copy(io.MultiWriter(to, sum), &interruptible{ctx, from})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx  context.Context
	from io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}
