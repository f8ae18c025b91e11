package slot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Seal lists the tree in dir and writes its manifest, in place of one that is
// there. What does not belong in a release is refused: links, special files,
// files that others may write, empty directories, another version in the file
// VERSION.
func Seal(ctx context.Context, dir string, info Info) (Manifest, error) {
	m := Manifest{Format: format, Info: info}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, fmt.Errorf("seal: %w", err)
	}
	defer root.Close()
	if m.Files, err = list(ctx, root); err != nil {
		return m, sealFault(dir, err)
	}
	if err := m.check(); err != nil {
		return m, sealFault(dir, err)
	}
	if err := sameVersion(root, info.Version); err != nil {
		return m, sealFault(dir, err)
	}
	if err := durable.WriteFile(filepath.Join(dir, ManifestName), m.encode(), 0o644); err != nil {
		return m, fmt.Errorf("seal %s: %w", dir, err)
	}
	return m, nil
}

func sealFault(dir string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("seal %s: %w", dir, err)
	}
	return fault.New(fault.BadInput, "not_a_release", "%s is no release", dir).Because(err).
		Try("a release is a directory with regular files alone, readable by all and written by its owner (`chmod -R u=rwX,go=rX`)")
}

// list walks the tree in the order of the manifest.
func list(ctx context.Context, root *os.Root) ([]File, error) {
	var files []File
	filled := map[string]bool{".": true}
	var dirs []string
	err := fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == ManifestName {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.IsDir() {
			dirs = append(dirs, path)
			return firstOf(dirDiffs(path, info))
		}
		for dir := filepath.Dir(path); !filled[dir]; dir = filepath.Dir(dir) {
			filled[dir] = true
		}
		f, err := listFile(ctx, root, path, info)
		files = append(files, f)
		return err
	})
	for _, dir := range dirs {
		if err == nil && !filled[dir] {
			err = fmt.Errorf("%s is an empty directory", dir)
		}
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, err
}

func listFile(ctx context.Context, root *os.Root, path string, info fs.FileInfo) (File, error) {
	if !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("%s is a %s", path, kindWords(info))
	}
	f := File{Path: path, Size: info.Size(), Mode: modeWords(info.Mode())}
	if err := checkMode(info.Mode()); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	var err error
	f.SHA256, err = digestIn(ctx, root, path)
	return f, err
}

func firstOf(diffs []Difference) error {
	if len(diffs) == 0 {
		return nil
	}
	return errors.New(diffs[0].String())
}

// sameVersion holds the file VERSION against version without what follows a
// plus: "9.8.7" is the version of a build "9.8.7+dev".
func sameVersion(root *os.Root, version string) error {
	data, err := root.ReadFile(versionPath)
	if err != nil {
		return err
	}
	base, _, _ := strings.Cut(version, "+")
	if words := strings.TrimSpace(string(data)); words != base {
		return fmt.Errorf("its file %s says %q and the manifest would say %q", versionPath, fault.Short(words), version)
	}
	return nil
}
