package paths

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
)

// Verdict is what a check came to.
type Verdict string

// The verdicts. A Problem keeps the appliance from working; with a Warning it
// works, but not as it should or not for long.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Problem Verdict = "problem"
)

// Finding is what was found at one path.
type Finding struct {
	Entry
	Kind     string `json:"kind,omitempty"`   // "directory", "file", "link", "socket", "other"; "" where nothing is there
	Target   string `json:"target,omitempty"` // of a link
	Owner    string `json:"owner,omitempty"`  // "root:root"
	Mode     string `json:"mode,omitempty"`   // "0711"
	Writable bool   `json:"writable"`         // for the user that was asked about

	// Of the file system that the path is on, or would be: what users other
	// than root may still fill, and which device it is, "8:1".
	FreeBytes  *uint64 `json:"free_bytes,omitempty"`
	FreeInodes *uint64 `json:"free_inodes,omitempty"` // nil where there is no limit
	Device     string  `json:"device,omitempty"`

	Verdict Verdict `json:"verdict"`
	What    string  `json:"what,omitempty"` // what is wrong
	Hint    string  `json:"hint,omitempty"` // what to do
}

// Free space below which something is said.
const (
	scarceBytes, noBytes   = 1 << 30, 64 << 20
	scarceInodes, noInodes = 10_000, 200
)

// Check looks at every path of List as the server needs it, with the rights of
// user u. It changes nothing.
func (p Paths) Check(u User) []Finding {
	list := make([]Finding, len(p.list))
	for i, e := range p.list {
		c := checker{user: u, installed: p.Kind == Installed, f: Finding{Entry: e, Verdict: OK}}
		c.check(p.ruleOf(e.Name))
		list[i] = c.f
	}
	p.together(list)
	return list
}

// together checks what one path alone cannot tell.
func (p Paths) together(list []Finding) {
	if p.Kind != Installed {
		return
	}
	device := map[string]string{}
	for _, f := range list {
		device[f.Name] = f.Device
	}
	for i, f := range list {
		if f.Name == "slots" && f.Verdict == OK && device["current"] != "" && f.Device != device["current"] {
			list[i].Verdict, list[i].What = Problem, "it is on another file system than the link current"
			list[i].Hint = "mount one file system at their common directory: a switch is a rename"
		}
	}
}

// checker is one path's check in progress.
type checker struct {
	user      User
	installed bool
	f         Finding
}

// say keeps the gravest of what is wrong, and of equals the first.
func (c *checker) say(v Verdict, what, hint string) {
	if v == Problem && c.f.Verdict != Problem || v == Warning && c.f.Verdict == OK {
		c.f.Verdict, c.f.What, c.f.Hint = v, what, hint
	}
}

func (c *checker) check(r rule) {
	if c.f.Path == "" {
		c.say(Warning, "there is none", r.missing)
		return
	}
	info, err := os.Lstat(c.f.Path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.say(Warning, "this user may not look at it", "ask again as root")
		return
	case errors.Is(err, fs.ErrNotExist):
		c.absent(r)
		return
	case err != nil:
		c.say(Problem, "it cannot be looked at: "+err.Error(), "see that the disk is well: `dmesg` says more")
		return
	}
	c.present(r, info)
}

// absent judges a path where nothing is. What the server makes itself needs a
// place where it may.
func (c *checker) absent(r rule) {
	c.space(r, existing(c.f.Path))
	parent := existing(c.f.Path)
	switch {
	case r.made && !(c.installed && r.shipped):
		c.f.Writable = c.user.may(parent, mayWrite|maySearch)
		if !c.f.Writable {
			c.say(Problem, fmt.Sprintf("it is not there, and %s may not make it in %s", c.who(), parent), "make it and give it to "+c.who())
		}
	case r.shipped && c.installed:
		c.say(Problem, "it is not there", "the package brings it: install the package again")
	case r.missing != "":
		c.say(Warning, "it is not there", r.missing)
	}
}

// present judges what lies there.
func (c *checker) present(r rule, info fs.FileInfo) {
	c.f.Kind, c.f.Owner = kindOf(info), owner(info)
	if c.f.Kind == "link" {
		c.f.Target, _ = os.Readlink(c.f.Path) //nolint:errcheck // Stat says what is wrong
		target, err := os.Stat(c.f.Path)
		if err != nil {
			c.say(Problem, "it points to "+c.f.Target+", where nothing is", "point it to what should be there, or remove it")
			return
		}
		if r.kind != "link" {
			c.f.Kind, info = kindOf(target), target
		}
	}
	c.f.Mode = fmt.Sprintf("%04o", octal(info.Mode()))
	if c.f.Kind != r.kind {
		c.say(Problem, fmt.Sprintf("it is a %s; it should be a %s", c.f.Kind, r.kind), "move it away")
	}
	c.f.Writable = c.user.may(c.f.Path, mayWrite)
	if r.write && !c.f.Writable && !(c.installed && r.shipped) {
		c.say(Problem, c.who()+" may not write to it", fmt.Sprintf("`chown %s %s`, and see that the file system is not read-only", c.who(), c.f.Path))
	}
	if r.read && !c.user.may(c.f.Path, mayRead) {
		c.say(Problem, c.who()+" may not read it", fmt.Sprintf("`chgrp %s %s` and `chmod g+r %s`", c.who(), c.f.Path, c.f.Path))
	}
	if open := info.Mode().Perm() & r.closed; open != 0 {
		c.say(Warning, "others may read or change it", fmt.Sprintf("`chmod %04o %s`", info.Mode().Perm()&^r.closed, c.f.Path))
	}
	c.space(r, c.f.Path)
}

func (c *checker) who() string { return c.user.Name }

// space measures the file system below path.
func (c *checker) space(r rule, path string) {
	var st unix.Statfs_t
	var at unix.Stat_t
	// The device of a link is that of the directory it lies in.
	if unix.Lstat(path, &at) == nil {
		c.f.Device = fmt.Sprintf("%d:%d", unix.Major(at.Dev), unix.Minor(at.Dev))
	}
	if err := unix.Statfs(path, &st); err != nil {
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	c.f.FreeBytes = &free
	if st.Files > 0 {
		c.f.FreeInodes = &st.Ffree
	}
	if !r.grows {
		return
	}
	hint := "free some space, or give it a larger disk"
	switch {
	case free < noBytes:
		c.say(Problem, "only "+fault.Bytes(int64(free))+" are free", hint)
	case st.Files > 0 && st.Ffree < noInodes:
		c.say(Problem, fmt.Sprintf("only %d more files can be made", st.Ffree), hint)
	case free < scarceBytes:
		c.say(Warning, "only "+fault.Bytes(int64(free))+" are free", hint)
	case st.Files > 0 && st.Ffree < scarceInodes:
		c.say(Warning, fmt.Sprintf("only %d more files can be made", st.Ffree), hint)
	}
}

// existing is path or the nearest directory above it that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func kindOf(info fs.FileInfo) string {
	switch info.Mode().Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "link"
	case fs.ModeSocket:
		return "socket"
	}
	return "other"
}

// octal is a mode as chmod writes it.
func octal(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, flag := range map[fs.FileMode]uint32{fs.ModeSetuid: syscall.S_ISUID, fs.ModeSetgid: syscall.S_ISGID, fs.ModeSticky: syscall.S_ISVTX} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}
