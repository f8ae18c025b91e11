package sandbox

// System is where an operating system keeps what a program needs to run.
type System struct {
	Libraries []string // directories to read and execute from
	Files     []string // to read
	FDDir     string   // where a process finds its own descriptors by number
}

// Linux is the layout of Debian and its kin. Entries that a machine does not
// have do no harm.
func Linux() System {
	return System{
		Libraries: []string{"/usr", "/lib", "/lib64", "/bin"},
		Files:     []string{"/etc/ld.so.cache", "/etc/ld.so.preload", "/dev/null", "/dev/urandom"},
		FDDir:     "/dev/fd",
	}
}
