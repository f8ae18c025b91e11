package appliance

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// eventually polls cond: settings are looked at twice a second at most.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

func TestSettingsFollowTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.toml")
	var log bytes.Buffer
	s, err := LoadSettings(config.Sources{Settings: file})
	if err != nil {
		t.Fatal(err)
	}
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	if got := s.Current().Models.Default; got != config.Default().Models.Default {
		t.Errorf("without a file the model is %q", got)
	}
	if err := s.Save("models.default", "tiny"); err != nil {
		t.Fatal(err)
	}
	if got := s.Current().Models.Default; got != "tiny" {
		t.Errorf("at once after Save the model is %q, want tiny", got)
	}
	// Another process saves: the CLI, say.
	if err := config.SaveSettings(file, map[string]string{"models.default": "small"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the model that another process saved", func() bool { return s.Current().Models.Default == "small" })
	if got := s.Report().Origin("models.default"); !strings.Contains(got, "settings.toml") {
		t.Errorf("origin %q", got)
	}
	// Somebody breaks the file: the last good settings stay, and it is said.
	if err := os.WriteFile(file, []byte("[models\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "word of the broken file", func() bool { s.Current(); return strings.Contains(log.String(), "not taken over") })
	if got := s.Current().Models.Default; got != "small" {
		t.Errorf("after the file broke the model is %q, want small", got)
	}
}

func TestSaveOfWhatIsFixedElsewhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings.toml")
	s, err := LoadSettings(config.Sources{Settings: file, Environ: []string{"WHISPER_APPLIANCE_MODELS_DEFAULT=base"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save("models.default", "tiny"); fault.KindOf(err) != fault.Conflict {
		t.Errorf("error %v, want a conflict: the environment wins", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was saved all the same")
	}
}

func TestCommandLines(t *testing.T) {
	dir := t.TempDir()
	p := paths.Paths{Slot: filepath.Join(dir, "slot"), Models: filepath.Join(dir, "models"), FFmpeg: filepath.Join(dir, "ffmpeg")}
	c := config.Default()
	c.Engine.Threads = 3
	engine := engineCommand(p, c, Store(p, c).Dir)
	for _, want := range [][]string{{"--models", p.Models}, {"--threads", "3"}} {
		i := slices.Index(engine, want[0])
		if i < 0 || engine[i+1] != want[1] {
			t.Errorf("engine command %q lacks %q", engine, want)
		}
	}
	if !slices.Contains(engine, "--lifeline") {
		t.Error("an engine without a lifeline outlives its server")
	}
	if got := decoderCommand(p, c); !slices.Equal(got[1:], []string{"--ffmpeg", p.FFmpeg}) {
		t.Errorf("decoder command %q", got)
	}
	c.Decode.FFmpeg, c.Models.Directory = "mine", "elsewhere"
	if got := decoderCommand(p, c); got[2] != "mine" {
		t.Errorf("decoder command %q: the setting must win", got)
	}
	if got := Store(p, c).Dir; got != "elsewhere" {
		t.Errorf("models in %q: the setting must win", got)
	}
}
