//go:build !faults

package faultpoint

// Here does nothing in this build.
func Here(string) {}
