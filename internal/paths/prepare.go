package paths

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"whisper-appliance/internal/fault"
)

// Prepare makes the directories that the appliance keeps things in, with their
// modes: others may reach models and the API's socket, and nobody recordings,
// transcripts and the private key. A directory that is there already is given what it
// lacks, and those for nobody else are closed where they were open.
func (p Paths) Prepare() error {
	if err := prepare(p.State, 0o711, false); err != nil {
		return cannotPrepare(p.State, err)
	}
	if err := p.claimRun(); err != nil {
		return err
	}
	for _, d := range []struct {
		path    string
		mode    fs.FileMode
		private bool
	}{
		{p.Models, 0o755, false},
		{p.Spool, 0o700, true},
		{p.Jobs, 0o700, true},
		{p.Uploads, 0o700, true},
		{filepath.Dir(p.Database), 0o700, true},
		{p.TLS, 0o700, true},
		{p.Run, 0o755, false},
	} {
		if err := prepare(d.path, d.mode, d.private); err != nil {
			return cannotPrepare(d.path, err)
		}
	}
	return nil
}

// prepare makes one directory; those above it are as open as any.
func prepare(dir string, mode fs.FileMode, private bool) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return syscall.ENOTDIR
	}
	want := info.Mode().Perm() | mode
	if private {
		want = mode
	}
	if info.Mode().Perm() == want {
		return nil
	}
	return os.Chmod(dir, want)
}

// claimRun makes the run directory, and refuses one that another user made
// before us, which in a temporary directory anybody can: the sockets in it
// would be theirs to replace. It must come before any change of mode, since
// what lies there may be a link to something else.
func (p Paths) claimRun() error {
	if err := os.MkdirAll(filepath.Dir(p.Run), 0o755); err != nil {
		return cannotPrepare(p.Run, err)
	}
	if err := os.Mkdir(p.Run, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return cannotPrepare(p.Run, err)
	}
	info, err := os.Lstat(p.Run)
	if err != nil {
		return cannotPrepare(p.Run, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 || int(owner.Uid) == os.Geteuid() || os.Geteuid() == 0 && p.Kind == Installed {
		return nil
	}
	return fault.New(fault.Forbidden, "foreign_directory", "%s belongs to another user", p.Run).
		On("RUNTIME_DIRECTORY").Try("remove it, or set RUNTIME_DIRECTORY to a directory of yours")
}

func cannotPrepare(dir string, err error) error {
	kind, hint := fault.Internal, "see that the disk is well"
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind, hint = fault.Forbidden, "start it as the user that owns the directory, or set STATE_DIRECTORY to a directory of yours"
	case errors.Is(err, syscall.ENOTDIR):
		kind, hint = fault.Conflict, "a file lies where a directory belongs; move it away"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, hint = fault.NoSpace, "free some disk space"
	}
	return fault.New(kind, "no_directory", "the directory %s cannot be made ready", dir).Because(err).Try("%s", hint)
}
