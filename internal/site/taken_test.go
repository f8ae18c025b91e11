package site

import (
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/paths"
)

// TestTakenBack: a mark counts whatever its time, until it is forgotten.
func TestTakenBack(t *testing.T) {
	run := t.TempDir()
	m := &Machine{Paths: paths.Paths{GateRun: run}}
	if err := m.forgetTaken("b"); err != nil || m.takenBack("b") {
		t.Errorf("without a mark: %v, %v", err, m.takenBack("b"))
	}
	if err := os.WriteFile(filepath.Join(run, "taken-b"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !m.takenBack("b") || m.takenBack("a") {
		t.Error("the mark is of another slot")
	}
	if err := m.forgetTaken("b"); err != nil || m.takenBack("b") {
		t.Errorf("it is not forgotten: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(run, "taken-a", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.forgetTaken("a"); err == nil {
		t.Error("what cannot be removed is forgotten")
	}
}
