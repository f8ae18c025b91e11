package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/doctor"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/paths"
)

// lone is the command on a machine where nothing of the appliance runs.
func lone(t *testing.T) (*app, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	var out bytes.Buffer
	return &app{
		paths: paths.Paths{Kind: paths.Standalone, State: dir, Models: dir, Run: dir, TLS: dir,
			APISocket: filepath.Join(dir, "api.sock"), Config: filepath.Join(dir, "config.toml"), Proc: filepath.Join(dir, "proc")},
		out: &out, errOut: &out,
	}, &out
}

func TestDiagnoseWithoutAServer(t *testing.T) {
	a, out := lone(t)
	file := filepath.Join(a.paths.State, "b.tar.gz")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.diagnose(ctx, file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("the bundle is %v (%v)", info, err)
	}
	for _, want := range []string{"config.json", "doctor.json", "no server answers", "Written to " + file} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if err := a.diagnose(ctx, filepath.Join(a.paths.State, "none", "b.tar.gz")); err == nil {
		t.Error("a bundle was written where no directory is")
	}
}

// TestABundleIsNotNamedAfterTheMachine: what is taken out of the bundle must not
// stand on it.
func TestABundleIsNotNamedAfterTheMachine(t *testing.T) {
	a, out := lone(t)
	t.Chdir(t.TempDir())
	if err := a.diagnose(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if !regexp.MustCompile(`^whisper-appliance-diagnose-\d{8}-\d{6}\.tar\.gz$`).MatchString(files[0]) || !strings.Contains(out.String(), files[0]) {
		t.Errorf("it is called %s", files[0])
	}
}

// sick is a doctor whose settings are wrong, which is a problem.
func sick(a *app) *doctor.Doctor {
	return &doctor.Doctor{
		Paths: a.paths, Now: time.Now, Free: durable.Free, Devices: a.paths.State,
		Wrong: os.ErrInvalid, FFmpeg: func(context.Context, ...string) (string, error) { return "ffmpeg version 5", nil },
	}
}

func TestDoctorTellsOfProblems(t *testing.T) {
	a, out := lone(t)
	d := sick(a)
	err := a.examine(t.Context(), d, false, true)
	if code := a.exitCode(err); code != exitError {
		t.Errorf("exit code %d, want %d", code, exitError)
	}
	if text := out.String(); !strings.Contains(text, "problem  config") || strings.Contains(text, "advice") {
		t.Errorf("--quiet prints\n%s", text)
	}
	out.Reset()
	a.jsonOut = true
	if err := a.examine(t.Context(), d, false, false); err == nil {
		t.Error("no error with --json")
	}
	var answer struct {
		Verdict  string           `json:"verdict"`
		Findings []doctor.Finding `json:"findings"`
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil || answer.Verdict != "problem" || len(answer.Findings) < 10 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDoctorFixTakesRoot(t *testing.T) {
	a, _ := lone(t)
	if code := a.exitCode(a.examine(t.Context(), sick(a), true, false)); code != exitNoPerm {
		t.Errorf("exit code %d, want %d", code, exitNoPerm)
	}
}

func TestSilenceIsAFileThatADecoderMustRead(t *testing.T) {
	wav := silence()
	if len(wav) != 44+1600 || string(wav[:4]) != "RIFF" || string(wav[36:40]) != "data" {
		t.Errorf("%d bytes, %q", len(wav), wav[:44])
	}
}
