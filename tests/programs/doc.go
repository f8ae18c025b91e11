// Package programs tests the built programs as their users run them: on the
// command line, through make run, and while processes are killed under them.
// Its tests carry the build tag e2e; `make test-programs` runs them.
package programs
