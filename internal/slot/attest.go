package slot

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/internal/fault"
)

// EnginePath is the engine's program in a release. It is started through the
// release's own loader, so what a process of it executes is that one.
const EnginePath = "bin/whisper-appliance-engine"

// Units is what of systemd a switch needs. Start, Stop and Restart return when
// the job has ended; what they say of its success is a hint, and State decides.
// To stop what does not run is no error.
type Units interface {
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	ResetFailed(ctx context.Context, unit string) error
	State(ctx context.Context, unit string) (State, error)
}

// attest waits until the unit runs the server of the slot name, which holds m,
// in an invocation other than before, and gives up after s.Settle, or at once
// where it has ended well. hint is what the job that started it ended with.
func (s *Switch) attest(ctx context.Context, unit, name string, m Manifest, before string, hint error) error {
	s.tell(StepAttest, unit)
	patience, cancel := context.WithTimeout(ctx, cmp.Or(s.Settle, defaultSettle))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	runs := ends{before: before}
	for {
		st, err := s.attestOnce(ctx, unit, name, m, before)
		if err == nil {
			return nil
		}
		if st.idle() && (hint == nil || st.Invocation != "" && st.Invocation != before) { // it was up, and is not
			return errors.Join(fmt.Errorf("attest %s: %w", unit, s.gone(ctx, unit)), hint)
		}
		runs.note(st)
		select {
		case <-patience.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if st.idle() && !isStopped(hint) {
				err = neverBegun(unit, err)
			}
			return errors.Join(hint, runs.explain(unit, err))
		case <-tick.C:
		}
	}
}

// attestOnce believes neither the link nor the unit file: it reads the program
// of the process that runs.
func (s *Switch) attestOnce(ctx context.Context, unit, name string, m Manifest, before string) (State, error) {
	st, err := s.Units.State(ctx, unit)
	if err != nil {
		return st, fmt.Errorf("attest %s: %w", unit, err)
	}
	if st.Active != "active" || st.PID == 0 {
		return st, fmt.Errorf("attest %s: it is %s", unit, st.Active)
	}
	if before != "" && st.Invocation == before {
		return st, fmt.Errorf("attest %s: it was not started anew", unit)
	}
	if err := s.Slots.runs(ctx, s.Proc, st.PID, name, m); err != nil {
		return st, fmt.Errorf("attest %s: %w", unit, err)
	}
	return st, nil
}

// attestEngine sees that the engine of the slot name, where one runs, has no
// file of another slot in its memory, nor one that the slot does not hold any
// more.
func (s *Switch) attestEngine(ctx context.Context, name string) error {
	unit := s.Engine(name)
	st, err := s.Units.State(ctx, unit)
	if err != nil {
		return fmt.Errorf("attest %s: %w", unit, err)
	}
	if !st.up() || st.PID == 0 {
		return nil
	}
	path, err := s.Slots.stray(filepath.Join(s.Proc, strconv.Itoa(st.PID)), name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH): // it has ended meanwhile
		return nil
	case err != nil: // a container may forbid it
		s.tell(StepAttest, fmt.Sprintf("%s: what it runs cannot be read: %v", unit, err))
		return nil
	case path == "":
		return nil
	}
	return fault.New(fault.Unavailable, "engine_astray", "the engine of slot %s runs %s, which is not that slot's", name, path).
		Try("`systemctl stop %s`, and try again", unit)
}

// runs is nil where process pid runs the server of the slot name, which holds
// m. The path counts beside the bytes: two slots may hold the same program, and
// the server takes its slot from where it lies.
func (s *Slots) runs(ctx context.Context, proc string, pid int, name string, m Manifest) error {
	want, ok := m.File(ServerPath)
	if !ok {
		return fmt.Errorf("release %s has no %s", m.Version, ServerPath)
	}
	path, sum, err := program(ctx, proc, pid, ServerPath)
	if err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(s.Path(name))
	if err != nil {
		return err
	}
	if path != filepath.Join(dir, ServerPath) {
		return fmt.Errorf("process %d runs %s, not slot %s's", pid, path, name)
	}
	if sum != want.SHA256 {
		return fmt.Errorf("the program of process %d is not what the manifest of slot %s says (%.12s, want %.12s)", pid, name, sum, want.SHA256)
	}
	return nil
}

// Attest tells which slot's program process pid runs, path being ServerPath or
// EnginePath: the slot's name and manifest, or "" where no slot holds those
// bytes in that place. proc is the proc file system.
func (s *Slots) Attest(ctx context.Context, proc string, pid int, path string) (name string, m Manifest, err error) {
	at, sum, err := program(ctx, proc, pid, path)
	if err != nil {
		kind := fault.Unavailable
		if errors.Is(err, os.ErrPermission) {
			kind = fault.Forbidden
		}
		return "", Manifest{}, fault.New(kind, "not_attested", "what process %d runs cannot be read", pid).Because(err).Try("do it as root")
	}
	for _, name := range names() {
		dir, err := filepath.EvalSymlinks(s.Path(name))
		if err != nil || at != filepath.Join(dir, path) {
			continue
		}
		m, err := Read(dir)
		if err != nil {
			return "", Manifest{}, err
		}
		if f, ok := m.File(path); ok && f.SHA256 == sum {
			return name, m, nil
		}
	}
	return "", Manifest{}, nil
}

// program is the path and the SHA-256 of what process pid runs. The server's is
// the very file, though its name be gone or another's by now; a program that
// was started through a loader is the mapped file whose path ends in want.
func program(ctx context.Context, proc string, pid int, want string) (path, sum string, err error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	link := filepath.Join(dir, "exe")
	if path, err = os.Readlink(link); err != nil {
		return "", "", err
	}
	if want != ServerPath {
		if link, path, err = mapped(dir, "/"+want); err != nil {
			return "", "", err
		}
	}
	f, err := os.Open(link)
	if err != nil {
		return path, "", err
	}
	defer f.Close()
	sum, err = digest(ctx, io.Discard, f)
	return path, sum, err
}

// stray is the first file in the memory of the process whose directory in proc
// is dir that lies in a slot and is not what the slot name holds, "" where there
// is none.
func (s *Slots) stray(dir, name string) (string, error) {
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	own := s.trees(name)
	var others []string
	for _, other := range names() {
		if other != name {
			others = append(others, s.trees(other)...)
		}
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 6 {
			continue
		}
		path := strings.Join(words[5:], " ")
		if below(path, own) {
			if strings.HasSuffix(path, " (deleted)") {
				return path, nil
			}
		} else if below(path, others) {
			return path, nil
		}
	}
	return "", lines.Err()
}

// trees are the names by which processes know what a slot holds.
func (s *Slots) trees(name string) []string {
	list := []string{s.Path(name)}
	if dir, err := filepath.EvalSymlinks(s.Path(name)); err == nil && dir != list[0] {
		list = append(list, dir)
	}
	return list
}

func below(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(path, dir+string(filepath.Separator)) })
}

// mapped finds the file in a process's memory whose path ends in suffix.
// link leads to it as the process sees it. (map_files would be the very file,
// but is closed to root in an unprivileged container.)
func mapped(dir, suffix string) (link, path string, err error) {
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 6 && strings.HasSuffix(words[5], suffix) {
			return filepath.Join(dir, "root", words[5]), words[5], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", "", err
	}
	return "", "", fmt.Errorf("%s has no file …%s in its memory", dir, suffix)
}
