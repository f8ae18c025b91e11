// Package version holds the build's identity. The values are stamped by the
// linker from the file VERSION and from git (see the Makefile); nothing else
// in the tree writes a version down. It trusts nothing and writes nothing.
package version

import "fmt"

// Stamped by -ldflags -X. They are variables only because the linker can set
// nothing else; no code assigns them.
var (
	number = "unstamped"
	commit = "unknown"
	date   = "unknown"
)

// Info is the identity of a build.
type Info struct {
	Version string `json:"version"` // as in the file VERSION, with +dev for a build without release keys
	Commit  string `json:"commit"`  // git commit, with -dirty where the tree was changed
	Date    string `json:"date"`    // commit date, RFC 3339 UTC: the same for two builds of one commit
}

// Build returns the identity of the running program.
func Build() Info { return Info{Version: number, Commit: commit, Date: date} }

// Line is what --version prints: program, version, commit and its date, "name
// 9.8.7 (commit e6e80422e2b1 of 2026-02-03T04:05:06Z)".
func Line(program string) string {
	return fmt.Sprintf("%s %s (commit %s of %s)", program, number, commit, date)
}
