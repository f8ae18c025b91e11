package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// settingsNote begins settings.toml.
const settingsNote = "# Saved by the appliance, which rewrites this file. Your own settings belong in config.toml.\n"

// SaveSettings writes settings to the settings file at path, which need not
// exist, and keeps what else is in it. The values are in words, as a variable
// has them: "true", "4GiB", "a,b". With a key or value that Load would refuse
// it is a fault, and the file stays as it was: all of them are saved or none,
// as tls.certificate and tls.key go together.
func SaveSettings(path string, changes map[string]string) error {
	plain, err := parseChanges(changes)
	if err != nil {
		return err
	}
	return Rewrite(path, 0o644, filepath.Dir(path), func(old []byte) ([]byte, error) {
		var content map[string]any
		if err := toml.Unmarshal(old, &content); err != nil {
			return nil, syntaxFault(path, err)
		}
		if content == nil {
			content = map[string]any{}
		}
		for key, v := range plain {
			section, name, _ := strings.Cut(key, ".")
			table, ok := content[section].(map[string]any)
			if !ok {
				table = map[string]any{}
				content[section] = table
			}
			table[name] = v
		}
		data, err := Marshal(content)
		return append([]byte(settingsNote), data...), err
	})
}

// Save saves settings as SaveSettings does, to from.Settings, unless that
// would have no effect or would leave a configuration that Load refuses: a
// setting fixed further up is a Conflict. It is what CLI, API and page use.
func (from Sources) Save(changes map[string]string) error {
	if _, err := parseChanges(changes); err != nil {
		return err
	}
	_, report, err := Load(from)
	if err != nil {
		return err
	}
	after := from
	after.Flags = slices.Clone(from.Flags)
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		if report.Locked(key) {
			return fault.New(fault.Conflict, "locked", "%s is fixed by %s; saving it would change nothing", key, report.Origin(key)).
				On(key).Try("change it there")
		}
		after.Flags = append(after.Flags, Flag{Key: key, Text: changes[key]})
	}
	if _, _, err := Load(after); err != nil {
		return err
	}
	return SaveSettings(from.Settings, changes)
}

// parseChanges checks keys and values and gives the values as TOML has them.
func parseChanges(changes map[string]string) (map[string]any, error) {
	l := newLoader()
	plain := map[string]any{}
	for key, text := range changes {
		f, known := l.fields[key]
		if !known {
			section, name, _ := strings.Cut(key, ".")
			l.unknown("settings", entry{section: section, name: name})
			continue
		}
		if !f.set(f.raw(text)) {
			l.refuse("bad_value", key, "%s cannot be %s; it must be %s", key, quote(text), f.want())
			continue
		}
		plain[key] = f.plain()
	}
	slices.SortFunc(l.problems, func(a, b *fault.Error) int { return strings.Compare(a.Field, b.Field) })
	switch len(l.problems) {
	case 0:
		return plain, nil
	case 1:
		return nil, l.problems[0]
	}
	return nil, badConfig(l.problems)
}

// Rewrite replaces the file at path with what edit makes of its content, nil
// where there is none. Rewrites of files in one directory wait for each other,
// also across processes. A file that was there keeps its mode, and its owner
// where we may give it away; a new one gets perm and, from root, the owner of
// like: the directory of those who will read it, or, where that does not exist,
// the file's own. After an error the old file stands.
func Rewrite(path string, perm os.FileMode, like string, edit func(old []byte) ([]byte, error)) error {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return cannotWrite(path, err)
	}
	defer unlock()
	old, err := durable.ReadRegular(path, mostFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cannotWrite(path, err)
	}
	data, err := edit(old)
	if err != nil {
		return err
	}
	if bytes.Equal(data, old) && old != nil {
		return nil
	}
	if err := replace(path, perm, like, data); err != nil {
		return cannotWrite(path, err)
	}
	return nil
}

func cannotWrite(path string, err error) error {
	kind := fault.Internal
	hint := "see that the disk is well"
	switch {
	case errors.Is(err, fs.ErrPermission):
		kind, hint = fault.Forbidden, "do it as root, or as the user that runs the appliance"
	case errors.Is(err, fs.ErrNotExist):
		kind, hint = fault.NotFound, "create the directory "+filepath.Dir(path)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, hint = fault.NoSpace, "free some disk space"
	}
	return fault.New(kind, "cannot_write", "%s cannot be written", path).Because(err).Try("%s", hint)
}

// lockDir waits for the lock on dir. The lock is on the directory, since the
// file itself is replaced, and ends with the process at the latest.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// replace writes data under path.
func replace(path string, perm os.FileMode, like string, data []byte) error {
	owner, err := os.Stat(path)
	if err == nil {
		perm = owner.Mode().Perm()
	} else if owner, err = os.Stat(like); err != nil {
		if owner, err = os.Stat(filepath.Dir(path)); err != nil {
			return err
		}
	}
	return durable.Fill(path, perm, func(f *os.File) error {
		if err := giveTo(f, owner); err != nil {
			return err
		}
		_, err := f.Write(data)
		return err
	})
}

// giveTo gives f the owner of like, so that a file which root edits stays
// readable to the server's user. Who is not root keeps what is theirs.
func giveTo(f *os.File, like os.FileInfo) error {
	owner, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	err := f.Chown(int(owner.Uid), int(owner.Gid))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
