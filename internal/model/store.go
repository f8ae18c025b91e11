package model

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Store is the directory of models. Its methods may be called at once from
// several goroutines and processes.
type Store struct {
	Dir     string // made when something is first written to it
	Bundled string // models that came with the release, looked in after Dir and never written; "" = none

	// Where memory is looked up: the roots of procfs and of the control groups.
	// Empty: memory is not looked up and nobody is warned.
	Proc   string
	Cgroup string

	free func() (int64, error) // free bytes of Dir's disk; nil = ask the kernel
	seen seen
}

// State is what is there of a model.
type State string

// The states of a model.
const (
	Installed State = "installed"
	Partial   State = "partial" // a download was begun; pull goes on with it
	Absent    State = "not installed"
	Damaged   State = "damaged" // a file is there and cannot be used; Listed.Problem says why
)

// Listed is one model in a list.
type Listed struct {
	Entry
	Known   bool   `json:"known"` // in the catalogue
	State   State  `json:"state"`
	OnDisk  int64  `json:"on_disk"` // bytes, of the file or of its beginning
	Info    *Info  `json:"info,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// List gives the catalogue with what is there of each model, then the models
// in the directory that the catalogue does not know, by name. A file whose name
// says model and whose content does not is listed as damaged.
func (s *Store) List() ([]Listed, error) {
	var out []Listed
	for _, e := range Catalogue() {
		out = append(out, s.listed(e, true))
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range entries {
		name, ok := nameOf(d.Name())
		if _, known := find(name); !ok || known || d.IsDir() {
			continue
		}
		out = append(out, s.listed(Entry{Name: name, Kind: Speech}, false))
	}
	return out, nil
}

// listed looks at one model; what the catalogue does not say comes from the file.
func (s *Store) listed(e Entry, known bool) Listed {
	l := Listed{Entry: e, Known: known, State: Absent}
	path := s.path(e.Name)
	if st, err := os.Stat(path + partialSuffix); err == nil {
		l.State, l.OnDisk = Partial, st.Size()
	}
	st, err := os.Stat(path)
	if err != nil {
		return l
	}
	l.State, l.OnDisk = Installed, st.Size()
	info, err := s.check(e, path, s.seen.inspect)
	if err != nil {
		l.State, l.Problem = Damaged, err.Error()
		return l
	}
	l.Info = &info
	if !known {
		l.Kind, l.Size = info.Kind, info.Size
		l.MemoryNeeded = memoryNeeded(info.Type, info.Size)
		if info.Kind == Speech {
			l.Languages = languagesOf(info.Type)
		}
	}
	return l
}

// check holds a file against its entry: size, where the entry has one, and
// structure, which inspect finds.
func (s *Store) check(e Entry, path string, inspect func(string, os.FileInfo) (Info, error)) (Info, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Info{}, err
	}
	if e.Size != 0 && st.Size() != e.Size {
		return Info{}, fault.New(fault.BadInput, "bad_model_file",
			"%s has %d bytes and has to have %d", filepath.Base(path), st.Size(), e.Size).
			Try("fetch it again: `whisper-appliance models pull %s`", e.Name)
	}
	return inspect(path, st)
}

// anew reads the file whatever is remembered of it.
func anew(path string, _ os.FileInfo) (Info, error) { return Inspect(path) }

func (s *Store) path(name string) string { return filepath.Join(s.Dir, fileName(name)) }

// Path is where the file of the model called name is or would be. name may be
// an alias.
func (s *Store) Path(name string) (string, error) {
	name = canonical(name)
	if err := checkName(name); err != nil {
		return "", err
	}
	return s.path(name), nil
}

// Resolve gives the file name of an installed speech model. Faults: unknown_model
// (NotFound) where neither catalogue nor directory has it, model_not_installed
// (NotFound) with the command that fetches it, wrong_model_kind (BadInput) for a
// model that is for something else than speech.
func (s *Store) Resolve(name string) (file string, err error) {
	name = canonical(name)
	path, err := s.Path(name)
	if err != nil {
		return "", unknown(name)
	}
	entry, known := find(name)
	if known && entry.Kind != Speech {
		return "", fault.New(fault.BadInput, "wrong_model_kind",
			"%s finds where speech is and cannot write it down", name).On("model").
			Try("`whisper-appliance models list` shows the models for speech")
	}
	st, err := os.Stat(path)
	switch {
	case err == nil && st.Mode().IsRegular():
		return fileName(name), nil
	case known:
		return "", fault.New(fault.NotFound, "model_not_installed", "the model %s is not installed", name).
			On("model").Try("`whisper-appliance models pull %s`", name)
	}
	return "", unknown(name)
}

// Sound is Resolve after a look at the file's size and structure, which is
// remembered while the file stays as it is. The further fault is bad_model_file
// (BadInput).
func (s *Store) Sound(name string) (file string, err error) {
	file, err = s.Resolve(name)
	if err != nil {
		return "", err
	}
	e, known := find(canonical(name))
	if !known {
		e = Entry{Name: canonical(name)}
	}
	_, err = s.check(e, s.path(e.Name), s.seen.inspect)
	return file, err
}

// ResolveVAD gives the file name of the newest speech detection model that the
// catalogue knows and that is installed or bundled, false where there is none.
func (s *Store) ResolveVAD() (file string, ok bool) {
	for _, e := range slices.Backward(Catalogue()) {
		if e.Kind == VAD && (whole(e, s.Dir) || s.Bundled != "" && whole(e, s.Bundled)) {
			return e.File(), true
		}
	}
	return "", false
}

// whole tells whether dir has a file of e's name and size.
func whole(e Entry, dir string) bool {
	st, err := os.Stat(filepath.Join(dir, e.File()))
	return err == nil && st.Mode().IsRegular() && st.Size() == e.Size
}

// Remove deletes a model with all that belongs to it, a begun download too.
// inUse is the name or the file of the model in use, which is a Conflict fault,
// model_in_use.
func (s *Store) Remove(name, inUse string) error {
	name = canonical(name)
	path, err := s.Path(name)
	if err != nil {
		return err
	}
	if inUse != "" && canonical(inUse) == name {
		return fault.New(fault.Conflict, "model_in_use", "%s is the model in use", name).On("model").
			Try("choose another first: `whisper-appliance models use NAME`")
	}
	if !s.any(path) {
		_, err := s.Resolve(name)
		if err == nil || fault.KindOf(err) == fault.BadInput {
			err = fault.New(fault.NotFound, "model_not_installed", "the model %s is not installed", name).On("model")
		}
		return err
	}
	release, err := s.lock(name)
	if err != nil {
		return err
	}
	defer release()
	for _, suffix := range leftovers() {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.cannotWrite(err)
		}
	}
	return durable.SyncDir(s.Dir)
}

// leftovers are the endings of all files that a model can have, its own last:
// a removal that breaks off leaves a model, not a record without one.
func leftovers() []string {
	return []string{
		partialSuffix + stateSuffix, partialSuffix, importSuffix, stateSuffix, "",
	}
}

func (s *Store) any(path string) bool {
	return slices.ContainsFunc(leftovers(), func(suffix string) bool {
		_, err := os.Lstat(path + suffix)
		return err == nil
	})
}
