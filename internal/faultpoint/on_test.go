//go:build faults

package faultpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func faults(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(variable, file)
	return file
}

func TestALineHoldsOnce(t *testing.T) {
	file := faults(t, "other crash\nhere slow 30ms\nhere slow 40ms\n")
	for _, want := range []struct {
		took time.Duration
		rest string
	}{{30 * time.Millisecond, "other crash\nhere slow 40ms\n"}, {40 * time.Millisecond, "other crash\n"}, {0, "other crash\n"}} {
		start := time.Now()
		Here("here")
		if took := time.Since(start); took < want.took {
			t.Errorf("took %v, want %v", took, want.took)
		}
		if data, err := os.ReadFile(file); err != nil || string(data) != want.rest {
			t.Errorf("left %q, %v; want %q", data, err, want.rest)
		}
	}
}

func TestNoFileNoFault(t *testing.T) {
	Here("here")
	t.Setenv(variable, filepath.Join(t.TempDir(), "none"))
	Here("here")
}

// TestCrash runs this test program again, which kills itself once.
func TestCrash(t *testing.T) {
	if os.Getenv("FAULTPOINT_CHILD") != "" {
		Here("here")
		return
	}
	faults(t, "here crash\n")
	child := func() error {
		c := exec.Command(os.Args[0], "-test.run=^TestCrash$")
		c.Env = append(os.Environ(), "FAULTPOINT_CHILD=1")
		return c.Run()
	}
	var exit *exec.ExitError
	if err := child(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the first run ended with %v, want a kill", err)
	}
	if err := child(); err != nil {
		t.Errorf("the second run ended with %v", err)
	}
}
