//go:build !faults

package faultpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNothingHappens: a released build heeds no file.
func TestNothingHappens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(file, []byte("here crash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WHISPER_APPLIANCE_FAULTS", file)
	if n := testing.AllocsPerRun(10, func() { Here("here") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "here crash\n" {
		t.Errorf("the file was changed: %q, %v", data, err)
	}
}
