package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
)

// fileNote begins a keys file.
const fileNote = "# API keys, as hashes. Add and remove them with \"whisper-appliance keys\".\n\n"

// file is a keys file.
type file struct {
	Keys []Key `toml:"key"`
}

// parse reads a keys file and checks every key. The error is a fault.
func parse(path string, data []byte) ([]Key, error) {
	var f file
	if err := config.Unmarshal(path, data, &f); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i, k := range f.Keys {
		if err := k.check(); err != nil {
			return nil, fault.New(fault.BadInput, "bad_keys_file", "%s: key %d is wrong", path, i+1).Because(err)
		}
		if seen[k.Name] {
			return nil, fault.New(fault.BadInput, "bad_keys_file", "%s: there are two keys named %s", path, k.Name)
		}
		seen[k.Name] = true
	}
	return f.Keys, nil
}

// List gives the keys in the file at path, none where there is no file. A file
// that everybody may write proves nothing and is refused.
func List(path string) ([]Key, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		kind := fault.Internal
		if errors.Is(err, fs.ErrPermission) {
			kind = fault.Forbidden
		}
		return nil, fault.New(kind, "unreadable", "the keys file %s cannot be read", path).
			Because(err).Try("do it as root, or as the user that owns the file")
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o002 != 0 {
		return nil, fault.New(fault.Forbidden, "keys_file_open", "everybody may write the keys file %s", path).
			Try("look at its keys, then: chmod 600 %s", path)
	}
	return parse(path, data)
}

// Add is AddFor whoever owns the file's directory.
func Add(path string, k Key) error { return AddFor(filepath.Dir(path), path, k) }

// AddFor puts k into the file at path. Where there is none it is made with mode
// 0600 and, from root, the owner of home, the directory in which the server
// keeps its state: the server runs as that user and has to read the file. A
// name that is taken is a Conflict; a file that is broken is left as it is.
func AddFor(home, path string, k Key) error {
	if err := k.check(); err != nil {
		return err
	}
	return edit(path, home, func(keys []Key) ([]Key, error) {
		if slices.ContainsFunc(keys, func(other Key) bool { return other.Name == k.Name }) {
			return nil, fault.New(fault.Conflict, "duplicate_name", "there is a key named %s already", k.Name).
				On("name").Try("choose another name, or remove that key first")
		}
		return append(keys, k), nil
	})
}

// Remove takes the key called name out of the file at path. A name that is not
// there is NotFound.
func Remove(path, name string) error {
	return edit(path, filepath.Dir(path), func(keys []Key) ([]Key, error) {
		rest := slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return k.Name == name })
		if len(rest) == len(keys) {
			return nil, fault.New(fault.NotFound, "unknown_key_name", "there is no key named %q", name).
				On("name").Try("\"whisper-appliance keys list\" shows them")
		}
		return rest, nil
	})
}

func edit(path, like string, change func([]Key) ([]Key, error)) error {
	return config.Rewrite(path, 0o600, like, func(old []byte) ([]byte, error) {
		keys, err := parse(path, old)
		if err != nil {
			return nil, err
		}
		if keys, err = change(keys); err != nil {
			return nil, err
		}
		data, err := config.Marshal(file{keys})
		if err != nil {
			return nil, fmt.Errorf("encode keys: %w", err)
		}
		return append([]byte(fileNote), data...), nil
	})
}
