package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/paths"
)

// runPaths runs the command alone, in a home of the test's.
func runPaths(t *testing.T, home string, args ...string) (string, error) {
	t.Helper()
	env := paths.System()
	env.Executable = func() (string, error) { return filepath.Join(home, "bin", "x"), nil }
	env.Getenv = func(name string) string {
		return map[string]string{"HOME": home, "TMPDIR": home, "PATH": os.Getenv("PATH")}[name]
	}
	p, err := paths.Find(env)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := pathsCommand(&app{paths: p, out: &out, errOut: &out})
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	err = c.Execute()
	return out.String(), err
}

func TestPaths(t *testing.T) {
	home := t.TempDir()
	out, err := runPaths(t, home)
	if err != nil || !strings.Contains(out, "spool") || !strings.Contains(out, home) || !strings.Contains(out, "environment HOME") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = runPaths(t, home, "--json")
	var list []paths.Entry
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) < 10 || list[0].Origin == "" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPathsCheck(t *testing.T) {
	home := t.TempDir()
	if out, err := runPaths(t, home, "--check"); err != nil || !strings.Contains(out, "VERDICT") || strings.Contains(out, "problem") {
		t.Errorf("a sound home: %v\n%s", err, out)
	}
	state := filepath.Join(home, ".local", "state", "whisper-appliance")
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runPaths(t, home, "--check")
	a := &app{errOut: &bytes.Buffer{}}
	if err == nil || a.exitCode(err) != exitError || !strings.Contains(out, "problem: spool "+state+"/spool: it is a file") || !strings.Contains(out, "try: move it away") {
		t.Errorf("a file in the way: %v\n%s", err, out)
	}
	out, err = runPaths(t, home, "--check", "--json")
	var findings []paths.Finding
	if err == nil || json.Unmarshal([]byte(out), &findings) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range findings {
		if f.Name == "spool" && (f.Verdict != paths.Problem || f.Kind != "file" || f.Hint == "") {
			t.Errorf("%+v", f)
		}
	}
}
