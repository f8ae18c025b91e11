package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// bench is an app below a temporary directory, and what it printed.
type bench struct {
	*app
	out, errOut bytes.Buffer
}

func newBench(t *testing.T) *bench {
	dir := t.TempDir()
	b := &bench{}
	b.app = &app{
		paths: paths.Paths{
			Config:    filepath.Join(dir, "config", "config.toml"),
			ConfigDir: filepath.Join(dir, "config", "config.d"),
			Keys:      filepath.Join(dir, "config", "keys.toml"),
			Settings:  filepath.Join(dir, "state", "settings.toml"),
		},
		out:    &b.out,
		errOut: &b.errOut,
	}
	return b
}

// run runs one command line and gives what it printed to standard output.
func (b *bench) run(line string) (string, error) {
	b.out.Reset()
	b.errOut.Reset()
	b.jsonOut = false
	root := &cobra.Command{Use: "whisper-appliance", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(configCommand(b.app), keysCommand(b.app))
	root.SetArgs(strings.Fields(line))
	root.SetOut(&b.out)
	root.SetErr(&b.errOut)
	err := root.Execute()
	return b.out.String(), err
}

func (b *bench) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConfigCommands(t *testing.T) {
	b := newBench(t)
	b.environ = []string{"AUDIO_CHUNK_SIZE=1"}
	b.write(t, b.paths.Config, "[server]\nlisten = \":5002\"\n")
	steps := []struct{ line, want string }{
		{"config check", "The configuration is right."},
		{"config check", b.paths.Settings + ": not there"},
		{"config check", "note: AUDIO_CHUNK_SIZE has no effect"},
		{"config set models.default tiny engine.threads 2", "saved to " + b.paths.Settings},
		{"config check", b.paths.Settings + ": read"},
		{"config show", `":5002"`},
		{"config show", "config.toml:2"},
		{"config show", "note: AUDIO_CHUNK_SIZE"},
		{"config reference", "#listen = \":5001\""},
	}
	for _, step := range steps {
		if out, err := b.run(step.line); err != nil || !strings.Contains(out, step.want) {
			t.Errorf("%s: %v, want %s in\n%s", step.line, err, step.want, out)
		}
	}
	out, err := b.run("config show --json")
	var report config.Report
	if err != nil || json.Unmarshal([]byte(out), &report) != nil {
		t.Fatalf("config show --json: %v\n%s", err, out)
	}
	if v, _ := report.Find("models.default"); v.Value != "tiny" || v.Origin != "settings.toml" || v.Locked {
		t.Errorf("models.default = %+v", v)
	}
	if !report.Locked("server.listen") || report.Locked("engine.threads") || len(report.Notes) != 1 {
		t.Errorf("report = %+v", report)
	}
}

func TestConfigCommandsRefuse(t *testing.T) {
	b := newBench(t)
	b.write(t, b.paths.Config, "[server]\nlisten = \":5002\"\n")
	tests := []struct{ line, code, want string }{
		{"config set", "usage", "0 words"},
		{"config set log.level", "usage", "1 words"},
		{"config set log.level info log.level warn", "usage", "log.level was given twice"},
		{"config set server.listen :1", "locked", "server.listen is fixed by config.toml:2"},
		{"config set log.level loud", "bad_value", "one of debug, info, warn, error"},
		{"config set log.levl info", "unknown_key", "did you mean log.level?"},
	}
	for _, tt := range tests {
		_, err := b.run(tt.line)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.line, err, tt.want)
		}
	}
	if _, err := os.Stat(b.paths.Settings); err == nil {
		t.Error("something was saved")
	}
	b.write(t, b.paths.Config, "[server]\nlisten = 1\nlisen = 2\n")
	for _, line := range []string{"config check", "config show", "config set log.level info", "keys list", "keys add x", "keys remove x"} {
		_, err := b.run(line)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != "bad_config" || !strings.Contains(err.Error(), "config.toml:3:") {
			t.Errorf("%s with a broken file: %v", line, err)
		}
	}
}

func TestKeysCommands(t *testing.T) {
	b := newBench(t)
	if out, err := b.run("keys list --json"); err != nil || out != "[]\n" {
		t.Errorf("an empty list: %q, %v", out, err)
	}
	plain, err := b.run("keys add laptop")
	if err != nil || !strings.HasPrefix(plain, "wa_") || strings.Count(plain, "\n") != 1 || !strings.Contains(b.errOut.String(), "only time") {
		t.Fatalf("keys add: %q, %v", plain, err)
	}
	out, err := b.run("keys add boss --scope transcribe,admin --json")
	var made struct {
		Name, Key string
		Scopes    []string
	}
	if err != nil || json.Unmarshal([]byte(out), &made) != nil || made.Name != "boss" || !strings.HasPrefix(made.Key, "wa_") || len(made.Scopes) != 2 {
		t.Errorf("keys add --json: %v\n%s", err, out)
	}
	if info, err := os.Stat(b.paths.Keys); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys file: %v, %v", info, err)
	}
	if out, err = b.run("keys list"); err != nil || !strings.Contains(out, "laptop  transcribe") || !strings.Contains(out, "admin,transcribe") {
		t.Errorf("keys list: %v\n%s", err, out)
	}
	if out, err = b.run("keys list --json"); err != nil || strings.Contains(out, "sha256") || strings.Contains(out, strings.TrimSpace(plain)) {
		t.Errorf("keys list --json: %v\n%s", err, out)
	}
	for line, want := range map[string]fault.Kind{
		"keys add laptop":          fault.Conflict,
		"keys add other --scope x": fault.BadInput,
		"keys add sp@ce":           fault.BadInput,
		"keys add other --scope=":  fault.BadInput,
		"keys remove nobody":       fault.NotFound,
	} {
		if _, err := b.run(line); err == nil || fault.KindOf(err) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := b.run("keys remove laptop"); err != nil {
		t.Error(err)
	}
	if out, _ := b.run("keys list"); strings.Contains(out, "laptop") || !strings.Contains(out, "boss") {
		t.Errorf("after the removal:\n%s", out)
	}
}

func TestKeysFileSetting(t *testing.T) {
	b := newBench(t)
	elsewhere := filepath.Join(t.TempDir(), "new", "keys")
	b.environ = []string{"WHISPER_APPLIANCE_AUTH_KEYS_FILE=" + elsewhere}
	if _, err := b.run("keys add x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
}
