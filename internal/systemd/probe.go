package systemd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
)

// Setting is one line of a unit's [Service] section.
type Setting struct{ Name, Value string }

func (s Setting) String() string { return s.Name + "=" + s.Value }

// Exit codes that systemd gives a process which it could not set up; see
// systemd.exec(5), "Process exit codes".
const (
	firstSetUp = 200
	lastSetUp  = 245
)

// aux is a unit that StartTransientUnit would make beside the one asked for.
type aux struct {
	Name       string
	Properties []property
}

// property is one of a transient unit.
type property struct {
	Name  string
	Value dbus.Variant
}

// Probe tries what this machine makes of settings: a service of its own, which
// has them and nothing else, runs command and is gone again. applied says that
// the command ran under them and ended well. Where it did not, result is
// systemd's code for the step it failed at, "226/NAMESPACE", or "exit code 1"
// of the command. It needs root. The error's codes are those of Start, and
// "bad_setting" for a setting that is not known here.
func (b *Bus) Probe(ctx context.Context, settings []Setting, command ...string) (applied bool, result string, err error) {
	properties, err := transient(settings, command)
	if err != nil {
		return false, "", err
	}
	unit := "whisper-appliance-probe-" + strings.ToLower(rand.Text()[:10]) + ".service"
	err = b.runTransient(ctx, unit, properties)
	if err == nil {
		return true, "", nil
	}
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != "job_failed" {
		return false, "", err
	}
	result, err = b.howItEnded(ctx, unit)
	return false, result, err
}

// transient words a service for StartTransientUnit.
func transient(settings []Setting, command []string) ([]property, error) {
	type execStart struct {
		Path   string
		Args   []string
		Ignore bool
	}
	list := []property{
		{"Description", dbus.MakeVariant("Whisper appliance: what this machine allows")},
		{"Type", dbus.MakeVariant("oneshot")},
		{"TimeoutStartUSec", dbus.MakeVariant(uint64(10_000_000))},
		{"StandardOutput", dbus.MakeVariant("null")},
		{"StandardError", dbus.MakeVariant("null")},
		{"ExecStart", dbus.MakeVariant([]execStart{{command[0], command, false}})},
	}
	for _, s := range settings {
		v, err := encode(s)
		if err != nil {
			return nil, err
		}
		list = append(list, property{s.Name, v})
	}
	return list, nil
}

// encode gives a setting the type that systemd wants for it.
func encode(s Setting) (dbus.Variant, error) {
	switch s.Name {
	case "DynamicUser", "PrivateUsers", "PrivateNetwork", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateIPC",
		"ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
		"ProtectKernelTunables", "NoNewPrivileges", "LockPersonality", "MemoryDenyWriteExecute", "RestrictRealtime",
		"RestrictSUIDSGID", "MountAPIVFS":
		return dbus.MakeVariant(s.Value == "yes"), nil
	case "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset", "User", "Group", "RootDirectory":
		return dbus.MakeVariant(s.Value), nil
	case "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths":
		return dbus.MakeVariant(strings.Fields(s.Value)), nil
	case "TemporaryFileSystem":
		return dbus.MakeVariant(fileSystems(s.Value)), nil
	case "BindReadOnlyPaths", "BindPaths":
		return dbus.MakeVariant(binds(s.Value)), nil
	}
	return dbus.Variant{}, fault.New(fault.Internal, "bad_setting", "the setting %s cannot be tried", s)
}

type fileSystem struct{ Path, Options string }

func fileSystems(value string) []fileSystem {
	list := []fileSystem{}
	for _, word := range strings.Fields(value) {
		path, options, _ := strings.Cut(word, ":")
		list = append(list, fileSystem{path, options})
	}
	return list
}

type bind struct {
	Source, Destination string
	IgnoreMissing       bool
	Flags               uint64
}

// msRec is the kernel's MS_REC, which systemd takes for what lies below, too.
const msRec = 0x4000

func binds(value string) []bind {
	list := []bind{}
	for _, word := range strings.Fields(value) {
		source, destination, apart := strings.Cut(word, ":")
		source, ignore := strings.CutPrefix(source, "-")
		if !apart {
			destination = source
		}
		list = append(list, bind{source, destination, ignore, msRec})
	}
	return list
}

