package cut

import "golang.org/x/sys/unix"

// call is a system call that changes files, and where its arguments name them.
type call struct {
	name  string
	nr    uintptr
	files []file
	flags int  // argument with the flags of an open; -1 where it is none
	size  int  // argument with a number of bytes, for the log; -1 where there is none
	how   bool // the flags are in memory, behind argument 2 (openat2)
}

// file is where a call names a file: a descriptor, or a path that is taken from
// a directory's descriptor or, where there is none, from the working directory.
type file struct{ fd, dir, path int }

func onFD(arg int) []file                 { return []file{{fd: arg, dir: -1, path: -1}} }
func onPath(arg int) []file               { return []file{{fd: -1, dir: -1, path: arg}} }
func onPaths(from, to int) []file         { return append(onPath(from), onPath(to)...) }
func at(dir, path int) []file             { return []file{{fd: -1, dir: dir, path: path}} }
func ats(d, p, otherD, otherP int) []file { return append(at(d, p), at(otherD, otherP)...) }

func plain(name string, nr uintptr, files []file) call {
	return call{name: name, nr: nr, files: files, flags: -1, size: -1}
}

func sized(name string, nr uintptr, fd, size int) call {
	return call{name: name, nr: nr, files: onFD(fd), flags: -1, size: size}
}

func opening(name string, nr uintptr, files []file, flags int) call {
	return call{name: name, nr: nr, files: files, flags: flags, size: -1}
}

// calls are the mutating calls of every architecture, and those of this one.
func calls() []call {
	return append(olderCalls(), []call{
		opening("openat", unix.SYS_OPENAT, at(0, 1), 2),
		{name: "openat2", nr: unix.SYS_OPENAT2, files: at(0, 1), flags: -1, size: -1, how: true},
		sized("write", unix.SYS_WRITE, 0, 2), sized("pwrite64", unix.SYS_PWRITE64, 0, 2),
		sized("writev", unix.SYS_WRITEV, 0, -1), sized("pwritev", unix.SYS_PWRITEV, 0, -1), sized("pwritev2", unix.SYS_PWRITEV2, 0, -1),
		sized("copy_file_range", unix.SYS_COPY_FILE_RANGE, 2, 4), sized("sendfile", unix.SYS_SENDFILE, 0, 3), sized("splice", unix.SYS_SPLICE, 2, 4),
		sized("ftruncate", unix.SYS_FTRUNCATE, 0, 1), sized("fallocate", unix.SYS_FALLOCATE, 0, 3),
		plain("truncate", unix.SYS_TRUNCATE, onPath(0)),
		plain("fsync", unix.SYS_FSYNC, onFD(0)), plain("fdatasync", unix.SYS_FDATASYNC, onFD(0)), plain("syncfs", unix.SYS_SYNCFS, onFD(0)),
		plain("sync_file_range", unix.SYS_SYNC_FILE_RANGE, onFD(0)), plain("sync", unix.SYS_SYNC, nil),
		plain("renameat", unix.SYS_RENAMEAT, ats(0, 1, 2, 3)), plain("renameat2", unix.SYS_RENAMEAT2, ats(0, 1, 2, 3)),
		plain("linkat", unix.SYS_LINKAT, ats(0, 1, 2, 3)), plain("symlinkat", unix.SYS_SYMLINKAT, at(1, 2)),
		plain("unlinkat", unix.SYS_UNLINKAT, at(0, 1)), plain("mkdirat", unix.SYS_MKDIRAT, at(0, 1)), plain("mknodat", unix.SYS_MKNODAT, at(0, 1)),
		plain("fchmod", unix.SYS_FCHMOD, onFD(0)), plain("fchmodat", unix.SYS_FCHMODAT, at(0, 1)), plain("fchmodat2", unix.SYS_FCHMODAT2, at(0, 1)),
		plain("fchown", unix.SYS_FCHOWN, onFD(0)), plain("fchownat", unix.SYS_FCHOWNAT, at(0, 1)), plain("utimensat", unix.SYS_UTIMENSAT, at(0, 1)),
		plain("setxattr", unix.SYS_SETXATTR, onPath(0)), plain("lsetxattr", unix.SYS_LSETXATTR, onPath(0)), plain("fsetxattr", unix.SYS_FSETXATTR, onFD(0)),
		plain("removexattr", unix.SYS_REMOVEXATTR, onPath(0)), plain("lremovexattr", unix.SYS_LREMOVEXATTR, onPath(0)), plain("fremovexattr", unix.SYS_FREMOVEXATTR, onFD(0)),
	}...)
}
