package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const program = "whisper-appliance-server"

// release is what this program says of itself: what its manifest does, so that
// one program serves in releases of any version.
type release struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	dir     string
	slot    string
}

// ownRelease is two levels above the executable.
func ownRelease() (release, error) {
	exe, err := os.Executable()
	if err != nil {
		return release{}, err
	}
	r := release{dir: filepath.Dir(filepath.Dir(exe))}
	r.slot = filepath.Base(r.dir)
	path := filepath.Join(r.dir, "manifest.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (release) date() string { return "2026-01-01T00:00:00Z" }
