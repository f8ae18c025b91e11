package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// suites is tests/suite.sh in a directory with a Makefile of its own.
func suites(t *testing.T, args ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "suite.sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir, out := t.TempDir(), &bytes.Buffer{}
	makefile := "good:\n\t@echo 'p TestX: no sox' >>$$WA_SKIPS\nbad:\n\t@exit 3\nslow:\n\t@echo $$$$ >pid; sleep 60\n"
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte(makefile), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), script, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, out, out, time.Second
	return cmd, out
}

func TestSuites(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"good=5", 0, []string{"=== good: passed in", "suites: 1 passed, 0 failed", "skipped tests: 1\n  p TestX: no sox"}},
		{"one=5:good two=5:good", 0, []string{"suites: 2 passed", "skipped tests: 1\n"}}, // the same one
		{"good=5 bad=5 good=5", 1, []string{"bad: FAILED", "suites: 2 passed, 1 failed"}},
		{"slow=1", 1, []string{"slow: FAILED in ", "(budget 1 s, over its budget)"}},
	} {
		cmd, out := suites(t, strings.Fields(c.args)...)
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != c.code {
			t.Errorf("%s: %v, want exit code %d\n%s", c.args, err, c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, out)
			}
		}
	}
}

// TestSuitesStop: an interrupt ends the suite that runs and what it started.
func TestSuitesStop(t *testing.T) {
	cmd, out := suites(t, "slow=30", "good=5")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for deadline := time.Now().Add(5 * time.Second); pid == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		data, _ := os.ReadFile(filepath.Join(cmd.Dir, "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait() //nolint:errcheck // the exit code is looked at
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out.String(), "stopped") || strings.Contains(out.String(), "=== good") {
		t.Errorf("exit code %d, want 130\n%s", code, out)
	}
	if pid == 0 || running(pid) {
		t.Errorf("process %d of the suite is still there", pid)
	}
}

// running waits a moment for a process to go; a zombie has gone.
func running(pid int) bool {
	for range 100 {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(data), ") Z ") || syscall.Kill(pid, 0) != nil {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}
