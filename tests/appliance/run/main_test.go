package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"whisper-appliance/tests/appliance"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"--"}, {"-no-such-flag", "true"}, {"-env", "NOVALUE", "true"}} {
		var out bytes.Buffer
		if code := exitCode(run(t.Context(), args, nil, &out, &out), &out); code != exitUsage {
			t.Errorf("%v: exit code %d, want %d", args, code, exitUsage)
		}
	}
}

func TestCommandSeesTheAppliance(t *testing.T) {
	a := &appliance.Appliance{URL: "http://u", HTTPS: "https://u", Key: "k", AdminKey: "ak", State: "s", Run: "r", PID: 7, MaxUpload: 9}
	var out, log bytes.Buffer
	script := `cat; echo "$WA_URL $WA_HTTPS_URL $WA_KEY $WA_ADMIN_KEY $WA_STATE $WA_RUN $WA_PID $WA_MAX_UPLOAD"`
	if err := command(t.Context(), a, []string{"sh", "-c", script}, strings.NewReader("input "), &out, &log); err != nil {
		t.Fatal(err)
	}
	if want := "input http://u https://u k ak s r 7 9\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

func TestExitCodes(t *testing.T) {
	a := &appliance.Appliance{}
	for _, c := range []struct {
		name    string
		command []string
		code    int
		words   string
	}{
		{"success", []string{"true"}, 0, ""},
		{"the command's own", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"killed", []string{"sh", "-c", "kill -9 $$"}, exitError, "sh: signal: killed"},
		{"no such command", []string{"no-such-command-here"}, exitError, "no-such-command-here"},
	} {
		var words bytes.Buffer
		err := command(t.Context(), a, c.command, nil, &words, &words)
		if code := exitCode(err, &words); code != c.code || !strings.Contains(words.String(), c.words) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", c.name, code, &words, c.code, c.words)
		}
	}
	var words bytes.Buffer
	if code := exitCode(errors.New("stop the appliance: exit status 7"), &words); code != exitError || words.Len() == 0 {
		t.Errorf("a failed stop: exit code %d, %q", code, &words)
	}
}

func TestMaxUpload(t *testing.T) {
	for variable, want := range map[string]int64{"": 64 << 20, "2000000": 2000000, "much": 64 << 20, "-1": 64 << 20} {
		if got := maxUpload(variable); got != want {
			t.Errorf("%q: %d, want %d", variable, got, want)
		}
	}
}
