package engine

import (
	"slices"
	"strings"
	"testing"
)

// TestInherited: of the environment an engine gets what it has a use for, and what
// somebody has said of its threads counts.
func TestInherited(t *testing.T) {
	t.Setenv("GOMP_SPINCOUNT", "7")
	t.Setenv("WHISPER_APPLIANCE_SECRET", "s3cr3t")
	got := inherited()
	if got[0] != spinCount || !slices.Contains(got[1:], "GOMP_SPINCOUNT=7") || strings.Contains(strings.Join(got, " "), "s3cr3t") {
		t.Errorf("the engine gets %q", got)
	}
}
