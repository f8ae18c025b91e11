package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/environment"
)

// TestServerLog: in a container image every entry says where it comes from,
// and the level follows its variable.
func TestServerLog(t *testing.T) {
	var b bytes.Buffer
	var level slog.LevelVar
	docker := environment.Environment{Deployment: environment.Docker, Container: "docker", ID: "0123456789ab", Profile: "staging"}
	log, err := serverLog(&b, config.Log{Level: "warn", Format: "auto"}, "", &level, docker, "a")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("too little")
	level.Set(slog.LevelInfo)
	log.Info("disk", "a", 1)
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	for key, want := range map[string]any{"msg": "disk", "component": "server", "slot": "a", "environment": "docker",
		"profile": "staging", "container_id": "0123456789ab", "a": 1.0} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
	if got["version"] == "" {
		t.Error("no version")
	}
}

func TestServerLogByHand(t *testing.T) {
	var b bytes.Buffer
	log, err := serverLog(&b, config.Log{Level: "info", Format: "auto"}, "", new(slog.LevelVar), environment.Environment{}, "")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("disk", "a", 1)
	if !strings.HasSuffix(b.String(), "level=INFO msg=disk a=1\n") {
		t.Errorf("%q", b.String())
	}
	for _, c := range []config.Log{{Level: "loud", Format: "auto"}, {Level: "info", Format: "xml"}} {
		if _, err := serverLog(io.Discard, c, "", new(slog.LevelVar), environment.Environment{}, ""); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
