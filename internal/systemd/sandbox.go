package systemd

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Effective gives the sandbox settings of a unit by the name of their
// directives, in the words of unit files, drop-ins counted in: "yes", "strict",
// "~@clock @mount". It is what systemd was told; what the kernel made of it is
// Confined's to say. The error's codes are those of Start.
func (b *Bus) Effective(ctx context.Context, unit string) (map[string]string, error) {
	all, err := b.propertiesOf(ctx, unit)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, name := range directives() {
		if v, ok := all[name]; ok {
			settings[name] = words(name, v)
		}
	}
	return settings, nil
}

// directives are the settings that shut a service in. Those that the running
// systemd does not know are left out of what Effective gives.
func directives() []string {
	return []string{
		"User", "Group", "DynamicUser", "SupplementaryGroups", "UMask", "NoNewPrivileges",
		"CapabilityBoundingSet", "AmbientCapabilities", "SecureBits",
		"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateUsers",
		"PrivateMounts", "PrivateIPC", "PrivatePIDs", "ProtectHostname", "ProtectClock", "ProtectKernelTunables",
		"ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset",
		"RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "RestrictFileSystems",
		"LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC", "SystemCallFilter", "SystemCallArchitectures",
		"SystemCallErrorNumber", "DevicePolicy", "DeviceAllow", "IPAddressDeny", "IPAddressAllow",
		"RootDirectory", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths", "ReadWritePaths", "ReadOnlyPaths",
		"InaccessiblePaths", "ExecPaths", "NoExecPaths", "KeyringMode", "NotifyAccess", "Delegate",
		"MemoryHigh", "MemoryMax", "TasksMax", "CPUWeight", "IOWeight",
	}
}

// words is a property as a unit file would have it.
func words(name string, v dbus.Variant) string {
	switch v := v.Value().(type) {
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case string:
		return v
	case []string:
		return strings.Join(v, " ")
	case uint32:
		if name == "UMask" {
			return fmt.Sprintf("%04o", v)
		}
		return strconv.FormatUint(uint64(v), 10)
	case uint64:
		return number(name, v)
	case int32:
		return strconv.FormatInt(int64(v), 10)
	case []any:
		// (bas): a list to allow or, where the flag is not set, to deny.
		if list, ok := filter(v); ok {
			return list
		}
	}
	return strings.TrimSpace(v.String())
}

// number is a set of capabilities in hex, as in /proc/PID/status, or a limit.
func number(name string, n uint64) string {
	switch {
	case strings.HasPrefix(name, "Capability") || strings.HasPrefix(name, "Ambient") || name == "RestrictNamespaces":
		return fmt.Sprintf("%016x", n)
	case n == math.MaxUint64:
		return "infinity"
	}
	return strconv.FormatUint(n, 10)
}

func filter(v []any) (string, bool) {
	if len(v) != 2 {
		return "", false
	}
	allow, ok1 := v[0].(bool)
	list, ok2 := v[1].([]string)
	if !ok1 || !ok2 {
		return "", false
	}
	text := strings.Join(list, " ")
	if !allow && text != "" {
		text = "~" + text
	}
	return text, true
}

// Confined tells what the kernel holds process pid to, by directive, "yes" or
// "no": where a host forbids namespaces, systemd leaves some settings out and
// says nothing. proc is where the kernel's process file system is. What cannot
// be read, as another user's process, is left out; an error means that there
// is no such process.
func Confined(proc string, pid int) (map[string]string, error) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	data, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	held := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, text, _ := strings.Cut(line, ":")
		switch text = strings.TrimSpace(text); key {
		case "NoNewPrivs":
			held["NoNewPrivileges"] = yes(text == "1")
		case "Seccomp":
			held["SystemCallFilter"] = yes(text == "2")
		case "CapBnd":
			held["CapabilityBoundingSet"] = text
		}
	}
	namespaces(held, proc, dir)
	if mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo")); err == nil {
		held["ProtectSystem"] = yes(usrIsReadOnly(string(mounts)))
	}
	return held, nil
}

// namespaces compares those of the process with PID 1's.
func namespaces(held map[string]string, proc, dir string) {
	for _, ns := range []struct{ file, directive string }{
		{"net", "PrivateNetwork"}, {"user", "PrivateUsers"}, {"mnt", "PrivateMounts"},
		{"ipc", "PrivateIPC"}, {"uts", "ProtectHostname"}, {"pid", "PrivatePIDs"},
	} {
		first, err1 := os.Readlink(filepath.Join(proc, "1", "ns", ns.file))
		own, err2 := os.Readlink(filepath.Join(dir, "ns", ns.file))
		if err1 == nil && err2 == nil {
			held[ns.directive] = yes(first != own)
		}
	}
}

// usrIsReadOnly reads mountinfo: the mount that covers the system's programs,
// the last of those that do.
func usrIsReadOnly(mounts string) bool {
	best, readOnly := -1, false
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		point := strings.TrimSuffix(fields[4], "/")
		if (point == "" || filepath.Base(point) == "usr" && filepath.Dir(point) == string(filepath.Separator)) && len(point) >= best {
			best, readOnly = len(point), slices.Contains(strings.Split(fields[5], ","), "ro")
		}
	}
	return readOnly
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Differences names the settings that systemd was told (told, from Effective)
// and the kernel does not hold the process to (held, from Confined), sorted.
func Differences(told, held map[string]string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(told)) {
		wanted := told[name] != "" && told[name] != "no" && name != "CapabilityBoundingSet"
		if wanted && held[name] == "no" {
			names = append(names, name)
		}
	}
	return names
}
