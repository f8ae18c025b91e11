package machine

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What of the host's own file systems is needed.
const (
	procDir  = "/proc"
	groupDir = "/sys/fs/cgroup"
)

const killLimit = 5 * time.Second // until killed processes have gone

func procFile(pid int, names ...string) string {
	return filepath.Join(append([]string{procDir, strconv.Itoa(pid)}, names...)...)
}

// groupOf is the name of the control group of the machine in dir.
func groupOf(dir string) string { return "wa-e2e-" + filepath.Base(dir) }

// hierarchies are the directories that control groups lie in; the first one is
// that of version 2.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(groupDir, "unified")); err == nil {
		return []string{filepath.Join(groupDir, "unified"), filepath.Join(groupDir, "systemd")}
	}
	return []string{groupDir}
}

// removeGroup kills what is left in a control group and removes it. What
// cannot be removed yet is removed by the next start.
func removeGroup(group string) {
	for _, hierarchy := range hierarchies() {
		dir := filepath.Join(hierarchy, group)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		// Only version 2 has the file; the same processes are in both.
		os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) //nolint:errcheck
		ctx, cancel := context.WithTimeout(context.Background(), killLimit)
		for !removeTree(dir) && ctx.Err() == nil {
			pause(ctx)
		}
		cancel()
	}
}

// pause waits for one tick, or for the end of ctx.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pollEvery):
	}
}

// removeTree removes empty control groups from the leaves up, and says whether
// all are gone.
func removeTree(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	return os.Remove(dir) == nil
}

// RemoveAll ends and removes every machine that this process has started from
// the checkout at root, for a test run that is broken off.
func RemoveAll(root string) {
	removeWhere(machinesDir(root), func(pid string) bool { return pid == strconv.Itoa(os.Getpid()) })
}

// removeStale removes what machines left whose process has gone.
func removeStale(machines string) {
	removeWhere(machines, func(pid string) bool {
		_, err := os.Stat(filepath.Join(procDir, pid))
		return err != nil
	})
}

// removeWhere removes the machines whose names begin with the number of a
// process of which that holds. What is in their control groups is killed.
func removeWhere(machines string, holds func(pid string) bool) {
	entries, err := os.ReadDir(machines)
	if err != nil {
		return
	}
	for _, e := range entries {
		if pid, _, _ := strings.Cut(e.Name(), "."); !holds(pid) {
			continue
		}
		dir := filepath.Join(machines, e.Name())
		removeGroup(groupOf(dir))
		os.RemoveAll(dir) //nolint:errcheck // the next start tries again
	}
}

// Pss is what the processes of the units whose names begin with prefix hold in
// memory, in bytes by unit: each page they share with others counted by their
// share (proportional set size). A unit without processes is not listed.
func (m *Machine) Pss(prefix string) (map[string]int64, error) {
	sizes := map[string]int64{}
	top := filepath.Join(hierarchies()[0], m.group)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		unit := filepath.Base(path)
		if err != nil || !d.IsDir() || !strings.HasPrefix(unit, prefix) || !strings.HasSuffix(unit, ".service") {
			return err
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, pid := range strings.Fields(string(data)) {
			sizes[unit] += pss(pid)
		}
		return nil
	})
	return sizes, err
}

// pss is that of one process in bytes; 0 when it has gone.
func pss(pid string) int64 {
	data, err := os.ReadFile(filepath.Join(procDir, pid, "smaps_rollup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "Pss:" {
			kib, _ := strconv.ParseInt(words[1], 10, 64) //nolint:errcheck // the kernel wrote it
			return kib << 10
		}
	}
	return 0
}
