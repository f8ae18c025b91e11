//go:build e2e

package systemd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// These tests want systemd as PID 1 and root: the binary of `go test -c -tags
// e2e` is run in a container.

const testUnit = "wa-test-bus.service"

// realBus makes a unit of the test's and dials by each door.
func realBus(t *testing.T) map[string]*Bus {
	t.Helper()
	if !Booted("") || os.Geteuid() != 0 {
		t.Skip("needs systemd as PID 1, and root")
	}
	m := paths.MachineAt("")
	buses := map[string]*Bus{}
	for name, d := range map[string]door{"private": {m.SystemdPrivate, false}, "bus": {m.SystemBus, true}} {
		b, err := (&Bus{doors: []door{d}}).dialed(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { b.Close() })
		buses[name] = b
	}
	file := filepath.Join(filepath.Dir(m.SystemdBooted), "system", testUnit)
	unit := "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'systemd-notify --ready WATCHDOG=1; exec sleep 1000'\nWatchdogSec=60\n" +
		"ExecReload=/bin/true\nPrivateNetwork=yes\nProtectSystem=strict\nNoNewPrivileges=yes\nSystemCallFilter=~@mount\n"
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	b := buses["private"]
	t.Cleanup(func() {
		b.Stop(context.Background(), testUnit) //nolint:errcheck // it may not run
		os.Remove(file)
		b.DaemonReload(context.Background()) //nolint:errcheck // the next test says so
	})
	if err := b.DaemonReload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return buses
}

func TestRealUnits(t *testing.T) {
	for name, b := range realBus(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			for _, do := range []func(context.Context, ...string) error{b.Start, b.Reload, b.Restart, b.ResetFailed} {
				if err := do(ctx, testUnit); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			units, err := b.Units(ctx, append(Ours(), testUnit, "systemd-journald*.socket", "nothing-*.service")...)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d units in %v", len(units), time.Since(start))
			seen := map[string]Unit{}
			for _, u := range units {
				seen[u.Name] = u
			}
			u := seen[testUnit]
			if u.Active != "active" || u.Sub != "running" || u.MainPID == 0 || u.Watchdog != time.Minute || time.Since(u.WatchdogAt).Abs() > time.Minute ||
				time.Since(u.Since).Abs() > time.Minute || len(u.Invocation) != 32 || u.ControlGroup == "" || u.Fragment == "" {
				t.Errorf("%+v", u)
			}
			if seen[Target].Load != "not-found" && seen[Target].Load != "loaded" || seen["systemd-journald.socket"].Active != "active" {
				t.Errorf("%+v, %+v", seen[Target], seen["systemd-journald.socket"])
			}
			told, err := b.Effective(ctx, testUnit)
			if err != nil || told["PrivateNetwork"] != "yes" || told["ProtectSystem"] != "strict" || !strings.HasPrefix(told["SystemCallFilter"], "~") {
				t.Errorf("%v, %v", told, err)
			}
			held, err := Confined(paths.MachineAt("").Proc, u.MainPID)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("held: %v, differences: %v", held, Differences(told, held))
			if err := b.Stop(ctx, testUnit); err != nil {
				t.Error(err)
			}
			var f *fault.Error
			if err := b.Start(ctx, "wa-no-such.service"); !errors.As(err, &f) || f.Code != "no_unit" {
				t.Errorf("no such unit: %v", err)
			}
			if err := b.Reload(ctx, testUnit); err == nil {
				t.Error("a unit that does not run was reloaded")
			} else {
				t.Log(err)
			}
		})
	}
}

func TestRealManager(t *testing.T) {
	for name, b := range realBus(t) {
		m, err := b.Manager(t.Context())
		if err != nil || m.Version == "" || m.State == "" || m.Started.IsZero() {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		t.Logf("%+v", m)
	}
}

// TestRealBusRestarts: questions outlive the bus, and root needs none.
func TestRealBusRestarts(t *testing.T) {
	buses := realBus(t)
	b, err := Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Restart(t.Context(), "dbus.service"); err != nil {
		t.Fatal(err)
	}
	for name, b := range buses {
		if _, err := b.Units(t.Context(), testUnit); err != nil {
			t.Errorf("%s after a restart of the bus: %v", name, err)
		}
	}
	if err := b.Stop(t.Context(), "dbus.service", "dbus.socket"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Units(t.Context(), testUnit); err != nil {
		t.Errorf("without a bus: %v", err)
	}
	if err := b.Start(t.Context(), "dbus.socket"); err != nil {
		t.Fatal(err)
	}
}

func TestRealJournal(t *testing.T) {
	realBus(t)
	if !JournalReachable() {
		t.Fatal("no journal")
	}
	if err := JournalSend("two\nlines", 5, map[string]string{"COMPONENT": "ffmpeg", "LONG": strings.Repeat("x", 1<<17)}); err != nil {
		t.Error(err)
	}
}

// TestRealStranger runs as any user: who may look, and may not touch.
func TestRealStranger(t *testing.T) {
	if !Booted("") || os.Geteuid() == 0 {
		t.Skip("needs systemd as PID 1, and a user other than root")
	}
	b, err := Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	units, err := b.Units(t.Context(), append(Ours(), "dbus.service")...)
	if err != nil || units[len(units)-1].Active != "active" {
		t.Errorf("%v, %v", units, err)
	}
	if m, err := b.Manager(t.Context()); err != nil || m.State == "" {
		t.Errorf("%+v, %v", m, err)
	}
	var f *fault.Error
	if err := b.Restart(t.Context(), "dbus.service"); !errors.As(err, &f) || f.Code != "not_allowed" {
		t.Errorf("a stranger's restart: %v", err)
	} else {
		t.Log(err, f.Hint)
	}
	if err := b.DaemonReload(t.Context()); !errors.As(err, &f) || f.Code != "not_allowed" {
		t.Errorf("a stranger's reload: %v", err)
	}
}
