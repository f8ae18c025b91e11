package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

// The names of the slots. Golden is a link to the package's own release: it
// serves where nothing else can, and nothing is ever placed there.
const (
	A      = "a"
	B      = "b"
	Golden = "golden"
)

// Slots are the slots of one appliance. Whoever changes anything holds Lock.
type Slots struct {
	Dir     string // holds a, b and golden; .staging and .trash are beside it
	Current string // link to the slot that serves
	Stable  string // link to the slot that was last found good
	Golden  string // the package's own release

	// GoldenBefore is the release of the package before, where that is kept until
	// the new one has proved itself; "" = nowhere.
	GoldenBefore string

	// Room is free space that must stay when a release is placed, in bytes; 0
	// is 16 MiB.
	Room int64

	// Owned refuses what is not root's. It is off where a user keeps slots.
	Owned bool
}

// Of are the slots of an installed appliance: the directory that holds them, the
// two links, and the package's release.
func Of(dir, current, stable, golden string) *Slots {
	return &Slots{Dir: dir, Current: current, Stable: stable, Golden: golden, Owned: true}
}

// Path is the directory of the slot name.
func (s *Slots) Path(name string) string { return filepath.Join(s.Dir, name) }

// Serving is the slot that Current names, "" where the link is not there. It
// says nothing of what the slot holds, nor of what runs.
func (s *Slots) Serving() (string, error) { return s.named(s.Current) }

// Committed is the slot that Stable names, "" where the link is not there.
func (s *Slots) Committed() (string, error) { return s.named(s.Stable) }

// named reads a link. One that leads anywhere but to a slot is not ours.
func (s *Slots) named(link string) (string, error) {
	target, err := os.Readlink(link)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		for _, name := range names() {
			if want, err := s.target(link, name); err == nil && (target == want || target == s.Path(name)) {
				return name, nil
			}
		}
	}
	return "", fault.New(fault.Conflict, "bad_link", "%s is no link to one of the slots a, b and golden", link).
		Because(err).Try("see what it is (`ls -l %s`) and remove it; `whisper-appliance slot deploy` makes it anew", link)
}

// target is what link says when it names a slot: relative, so that the tree can
// be looked at from outside a container.
func (s *Slots) target(link, name string) (string, error) {
	return filepath.Rel(filepath.Dir(link), s.Path(name))
}

// Idle is the slot that neither link names, where the next release goes; a
// before b. While a trial runs there is none: the other slot is the way back.
func (s *Slots) Idle() (string, error) {
	serving, err := s.Serving()
	if err != nil {
		return "", err
	}
	committed, err := s.Committed()
	if err != nil {
		return "", err
	}
	for _, name := range []string{A, B} {
		if name != serving && name != committed {
			return name, nil
		}
	}
	return "", fault.New(fault.Busy, "trial_running", "slot %s is on trial, and slot %s is the way back: there is no room for another release", serving, committed).
		Try("wait until the trial has ended, or end it: `whisper-appliance slot switch %s` goes back", committed)
}

// Activate makes the slot name the one that serves, from the next start of the
// server on. Its undo is Activate of the slot before.
func (s *Slots) Activate(name string) error {
	if err := s.point(s.Current, name); err != nil {
		return fmt.Errorf("activate slot %s: %w", name, err)
	}
	faultpoint.Here("slot.activated")
	return nil
}

// Commit makes the slot name the one that a failing release goes back to.
func (s *Slots) Commit(name string) error {
	if err := s.point(s.Stable, name); err != nil {
		return fmt.Errorf("commit slot %s: %w", name, err)
	}
	faultpoint.Here("slot.committed")
	return nil
}

// point renames a new link over the old: there is always one, and after a power
// cut it is one of the two. It never names a slot without a release.
func (s *Slots) point(link, name string) error {
	if err := known(name); err != nil {
		return err
	}
	if _, err := Read(s.Path(name)); err != nil {
		return err
	}
	if was, err := s.named(link); err == nil && was == name {
		return durable.SyncDir(filepath.Dir(link)) // a run before us may have been cut before this
	}
	target, err := s.target(link, name)
	if err != nil {
		return err
	}
	return replaceLink(link, target)
}

// replaceLink has one name for the new link, so that a killed run leaves no
// more than the next one replaces.
func replaceLink(link, target string) error {
	fresh := filepath.Join(filepath.Dir(link), "."+filepath.Base(link)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, link); err != nil {
		os.Remove(fresh) //nolint:errcheck // the next run removes it
		return err
	}
	return durable.SyncDir(filepath.Dir(link))
}

// Prepare makes the directory of the slots, and in it the link to the package's
// release.
func (s *Slots) Prepare() error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return cannotWrite(s.Dir, err)
	}
	link := s.Path(Golden)
	if was, err := os.Readlink(link); err == nil && was == s.Golden {
		return nil
	}
	if err := replaceLink(link, s.Golden); err != nil {
		return cannotWrite(s.Dir, err)
	}
	return nil
}

// goldenBefore lets the slot golden be the release of the package before, until
// the next Prepare. It tells whether there is one.
func (s *Slots) goldenBefore() bool {
	if s.GoldenBefore == "" {
		return false
	}
	if _, err := Read(s.GoldenBefore); err != nil {
		return false
	}
	return replaceLink(s.Path(Golden), s.GoldenBefore) == nil
}

// Slot states.
const (
	Ready  = "ready"
	Empty  = "empty"
	Broken = "broken" // there is something, but not what its manifest says
)

// Entry is a slot as List finds it.
type Entry struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	State   string `json:"state"`             // ready, empty, broken
	Problem string `json:"problem,omitempty"` // of a broken one
	Version string `json:"version,omitempty"`
	Commit  string `json:"commit,omitempty"`
	Serving bool   `json:"serving"` // the next start of the server takes this one
	Stable  bool   `json:"stable"`  // the way back leads here
}

// List gives every slot. It reads no contents: a slot that is ready here may
// still hold a file with wrong bytes, which Verify finds.
func (s *Slots) List(ctx context.Context) ([]Entry, error) {
	serving, err := s.Serving()
	if err != nil {
		return nil, err
	}
	committed, err := s.Committed()
	if err != nil {
		return nil, err
	}
	var list []Entry
	for _, name := range names() {
		e := Entry{Name: name, Path: s.Path(name), Serving: name == serving, Stable: name == committed}
		diffs, m, err := Verify(ctx, e.Path, Check{Shallow: true})
		e.Version, e.Commit = m.Version, m.Commit
		e.State, e.Problem = judge(e.Path, diffs, err)
		list = append(list, e)
	}
	return list, nil
}

func judge(dir string, diffs []Difference, err error) (state, problem string) {
	if _, gone := os.Stat(dir); errors.Is(gone, fs.ErrNotExist) {
		return Empty, ""
	}
	switch {
	case err != nil:
		return Broken, err.Error()
	case len(diffs) == 1:
		return Broken, diffs[0].String()
	case len(diffs) > 1:
		return Broken, fmt.Sprintf("%s, and %d more", diffs[0], len(diffs)-1)
	}
	return Ready, ""
}

func names() []string { return []string{A, B, Golden} }

func known(name string) error {
	if slices.Contains(names(), name) {
		return nil
	}
	return fault.New(fault.BadInput, "unknown_slot", "there is no slot %q; the slots are a, b and golden", fault.Short(name)).On("slot")
}
