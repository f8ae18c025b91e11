package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// TestBecomesTheUpdater: arguments go to the package's program as they are, and
// the exit code is its own.
func TestBecomesTheUpdater(t *testing.T) {
	if updater := os.Getenv("TEST_UPDATER"); updater != "" {
		b := newBench(t)
		b.paths.UpdaterBin = updater
		t.Fatal(updateCommand(b.app).RunE(nil, strings.Fields(os.Getenv("TEST_ARGS"))))
	}
	updater := filepath.Join(t.TempDir(), "updater")
	if err := os.WriteFile(updater, []byte("#!/bin/sh\necho got \"$@\"\nexit 75\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestBecomesTheUpdater$")
	c.Env = append(os.Environ(), "TEST_UPDATER="+updater, "TEST_ARGS=apply 1.2.3 --json --wait")
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 75 || string(out) != "got apply 1.2.3 --json --wait\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNoUpdater(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct {
		path string
		kind fault.Kind
	}{{"", fault.NotFound}, {filepath.Join(t.TempDir(), "none"), fault.Unavailable}} {
		b.paths.UpdaterBin = tt.path
		if err := updateCommand(b.app).RunE(nil, nil); fault.KindOf(err) != tt.kind || fault.Hint(err) == "" {
			t.Errorf("updater %q: %v", tt.path, err)
		}
	}
}

// TestCompletesWithTheUpdater: what may follow is the updater's to say.
func TestCompletesWithTheUpdater(t *testing.T) {
	b := newBench(t)
	b.paths.UpdaterBin = filepath.Join(t.TempDir(), "updater")
	if err := os.WriteFile(b.paths.UpdaterBin, []byte("#!/bin/sh\nprintf '%s\\n' \"$*\" check :4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	words, _ := updateCommand(b.app).ValidArgsFunction(nil, []string{"apply"}, "1")
	if !slices.Equal(words, []string{"__complete apply 1", "check"}) {
		t.Errorf("completions %q", words)
	}
}
