package cut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const proc = "/proc"

// watch tells which calls concern the directories, and words them.
type watch struct {
	dirs  []string // links resolved
	calls map[int32]call
}

func newWatch(dirs []string, list []call) (*watch, error) {
	w := &watch{calls: map[int32]call{}}
	for _, dir := range dirs {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
		w.dirs = append(w.dirs, real)
	}
	for _, c := range list {
		w.calls[int32(c.nr)] = c
	}
	return w, nil
}

// concerns tells whether a call is on one of the directories or below it, and
// is its line in the log.
func (w *watch) concerns(n notification) (line string, ours bool) {
	c := w.calls[n.nr]
	if c.how && !opensMore(n) {
		return "", false
	}
	ours = len(c.files) == 0 // sync names none and is meant for all
	var names []string
	for _, f := range c.files {
		name := f.name(n)
		names = append(names, name)
		ours = ours || w.within(name) || c.follows() && w.within(resolved(name))
	}
	return c.line(n, names), ours
}

// follows: where the last part of the name is a link, it is the link's target
// that changes.
func (c call) follows() bool {
	return c.flags >= 0 || c.how || c.name == "truncate" || strings.HasPrefix(c.name, "chmod") || c.name == "creat"
}

func resolved(name string) string {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return name
	}
	return real
}

func (w *watch) within(name string) bool {
	for _, dir := range w.dirs {
		if name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return false
}

func (c call) line(n notification, names []string) string {
	line := strings.TrimSpace(c.name + " " + strings.Join(names, " -> "))
	if c.size >= 0 {
		line += fmt.Sprintf(" (%d bytes)", n.args[c.size])
	}
	if c.flags >= 0 {
		for _, f := range []struct {
			bit  uint64
			word string
		}{{unix.O_CREAT, "create"}, {unix.O_EXCL, "exclusively"}, {unix.O_TRUNC, "truncate"}} {
			if n.args[c.flags]&f.bit != 0 {
				line += " " + f.word
			}
		}
	}
	return line
}

// name is the file as this process would name it, links resolved but for the
// last part; what is no file has a name like "pipe:[1]".
func (f file) name(n notification) string {
	task := filepath.Join(proc, strconv.Itoa(int(n.tid)))
	if f.fd >= 0 {
		return descriptor(task, n.args[f.fd])
	}
	path := text(task, n.args[f.path])
	switch {
	case filepath.IsAbs(path):
		if root, err := os.Readlink(filepath.Join(task, "root")); err == nil && root != "/" {
			path = filepath.Join(root, path)
		}
		if rest, own := strings.CutPrefix(path, proc+"/self/"); own {
			path = filepath.Join(task, rest)
		}
	case f.dir >= 0 && int32(n.args[f.dir]) != unix.AT_FDCWD:
		dir := descriptor(task, n.args[f.dir])
		if path == "" { // AT_EMPTY_PATH: the descriptor itself
			return dir
		}
		path = filepath.Join(dir, path)
	default:
		cwd, _ := os.Readlink(filepath.Join(task, "cwd")) //nolint:errcheck // a process that has gone has none
		path = filepath.Join(cwd, path)
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}

func descriptor(task string, fd uint64) string {
	name, _ := os.Readlink(filepath.Join(task, "fd", strconv.Itoa(int(int32(fd))))) //nolint:errcheck // a bad descriptor has no name
	return strings.TrimSuffix(name, " (deleted)")
}

// text reads a string of another process's memory.
func text(task string, at uint64) string {
	data := memory(task, at, unix.PathMax)
	if end := bytes.IndexByte(data, 0); end >= 0 {
		return string(data[:end])
	}
	return ""
}

// memory reads up to size bytes; fewer where what follows is not mapped.
func memory(task string, at uint64, size int) []byte {
	f, err := os.Open(filepath.Join(task, "mem"))
	if err != nil {
		return nil
	}
	defer f.Close()
	data := make([]byte, size)
	n, _ := f.ReadAt(data, int64(at)) //nolint:errcheck // what was read counts
	return data[:n]
}

// opensMore reads the flags of an openat2, the first word behind its argument.
func opensMore(n notification) bool {
	how := memory(filepath.Join(proc, strconv.Itoa(int(n.tid))), n.args[2], 8)
	return len(how) == 8 && binary.NativeEndian.Uint64(how)&opensForMore != 0
}
