package site

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
)

// TestShipped: what breaks a switch is told with the file that does it; what an
// administrator may well want passes, and what the machine demands does, too.
func TestShipped(t *testing.T) {
	good := systemd.Run{Type: "notify", User: "whisper-appliance", NoNewPrivileges: true, ProtectSystem: "strict"}
	run := func(change func(r *systemd.Run)) systemd.Run { r := good; change(&r); return r }
	simple := run(func(r *systemd.Run) { r.Type = "simple" })
	root := run(func(r *systemd.Run) { r.User = "" })
	weak := run(func(r *systemd.Run) { r.NoNewPrivileges, r.ProtectSystem = false, "no" })
	const mine = "etc/u.service.d/override.conf"
	for _, tt := range []struct {
		name     string
		run      systemd.Run
		watchdog time.Duration
		files    map[string]string // drop-ins, by where they lie
		fragment string
		word     string // "" = it passes
		hint     string
	}{
		{name: "as shipped", run: good},
		{name: "harmless", run: good, files: map[string]string{mine: "[Service]\nEnvironment=A=b\nNice=5\nMemoryMax=1G\n"}},
		{name: "another type", run: simple, files: map[string]string{mine: "[Service]\nType = simple\n"}, word: "Type=simple", hint: mine},
		{name: "a later type", run: run(func(r *systemd.Run) { r.Type = "notify-reload" }), files: map[string]string{mine: "[Service]\nType=notify-reload\n"}},
		{name: "root", run: root, files: map[string]string{mine: "[Service]\nUser=root\n"}, word: "root", hint: mine},
		{name: "no watchdog", run: good, watchdog: -1, files: map[string]string{mine: "[Service]\nWatchdogSec=0\n"}, word: "watchdog", hint: mine},
		{name: "less confined", run: weak, files: map[string]string{mine: "[Service]\nNoNewPrivileges=no\nProtectSystem=no\n"}, word: "NoNewPrivileges=no, ProtectSystem=no", hint: mine},
		{name: "less confined by doctor", run: weak, files: map[string]string{"etc/u.service.d/50-doctor.conf": doctorsMark + "\n[Service]\nNoNewPrivileges=no\nProtectSystem=no\n"}},
		{name: "less confined by a container", run: weak, files: map[string]string{"run/service.d/zzz-lxc-service.conf": "[Service]\nNoNewPrivileges=no\nProtectSystem=no\n"}},
		{name: "root in a container", run: root, files: map[string]string{"run/service.d/zzz-lxc-service.conf": "[Service]\nUser=root\n"}, word: "root", hint: "zzz-lxc-service.conf"},
		{name: "a unit file of their own", run: simple, fragment: "etc/u.service", word: "Type=simple", hint: "etc/u.service"},
		{name: "another package's units", run: simple, files: map[string]string{"usr/lib/systemd/system/u.service.d/10-sandbox.conf": "[Service]\nType=simple\n"}},
		{name: "two things", run: run(func(r *systemd.Run) { r.Type, r.User = "exec", "root" }), files: map[string]string{
			mine: "[Service]\nUser=root\n", "etc/u.service.d/x.conf": "[Service]\nType=exec\n"}, word: "Type=exec, not notify, it runs as root", hint: "x.conf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			unit := systemd.Unit{Load: "loaded", Active: "active", Run: &tt.run, Watchdog: 30*time.Second + tt.watchdog*31*time.Second}
			b := &fakeBus{units: map[string]systemd.Unit{}}
			m := newMachine(t, b)
			home := filepath.Dir(m.Paths.Slots)
			m.Paths.Shipped = filepath.Join(home, "usr/lib/systemd/system")
			must := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			must(os.MkdirAll(filepath.Join(m.Paths.Shipped, "u.service.d"), 0o755))
			must(os.Symlink("usr/lib", filepath.Join(home, "lib"))) // as systemd calls it there
			unit.Fragment = filepath.Join(home, "lib/systemd/system/u.service")
			if tt.fragment != "" {
				unit.Fragment = filepath.Join(home, tt.fragment)
			}
			for at, text := range tt.files {
				put(t, filepath.Join(home, at), text)
				unit.DropIns = append(unit.DropIns, filepath.Join(home, at))
			}
			b.units["u.service"] = unit
			err := m.shipped(t.Context(), "u.service")
			if tt.word == "" {
				must(err)
				return
			}
			wantCode(t, tt.name, err, slot.UnitEdited)
			if err == nil || !strings.Contains(err.Error(), tt.word) || !strings.Contains(fault.Hint(err), tt.hint) {
				t.Errorf("%v; try %s", err, fault.Hint(err))
			}
		})
	}
}

// TestShippedUnknown: a unit that systemd cannot read was changed; one of which
// nothing is known stands in nobody's way.
func TestShippedUnknown(t *testing.T) {
	m := newMachine(t, &fakeBus{units: map[string]systemd.Unit{
		"bad":  {Load: "bad-setting", Fragment: "x/bad", DropIns: []string{"etc/bad.d/o.conf"}},
		"dark": {Load: "loaded"},
	}})
	err := m.shipped(t.Context(), "bad")
	wantCode(t, "one that cannot be read", err, slot.UnitEdited)
	if !strings.Contains(fault.Hint(err), "o.conf") {
		t.Errorf("try %s", fault.Hint(err))
	}
	if err := m.shipped(t.Context(), "dark"); err != nil {
		t.Error(err)
	}
	if err := newMachine(t, &fakeBus{answer: errors.New("away")}).shipped(t.Context(), "u"); err != nil {
		t.Errorf("systemd does not answer, and the unit was changed: %v", err)
	}
}

// TestDoctorsMark: doctor's drop-ins are known by the words that it writes.
func TestDoctorsMark(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "doctor", "dropin.go"))
	if err != nil || !strings.Contains(string(data), doctorsMark) {
		t.Errorf("doctor does not write %q: %v", doctorsMark, err)
	}
}
