package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCompletion(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	t.Setenv("CONFIGURATION_DIRECTORY", t.TempDir())
	t.Setenv("CACHE_DIRECTORY", t.TempDir())
	for args, want := range map[string]string{
		"models pull ":             "large-v3-turbo",
		"models use ":              "",
		"transcribe --format ":     "verbose_json",
		"transcribe --language ":   "german",
		"config set ":              "transcription.language",
		"config set models.mirror": "models.mirror",
	} {
		words := append([]string{"__complete"}, strings.Split(args, " ")...)
		var out bytes.Buffer
		code := run(context.Background(), words, &out, io.Discard)
		if code != exitOK || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d, offers %q; want %q among them", args, code, out.String(), want)
		}
		if args == "models use " && strings.Contains(out.String(), "tiny") {
			t.Errorf("%s: offers a model that is not here: %q", args, out.String())
		}
	}
}

func TestSpoolInput(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	path, err := spoolInput(strings.NewReader("sound"))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "sound" {
		t.Errorf("spooled %q, %v", data, err)
	}
	os.Remove(path)
	broken := errors.New("broken")
	if _, err := spoolInput(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
