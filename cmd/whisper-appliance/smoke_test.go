package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/smoke"
)

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		":5001": "127.0.0.1:5001", "[::]:5001": "127.0.0.1:5001", "0.0.0.0:80": "127.0.0.1:80",
		"192.0.2.7:5001": "192.0.2.7:5001", "speech.lan:5001": "speech.lan:5001",
		":0": "", "not an address": "", "5001": "",
	} {
		if got := reachable(listen); got != want {
			t.Errorf("%q is asked at %q, want %q", listen, got, want)
		}
	}
}

// TestSmokeOfNoServer: a machine without a server fails, says which check, and
// what to do.
func TestSmokeOfNoServer(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, errOut: &out}
	err := a.smoke(t.Context(), smoke.Check{Socket: filepath.Join(t.TempDir(), "none"), Wait: time.Nanosecond})
	if code := a.exitCode(err); code != exitError {
		t.Errorf("exit code %d, want %d", code, exitError)
	}
	for _, want := range []string{"failed   answers", "skipped  version", "failed in ", "try: `whisper-appliance doctor`"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
