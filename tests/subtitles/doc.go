// Package subtitles checks that the subtitles this project writes are what
// others read: SRT and VTT are rendered, parsed by two npm packages and two of
// Debian's Python packages, and compared cue by cue. The parsers are trusted;
// the test writes to a temporary directory only. It needs the build tag e2e,
// and what `make test-tools` installs.
package subtitles
