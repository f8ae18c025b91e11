package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
)

// verbs are all commands that do something, with arguments that fit.
func verbs() map[string]string {
	return map[string]string{
		"check": "", "download": "", "apply": "", "install": "x.wa", "rollback": "", "commit": "", "cancel": "", "restart": "", "status": "", "history": "",
		"pin": "", "unpin": "", "quarantine list": "", "quarantine clear": "", "policy get": "", "policy set": "--channel beta", "deploy": "", "switch": "a",
		"recover": "", "scrub": "", "auto": "", "daemon": "", "forget-slots": "",
	}
}

// readers are the verbs that everybody may use.
func readers() []string { return []string{"status", "history", "quarantine list", "policy get"} }

func TestEveryVerbHasHelp(t *testing.T) {
	b := newBench(t)
	count := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if !sub.Runnable() && !sub.HasSubCommands() || sub.Name() == "help" || sub.Name() == "completion" {
				continue
			}
			count++
			path := strings.TrimPrefix(sub.CommandPath(), "whisper-appliance update ")
			code := b.run(append(strings.Fields(path), "--help")...)
			if code != exitOK || !strings.Contains(b.out.String(), "whisper-appliance update "+path) || len(sub.Short) < 10 {
				t.Errorf("%s --help: %d\n%s%s", path, code, &b.out, &b.err)
			}
			if _, listed := verbs()[path]; !listed && !sub.HasSubCommands() {
				t.Errorf("%s is not among the verbs of these tests", path)
			}
			walk(sub)
		}
	}
	walk(rootCommand(b.app()))
	if want := len(verbs()) + 2; count != want { // quarantine and policy have verbs below them
		t.Errorf("%d commands, want %d", count, want)
	}
	if b.must(""); !strings.Contains(b.out.String(), "Exit codes: 0 done") || strings.Contains(b.out.String(), "daemon") {
		t.Errorf("without a verb:\n%s", &b.out)
	}
}

func TestUsage(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{
		"bogus", "quarantine bogus", "policy bogus", "check now", "apply 1.0.0 2.0.0", "apply 1.0.0 --version 2.0.0", "install", "install a.wa b.wa", "switch", "switch a b",
		"status --bogus", "deploy --within soon", "deploy --within 0s", "switch a --within -1s", "policy set", "history -n -1", "history --number many", "--door window check",
		"recover extra", "daemon extra",
	} {
		code := b.run(strings.Fields(line)...)
		if code != exitUsage || !strings.HasPrefix(b.err.String(), "whisper-appliance: ") || b.out.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", line, code, &b.err)
		}
	}
	if b.run("install", "--json"); document(t, b.err.Bytes()).(map[string]any)["error"] == "" {
		t.Errorf("no words: %s", &b.err)
	}
	for line, code := range map[string]int{"switch golden": exitData, "switch c": exitData, "pin x": exitData, "policy set --channel nightly": exitData} {
		if got := b.run(strings.Fields(line)...); got != code || b.err.Len() == 0 {
			t.Errorf("%s: exit code %d, %s", line, got, &b.err)
		}
	}
	if b.run("switch", "golden"); !strings.Contains(b.err.String(), "package's own") || !strings.Contains(b.err.String(), "slot deploy") {
		t.Errorf("switch golden: %s", &b.err)
	}
}

func TestNotInstalled(t *testing.T) {
	b := newBench(t)
	b.paths = paths.Paths{Kind: paths.Development}
	b.euid = 1000
	for verb, args := range verbs() {
		a := b.app()
		a.machine = newApp(nil, nil).machine
		b.out.Reset()
		b.err.Reset()
		code := a.run(t.Context(), strings.Fields(verb+" "+args))
		if code != exitNoInput || !strings.Contains(b.err.String(), "not installed") || !strings.Contains(b.err.String(), "try: ") {
			t.Errorf("%s: exit code %d, %s", verb, code, &b.err)
		}
	}
}

func TestNotRoot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must("deploy")
	b.euid = 1000
	for verb, args := range verbs() {
		code, want := b.run(strings.Fields(verb+" "+args)...), exitNoPerm
		for _, r := range readers() {
			if r == verb {
				want = exitOK
			}
		}
		if code != want || want == exitNoPerm && !strings.Contains(b.err.String(), "try: sudo whisper-appliance update "+verb+"\n") {
			t.Errorf("%s: exit code %d, %s", verb, code, &b.err)
		}
	}
}

