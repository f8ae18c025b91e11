package trust

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// stateName is the one file: roots and set change together or not at all, so
// that a power cut leaves the old state or the new one.
const stateName = "trusted.json"

const (
	stateFormat = 1
	maxState    = 64 << 20 // bytes; far more than the limits of its parts allow
	maxRoots    = 1024
)

// stored is the file. Metadata stand in it as strings, byte for byte as they
// were signed.
type stored struct {
	Format int        `json:"format"`
	Roots  []keptRoot `json:"roots"` // by version
	set
}

type keptRoot struct {
	Version int64  `json:"version"`
	Bytes   string `json:"metadata"`
}

func (r keptRoot) name() string { return rootName(r.Version) }

func rootName(version int64) string { return strconv.FormatInt(version, 10) + ".root.json" }

// set is metadata that belong together.
type set struct {
	Timestamp string `json:"timestamp"`
	Snapshot  string `json:"snapshot"`
	Targets   string `json:"targets"`
}

// read gives what was kept. A file that holds no such thing must not stand in
// the way, since the source has it all; one that cannot be read must, because
// without it older metadata would be believed.
func (s *Store) read() (kept stored, err error) {
	if s.Dir == "" {
		return stored{}, nil
	}
	path := filepath.Join(s.Dir, stateName)
	data, err := durable.ReadRegular(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return stored{}, nil
	}
	if err != nil {
		return stored{}, fault.New(fault.Internal, "trust_unreadable", "%s cannot be read: it holds what was trusted before", path).
			Because(err).Try("see `dmesg` for a failing disk; where the file is lost, remove it and look for updates again")
	}
	if json.Unmarshal(data, &kept) != nil || kept.Format != stateFormat {
		return stored{}, nil
	}
	return kept, nil
}

// keep writes next where it is not what is kept already.
func (s *Store) keep(kept, next stored) error {
	next.Format = stateFormat
	if s.Dir == "" || kept.Format == stateFormat && kept.set == next.set && slices.Equal(kept.Roots, next.Roots) {
		return nil
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	write := s.write
	if write == nil {
		write = func(path string, data []byte) error { return durable.WriteFile(path, data, 0o644) }
	}
	path := filepath.Join(s.Dir, stateName)
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return cannotKeep(path, err)
	}
	if err := write(path, append(data, '\n')); err != nil {
		return cannotKeep(path, err)
	}
	return nil
}

func cannotKeep(path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", path).Because(err).Try("free some disk space")
	}
	return fmt.Errorf("keep what is trusted: %w", err)
}

// mergeRoots adds what was verified now to what was kept, which stays: an older
// package may come back, and then starts from an older root.
func mergeRoots(kept, verified []keptRoot) []keptRoot {
	all := slices.Clone(kept)
	for _, r := range verified {
		i, there := slices.BinarySearchFunc(all, r.Version, func(k keptRoot, v int64) int { return cmp.Compare(k.Version, v) })
		if there {
			all[i] = r
		} else {
			all = slices.Insert(all, i, r)
		}
	}
	return all[max(0, len(all)-maxRoots):]
}
