package release

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"golang.org/x/mod/semver"

	"whisper-appliance/internal/fault"
)

// The parts of an artefact's name. No version and no architecture has an
// underscore in it.
const (
	namePrefix = "whisper-appliance_"
	nameSuffix = ".tar.zst"
)

// maxVersion is far beyond any version, and short of what a file name can be.
const maxVersion = 100

// ValidVersion is nil for a semantic version with all three numbers and without
// a leading v: "1.4.0", "1.4.0-rc.1", "0.8.0+dev". The error is a fault,
// "bad_version".
func ValidVersion(v string) error {
	if wellFormed(v) {
		return nil
	}
	return fault.New(fault.BadInput, "bad_version", "%q is no version", fault.Short(v)).On("version").
		Try("a version has three numbers, such as 1.4.0 or 1.4.0-rc.1")
}

// wellFormed leaves the rules to semver, and its shorthands ("1.4") out.
func wellFormed(v string) bool {
	full := "v" + v
	return len(v) <= maxVersion && semver.IsValid(full) && semver.Canonical(full)+semver.Build(full) == full
}

// Compare orders versions: -1 where a is the older, 1 where b is, 0 for the
// same. What follows a plus counts where all else is equal, byte by byte, so
// that builds of one version have an order. What is no version sorts first.
func Compare(a, b string) int {
	if wellFormed(a) != wellFormed(b) {
		return cmp.Compare(rank(a), rank(b))
	}
	if !wellFormed(a) {
		return strings.Compare(a, b)
	}
	return cmp.Or(semver.Compare("v"+a, "v"+b), strings.Compare(semver.Build("v"+a), semver.Build("v"+b)))
}

func rank(v string) int {
	if wellFormed(v) {
		return 1
	}
	return 0
}

// TargetName is the name of the artefact of a version for an architecture.
func TargetName(version, arch string) string {
	return namePrefix + version + "_" + arch + nameSuffix
}

// ParseTarget is the inverse of TargetName. The error is a fault, "bad_target".
func ParseTarget(name string) (version, arch string, err error) {
	rest, hasPrefix := strings.CutPrefix(name, namePrefix)
	rest, hasSuffix := strings.CutSuffix(rest, nameSuffix)
	version, arch, _ = strings.Cut(rest, "_")
	if !hasPrefix || !hasSuffix || !wellFormed(version) || !plainArch(arch) {
		return "", "", fault.New(fault.BadInput, "bad_target", "%q is no name of a release", fault.Short(name)).On("target").
			Try("it has to be like %s", TargetName("1.4.0", "amd64"))
	}
	return version, arch, nil
}

// Draw is a machine's lot for a version, 0 to 99: a release whose rollout is
// above it is for this machine. It stays what it is for a machine and a version,
// and a machine that is early for one version need not be for the next.
func Draw(machineID, version string) int {
	sum := sha256.Sum256([]byte(machineID + "\x00" + version))
	return int(binary.BigEndian.Uint64(sum[:8]) % 100)
}