// TestExitCodes: what postinst, the timer and scripts tell apart.
func TestExitCodes(t *testing.T) {
	b := newBench(t)
	inner := fault.New(fault.Busy, "y", "y")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{fault.New(fault.Unavailable, slot.CandidateFailed, "x").Because(inner), exitUnavailable},
		{fault.New(fault.Unavailable, slot.RolledBack, "x"), exitUnavailable},
		{fault.New(fault.Unavailable, "rehearsal_failed", "x"), exitUnavailable},
		{fault.New(fault.Unavailable, "too_slow", "x"), exitUnavailable},
		{fault.New(fault.Unavailable, "source_unreachable", "x"), exitUnavailable},
		{errors.Join(fault.New(fault.Unavailable, slot.NotServing, "x"), inner), exitError},
		{fmt.Errorf("no way back comes up: %w", fault.New(fault.Unavailable, "job_failed", "x")), exitError},
		{fault.New(fault.Unavailable, "no_way_back", "x"), exitError},
		{fault.New(fault.Unavailable, "not_restarted", "x"), exitError},
		{fault.New(fault.Unavailable, "no_systemd", "x"), exitError},
		{fault.New(fault.Conflict, "bad_link", "x"), exitError},
		{fault.New(fault.Internal, "x", "x"), exitError},
		{fault.New(fault.Busy, "slots_busy", "x"), exitBusy},
		{fault.New(fault.Busy, "trial_running", "x"), exitBusy},
		{fault.New(fault.NoSpace, "disk_full", "x"), exitNoSpace},
		{fault.New(fault.NotFound, "no_such_release", "x"), exitNoInput},
		{fault.New(fault.BadInput, "bad_bundle", "x"), exitData},
		{fault.New(fault.Unsupported, "wrong_arch", "x"), exitData},
		{fault.New(fault.BadInput, "bad_config", "x"), exitConfig},
		{fault.New(fault.Forbidden, "need_root", "x"), exitNoPerm},
		{fault.New(fault.Canceled, "canceled", "x"), exitCanceled},
		{usageError{errors.New("x")}, exitUsage},
		{errors.New("x"), exitError},
	} {
		a := b.app()
		b.err.Reset()
		if got := a.exitCode(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
		if tt.err != nil && !strings.Contains(b.err.String(), strings.Split(tt.err.Error(), "\n")[0]) {
			t.Errorf("%v: printed %q", tt.err, &b.err)
		}
		b.err.Reset()
		a.jsonOut = true
		if a.exitCode(tt.err); tt.err != nil && document(t, b.err.Bytes()).(map[string]any)["error"] != tt.err.Error() {
			t.Errorf("%v: printed %q", tt.err, &b.err)
		}
	}
}

// TestWhatACancelledCommandSays: what could not be cancelled any more says how
// it ended.
func TestWhatACancelledCommandSays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := outcome(ctx, io.EOF); err != io.EOF {
		t.Errorf("not cancelled: %v", err)
	}
	cancel()
	if err := outcome(ctx, nil); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	if err := outcome(ctx, io.EOF); fault.KindOf(err) != fault.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	ended := fault.New(fault.Unavailable, slot.NotServing, "x")
	if err := outcome(ctx, ended); err != error(ended) {
		t.Errorf("ended: %v", err)
	}
}

// TestJSON: with --json each verb that goes well prints one document.
func TestJSON(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must("deploy")
	b.publish("9.1.0", "news")
	lines := []string{
		"deploy", "check", "download", "status", "history", "history --analysis", "policy get", "policy set --window 01:00-02:00 --days sat,sun", "pin", "unpin",
		"quarantine list", "quarantine clear", "scrub", "recover", "auto", "apply 9.1.0", "switch a", "rollback", "install " + b.bundle("9.1.0"),
	}
	for _, line := range lines {
		if code := b.run(append(strings.Fields(line), "--json")...); code != exitOK {
			t.Errorf("%s: exit code %d, %s", line, code, &b.err)
			continue
		}
		if document(t, b.out.Bytes()) == nil || b.err.Len() > 0 {
			t.Errorf("%s printed %q and %q", line, &b.out, &b.err)
		}
	}
	if b.run("commit", "--json"); document(t, b.err.Bytes()).(map[string]any)["code"] != "no_trial" || b.out.Len() > 0 {
		t.Errorf("a failure: %q and %q", &b.out, &b.err)
	}
}

// TestOneWordInTheJournal: in a unit a failure is one entry of the journal; what
// a unit has started, and reads itself, gets words.
func TestOneWordInTheJournal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if journaled(f, "1:2") || journaled(f, "") || journaled(&bytes.Buffer{}, "1:2") {
		t.Error("it is no stream to the journal")
	}
	b := newBench(t)
	a := b.app()
	var log bytes.Buffer
	a.log, a.verb = slog.New(slog.NewTextHandler(&log, nil)), "v"
	a.errOut, a.journal = f, streamOf(t, f)
	if code := a.exitCode(fault.New(fault.Busy, "c", "words").Try("hint")); code != exitBusy {
		t.Errorf("exit code %d", code)
	}
	said, err := os.ReadFile(f.Name())
	if err != nil || len(said) > 0 || !strings.Contains(log.String(), "words") || !strings.Contains(log.String(), "hint") {
		t.Errorf("words %q, %v; log %s", said, err, &log)
	}
}