// runTransient starts the unit and waits until it has ended.
func (b *Bus) runTransient(ctx context.Context, unit string, properties []property) error {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	conn, signals, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing more is asked of it
	var job dbus.ObjectPath
	call := conn.Object(managerName, managerPath).
		CallWithContext(ctx, managerInterface+".StartTransientUnit", 0, unit, "fail", properties, []aux{})
	if err := call.Store(&job); err != nil {
		return refusedTransient(unit, err)
	}
	return errors.Join(await(ctx, "run", map[dbus.ObjectPath]string{job: unit}, signals)...)
}

// refusedTransient keeps a refusal of the unit apart from a unit that failed.
func refusedTransient(unit string, err error) error {
	words := refused("run", unit, err)
	if f, ok := errors.AsType[*fault.Error](words); ok && f.Code == "job_failed" {
		return fault.New(fault.Unavailable, "not_tried", "run %s: systemd takes no such unit", unit).Because(err).
			Try("`systemctl --version`: 252 and newer do")
	}
	return words
}

// howItEnded reads a failed unit's last process, and has it forgotten.
func (b *Bus) howItEnded(ctx context.Context, unit string) (string, error) {
	all, err := b.propertiesOf(ctx, unit)
	if err != nil {
		return "", err
	}
	b.ResetFailed(ctx, unit) //nolint:errcheck // it may be gone
	code := value[int32](all, "ExecMainStatus")
	switch {
	case value[string](all, "Result") == "timeout":
		return "timeout", nil
	case code >= firstSetUp && code <= lastSetUp:
		return fmt.Sprintf("%d/%s", code, step(code)), nil
	}
	return fmt.Sprintf("exit code %d", code), nil
}

// step is systemd's name for the step at which setting up failed.
func step(code int32) string {
	if name, ok := map[int32]string{203: "EXEC", 216: "GROUP", 217: "USER", 218: "CAPABILITIES", 225: "NETWORK", 226: "NAMESPACE",
		227: "NO_NEW_PRIVILEGES", 228: "SECCOMP", 229: "SELINUX_CONTEXT", 238: "STATE_DIRECTORY"}[code]; ok {
		return name
	}
	return "SETUP"
}

// propertiesOf is every property of the unit of that name.
func (b *Bus) propertiesOf(ctx context.Context, unit string) (map[string]dbus.Variant, error) {
	found, err := b.listUnits(ctx, []string{unit})
	if err != nil {
		return nil, err
	}
	if len(found) != 1 || found[0].Load == "not-found" {
		return nil, fault.New(fault.NotFound, "no_unit", "there is no unit %s", unit).
			Try("`systemctl daemon-reload` after unit files were changed")
	}
	all, err := b.properties(ctx, found[0].Path)
	if err != nil {
		return nil, refused("look at", unit, err)
	}
	return all, nil
}

// Listening gives the addresses that a socket unit listens on, as systemd
// writes them: "[::]:5001", or the path of a Unix socket. The error's codes
// are those of Start.
func (b *Bus) Listening(ctx context.Context, socketUnit string) ([]string, error) {
	all, err := b.propertiesOf(ctx, socketUnit)
	if err != nil {
		return nil, err
	}
	var pairs []struct{ Kind, Address string }
	if v, ok := all["Listen"]; ok {
		if err := v.Store(&pairs); err != nil {
			return nil, fmt.Errorf("read what %s listens on: %w", socketUnit, err)
		}
	}
	var list []string
	for _, p := range pairs {
		list = append(list, p.Address)
	}
	return list, nil
}

// FileState is whether a unit is "enabled", "disabled", "masked", "static", …;
// see systemctl(1), is-enabled. The error's codes are those of Start.
func (b *Bus) FileState(ctx context.Context, unit string) (string, error) {
	var state string
	if err := b.askManager(ctx, "GetUnitFileState", []any{unit}, &state); err != nil {
		return "", refused("look for", unit, err)
	}
	return state, nil
}
