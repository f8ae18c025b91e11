package units

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shipped is a unit as the package installs it: the file and, after it, the
// drop-ins that the package's build puts beside it. An empty assignment takes
// back what stands before it.
func shipped(t *testing.T, name string, dropIns ...string) unit {
	t.Helper()
	u := unit{}
	for _, file := range append([]string{name}, dropIns...) {
		for key, values := range read(t, filepath.Join("..", "..", "units", file)) {
			for _, v := range values {
				if v == "" {
					u[key] = nil
					continue
				}
				u[key] = append(u[key], v)
			}
		}
	}
	return u
}

// last is what counts of a setting that is no list.
func (u unit) last(key string) string {
	if len(u[key]) == 0 {
		return ""
	}
	return u[key][len(u[key])-1]
}

// updaters are the units that run the updater's program, as they are installed.
func updaters(t *testing.T) map[string]unit {
	t.Helper()
	units := map[string]unit{}
	for _, verb := range []string{"updater", "recover", "update", "scrub"} {
		name := "whisper-appliance-" + verb + ".service"
		units[name] = shipped(t, name, "updater-sandbox.conf")
	}
	return units
}

// built is the script that lays the package out.
func built(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "packaging", "deb", "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestUpdaterGoesNowhere: no network, no capability but those that reading
// takes, and one sandbox for everything that changes slots.
func TestUpdaterGoesNowhere(t *testing.T) {
	const capabilities = "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"
	for name, u := range updaters(t) {
		for key, want := range map[string]string{
			"PrivateNetwork": "yes", "RestrictAddressFamilies": "AF_UNIX", "IPAddressDeny": "any", "ProtectSystem": "strict",
			"CapabilityBoundingSet": capabilities, "NoNewPrivileges": "yes", "MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes",
			"RestrictSUIDSGID": "yes", "PrivateDevices": "yes", "SystemCallArchitectures": "native", "Slice": "whisperappliance.slice",
			"StateDirectoryMode": "0755", "RuntimeDirectoryMode": "0755", "RuntimeDirectoryPreserve": "yes", "User": "",
		} {
			if got := u.last("Service." + key); got != want {
				t.Errorf("%s: %s=%s, want %q", name, key, got, want)
			}
		}
		if got := u["Service.ReadWritePaths"]; !slices.Equal(got, []string{"-/opt/whisper-appliance -/usr/lib/whisper-appliance", "-/run/whisper-appliance-gate"}) {
			t.Errorf("%s writes %v", name, got)
		}
		for _, kept := range []string{"golden", "trust", "gate", "whisper-appliance-updater", "whisper-appliance-fetch"} {
			if !u.has("Service.ReadOnlyPaths", "-/usr/lib/whisper-appliance/"+kept) {
				t.Errorf("%s writes the package's %s", name, kept)
			}
		}
	}
}

// TestUpdaterSeesWhatItAttests: a user namespace of its own would hide what other
// users' processes run, and a /proc of its own what a container's manager has put
// there: another boot id than the next process sees is a restart of the machine.
func TestUpdaterSeesWhatItAttests(t *testing.T) {
	for name, u := range updaters(t) {
		if u.last("Service.PrivateUsers") == "yes" || u.last("Service.ProcSubset") == "pid" || !u.has("Service.BindReadOnlyPaths", "/proc") || !u.has("Service.CapabilityBoundingSet", "CAP_SYS_PTRACE") {
			t.Errorf("%s cannot attest", name)
		}
	}
}

// TestVariablesOfTheUpdater: the directories of updater and fetcher must not
// become those of the appliance.
func TestVariablesOfTheUpdater(t *testing.T) {
	units := updaters(t)
	units["whisper-appliance-fetch.service"] = shipped(t, "whisper-appliance-fetch.service")
	for name, u := range units {
		for directory, variable := range map[string]string{"StateDirectory": "STATE_DIRECTORY", "RuntimeDirectory": "RUNTIME_DIRECTORY",
			"CacheDirectory": "CACHE_DIRECTORY", "ConfigurationDirectory": "CONFIGURATION_DIRECTORY"} {
			if u.last("Service."+directory) != "" && !u.has("Service.UnsetEnvironment", variable) {
				t.Errorf("%s hands its %s down", name, variable)
			}
		}
	}
}

// TestUpdaterOutlivesTheBus: systemd ends a service of Type=dbus with the bus.
func TestUpdaterOutlivesTheBus(t *testing.T) {
	u := updaters(t)["whisper-appliance-updater.service"]
	if u.last("Service.Type") != "notify" || len(u["Service.BusName"]) > 0 || len(u["Unit.Requires"])+len(u["Unit.BindsTo"]) > 0 {
		t.Error("it goes with the bus, or with something else")
	}
	if u.last("Service.Restart") != "on-failure" || u.last("Unit.StartLimitIntervalSec") != "0" {
		t.Error("a trial may lose its judge")
	}
}

// TestRecoverStandsInNobodysWay: it comes before the port opens, and nothing
// waits for its success.
func TestRecoverStandsInNobodysWay(t *testing.T) {
	const recovery = "whisper-appliance-recover.service"
	u := updaters(t)[recovery]
	if u.last("Unit.DefaultDependencies") != "no" {
		t.Error("it comes after basic.target, and the port opens before that")
	}
	for _, early := range []string{"whisper-appliance.socket", "whisper-appliance.service", "whisper-appliance.path",
		"whisper-appliance-engine@a.socket", "whisper-appliance-engine@b.socket", "whisper-appliance-engine@golden.socket", "shutdown.target"} {
		if !u.has("Unit.Before", early) {
			t.Errorf("it is not before %s", early)
		}
	}
	if !u.has("Install.WantedBy", "sockets.target") || !u.has("Install.WantedBy", target) {
		t.Error("a port that opens does not bring it")
	}
	if limit := u.last("Service.TimeoutStartSec"); limit != "90" {
		t.Errorf("a boot may wait for it for %s", limit)
	}
	if got := u.last("Service.ExecStart"); !strings.HasSuffix(got, " recover --boot") {
		t.Errorf("ExecStart=%s may ask for a start of the server, which waits for it", got)
	}
	if got := u.last("Service.ExecCondition"); !strings.Contains(got, "ActiveState whisper-appliance.service") {
		t.Errorf("ExecCondition=%s lets it run beside the server", got)
	}
	if !u.has("Unit.OnFailure", "whisper-appliance-updater.service") {
		t.Error("where it fails in a trial, the trial has no judge")
	}
	for _, kind := range []string{"whisper*.service", "whisper*.socket", "whisper*.target"} {
		for name, other := range all(t, kind) {
			for _, key := range []string{"Unit.Requires", "Unit.Requisite", "Unit.BindsTo"} {
				if other.has(key, recovery) {
					t.Errorf("%s has %s it", name, key)
				}
			}
		}
	}
}

// TestRecoverBringsTheJudge runs what follows recovery: the daemon is started
// where a trial runs or a release waits, and without waiting for it, which would
// be for ever.
func TestRecoverBringsTheJudge(t *testing.T) {
	for _, c := range []struct {
		name, stable, state string
		starts              bool
	}{
		{"a trial", "slots/a", `{"step": "trial"}`, true},
		{"committed", "slots/b", `{"step": "idle"}`, false},
		{"one waits", "slots/b", `{"queued": {"version": "9.8.7"}}`, true},
		{"no state", "slots/b", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTree(t)
			m.write(t, "opt/whisper-appliance/slots/.keep", "")
			for link, to := range map[string]string{"current": "slots/b", "stable": c.stable} {
				if err := os.Symlink(to, m.path("opt/whisper-appliance/"+link)); err != nil {
					t.Fatal(err)
				}
			}
			if c.state != "" {
				m.write(t, "var/lib/whisper-appliance-updater/state.json", c.state)
			}
			line := updaters(t)["whisper-appliance-recover.service"].last("Service.ExecStartPost")
			script, ok := strings.CutPrefix(line, "-/bin/sh -c '")
			if !ok {
				t.Fatalf("ExecStartPost=%s", line)
			}
			m.sh(t, strings.ReplaceAll(strings.TrimSuffix(script, "'"), `\'`, `'`))
			if got := m.calls("systemctl"); slices.Equal(got, []string{"systemctl --no-block start whisper-appliance-updater.service"}) != c.starts {
				t.Errorf("it calls %v", got)
			}
		})
	}
}

