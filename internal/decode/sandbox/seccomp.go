package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offsetCall = 0
	offsetArch = 4
)

// x32 is the bit of the numbers of amd64's second set of system calls.
const x32 = 0x40000000

// denySockets forbids system calls that reach a network, or reach around
// these rules, to all threads and children. Landlock knows TCP from version 4
// on only (Debian 12 has 2) and UDP much later. Sockets that are open stay.
// It reports false where the kernel or the architecture has no filter.
func denySockets() (bool, error) {
	arch, ok := auditArch()
	if !ok {
		return false, nil
	}
	filter := denyFilter(arch, []uint32{
		unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND,
		unix.SYS_IO_URING_SETUP, // opens sockets without socket(2)
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
		unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN, unix.SYS_KEYCTL, unix.SYS_ADD_KEY,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_OPEN_BY_HANDLE_AT,
	})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// On this thread; the filter's TSYNC carries it to the others.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("no new privileges: %w", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch errno {
	case 0:
		return true, nil
	case unix.ENOSYS, unix.EINVAL: // a kernel without it
		return false, nil
	}
	return false, fmt.Errorf("seccomp: %w", errno)
}

func auditArch() (uint32, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, true
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, true
	}
	return 0, false
}

// denyFilter answers the calls, and all calls of a foreign architecture, with
// EPERM and allows the rest.
func denyFilter(arch uint32, calls []uint32) []unix.SockFilter {
	const deny = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	f := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, arch, 1, 0), answer(deny),
		load(offsetCall), jump(unix.BPF_JGE, x32, 0, 1), answer(deny),
	}
	for _, call := range calls {
		f = append(f, jump(unix.BPF_JEQ, call, 0, 1), answer(deny))
	}
	return append(f, answer(unix.SECCOMP_RET_ALLOW))
}
