package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
)

// writeRelease makes a sealed release whose programs print the version.
func writeRelease(t *testing.T, dir, version string) {
	t.Helper()
	base, _, _ := strings.Cut(version, "+")
	for path, text := range map[string]string{
		"VERSION":                      base + "\n",
		"bin/whisper-appliance":        "whisper-appliance",
		"bin/whisper-appliance-server": "whisper-appliance-server",
		"bin/whisper-appliance-engine": "",
		"lib/engine/ld.so":             "whisper-appliance-engine",
		"share/doc/copyright":          "free",
	} {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "bin/") || strings.HasSuffix(path, ".so") {
			mode = 0o755
			text = "#!/bin/sh\necho '" + text + " " + version + " (commit c0ffee of 2026-01-02T03:04:05Z)'\n"
		}
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	_, err := slot.Seal(t.Context(), dir, slot.Info{Version: version, Commit: "c0ffee", Arch: runtime.GOARCH, Contract: slot.Contract})
	if err != nil {
		t.Fatal(err)
	}
}

// slotBench is an installed app with a golden release 9.0.0 and empty slots.
type slotBench struct {
	*bench
	site *site
}

func newSlotBench(t *testing.T) *slotBench {
	t.Helper()
	home := t.TempDir()
	b := &slotBench{bench: newBench(t)}
	b.paths = paths.Paths{
		Kind: paths.Installed, Slots: filepath.Join(home, "opt", "slots"), Current: filepath.Join(home, "opt", "current"),
		Stable: filepath.Join(home, "opt", "stable"), Golden: filepath.Join(home, "lib", "golden"), Updater: filepath.Join(home, "updater"),
		Shipped: filepath.Join(home, "units"), DpkgStatus: filepath.Join(home, "status"), APISocket: filepath.Join(home, "api.sock"),
	}
	b.paths.Slot, b.paths.SlotName = b.paths.Golden, slot.Golden
	writeRelease(t, b.paths.Golden, "9.0.0+dev")
	slots, err := b.slots()
	if err != nil {
		t.Fatal(err)
	}
	slots.Owned = os.Geteuid() == 0
	b.site = &site{slots: slots, idle: "systemd does not run here", tell: func(string, string) {}}
	return b
}

// command runs a line of the commands of this file.
func (b *slotBench) command(line string) (string, error) {
	b.out.Reset()
	b.errOut.Reset()
	b.jsonOut = false
	root := &cobra.Command{Use: program, SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(slotCommand(b.app), verifyCommand(b.app), versionCommand(b.app))
	root.SetArgs(strings.Fields(line))
	root.SetOut(&b.out)
	root.SetErr(&b.errOut)
	err := root.Execute()
	return b.out.String(), err
}

// standing is a systemd whose server always runs what the link names.
type standing struct {
	slots *slot.Slots
	proc  string
	state map[string]slot.State
	fail  error
	stays string // a unit that does not stop
	did   []string
}

func (u *standing) start(unit, dir string) error {
	u.did = append(u.did, unit)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	pid := len(u.did)
	at := filepath.Join(u.proc, string(rune('0'+pid)))
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	u.state[unit] = slot.State{Active: "active", PID: pid, Invocation: at}
	return errors.Join(u.fail, os.Symlink(filepath.Join(real, slot.ServerPath), filepath.Join(at, "exe")))
}

func (u *standing) Start(_ context.Context, unit string) error {
	if name, ok := strings.CutPrefix(unit, "next-"); ok {
		return u.start(unit, u.slots.Path(name))
	}
	return u.start(unit, u.slots.Current)
}
func (u *standing) Restart(ctx context.Context, unit string) error { return u.Start(ctx, unit) }
func (u *standing) Stop(_ context.Context, unit string) error {
	if unit == u.stays {
		return errors.New("it does not stop")
	}
	u.state[unit] = slot.State{Active: "inactive"}
	return nil
}
func (u *standing) ResetFailed(context.Context, string) error { return nil }
func (u *standing) State(_ context.Context, unit string) (slot.State, error) {
	if st, known := u.state[unit]; known {
		return st, nil
	}
	return slot.State{Active: "inactive"}, nil
}

// live gives the bench a systemd.
func (b *slotBench) live(t *testing.T) *standing {
	u := &standing{slots: b.site.slots, proc: t.TempDir(), state: map[string]slot.State{}}
	b.site.idle, b.site.swap = "", &slot.Switch{
		Slots: b.site.slots, Units: u, Service: "server", Proc: u.proc, Settle: 60 * time.Millisecond,
		Next:   func(name string) (string, string) { return "next-" + name, "door-" + name },
		Engine: func(name string) string { return "engine-" + name },
		Smoke:  func(context.Context, string) error { return nil },
	}
	return u
}

func (b *slotBench) wantServing(t *testing.T, name, number string) {
	t.Helper()
	list, err := b.site.slots.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if is := e.Name == name; e.Serving != is || e.Stable != is || is && (e.Version != number || e.State != slot.Ready) {
			t.Errorf("slot %+v; want %s to serve %s", e, name, number)
		}
	}
}