// TestFetcherOnlyGoesOut: of the machine it sees its own directory, and of the
// appliance nothing that runs.
func TestFetcherOnlyGoesOut(t *testing.T) {
	u := shipped(t, "whisper-appliance-fetch.service")
	for key, want := range map[string]string{
		"User": "whisper-appliance-fetch", "CapabilityBoundingSet": "", "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
		"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateUsers": "yes", "ProcSubset": "pid", "StateDirectoryMode": "0755",
		"Type": "oneshot", "ReadWritePaths": "", "NoNewPrivileges": "yes",
	} {
		if got := u.last("Service." + key); got != want {
			t.Errorf("%s=%s, want %q", key, got, want)
		}
	}
	for _, hidden := range []string{"-/run/whisper-appliance", "-/run/dbus", "-/var/lib/whisper-appliance", "-/opt/whisper-appliance"} {
		if !u.has("Service.InaccessiblePaths", hidden) {
			t.Errorf("it sees %s", hidden)
		}
	}
	if limit := u.last("Service.TimeoutStartSec"); limit == "" || limit == "infinity" {
		t.Error("it may hang for ever")
	}
}

// TestRehearsalTouchesNothing: the candidate has the server's sandbox, no
// network, and none of the real state but what it may read.
func TestRehearsalTouchesNothing(t *testing.T) {
	u := shipped(t, "whisper-appliance-preflight@.service", "server-sandbox.conf", "preflight.conf")
	server := shipped(t, "whisper-appliance.service", "server-sandbox.conf")
	for key, want := range map[string]string{
		"StateDirectory": "whisper-appliance-preflight", "StateDirectoryMode": "0700", "CacheDirectory": "whisper-appliance-preflight",
		"PrivateNetwork":          "yes",
		"BindReadOnlyPaths":       "/var/lib/whisper-appliance/models -/var/lib/whisper-appliance/settings.toml",
		"RestrictAddressFamilies": "AF_UNIX AF_NETLINK", "IPAddressDeny": "any", "Restart": "no", "ReadWritePaths": "",
		"TemporaryFileSystem": "/var/lib/whisper-appliance:ro", "User": server.last("Service.User"),
	} {
		if got := strings.Join(u["Service."+key], " "); key != "StateDirectoryMode" && key != "RestrictAddressFamilies" && got != want || u.last("Service."+key) != want {
			t.Errorf("%s=%s, want %q", key, got, want)
		}
	}
	if limit := u.last("Service.RuntimeMaxSec"); limit == "" {
		t.Error("one that is forgotten stays")
	}
	// A mount at another place would be seen by the clean-up, too, whatever its
	// rights, and is refused by hosts without namespaces.
	for _, key := range []string{"Service.BindPaths", "Service.BindReadOnlyPaths"} {
		if got := strings.Join(u[key], " "); strings.Contains(got, ":") {
			t.Errorf("%s=%s", key, got)
		}
	}
	if clean := u.last("Service.ExecStopPost"); !strings.HasPrefix(clean, "-/usr/bin/find ") || strings.Contains(clean, " -L") || strings.Contains(clean, " -follow") {
		t.Errorf("what cleans up may delete the models: %s", clean)
	}
	if got := u["Service.Sockets"]; len(got) > 0 {
		t.Errorf("it has the sockets %v beside its own", got)
	}
	// What is asked of it says something of the server only where both are
	// held to the same.
	for key, values := range server {
		name := strings.TrimPrefix(key, "Service.")
		same := slices.ContainsFunc([]string{"Protect", "Private", "Restrict", "SystemCall", "Capability", "Lock", "Memory", "NoNew", "Limit"},
			func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if same && name != "PrivateNetwork" && name != "RestrictAddressFamilies" && name != "RestartPreventExitStatus" && !slices.Equal(values, u[key]) {
			t.Errorf("%s: the server's is %v, its own %v", name, values, u[key])
		}
	}
}

// TestTimers: the target brings each, and one whose machine was off makes up
// for it.
func TestTimers(t *testing.T) {
	goes := read(t, filepath.Join("..", "..", "units", target))
	for name, u := range all(t, "whisper*.timer") {
		if !u.has("Timer.Persistent", "yes") || u.last("Timer.RandomizedDelaySec") == "" || !u.has("Install.WantedBy", target) || !goes.has("Install.Also", name) {
			t.Errorf("%s: Persistent=, RandomizedDelaySec=, WantedBy= and the target's Also= are wanted", name)
		}
		if _, err := os.Stat(filepath.Join("..", "..", "units", strings.TrimSuffix(name, ".timer")+".service")); err != nil {
			t.Errorf("%s starts nothing: %v", name, err)
		}
	}
}

// TestPackageBringsDropIns: a sandbox that is not put beside its unit is none.
func TestPackageBringsDropIns(t *testing.T) {
	script := built(t)
	for _, line := range []string{
		"sandbox server whisper-appliance whisper-appliance-next@ whisper-appliance-preflight@ whisper-appliance-housekeeping",
		"sandbox updater whisper-appliance-updater whisper-appliance-recover whisper-appliance-update whisper-appliance-scrub",
		"whisper-appliance-preflight@.service.d/20-preflight.conf",
	} {
		if !strings.Contains(script, line) {
			t.Errorf("build.sh lacks %q", line)
		}
	}
}
