package sandbox

import (
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/decode"
)

// openFiles is enough for ffmpeg, its libraries and this process's own poller.
const openFiles = 64

// cpuSlack is CPU time for starting up, so that the wall clock, which has the
// better words, is first.
const cpuSlack = 3 * time.Second

// limitResources sets hard limits for this process and its children, each on
// its own. There is none on the number of processes: that one counts all of
// the user's, so it would hit others.
func limitResources(l decode.Limits) error {
	memory := uint64(l.Memory)
	if l.Memory <= 0 {
		memory = decode.DefaultMemory
	}
	limits := []struct {
		name  string
		which int
		value uint64
	}{
		{"address space", unix.RLIMIT_AS, memory},
		{"core size", unix.RLIMIT_CORE, 0},
		{"file size", unix.RLIMIT_FSIZE, 0}, // pipes and sockets are no files to it
		{"open files", unix.RLIMIT_NOFILE, openFiles},
	}
	if l.Timeout > 0 {
		seconds := uint64(math.Ceil((l.Timeout + cpuSlack).Seconds()))
		limits = append(limits, struct {
			name  string
			which int
			value uint64
		}{"CPU time", unix.RLIMIT_CPU, seconds})
	}
	for _, r := range limits {
		if err := lower(r.which, r.value); err != nil {
			return fmt.Errorf("limit %s to %d: %w", r.name, r.value, err)
		}
	}
	return nil
}

// lower sets a limit unless a stricter one is in force. It is syscall's
// Setrlimit, as os/exec would restore the descriptors' limit after any other.
func lower(which int, value uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(which, &now); err != nil {
		return err
	}
	value = min(value, now.Max)
	hard := value
	if which == unix.RLIMIT_CPU {
		hard++ // SIGXCPU at the soft limit says why; SIGKILL at the hard one does not
	}
	return syscall.Setrlimit(which, &syscall.Rlimit{Cur: value, Max: min(hard, now.Max)})
}
