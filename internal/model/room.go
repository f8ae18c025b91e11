package model

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// diskMargin stays free after a model: the spool and the database are often on
// the same disk.
const diskMargin = 64 << 20

// checkDisk refuses where need more bytes and the margin do not fit.
func (s *Store) checkDisk(need int64) error {
	free, err := s.freeBytes()
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.Dir, err)
	}
	if free >= need+diskMargin {
		return nil
	}
	return fault.New(fault.NoSpace, "disk_full", "the disk of %s has %s free and %s are needed",
		s.Dir, fault.Bytes(free), fault.Bytes(need+diskMargin)).
		Try("remove a model that is not used: `whisper-appliance models rm NAME`")
}

func (s *Store) freeBytes() (int64, error) {
	if s.free != nil {
		return s.free()
	}
	return durable.Free(s.Dir)
}

// cannotWrite names the directory and, where that is the matter, the missing right.
func (s *Store) cannotWrite(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fault.New(fault.Forbidden, "models_not_writable", "the model directory %s cannot be written to", s.Dir).
			Because(err).Try("run this as root or as the user that the appliance runs as")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", s.Dir).
			Because(err).Try("remove a model that is not used: `whisper-appliance models rm NAME`")
	}
	return fmt.Errorf("model directory: %w", err)
}

// MemoryWarning says so where a model of the catalogue will hardly fit into
// memory, "" where it will, where nothing is known, and for other models.
func (s *Store) MemoryWarning(name string) string {
	e, err := Lookup(name)
	if err != nil {
		return ""
	}
	return s.memoryWarning(e.Name, e.MemoryNeeded)
}

// memoryWarning says so where a model will hardly fit into memory, "" where it
// will or where nothing is known. It is no reason to refuse: memory can be
// freed, and the machine that downloads need not be the one that transcribes.
func (s *Store) memoryWarning(name string, need int64) string {
	have, ok := s.MemoryAvailable()
	if !ok || need == 0 || have >= need {
		return ""
	}
	return fmt.Sprintf("%s needs about %s of memory and %s are available; a smaller or a quantised model will do better",
		name, fault.Bytes(need), fault.Bytes(have))
}

// What stays available beside a second state: more before it is made than
// while it is there.
const (
	stateMargin     = 256 << 20
	stateMarginThen = 128 << 20
)

// RoomForState tells whether there is memory for another working state of the
// model in a file, beside the model itself; made, whether it may stay. Where
// nothing is known of model or memory, there is not.
func (s *Store) RoomForState(file string, made bool) bool {
	need := stateNeeded(strings.TrimSuffix(strings.TrimPrefix(file, "ggml-"), ".bin"))
	have, ok := s.MemoryAvailable()
	if made {
		return ok && have >= stateMarginThen
	}
	return ok && need > 0 && have >= need+stateMargin
}

// MemoryAvailable is how many bytes of memory can be had: the kernel's estimate,
// or what the control groups around this process leave where that is less; false
// where nothing is known. It needs Proc, and Cgroup for the groups.
func (s *Store) MemoryAvailable() (int64, bool) {
	have, ok := s.memAvailable()
	for group := s.controlGroup(); ok && group != ""; group = parent(group) {
		dir := filepath.Join(s.Cgroup, group)
		limit, limited := readNumber(filepath.Join(dir, "memory.max"))
		used, known := readNumber(filepath.Join(dir, "memory.current"))
		if limited && known {
			have = min(have, max(0, limit-used))
		}
	}
	return have, ok
}

func parent(group string) string {
	if group == "/" {
		return ""
	}
	return filepath.Dir(group)
}

func (s *Store) memAvailable() (int64, bool) {
	if s.Proc == "" {
		return 0, false
	}
	data, err := os.ReadFile(filepath.Join(s.Proc, "meminfo"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// controlGroup is this process's group in the unified hierarchy, "" where there is none.
func (s *Store) controlGroup() string {
	if s.Proc == "" || s.Cgroup == "" {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(s.Proc, "self", "cgroup"))
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if group, ok := strings.CutPrefix(lines.Text(), "0::/"); ok {
			return filepath.Clean("/" + group)
		}
	}
	return ""
}

func readNumber(path string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil // "max" is no limit
}
