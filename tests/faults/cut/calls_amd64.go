package cut

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// olderCalls are those that newer architectures do without.
func olderCalls() []call {
	return []call{
		opening("open", unix.SYS_OPEN, onPath(0), 1), plain("creat", unix.SYS_CREAT, onPath(0)),
		plain("rename", unix.SYS_RENAME, onPaths(0, 1)), plain("link", unix.SYS_LINK, onPaths(0, 1)), plain("symlink", unix.SYS_SYMLINK, onPath(1)),
		plain("unlink", unix.SYS_UNLINK, onPath(0)), plain("mkdir", unix.SYS_MKDIR, onPath(0)), plain("rmdir", unix.SYS_RMDIR, onPath(0)),
		plain("mknod", unix.SYS_MKNOD, onPath(0)), plain("chmod", unix.SYS_CHMOD, onPath(0)),
		plain("chown", unix.SYS_CHOWN, onPath(0)), plain("lchown", unix.SYS_LCHOWN, onPath(0)),
		plain("utime", unix.SYS_UTIME, onPath(0)), plain("utimes", unix.SYS_UTIMES, onPath(0)), plain("futimesat", unix.SYS_FUTIMESAT, at(0, 1)),
	}
}