func TestDeployWithoutSystemd(t *testing.T) {
	b := newSlotBench(t)
	for i, want := range []deployed{
		{Slot: "a", Version: "9.0.0+dev", Commit: "c0ffee", Placed: true, Idle: b.site.idle},
		{Slot: "a", Version: "9.0.0+dev", Commit: "c0ffee", Before: "a", Already: true, Idle: b.site.idle},
	} {
		got, err := b.site.deploy(t.Context(), b.paths.Golden)
		if err != nil || got != want {
			t.Errorf("deployment %d: %+v, %v; want %+v", i, got, err, want)
		}
		b.wantServing(t, "a", "9.0.0+dev")
	}
	writeRelease(t, b.paths.Golden, "9.1.0+dev")
	got, err := b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || got.Slot != "b" || got.Before != "a" || !got.Placed {
		t.Errorf("upgrade: %+v, %v", got, err)
	}
	b.wantServing(t, "b", "9.1.0+dev")
}

func TestDeployLive(t *testing.T) {
	b := newSlotBench(t)
	u := b.live(t)
	got, err := b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || got.Slot != "a" || !got.Running || strings.Join(u.did, " ") != "server" {
		t.Errorf("first: %+v, %v, started %v", got, err, u.did)
	}
	writeRelease(t, b.paths.Golden, "9.1.0+dev")
	got, err = b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || got.Slot != "b" || !got.Running || strings.Join(u.did, " ") != "server next-b server" {
		t.Errorf("upgrade: %+v, %v, started %v", got, err, u.did)
	}
	b.wantServing(t, "b", "9.1.0+dev")
	got, err = b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || !got.Already || got.Placed || len(u.did) != 3 {
		t.Errorf("again: %+v, %v, started %v", got, err, u.did)
	}
	writeRelease(t, b.paths.Golden, "9.2.0+dev")
	u.fail = errors.New("boom")
	if _, err = b.site.deploy(t.Context(), b.paths.Golden); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a release that does not start: %v", err)
	}
	b.wantServing(t, "b", "9.1.0+dev")
}

// TestDeployMendsBitRot: the same release in a damaged slot is placed anew.
func TestDeployMendsBitRot(t *testing.T) {
	b := newSlotBench(t)
	if _, err := b.site.deploy(t.Context(), b.paths.Golden); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(b.site.slots.Path("a"), slot.ServerPath), 1); err != nil {
		t.Fatal(err)
	}
	got, err := b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || got.Slot != "b" || !got.Placed {
		t.Errorf("%+v, %v", got, err)
	}
	b.wantServing(t, "b", "9.0.0+dev")
}

// TestDeployStopsTheEngineLeftBehind: the tree that it runs from is about to go,
// also where no server is to be started.
func TestDeployStopsTheEngineLeftBehind(t *testing.T) {
	for _, idle := range []string{"", "the appliance is stopped"} {
		b := newSlotBench(t)
		u := b.live(t)
		if _, err := b.site.deploy(t.Context(), b.paths.Golden); err != nil {
			t.Fatal(err)
		}
		b.site.idle = idle
		old := slot.State{Active: "active", PID: 99, Invocation: "old"}
		u.state["engine-a"], u.state["engine-b"] = old, old
		var first []string
		b.site.tell = func(step, _ string) { first = append(first, step+", engine "+u.state["engine-b"].Active) }
		writeRelease(t, b.paths.Golden, "9.1.0+dev")
		if _, err := b.site.deploy(t.Context(), b.paths.Golden); err != nil {
			t.Fatal(err)
		}
		if len(first) != 1 || first[0] != "place, engine inactive" || u.state["engine-a"] != old {
			t.Errorf("idle %q: told %q; the other engine is %+v", idle, first, u.state["engine-a"])
		}
		u.state["engine-a"], u.stays = old, "engine-a"
		writeRelease(t, b.paths.Golden, "9.2.0+dev")
		if _, err := b.site.deploy(t.Context(), b.paths.Golden); err == nil || !strings.Contains(err.Error(), "engine of slot a") {
			t.Errorf("idle %q: an engine that does not stop: %v", idle, err)
		}
		b.wantServing(t, "b", "9.1.0+dev")
	}
}

