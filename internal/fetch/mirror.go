package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/trust"
)

// files is a repository's metadata in memory, by name.
type files map[string][]byte

// Metadata stands at trust.Source.
func (m files) Metadata(_ context.Context, name string, _ int64) ([]byte, error) {
	data, there := m[name]
	if !there {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// Target stands at trust.Source: there are none.
func (m files) Target(context.Context, string) (io.ReadCloser, error) { return nil, fs.ErrNotExist }

// recorder keeps what it passes on.
type recorder struct {
	files
	from origin
}

// Metadata stands at trust.Source.
func (r recorder) Metadata(ctx context.Context, name string, most int64) ([]byte, error) {
	data, err := r.from.Metadata(ctx, name, most)
	if err == nil {
		r.files[name] = data
	}
	return data, err
}

// mirror brings a source's metadata, all of them, so that whoever reads them
// needs none from before, and gives what they offer. They are verified twice:
// by themselves as they come, then against what was trusted last.
func (f *Fetcher) mirror(ctx context.Context, from origin) (*trust.Index, error) {
	got := recorder{files{}, from}
	fresh := trust.Store{Root: f.Root, Now: f.Now}
	if _, err := fresh.Refresh(ctx, got); err != nil {
		return nil, err
	}
	kept := trust.Store{Dir: filepath.Join(f.Dir, "trust"), Root: f.Root, Now: f.Now}
	index, err := kept.Refresh(ctx, got.files)
	if err != nil {
		return nil, err
	}
	return index, f.keepMetadata(got.files)
}

func (f *Fetcher) targets() string  { return filepath.Join(f.Dir, "repository", trust.TargetsDir) }
func (f *Fetcher) metadata() string { return filepath.Join(f.Dir, "repository", trust.MetadataDir) }

// keepMetadata writes what is new, the timestamp last: until then the one that
// is there names files that still are.
func (f *Fetcher) keepMetadata(got files) error {
	dir := f.metadata()
	if err := f.makeDirs(filepath.Dir(dir), dir); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(got)) { // numbers first
		path := filepath.Join(dir, name)
		if was, err := durable.ReadRegular(path, int64(len(got[name]))); err == nil && bytes.Equal(was, got[name]) {
			continue
		}
		if err := durable.WriteFile(path, got[name], 0o644); err != nil {
			return f.cannotWrite(err)
		}
	}
	return f.onlyKeep(dir, func(name string) bool {
		_, needed := got[name]
		return needed || strings.HasSuffix(name, ".root.json")
	})
}

// onlyKeep removes everything else from a directory.
func (f *Fetcher) onlyKeep(dir string, needed func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.cannotWrite(err)
	}
	for _, e := range entries {
		if needed(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove what is no longer needed: %w", f.cannotWrite(err))
		}
	}
	return nil
}
