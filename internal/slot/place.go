package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

func (s *Slots) staging() string { return filepath.Join(filepath.Dir(s.Dir), ".staging") }
func (s *Slots) trash() string   { return filepath.Join(filepath.Dir(s.Dir), ".trash") }

// Place copies the release in from to the slot name, in place of what it holds.
// When it returns nil the slot holds every byte of the manifest, read back from
// the disk, and so it does after a power cut. On an error the slot is what it
// was; or this whole release, where what failed came after it got its name: a
// sync, without which a power cut may take it back, or the removal of what was
// there before. A slot that one of the links names is refused, unless it is not
// there. progress is told of the bytes that were copied and read back; it may be
// nil.
func (s *Slots) Place(ctx context.Context, from, name string, progress func(done, total int64)) (Manifest, error) {
	diffs, m, err := Verify(ctx, from, Check{Shallow: true})
	if err != nil {
		return m, err
	}
	if len(diffs) > 0 {
		return m, damaged(from, diffs)
	}
	if err := m.Fits(); err != nil {
		return m, err
	}
	bytes, inodes := needs(m)
	if err := s.Admit(name, bytes, inodes); err != nil {
		return m, err
	}
	staged, err := s.Stage(ctx, name, func(ctx context.Context, dir string) (Manifest, error) {
		return m, copyTree(ctx, from, dir, m, half(progress, 0))
	})
	if err != nil {
		return m, err
	}
	defer staged.Discard()
	return m, staged.Publish(ctx, half(progress, m.Size()))
}

// half is progress of the first or second of two equal halves.
func half(progress func(done, total int64), offset int64) func(done, total int64) {
	return func(done, total int64) {
		if progress != nil {
			progress(offset+done, 2*total)
		}
	}
}

// Staged is a release that lies beside the slots and is to get the name of one.
type Staged struct {
	slots *Slots
	dir   string
	name  string
	m     Manifest
}

// Admit is nil where a release of so many bytes, rounded up to blocks, and files
// with directories may be placed in the slot name and would fit on the disk. It
// makes the directories that this needs, and removes what an earlier run has
// left in them.
func (s *Slots) Admit(name string, bytes, inodes int64) error {
	if err := s.placeable(name); err != nil {
		return err
	}
	if err := s.Sweep(); err != nil {
		return err
	}
	for _, dir := range []string{s.Dir, s.staging(), s.trash()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return cannotWrite(dir, err)
		}
	}
	if err := s.oneDisk(name); err != nil {
		return err
	}
	return s.enough(bytes, inodes)
}

