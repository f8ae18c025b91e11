package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestRun(t *testing.T) {
	t.Setenv("LISTEN_FDS", "")
	absent := filepath.Join(t.TempDir(), "absent.mp3")
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // a part of each
	}{
		{"version", []string{"--version"}, exitOK, program, ""},
		{"help", []string{"--help"}, exitOK, "", "max-duration"},
		{"unknown flag", []string{"--loud"}, exitUsage, "", "loud"},
		{"argument", []string{"talk.mp3"}, exitUsage, "", "takes no arguments"},
		{"bad limit", []string{"--timeout", "soon"}, exitUsage, "", "soon"},
		{"no socket", nil, exitError, "", "--file FILE"},
		{"no such file", []string{"--file", absent}, exitError, "", "absent.mp3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := exitCode(run(t.Context(), tt.args, &stdout, &stderr), &stderr)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("exit %d\nstdout: %s\nstderr: %s\nwant %d, %q, %q", code, &stdout, &stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestSocketOfAnotherProcess(t *testing.T) {
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	if _, err := inherited(); err == nil {
		t.Error("took a descriptor that was meant for another process")
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{flag.ErrHelp, exitOK},
		{fmt.Errorf("flags: %w", errUsage), exitUsage},
		{errors.New("anything"), exitError},
		{fault.New(fault.Unavailable, "decoder_missing", "no ffmpeg"), exitUnavailable},
	} {
		if got := exitCode(tt.err, &bytes.Buffer{}); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}
