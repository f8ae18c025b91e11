package version

import "testing"

func TestLine(t *testing.T) {
	if got, want := Line("name"), "name unstamped (commit unknown of unknown)"; got != want {
		t.Errorf("an unstamped build: %q, want %q", got, want)
	}
}
