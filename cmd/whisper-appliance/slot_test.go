package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/component"
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
	b.site.swap = &slot.Switch{
		Slots: b.site.slots, Units: u, Service: "server", Proc: u.proc, Settle: 60 * time.Millisecond,
		Next:  func(name string) (string, string) { return "next-" + name, "door-" + name },
		Smoke: func(context.Context, string) error { return nil },
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

func TestDeployFirst(t *testing.T) {
	b := newSlotBench(t)
	u := b.live(t)
	if err := b.site.notYet(t.Context()); err != nil || b.site.swap != nil {
		t.Errorf("nothing runs: %v", err)
	}
	got, err := b.site.deploy(t.Context(), b.paths.Golden)
	if err != nil || got.Running || got.Idle == "" || len(u.did) != 0 {
		t.Errorf("%+v, %v, started %v", got, err, u.did)
	}
	u = b.live(t)
	u.state["server"] = slot.State{Active: "active", PID: 1}
	if err := b.site.notYet(t.Context()); fault.KindOf(err) != fault.Conflict || fault.Hint(err) == "" {
		t.Errorf("a server runs: %v", err)
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

// answers is a server behind a socket that answers with what is given by path.
func answers(t *testing.T, readyz int, states ...component.State) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(readyz) })
	mux.HandleFunc("/api/v1/components", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"components": states}) //nolint:errcheck // the test reads it
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { srv.Close() })
	return socket
}

func TestSwitchSmoke(t *testing.T) {
	state := func(name string, s component.Status) component.State {
		return component.State{Name: name, Status: s, Error: "why " + name}
	}
	failing := func(name string) component.State { return state(name, component.Failed) }
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name, before, socket, word string
	}{
		{"well", none, answers(t, 200, state("engine", component.OK)), ""},
		{"nobody there", none, none, "/livez"},
		{"no model", none, answers(t, 503, failing("models"), state("engine", component.Waiting)), ""},
		{"a part fails", none, answers(t, 503, failing("engine")), "engine: why engine"},
		{"a part fails beside the model", none, answers(t, 503, failing("models"), failing("engine")), "engine"},
		{"as before", answers(t, 503, failing("engine")), answers(t, 503, failing("engine")), ""},
		{"another than before", answers(t, 503, failing("decoder")), answers(t, 503, failing("engine")), "engine"},
		{"ready in spite of it", none, answers(t, 200, failing("engine")), ""},
		{"not ready and says not why", none, answers(t, 503), "/readyz: status 503"},
		{"no such page", none, answers(t, 404), "status 404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := (&switchSmoke{serving: tt.before}).ask(t.Context(), tt.socket)
			if (err == nil) != (tt.word == "") || err != nil && !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v, want %q", err, tt.word)
			}
		})
	}
	alone := answers(t, 503, failing("engine"))
	if err := (&switchSmoke{serving: alone}).ask(t.Context(), alone); err != nil {
		t.Errorf("with nobody to compare with: %v", err)
	}
}
