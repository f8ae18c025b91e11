package cut

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// olderCalls are those that newer architectures do without: this one.
func olderCalls() []call { return nil }
