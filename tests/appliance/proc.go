package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	proc          = "/proc"
	engineProgram = "whisper-appliance-engine"
)

// Children are the processes below the server, theirs included, zombies too,
// by process id.
func (a *Appliance) Children() ([]int, error) {
	parents, err := parents()
	if err != nil {
		return nil, err
	}
	var below []int
	for next := []int{a.PID}; len(next) > 0; next = next[1:] {
		for pid, parent := range parents {
			if parent == next[0] {
				below, next = append(below, pid), append(next, pid)
			}
		}
	}
	slices.Sort(below)
	return below, nil
}

// Zombies are the children that ended and were never waited for.
func (a *Appliance) Zombies() ([]int, error) {
	children, err := a.Children()
	return slices.DeleteFunc(children, func(pid int) bool { return state(pid) != 'Z' }), err
}

// EnginePID is the engine's process id, 0 where no engine runs.
func (a *Appliance) EnginePID() (int, error) {
	children, err := a.Children()
	if err != nil {
		return 0, err
	}
	for _, pid := range children {
		line, err := os.ReadFile(procFile(pid, "cmdline"))
		if err == nil && bytes.Contains(line, []byte(engineProgram)) {
			return pid, nil
		}
	}
	return 0, nil
}

// FDs is how many descriptors the server has open.
func (a *Appliance) FDs() (int, error) {
	list, err := os.ReadDir(procFile(a.PID, "fd"))
	return len(list), err
}

// PSS is the memory of the server and everything below it, in bytes.
func (a *Appliance) PSS() (int64, error) {
	pids, err := a.Children()
	if err != nil {
		return 0, err
	}
	total, err := PSS(a.PID)
	for _, pid := range pids {
		size, childErr := PSS(pid)
		if !gone(childErr) {
			err = errors.Join(err, childErr)
		}
		total += size
	}
	return total, err
}

// PSS is a process's resident memory in bytes, where memory shared by n
// processes counts as its nth part.
func PSS(pid int) (int64, error) {
	data, err := os.ReadFile(procFile(pid, "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory of process %d: %w", pid, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("memory of process %d: the kernel names no Pss", pid)
}

// Spent is the processor time that the server and everything below it have
// used, and the most that they ever had resident, in bytes.
func (a *Appliance) Spent() (cpu time.Duration, peak int64, err error) {
	pids, err := a.Children()
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range append(pids, a.PID) {
		c, p := Spent(pid)
		cpu, peak = cpu+c, peak+p
	}
	return cpu, peak, nil
}

// Spent is the processor time that a process has used, its ended children too,
// and the most that it had resident, in bytes; 0 where it is gone.
func Spent(pid int) (cpu time.Duration, peak int64) { return cpuTime(pid), peakMemory(pid) }

// ForgetPeak makes what the server and everything below it have resident now
// the most that they ever had.
func (a *Appliance) ForgetPeak() error {
	pids, err := a.Children()
	for _, pid := range append(pids, a.PID) {
		err = errors.Join(err, ForgetPeak(pid))
	}
	return err
}

// ForgetPeak makes what a process has resident now the most that it ever had.
// It needs the right to write to it; one that is gone has nothing to forget.
func ForgetPeak(pid int) error {
	const resetPeak = "5" // proc_pid_clear_refs(5)
	if err := os.WriteFile(procFile(pid, "clear_refs"), []byte(resetPeak), 0); !gone(err) {
		return err
	}
	return nil
}

// cpuTime is what a process has used, its ended children too; 0 where it is gone.
func cpuTime(pid int) time.Duration {
	const second = 100 // ticks, on every Linux that Go runs on
	var sum int64
	if fields := statFields(pid); len(fields) > 14 {
		for _, field := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(field, 10, 64) // the kernel writes numbers
			sum += n
		}
	}
	return time.Duration(sum) * time.Second / second
}

// peakMemory is the most that a process had resident, in bytes; 0 where it is gone.
func peakMemory(pid int) int64 {
	data, _ := os.ReadFile(procFile(pid, "status"))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64) // likewise
			return kib << 10
		}
	}
	return 0
}

// gone reports whether err says that the process has ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func procFile(pid int, name string) string {
	return filepath.Join(proc, strconv.Itoa(pid), name)
}

// parents maps every process to its parent.
func parents() (map[int]int, error) {
	list, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	of := map[int]int{}
	for _, entry := range list {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, parent := stat(pid); parent > 0 {
			of[pid] = parent
		}
	}
	return of, nil
}

// state is the kernel's letter for what a process does, 0 where there is none.
func state(pid int) byte {
	s, _ := stat(pid)
	return s
}

// stat is a process's state and its parent, 0 and 0 where there is none.
func stat(pid int) (state byte, parent int) {
	fields := statFields(pid)
	if len(fields) < 2 || len(fields[0]) != 1 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1]) // the kernel writes numbers
	return fields[0][0], parent
}

// statFields is what the kernel says of a process, from its state on.
func statFields(pid int) []string {
	data, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return nil
	}
	// The program's name comes before, in parentheses, and may hold anything.
	_, rest, _ := bytes.Cut(data[bytes.LastIndexByte(data, ')')+1:], []byte(" "))
	return strings.Fields(string(rest))
}

// AddressSpace is what a process has mapped, in bytes.
func AddressSpace(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(data), &pages); err != nil {
		return 0, fmt.Errorf("statm of %d: %w", pid, err)
	}
	return pages * uint64(os.Getpagesize()), nil
}
