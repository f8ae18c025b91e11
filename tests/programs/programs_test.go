//go:build e2e

package programs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/tests/appliance"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := appliance.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, o appliance.Options) *appliance.Appliance {
	t.Helper()
	a, err := appliance.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a
}

// said is one run of the CLI.
type said struct {
	out, err string
	code     int
}

// cli runs the CLI with a's directories; a nil a has none that runs.
func cli(t *testing.T, a *appliance.Appliance, args ...string) said {
	t.Helper()
	slot := filepath.Join(root(t), "build", "slot")
	cmd := exec.CommandContext(t.Context(), filepath.Join(slot, "bin", "whisper-appliance"), args...)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+dir, "WHISPER_APPLIANCE_MODELS_DEFAULT=tiny",
		"WHISPER_APPLIANCE_MODELS_DIRECTORY="+filepath.Join(root(t), "build", "models"))
	if a != nil {
		cmd.Env = append(cmd.Env, "WHISPER_APPLIANCE_URL="+a.URL, "WHISPER_APPLIANCE_KEY="+a.Key)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

func reference(t *testing.T) (path, text string) {
	t.Helper()
	dir := filepath.Join(root(t), "tests", "testdata")
	data, err := os.ReadFile(filepath.Join(dir, "reference.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "reference.wav"), strings.TrimSpace(string(data))
}

// TestVersions: every program prints the version of the file VERSION, the
// commit and its date.
func TestVersions(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root(t), "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(data))
	slot := filepath.Join(root(t), "build", "slot")
	loader := []string{filepath.Join(root(t), "tests", "loader.sh"), filepath.Join(slot, "lib", "engine")}
	lines := map[string]string{}
	for program, command := range map[string][]string{
		"whisper-appliance":        nil,
		"whisper-appliance-server": nil,
		"whisper-appliance-decode": nil,
		"whisper-appliance-engine": loader,
	} {
		command = append(command, filepath.Join(slot, "bin", program), "--version")
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output()
		if err != nil {
			t.Errorf("%s --version: %v", program, err)
			continue
		}
		command[len(command)-1] = "version"
		if again, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output(); err != nil || !bytes.Equal(again, out) {
			t.Errorf("%s version: %q, %v; --version: %q", program, again, err, out)
		}
		rest, ok := strings.CutPrefix(strings.TrimSpace(string(out)), program+" "+version)
		if !ok || !strings.Contains(rest, "commit ") || !strings.Contains(rest, " of 20") {
			t.Errorf("%s --version: %q", program, out)
		}
		lines[rest] = program
	}
	if len(lines) != 1 {
		t.Errorf("the programs are not of one build: %v", lines)
	}
}

func TestCLIThroughTheServerAndAlone(t *testing.T) {
	clip, want := reference(t)
	a := start(t, appliance.Options{})
	for name, through := range map[string]*appliance.Appliance{"through the server": a, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			got := cli(t, through, "transcribe", clip)
			if got.code != 0 || got.out != want+"\n" || got.err != "" {
				t.Errorf("transcribe: %+v", got)
			}
			got = cli(t, through, "transcribe", "--format", "words", "--language", "english", clip)
			first := strings.ToLower(strings.Fields(want)[0])
			if got.code != 0 || !strings.Contains(strings.ToLower(got.out), first) || strings.Count(got.out, "\n") < len(strings.Fields(want)) {
				t.Errorf("words: %+v", got)
			}
		})
	}
}

// TestCLIDoorsAgree: every format is the same, byte for byte, with and without a server.
func TestCLIDoorsAgree(t *testing.T) {
	clip, _ := reference(t)
	a := start(t, appliance.Options{})
	for _, format := range []string{"txt", "json", "verbose_json", "srt", "vtt", "tsv", "lrc"} {
		through, alone := cli(t, a, "transcribe", "-f", format, clip), cli(t, nil, "transcribe", "-f", format, clip)
		if through.code != 0 || through.out != alone.out {
			t.Errorf("%s: %+v through the server, %+v alone", format, through, alone)
		}
	}
}

func TestCLIRefusals(t *testing.T) {
	clip, _ := reference(t)
	a := start(t, appliance.Options{})
	dir := t.TempDir()
	empty, text := filepath.Join(dir, "empty.wav"), filepath.Join(dir, "text.mp3")
	there := filepath.Join(dir, "there.txt")
	for path, data := range map[string]string{empty: "", text: strings.Repeat("not a sound\n", 50), there: "mine"} {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"transcribe", 64, "at least 1 arg"},
		{"transcribe --nonsense " + clip, 64, "--nonsense"},
		{"transcribe --format doc " + clip, 65, "verbose_json"},
		{"transcribe " + filepath.Join(dir, "none.wav"), 66, "no such file"},
		{"transcribe " + empty, 65, "empty"},
		{"transcribe " + text, 65, "try:"},
		{"transcribe --model none " + clip, 66, "none"},
		{"transcribe --model large-v1 " + clip, 66, "models pull large-v1"},
		{"transcribe --language klingon " + clip, 65, "klingon"},
		{"transcribe --temperature 7 " + clip, 65, "0 to 1"},
		{"transcribe --output " + there + " " + clip, 75, "--force"},
		{"transcribe --output " + there + " " + clip + " " + clip, 64, "directory"},
		{"models pull nonsense", 66, "nonsense"},
		{"models rm tiny", 75, "in use"},
		{"nonsense", 64, "unknown command"},
	} {
		for name, through := range map[string]*appliance.Appliance{"server": a, "alone": nil} {
			got := cli(t, through, strings.Fields(tc.args)...)
			if got.code != tc.code || !strings.Contains(got.err, tc.says) {
				t.Errorf("%s, %s: exit %d, %q; want %d and %q", tc.args, name, got.code, got.err, tc.code, tc.says)
			}
		}
	}
	if data, err := os.ReadFile(there); err != nil || string(data) != "mine" {
		t.Errorf("the file that was there holds %q, %v", data, err)
	}
	if got := cli(t, nil, "status"); got.code != 69 {
		t.Errorf("status without a server: %+v", got)
	}
	wrong := start(t, appliance.Options{})
	wrong.Key = "wa_wrong"
	if got := cli(t, wrong, "transcribe", clip); got.code != 77 {
		t.Errorf("a wrong key: %+v", got)
	}
}

func TestCLIManyFiles(t *testing.T) {
	clip, want := reference(t)
	dir := t.TempDir()
	got := cli(t, nil, "transcribe", "--format", "srt", "--output", dir, clip, filepath.Join(dir, "none.wav"))
	if got.code != 66 || !strings.Contains(got.err, "none.wav") {
		t.Errorf("one file is missing: %+v", got)
	}
	data, err := os.ReadFile(filepath.Join(dir, "reference.srt"))
	// It is laid out in lines for people.
	if err != nil || !strings.Contains(strings.ReplaceAll(string(data), "\n", " "), want) || !strings.HasPrefix(string(data), "1\n00:00:00,") {
		t.Errorf("reference.srt: %q, %v", data, err)
	}
}
