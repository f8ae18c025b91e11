// Package units holds the checks of the unit files, of the gate and of the
// package's scripts that need no systemd: what each unit must say so that a
// crash costs no port and an update no more than it may, and what is called when
// the package comes and goes. The scripts run in a temporary directory, with
// stand-ins for every command that would reach the machine.
package units

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// unit is a file's assignments: section and name to values, in order.
type unit map[string][]string

func read(t *testing.T, path string) unit {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			u[section+"."+name] = append(u[section+"."+name], value)
		}
	}
	return u
}

func (u unit) has(key, value string) bool {
	for _, v := range u[key] {
		for word := range strings.FieldsSeq(v) {
			if word == value {
				return true
			}
		}
	}
	return false
}

func all(t *testing.T, pattern string) map[string]unit {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "units", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no units %s: %v", pattern, err)
	}
	units := map[string]unit{}
	for _, f := range files {
		units[filepath.Base(f)] = read(t, f)
	}
	return units
}

const target = "whisper-appliance.target"

// TestEveryUnitGoesWithTheTarget: stopping the target stops everything.
func TestEveryUnitGoesWithTheTarget(t *testing.T) {
	for _, kind := range []string{"whisper*.service", "whisper*.socket", "whisper*.path", "whisper*.timer"} {
		for name, u := range all(t, kind) {
			if !u.has("Unit.PartOf", target) {
				t.Errorf("%s is not PartOf=%s", name, target)
			}
			if len(u["Unit.Description"]) != 1 || len(u["Unit.Documentation"]) != 1 {
				t.Errorf("%s lacks Description= or Documentation=", name)
			}
		}
	}
}

// TestNoCrashTakesAPort: systemd gives up on a socket or a service that fails
// often, unless it is told not to.
func TestNoCrashTakesAPort(t *testing.T) {
	sockets := all(t, "whisper*.socket")
	for name, u := range sockets {
		if !u.has("Socket.TriggerLimitIntervalSec", "0") {
			t.Errorf("%s gives up", name)
		}
	}
	for name, u := range all(t, "whisper*.service") {
		base := strings.TrimSuffix(name, ".service")
		if name == "whisper-appliance-next@.service" || name == "whisper-appliance-preflight@.service" {
			continue // started by an update alone, which wants to see it crash
		}
		s, activated := sockets[base+".socket"]
		if !activated || s.has("Socket.Accept", "yes") {
			continue
		}
		if !u.has("Unit.StartLimitIntervalSec", "0") || len(u["Service.Restart"]) == 0 || len(u["Service.RestartSec"]) == 0 {
			t.Errorf("%s: StartLimitIntervalSec=0, Restart= and RestartSec= are wanted", name)
		}
		if !u.has("Service.ExecStartPre", "+/usr/lib/whisper-appliance/gate") || !u.has("Service.ExecStopPost", "+/usr/lib/whisper-appliance/gate") {
			t.Errorf("%s does not pass the gate", name)
		}
	}
}

// TestAHangIsSeenInTime: somebody waits for a switch, apt for one, and for no
// longer than this. A candidate that hangs has to have failed by then, in the
// rehearsal and beside the server alike: else it would be taken for a slow machine.
func TestAHangIsSeenInTime(t *testing.T) {
	units := all(t, "whisper*.service")
	for _, name := range []string{"whisper-appliance-next@.service", "whisper-appliance-preflight@.service"} {
		u, took := units[name], 0
		for _, key := range []string{"Service.TimeoutStartSec", "Service.TimeoutAbortSec"} {
			limit, err := strconv.Atoi(u.last(key))
			if err != nil {
				t.Errorf("%s: %s=%q", name, key, u.last(key))
			}
			took += limit
		}
		if took > 45 || !u.has("Service.TimeoutStartFailureMode", "abort") {
			t.Errorf("%s: a start that hangs takes %d s, and ends by %q", name, took, u.last("Service.TimeoutStartFailureMode"))
		}
	}
}

// TestSharedSocketStaysNonBlocking: systemd sets the flag anew at each start,
// for everybody who shares the socket.
func TestSharedSocketStaysNonBlocking(t *testing.T) {
	units := all(t, "whisper*.service")
	for _, name := range []string{"whisper-appliance.service", "whisper-appliance-next@.service"} {
		if !units[name].has("Service.NonBlocking", "yes") {
			t.Errorf("%s makes the port's socket blocking for the other server", name)
		}
	}
}

// TestPrivateSockets: only the port and the API's socket are everybody's.
func TestPrivateSockets(t *testing.T) {
	for name, u := range all(t, "whisper*.socket") {
		mode := "0600"
		switch name {
		case "whisper-appliance.socket":
			mode = "0666"
		case "whisper-appliance-journal.socket": // the server's, and root's by its group: the updater has no other right to it
			if mode = "0660"; !u.has("Socket.SocketGroup", "root") {
				t.Errorf("%s: SocketGroup=%v", name, u["Socket.SocketGroup"])
			}
		}
		if !u.has("Socket.SocketMode", mode) {
			t.Errorf("%s: SocketMode=%v, want %s", name, u["Socket.SocketMode"], mode)
		}
	}
}

// TestSocketsAreRoots: nobody but root can put anything in a socket's place, and
// the order, which may tell a password, is the fetcher's to read alone.
func TestSocketsAreRoots(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "units", "tmpfiles.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"/run/whisper-appliance":               "0755 root root",
		"/run/whisper-appliance-updater":       "0755 root root",
		"/run/whisper-appliance-updater/order": "2750 root whisper-appliance-fetch",
	} {
		if !strings.Contains(string(data), "\nd "+dir+" "+want+" -\n") {
			t.Errorf("%s is not %s", dir, want)
		}
	}
	for name, u := range all(t, "whisper*.socket") {
		for _, path := range u["Socket.ListenStream"] {
			if strings.HasPrefix(path, "/") && filepath.Dir(path) != "/run/whisper-appliance" {
				t.Errorf("%s listens at %s", name, path)
			}
		}
	}
}

// TestNothingNewerThan252: what Debian 12's systemd does not know it ignores,
// and the unit is another one than was meant.
func TestNothingNewerThan252(t *testing.T) {
	newer := []string{"Service.RestartMode", "Service.RestartSteps", "Service.RestartMaxDelaySec", "Service.OpenFile", "Socket.PollLimitIntervalSec",
		"Service.MemoryZSwapMax", "Service.PrivatePIDs", "Service.MemoryKSM"}
	for _, kind := range []string{"whisper*.service", "whisper*.socket", "*-sandbox.conf", "preflight.conf"} {
		for name, u := range all(t, kind) {
			for _, key := range newer {
				if len(u[key]) > 0 {
					t.Errorf("%s uses %s", name, key)
				}
			}
			if u.has("Service.Type", "notify-reload") {
				t.Errorf("%s: Type=notify-reload came with 253", name)
			}
		}
	}
}
