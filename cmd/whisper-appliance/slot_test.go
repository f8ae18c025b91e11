package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
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
	s *slot.Slots
}

func newSlotBench(t *testing.T) *slotBench {
	t.Helper()
	home := t.TempDir()
	b := &slotBench{bench: newBench(t)}
	b.paths = paths.Paths{
		Kind: paths.Installed, Slots: filepath.Join(home, "opt", "slots"), Current: filepath.Join(home, "opt", "current"),
		Stable: filepath.Join(home, "opt", "stable"), Golden: filepath.Join(home, "lib", "golden"), Updater: filepath.Join(home, "updater"),
		UpdaterBin: filepath.Join(home, "lib", "whisper-appliance-updater"), FetchBin: filepath.Join(home, "lib", "whisper-appliance-fetch"),
		Shipped: filepath.Join(home, "units"), DpkgStatus: filepath.Join(home, "status"), APISocket: filepath.Join(home, "api.sock"),
	}
	b.paths.Slot, b.paths.SlotName = b.paths.Golden, slot.Golden
	writeRelease(t, b.paths.Golden, "9.0.0+dev")
	for _, path := range []string{b.paths.UpdaterBin, b.paths.FetchBin} {
		b.program(t, path, "9.0.0+dev", "c0ffee")
	}
	slots, err := b.slots()
	if err != nil {
		t.Fatal(err)
	}
	slots.Owned = os.Geteuid() == 0
	b.s = slots
	return b
}

// program writes one that prints its version.
func (b *slotBench) program(t *testing.T, path, version, commit string) {
	t.Helper()
	text := fmt.Sprintf("#!/bin/sh\necho '%s %s (commit %s of 2026-01-02T03:04:05Z)'\n", filepath.Base(path), version, commit)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
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

// installed places the package's release in slot a, from where it serves.
func (b *slotBench) installed(t *testing.T) {
	t.Helper()
	if err := b.s.Prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.s.Place(t.Context(), b.paths.Golden, slot.A, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.s.Activate(slot.A), b.s.Commit(slot.A)); err != nil {
		t.Fatal(err)
	}
}

func TestSlotCommands(t *testing.T) {
	b := newSlotBench(t)
	b.installed(t)
	out, err := b.command("slot list")
	if err != nil || !strings.Contains(out, "a       ready  9.0.0+dev  c0ffee  serves") || !strings.Contains(out, "b       empty") {
		t.Errorf("list: %v\n%s", err, out)
	}
	out, err = b.command("slot list --json")
	var list []slot.Entry
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 3 || !list[0].Serving {
		t.Errorf("list --json: %v\n%s", err, out)
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
	b.installed(t)
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
	if err := os.Remove(filepath.Join(b.s.Path("a"), "VERSION")); err != nil {
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
