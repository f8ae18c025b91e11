package decode

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// rights sends standard input: once, or with n = 2 twice.
func rights(n int) []byte {
	if n == 2 {
		return syscall.UnixRights(0, 0)
	}
	return syscall.UnixRights(0)
}

// openFDs lists this process's descriptors.
func openFDs(t testing.TB) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	var names []string
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") {
			names = append(names, e.Name())
		}
	}
	return names
}

// children lists the processes, zombies included, whose parent is pid.
func children(t testing.TB, pid int) []int {
	t.Helper()
	list, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	var found []int
	for _, e := range list {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := stat(n); ok && parent == pid {
			found = append(found, n)
		}
	}
	return found
}

// stat reads a process's state and parent.
func stat(pid int) (state string, parent int, ok bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	rest := string(raw[strings.LastIndexByte(string(raw), ')')+1:])
	n, err := fmt.Sscanf(rest, "%s %d", &state, &parent)
	return state, parent, n == 2 && err == nil
}

// alive reports whether pid runs; a zombie that init has not reaped yet is dead.
func alive(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != "Z" && state != "X"
}