// TestOutOfTime: a deployment has as long as it was given.
func TestOutOfTime(t *testing.T) {
	b := newSlotBench(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, errors.New("it took more than 90s"))
	defer cancel()
	<-ctx.Done()
	_, err := b.site.deploy(ctx, b.paths.Golden)
	if code := b.exitCode(slotExit(err)); code != exitUnavailable || !strings.Contains(err.Error(), "more than 90s") || !strings.Contains(fault.Hint(err), "--within") {
		t.Errorf("exit code %d, %v", code, err)
	}
	if serving, err := b.site.slots.Serving(); serving != "" || err != nil {
		t.Errorf("slot %q serves, %v", serving, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.site.deploy(canceled, b.paths.Golden); !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Internal {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSlotExitCodes: what postinst tells apart.
func TestSlotExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{fault.New(fault.Unavailable, slot.CandidateFailed, "x").Because(fault.New(fault.Busy, "y", "y")), exitUnavailable},
		{fault.New(fault.Unavailable, slot.RolledBack, "x"), exitUnavailable},
		{fault.New(fault.Unavailable, tooSlow, "x"), exitUnavailable},
		{fault.New(fault.Unavailable, slot.NotServing, "x"), exitError},
		{fmt.Errorf("step: %w", fault.New(fault.Unavailable, "no_systemd", "x")), exitError},
		{fault.New(fault.Conflict, "bad_link", "x"), exitError},
		{fault.New(fault.Busy, "slots_busy", "x"), exitBusy},
		{fault.New(fault.Busy, "trial_running", "x"), exitBusy},
		{fault.New(fault.NoSpace, "disk_full", "x"), exitNoSpace},
		{errors.New("x"), exitError},
	} {
		b := newBench(t)
		if got := b.exitCode(slotExit(tt.err)); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
		if tt.err != nil && !strings.Contains(b.errOut.String(), tt.err.Error()) {
			t.Errorf("%v: printed %q", tt.err, b.errOut.String())
		}
	}
}

// TestWhatACancelledCommandSays: a switch that could not be cancelled any more
// says how it ended.
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
	ended := exitAs{fault.New(fault.Unavailable, slot.NotServing, "x"), exitError}
	if err := outcome(ctx, ended); err != error(ended) {
		t.Errorf("ended: %v", err)
	}
}

// hungUp sends a hang-up to its own process with each thing that is written.
type hungUp struct{ io.Writer }

func (w hungUp) Write(p []byte) (int, error) {
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

// TestNobodyIsThere: a change of slots goes on without its terminal, and though
// nobody reads what it writes.
func TestNobodyIsThere(t *testing.T) {
	if os.Geteuid() != 0 || systemd.Booted("") {
		t.Skip("it deploys as root, and would switch this machine's own appliance")
	}
	if marks := os.Getenv("SLOT_TEST_DONE"); marks != "" {
		b := newSlotBench(t)
		b.jsonOut, b.app.out, b.app.errOut = true, hungUp{os.Stdout}, hungUp{os.Stderr}
		err := b.changeSlots(t.Context(), "slot deploy", time.Minute, func(ctx context.Context, s *site) error {
			d, err := s.deploy(ctx, b.paths.Golden)
			return errors.Join(err, b.printDeployed(d))
		})
		code := b.exitCode(err)
		os.WriteFile(marks, []byte(strings.TrimSpace(strings.Repeat("done ", 1-code))), 0o600) //nolint:errcheck // the parent reads it
		os.Exit(code)
	}
	done := filepath.Join(t.TempDir(), "done")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	c := exec.Command(os.Args[0], "-test.run=^TestNobodyIsThere$")
	c.Env = append(os.Environ(), "SLOT_TEST_DONE="+done)
	c.Stdout, c.Stderr = w, w
	if err := errors.Join(c.Run(), w.Close()); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if said, err := os.ReadFile(done); err != nil || string(said) != "done" {
		t.Errorf("%q, %v", said, err)
	}
}

func TestWhyIdle(t *testing.T) {
	for _, tt := range []struct{ load, service, socket, word string }{
		{"loaded", "active", "active", ""}, {"loaded", "activating", "inactive", ""}, {"loaded", "inactive", "active", ""},
		{"loaded", "failed", "active", ""}, {"loaded", "inactive", "inactive", "stopped"},
		{"masked", "inactive", "active", "masked"}, {"not-found", "inactive", "inactive", "not-found"}, {"masked", "active", "active", ""},
	} {
		got := whyIdle(systemd.Unit{Name: "s", Load: tt.load, Active: tt.service}, systemd.Unit{Active: tt.socket})
		if (got == "") != (tt.word == "") || !strings.Contains(got, tt.word) {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestSlotCommands(t *testing.T) {
	b := newSlotBench(t)
	if _, err := b.site.deploy(t.Context(), b.paths.Golden); err != nil {
		t.Fatal(err)
	}
	out, err := b.command("slot list")
	if err != nil || !strings.Contains(out, "a       ready  9.0.0+dev  c0ffee  serves") || !strings.Contains(out, "b       empty") {
		t.Errorf("list: %v\n%s", err, out)
	}
	out, err = b.command("slot list --json")
	var list []slot.Entry
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 3 || !list[0].Serving {
		t.Errorf("list --json: %v\n%s", err, out)
	}
	if err := rootOnly(1000, "slot deploy"); fault.KindOf(err) != fault.Forbidden || fault.Hint(err) != "sudo whisper-appliance slot deploy" {
		t.Errorf("not as root: %v", err)
	}
	release, err := slot.Lock(filepath.Join(b.paths.Updater, "lock"), "a test")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if _, err = b.command("slot deploy"); fault.KindOf(err) != fault.Busy || !strings.Contains(err.Error(), "a test") {
			t.Errorf("while another works: %v", err)
		}
	}
	release()
	for line, code := range map[string]int{
		"slot switch golden": exitData, "slot switch c": exitData, "slot deploy --within 0s": exitUsage, "slot switch a --within -1s": exitUsage,
	} {
		_, err := b.command(line)
		if got := b.exitCode(err); got != code {
			t.Errorf("%s: exit code %d, %v", line, got, err)
		}
		if words := fmt.Sprint(err) + fault.Hint(err); line == "slot switch golden" && (!strings.Contains(words, "package's own") || !strings.Contains(words, "slot deploy")) {
			t.Errorf("%s: %s", line, words)
		}
	}
	b.paths.Slots = ""
	for _, line := range []string{"slot list", "slot deploy", "slot switch a"} {
		if _, err := b.command(line); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s without slots: %v", line, err)
		}
	}
}

// TestSealNeedsABuild: a program without a stamp seals nothing, since the
// file VERSION says something else.
func TestSealNeedsABuild(t *testing.T) {
	b := newSlotBench(t)
	dir := t.TempDir()
	writeRelease(t, dir, "9.0.0")
	if _, err := b.command("slot seal " + dir); fault.KindOf(err) != fault.BadInput || !strings.Contains(err.Error(), "unstamped") {
		t.Errorf("error %v", err)
	}
	if _, err := slot.Read(dir); err != nil {
		t.Errorf("the old manifest is gone: %v", err)
	}
}

func TestVerifyCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("on an installed appliance everything is root's: needs root")
	}
	b := newSlotBench(t)
	if _, err := b.site.deploy(t.Context(), b.paths.Golden); err != nil {
		t.Fatal(err)
	}
	b.write(t, filepath.Join(b.paths.Shipped, "whisper-appliance.service"), "")
	for _, line := range []string{"verify", "verify a", "verify golden", "verify " + b.paths.Golden} {
		if out, err := b.command(line); err != nil || !strings.Contains(out, "is whole: version 9.0.0+dev") {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	if _, err := b.command("verify b"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an empty slot: %v", err)
	}
	if err := os.Chmod(filepath.Join(b.paths.Shipped, "whisper-appliance.service"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b.site.slots.Path("a"), "VERSION")); err != nil {
		t.Fatal(err)
	}
	out, err := b.command("verify")
	if err == nil || !strings.Contains(out, "VERSION is missing") || !strings.Contains(out, "whisper-appliance.service has mode -rw-rw-rw-") {
		t.Errorf("two differences: %v\n%s", err, out)
	}
	if code := b.exitCode(err); code != exitError {
		t.Errorf("exit code %d", code)
	}
	out, err = b.command("verify --json")
	var v verified
	if err == nil || json.Unmarshal([]byte(out), &v) != nil || len(v.Differences) != 1 || len(v.Package) != 1 {
		t.Errorf("--json: %v\n%s", err, out)
	}
	b.paths.SlotName = "a"
	if out, _ := b.command("verify golden"); strings.Contains(out, "service") {
		t.Errorf("a slot's program looks at the package:\n%s", out)
	}
}
