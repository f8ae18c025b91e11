// Package sandbox takes from the decoder's process, before it touches a file,
// all that decoding does not need: every path but the system's libraries and
// the file itself, every kind of socket, new privileges, and more memory, CPU
// time and descriptors than the limits say. What it takes is gone for the
// process and for ffmpeg, its child.
//
// It trusts the kernel and the caller's limits. Landlock and seccomp are used
// as far as the kernel has them, and the caller is told how far that was;
// under systemd the unit says the same things again. It writes nothing.
package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"whisper-appliance/internal/decode"
)

// Confine fits decode.Worker's field of that name. It can be used once in a
// process: the descriptors' directory is out of reach after it.
func (s System) Confine(in *os.File, program string, l decode.Limits) (*os.File, decode.Sandbox, error) {
	var got decode.Sandbox
	name := filepath.Join(s.FDDir, strconv.Itoa(int(in.Fd())))
	ro, err := os.Open(name) // whoever opened in for writing too keeps that to himself
	if err != nil {
		return nil, got, fmt.Errorf("open the file for reading: %w", err)
	}
	in.Close()
	if err := limitResources(l); err != nil {
		ro.Close()
		return nil, got, err
	}
	if got.Seccomp, err = denySockets(); err != nil {
		ro.Close()
		return nil, got, err
	}
	if got.Landlock, err = s.denyPaths(ro, program); err != nil {
		ro.Close()
		return nil, got, err
	}
	return ro, got, nil
}

// denyPaths leaves the libraries, program and in; it returns the ABI in force.
func (s System) denyPaths(in *os.File, program string) (abi int, err error) {
	abi, err = llsys.LandlockGetABIVersion()
	if err != nil {
		return 0, nil // this kernel has none: the caller reports "reduced"
	}
	self := filepath.Join(s.FDDir, strconv.Itoa(int(in.Fd())))
	const runFile = landlock.AccessFSSet(llsys.AccessFSExecute | llsys.AccessFSReadFile)
	err = landlock.V11.BestEffort().Restrict(
		landlock.RODirs(s.Libraries...).IgnoreIfMissing(),
		landlock.ROFiles(s.Files...).IgnoreIfMissing(),
		landlock.PathAccess(runFile, program),
		landlock.ROFiles(self),
	)
	if err != nil {
		return 0, fmt.Errorf("landlock: %w", err)
	}
	return abi, nil
}
