package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"whisper-appliance/internal/systemd"
)

// directive is one that a machine may forbid: how it is tried, and what stands
// in a drop-in where it cannot be had.
type directive struct {
	name  string
	value string // that it is tried with
	with  []systemd.Setting

	// proof is a script that ends well where the directive is in force; "" =
	// that the service could be started says so.
	proof string
	relax []systemd.Setting
}

// serverUser owns the certificate's key and all that is kept.
const serverUser = "whisper-appliance"

// standIn is the static user of a service that should have had a dynamic one.
// Engine and decoder, which work on what strangers send, never get the
// server's; the reader of the journal runs journalctl and nothing else.
func standIn(service string) string {
	switch kind, _, _ := strings.Cut(service, "@"); kind {
	case serverUser + "-engine":
		return serverUser + "-engine"
	case serverUser + "-decode":
		return serverUser + "-decoder"
	}
	return serverUser
}

// directives are those that need more of the machine than every one gives:
// namespaces, mounts, users. Filters of system calls and the like work
// wherever systemd does.
func (d *Doctor) directives() []directive {
	no := func(name string) []systemd.Setting { return []systemd.Setting{{Name: name, Value: "no"}} }
	mounts := d.apart("mnt")
	usr := d.readOnlyPlace()
	list := []directive{
		{name: "RootDirectory", relax: []systemd.Setting{{Name: "RootDirectory"}}},                        // tried with the services' own
		{name: "DynamicUser", value: "yes", proof: `test "$(id -u)" -ge 61184`, relax: no("DynamicUser")}, // and relaxation names a user
		{name: "TemporaryFileSystem", value: filepath.Dir(d.Paths.State) + ":ro", proof: mounts, relax: []systemd.Setting{{Name: "TemporaryFileSystem"}}},
		{name: "BindReadOnlyPaths", value: usr, proof: mounts, relax: []systemd.Setting{{Name: "BindReadOnlyPaths"}}},
		{name: "PrivateUsers", value: "yes", proof: d.apart("user"), relax: no("PrivateUsers")},
		{name: "PrivateNetwork", value: "yes", proof: d.apart("net"), relax: no("PrivateNetwork")},
		{name: "PrivateIPC", value: "yes", proof: d.apart("ipc"), relax: no("PrivateIPC")},
		{name: "ProtectHostname", value: "yes", proof: d.apart("uts"), relax: no("ProtectHostname")},
		{name: "ProtectSystem", value: "strict", proof: "test ! -w " + usr, relax: no("ProtectSystem")},
		{name: "ProtectProc", value: "invisible", with: []systemd.Setting{{Name: "User", Value: serverUser}},
			proof: "test ! -e " + filepath.Join(d.Paths.Proc, "1"), relax: []systemd.Setting{{Name: "ProtectProc", Value: "default"}}},
		{name: "ProcSubset", value: "pid", proof: "test ! -e " + filepath.Join(d.Paths.Proc, "meminfo"),
			relax: []systemd.Setting{{Name: "ProcSubset", Value: "all"}}},
		{name: "NoNewPrivileges", value: "yes", proof: "grep -q 'NoNewPrivs:.1' " + filepath.Join(d.Paths.Proc, "self", "status"),
			relax: no("NoNewPrivileges")},
	}
	for _, name := range []string{"ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectControlGroups",
		"ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"} {
		list = append(list, directive{name: name, value: "yes", proof: mounts, relax: no(name)})
	}
	return list
}

// programs binds the system's programs into a root of its own, beside what is
// bound already, so that there is something to execute there.
func (d *Doctor) programs(beside string) systemd.Setting {
	usr := d.readOnlyPlace()
	binds := beside + " " + usr
	for _, dir := range []string{"lib", "lib64", "bin"} {
		binds += " -" + filepath.Join(filepath.Dir(usr), dir)
	}
	return systemd.Setting{Name: "BindReadOnlyPaths", Value: strings.TrimSpace(binds)}
}

// readOnlyPlace is where systemd's own programs are, which ProtectSystem makes
// read-only.
func (d *Doctor) readOnlyPlace() string {
	return filepath.Dir(filepath.Dir(filepath.Dir(d.Paths.Shipped)))
}

// apart is a script that ends well where its process has a namespace of that
// kind to itself: one that is not PID 1's.
func (d *Doctor) apart(kind string) string {
	first, err := os.Readlink(filepath.Join(d.Paths.Proc, "1", "ns", kind))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(`test "$(readlink %s)" != "%s"`, filepath.Join(d.Paths.Proc, "self", "ns", kind), first)
}

// How a directive fared.
type trial struct {
	directive
	refused string // the step that a service with it fails at, "226/NAMESPACE"; "" where it starts
	silent  bool   // it starts, and the directive is not in force
}

// try finds out what this machine makes of the directive. The setting alone is
// tried first: where the proof fails, too, it may be for the proof's sake.
func (d *Doctor) try(ctx context.Context, dir directive) (trial, error) {
	t := trial{directive: dir}
	settings := append([]systemd.Setting{{Name: dir.name, Value: dir.value}}, dir.with...)
	proof := dir.proof
	if proof == "" {
		proof = "true"
	}
	applied, result, err := d.Mender.Probe(ctx, settings, "sh", "-c", proof)
	switch {
	case err != nil || applied:
	case failedAtStart(result):
		t.refused = result
	default:
		t.silent = true
	}
	return t, err
}

// failedAtStart tells systemd's own exit codes from those of a command.
func failedAtStart(result string) bool {
	var code int
	var step string
	n, _ := fmt.Sscanf(result, "%d/%s", &code, &step) //nolint:errcheck // n says how much of it is there
	return n == 2
}

// trials tries every directive that a service of ours uses.
func (d *Doctor) trials(ctx context.Context, services []service) ([]trial, error) {
	var list []trial
	for _, dir := range d.directives() {
		i := slices.IndexFunc(services, func(s service) bool { return s.uses(dir.name) })
		if i < 0 {
			continue
		}
		if dir.name == "RootDirectory" {
			dir.value, dir.with = services[i].value(dir.name), []systemd.Setting{d.programs("")}
		}
		t, err := d.try(ctx, dir)
		if err != nil {
			return nil, fmt.Errorf("try %s: %w", dir.name, err)
		}
		list = append(list, t)
	}
	return list, nil
}
