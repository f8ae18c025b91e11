package cut

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in the kernel's struct seccomp_data.
const (
	dataNr, dataArch, dataArgs = 0, 4, 16
	argSize                    = 8
)

// opensForMore are the flags of an open that may change something.
const opensForMore = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC

// program is the filter: the calls of the list wait for an answer, all others
// go on. An open waits only where its flags say that it is for more than
// reading.
func program(list []call) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	wait := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}
	pass := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}
	p := []unix.SockFilter{
		{Code: load, K: dataArch}, {Code: equal, Jt: 1, K: auditArch}, pass,
		{Code: load, K: dataNr},
	}
	for _, c := range list {
		if c.flags < 0 {
			p = append(p, unix.SockFilter{Code: equal, Jf: 1, K: uint32(c.nr)}, wait)
			continue
		}
		p = append(p, unix.SockFilter{Code: equal, Jf: 4, K: uint32(c.nr)},
			unix.SockFilter{Code: load, K: dataArgs + argSize*uint32(c.flags)},
			unix.SockFilter{Code: bits, Jf: 1, K: opensForMore}, wait, pass)
	}
	return append(p, pass)
}

// install puts the filter on the calling thread, and on whatever it starts from
// now on. It gives the descriptor at which the calls that wait are answered.
func install(p []unix.SockFilter) (listener int, err error) {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	set := func() (uintptr, unix.Errno) {
		// Once a call was received nothing but a fatal signal interrupts it:
		// else Go's own signals would have it restarted, and counted twice.
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
		return fd, errno
	}
	fd, errno := set()
	if errno == unix.EACCES { // only root may do without
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("no_new_privs: %w", err)
		}
		fd, errno = set()
	}
	switch errno {
	case 0:
		return int(fd), nil
	case unix.EINVAL, unix.ENOSYS, unix.EBUSY:
		return -1, fmt.Errorf("seccomp notification: %w (%w)", errors.ErrUnsupported, errno)
	}
	return -1, fmt.Errorf("seccomp notification: %w", errno)
}

// notification is a call that waits: the kernel's struct seccomp_notif.
type notification struct {
	id    uint64
	tid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// answer is the kernel's struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const goOn = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE

// receive takes the next call that waits. One that has gone meanwhile is
// unix.ENOENT.
func receive(listener int) (n notification, err error) {
	return n, ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
}

// reply lets the call go on, or fail with errno where that is not 0.
func reply(listener int, n notification, errno unix.Errno) error {
	a := answer{id: n.id, errno: -int32(errno)}
	if errno == 0 {
		a.flags = goOn
	}
	err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	if errors.Is(err, unix.ENOENT) { // its process was killed
		return nil
	}
	return err
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
