//go:build e2e

package e2e

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// exposures are how much systemd may find that a unit could do without: 0 is a
// unit that may nothing, 10 one that may all. CI holds these.
var exposures = map[string]float64{
	"whisper-appliance.service":              1.5,
	"whisper-appliance-next@a.service":       1.5,
	"whisper-appliance-engine@a.service":     1.0,
	"whisper-appliance-decode@1.service":     1.0,
	"whisper-appliance-journal@1.service":    1.5,
	"whisper-appliance-housekeeping.service": 1.5,
	"whisper-appliance-preflight@a.service":  1.5,
	"whisper-appliance-fetch.service":        1.5,
	"whisper-appliance-updater.service":      2.0,
	"whisper-appliance-recover.service":      2.0,
	"whisper-appliance-update.service":       2.0,
	"whisper-appliance-scrub.service":        2.0,
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// TestSecurity judges the units as they are shipped.
func TestSecurity(t *testing.T) {
	b := shared(t)
	for unit, most := range exposures {
		r := b.Run(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true",
			"--threshold="+strconv.Itoa(int(most*10)), unit)
		found := exposure.FindStringSubmatch(r.Out)
		if found == nil {
			t.Errorf("%s: %v", unit, r)
			continue
		}
		figure(t, "%s: %s, at most %.1f", unit, found[1], most)
		if r.Code != 0 {
			t.Errorf("%s: %v", unit, r)
		}
	}
}

// TestLintian wants it to find nothing, not even to inform of.
func TestLintian(t *testing.T) {
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is not installed")
	}
	pkg, err := deb(checkout(t))
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--fail-on=error,warning", pkg).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("%v\n%s", err, out)
	}
	figure(t, "lintian: %d lines", len(out))
}
