// Package release is the artefact that a release travels in: its name, what its
// publisher says of it beside its bytes, how versions are ordered, and how a
// sealed tree becomes one file and a tree again.
//
// It trusts nothing in an archive: that the bytes are the publisher's is proved
// before by others (a signature over their digest), and every member is held
// against the manifest all the same. It writes into the one directory that it
// is given, and leaves that empty where it gives an error.
package release

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"whisper-appliance/internal/fault"
)

// Format is the layout of the artefacts that Pack writes and Unpack reads.
const Format = 1

// The channels that a release is published in.
const (
	Stable = "stable"
	Beta   = "beta"
)

const (
	maxNotes = 4 << 10 // bytes
	maxBytes = 8 << 30 // of all files of a release; a manifest can have no more
	maxFiles = 20_000  // likewise
)

// Schema is a range of versions of the database's schema, both ends included; 0
// to 0 for a release that keeps none.
type Schema struct {
	Min int `json:"min"` // the oldest that the release can work on
	Max int `json:"max"` // the one that it migrates to
}

// Custom is what a publisher says of a release. It stands in the signed
// metadata, so that whether a release fits is known before it is fetched.
type Custom struct {
	Version      string    `json:"version"`       // semantic version, without a v: "1.4.0"
	Channel      string    `json:"channel"`       // Stable or Beta
	Arch         string    `json:"arch"`          // as Go calls it: "amd64", "arm64"
	Commit       string    `json:"commit"`        // of the sources
	MinUpdater   string    `json:"min_updater"`   // the oldest updater that can install it; "" = any
	UnitContract int       `json:"unit_contract"` // see slot.Contract
	Schema       Schema    `json:"schema"`        // of the database
	Unpacked     int64     `json:"unpacked"`      // bytes of all files together
	Files        int       `json:"files"`         // how many there are
	Rollout      int       `json:"rollout"`       // percent of machines that take it by themselves, 0 to 100; see Draw
	Notes        string    `json:"notes"`         // what is new, for people; at most 4 KiB
	Published    time.Time `json:"published"`     // when, by the publisher's clock; whole seconds
	Index        int64     `json:"index"`         // rises with every publish of the repository; 1 is the first
}

// Check holds every field against what may be. The error is a fault,
// "bad_release_data", that names the field as it is in JSON.
func (c Custom) Check() error {
	for _, rule := range c.rules() {
		if rule.bad {
			return fault.New(fault.BadInput, "bad_release_data", "%s: %s", rule.field, rule.want).On(rule.field).
				Try("the publisher has to publish the release again")
		}
	}
	return nil
}

// rule is what a field of Custom must be, and whether it is not.
type rule struct {
	field string
	bad   bool
	want  string
}

func (c Custom) rules() []rule {
	got := func(want, value string) string { return fmt.Sprintf("%q; want %s", fault.Short(value), want) }
	return []rule{
		{"version", ValidVersion(c.Version) != nil, got("a semantic version such as 1.4.0", c.Version)},
		{"channel", c.Channel != Stable && c.Channel != Beta, got(Stable+" or "+Beta, c.Channel)},
		{"arch", !plainArch(c.Arch), got("an architecture such as amd64", c.Arch)},
		{"commit", c.Commit == "" || len(c.Commit) > 100 || !plainText(c.Commit, false), got("the commit of the sources", c.Commit)},
		{"min_updater", c.MinUpdater != "" && ValidVersion(c.MinUpdater) != nil, got("a version, or nothing", c.MinUpdater)},
		{"unit_contract", c.UnitContract < 1, fmt.Sprintf("%d; want 1 or more", c.UnitContract)},
		{"schema", c.Schema.Min < 0 || c.Schema.Max < c.Schema.Min, fmt.Sprintf("%d to %d is no range", c.Schema.Min, c.Schema.Max)},
		{"unpacked", c.Unpacked < 1 || c.Unpacked > maxBytes, fmt.Sprintf("%d bytes; want 1 to %d", c.Unpacked, int64(maxBytes))},
		{"files", c.Files < 1 || c.Files > maxFiles, fmt.Sprintf("%d; want 1 to %d", c.Files, maxFiles)},
		{"rollout", c.Rollout < 0 || c.Rollout > 100, fmt.Sprintf("%d; want 0 to 100 percent", c.Rollout)},
		{"notes", len(c.Notes) > maxNotes, fmt.Sprintf("%d bytes; want at most %d", len(c.Notes), maxNotes)},
		{"notes", !plainText(c.Notes, true), "want text without characters that control or steer how it is shown"},
		{"published", c.Published.Year() < 1970 || c.Published.Year() > 9999 || c.Published.Nanosecond() != 0, "want a time in whole seconds"},
		{"index", c.Index < 1, fmt.Sprintf("%d; want 1 or more", c.Index)},
	}
}

// plainArch keeps an architecture to what a file name and a message can bear.
func plainArch(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// plainText is UTF-8 that cannot play with a terminal.
func plainText(s string, lines bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) && !(lines && (r == '\n' || r == '\t')) {
			return false
		}
	}
	return true
}