// Stage lets fill put a release into an empty directory beside the slots, for
// the slot name, which Admit has let in. What fill has put there is held by
// Publish against the manifest that it gives. Whoever calls Stage calls Discard
// at the end.
func (s *Slots) Stage(ctx context.Context, name string, fill func(ctx context.Context, dir string) (Manifest, error)) (*Staged, error) {
	dir, err := os.MkdirTemp(s.staging(), name+"-")
	if err != nil {
		return nil, cannotWrite(s.staging(), err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // as every directory of a release has to be
		return nil, cannotWrite(dir, err)
	}
	staged := &Staged{slots: s, dir: dir, name: name}
	if staged.m, err = fill(ctx, dir); err != nil {
		staged.Discard()
		return nil, fmt.Errorf("copy to slot %s: %w", name, err)
	}
	faultpoint.Here("slot.copied")
	return staged, nil
}

// Manifest is that of what was staged.
func (st *Staged) Manifest() Manifest { return st.m }

// Discard removes what was staged, unless it was published.
func (st *Staged) Discard() {
	os.RemoveAll(st.dir) //nolint:errcheck // the next run sweeps
}

// Publish writes what was staged out to the disk, reads every byte of it back,
// and gives it the name of its slot; what was there before is removed. progress
// is told of the bytes read back; it may be nil. On errors see Place.
func (st *Staged) Publish(ctx context.Context, progress func(done, total int64)) error {
	s, dir, name := st.slots, st.dir, st.name
	if err := toDisk(dir, st.m); err != nil {
		return fmt.Errorf("slot %s: %w", name, err)
	}
	diffs, back, err := Verify(ctx, dir, Check{Owned: s.Owned, Progress: progress})
	if err != nil {
		return fmt.Errorf("slot %s: %w", name, err)
	}
	if len(diffs) > 0 || !back.Same(st.m) {
		return damaged(dir, diffs)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	faultpoint.Here("slot.read_back")
	if err := s.publish(dir, name); err != nil {
		return err
	}
	return s.sweepTrash()
}

// publish gives the tree in dir the slot's name. What was there is in .trash
// from then on; where the new name cannot be given it comes back.
func (s *Slots) publish(dir, name string) error {
	old := filepath.Join(s.trash(), filepath.Base(dir))
	slot := s.Path(name)
	err := os.Rename(slot, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear slot %s: %w", name, err)
	}
	had := err == nil
	faultpoint.Here("slot.cleared")
	if err := os.Rename(dir, slot); err != nil {
		if had {
			err = errors.Join(err, os.Rename(old, slot))
		}
		return fmt.Errorf("name slot %s: %w", name, err)
	}
	faultpoint.Here("slot.placed")
	for _, parent := range []string{s.Dir, s.staging(), s.trash()} {
		if err := durable.SyncDir(parent); err != nil {
			return fmt.Errorf("name slot %s: %w", name, err)
		}
	}
	return nil
}

// placeable refuses a slot that something relies on.
func (s *Slots) placeable(name string) error {
	if name != A && name != B {
		return fault.New(fault.BadInput, "unknown_slot", "a release goes to slot a or b, not %q", fault.Short(name)).On("slot")
	}
	serving, err := s.Serving()
	if err != nil {
		return err
	}
	committed, err := s.Committed()
	if err != nil {
		return err
	}
	if name != serving && name != committed {
		return nil
	}
	if _, err := os.Lstat(s.Path(name)); errors.Is(err, fs.ErrNotExist) {
		return nil // the link leads nowhere: anything is better
	}
	role := "serves"
	if name != serving {
		role = "is the way back"
	}
	return fault.New(fault.Conflict, "slot_in_use", "slot %s %s and is not overwritten", name, role).
		On("slot").Try("place the release in the other slot, and switch to it")
}

func damaged(dir string, diffs []Difference) error {
	words := "its manifest changed meanwhile"
	if len(diffs) > 0 {
		words = diffs[0].String()
	}
	if len(diffs) > 1 {
		words += fmt.Sprintf(", and %d more", len(diffs)-1)
	}
	return fault.New(fault.BadInput, "damaged_release", "the release in %s is not what its manifest says: %s", dir, words).
		Try("`whisper-appliance verify %s` lists every difference; `apt reinstall whisper-appliance` brings the package's files again", dir)
}

// Sweep removes what an interrupted run has left in .staging and .trash. Lock
// must be held: what a running one works on is there, too.
func (s *Slots) Sweep() error {
	left, err := os.ReadDir(s.staging())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, entry := range left {
		if err := os.RemoveAll(filepath.Join(s.staging(), entry.Name())); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return s.sweepTrash()
}

// sweepTrash takes away each tree's manifest first: half a tree is no release.
func (s *Slots) sweepTrash() error {
	left, err := os.ReadDir(s.trash())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, entry := range left {
		tree := filepath.Join(s.trash(), entry.Name())
		os.Remove(filepath.Join(tree, ManifestName)) //nolint:errcheck // RemoveAll meets the same trouble
		if err := os.RemoveAll(tree); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// Drop empties the slot name, which no link may name: what is damaged is no way
// back.
func (s *Slots) Drop(name string) error {
	if err := s.placeable(name); err != nil {
		return err
	}
	if err := os.MkdirAll(s.trash(), 0o755); err != nil {
		return cannotWrite(s.trash(), err)
	}
	if err := s.sweepTrash(); err != nil { // a name that an earlier run has left would be in the way
		return err
	}
	if err := os.Rename(s.Path(name), filepath.Join(s.trash(), name+"-dropped")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	if err := durable.SyncDir(s.Dir); err != nil {
		return err
	}
	return s.sweepTrash()
}
