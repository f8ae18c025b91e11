package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// TestConfigCheckLooksAtWhatIsNamed: right in form is not right.
func TestConfigCheckLooksAtWhatIsNamed(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for key, toml := range map[string]string{
		"tls.certificate":        "[tls]\ncertificate = \"" + nowhere + "\"\nkey = \"" + nowhere + "\"\n",
		"models.default":         "[models]\ndefault = \"nosuch\"\n",
		"transcription.language": "[transcription]\nlanguage = \"zz\"\n",
		"decode.ffmpeg":          "[decode]\nffmpeg = \"" + nowhere + "\"\n",
		"models.directory":       "[models]\ndirectory = \"" + nowhere + "\"\n",
	} {
		b := newBench(t)
		b.write(t, b.paths.Config, toml)
		_, err := b.run("config check")
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.BadInput || f.Field != key {
			t.Errorf("%s: config check said %v", key, err)
		}
	}
	b := newBench(t)
	b.write(t, b.paths.Config, "[models]\ndefault = \"small\"\n[transcription]\nlanguage = \"de\"\n")
	if out, err := b.run("config check"); err != nil || !strings.Contains(out, "is right") {
		t.Errorf("a model to be fetched, and a language: %q, %v", out, err)
	}
}

func TestConfigSetRefusesWhatWouldNotWork(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{
		"config set tls.certificate /no/cert.pem tls.key /no/key.pem",
		"config set models.default nosuch",
		"config set transcription.language zz",
	} {
		if _, err := b.run(line); fault.KindOf(err) != fault.BadInput {
			t.Errorf("%s: %v, want a refusal", line, err)
		}
	}
	if out, err := b.run("config set transcription.language de"); err != nil || !strings.Contains(out, "at once") {
		t.Errorf("a good one: %q, %v", out, err)
	}
}
