package environment

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"whisper-appliance/internal/paths"
)

// detector is one Detect in progress.
type detector struct {
	Probe
	at paths.Machine
}

// read is a file of the machine in one line, "" where there is none. NUL
// bytes, as between variables and in firmware's strings, become line ends.
func (d detector) read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", "\n"))
}

// container is the name of the engine that this runs in and what says so.
func (d detector) container() (name, evidence string) {
	name, evidence = d.bySystemd()
	mark, path := d.at.Image(d.Getenv, os.Lstat)
	switch {
	case name == "":
	case mark == "kubernetes" && name != "lxc" && name != "systemd-nspawn":
		return mark, path // a pod's containers are some engine's, too
	case name == "container-other" && mark != "":
		return mark, path
	default:
		return name, evidence
	}
	if mark != "" {
		return mark, path
	}
	if name, path := d.byCgroup(); name != "" {
		return name, path
	}
	if name := d.Getenv("container"); name != "" {
		return engineName(name), "variable container"
	}
	return "", ""
}

// bySystemd is systemd's own view: its note, the engine's note to it, what its
// environment says where that may be read, and what it answered over D-Bus.
func (d detector) bySystemd() (name, evidence string) {
	for _, path := range []string{d.at.Container, d.at.ContainerHost} {
		if name := d.read(path); name != "" {
			return engineName(name), path
		}
	}
	for line := range strings.Lines(d.read(d.at.InitEnviron)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "container="); ok && name != "" {
			return engineName(name), d.at.InitEnviron
		}
	}
	if isContainer(d.Virtualization) {
		return d.Virtualization, "systemd's Virtualization"
	}
	return "", ""
}

// engineName keeps a name to one word; "oci" says nothing about the engine.
func engineName(name string) string {
	name, _, _ = strings.Cut(strings.TrimSpace(name), "\n")
	if name == "oci" {
		return "container-other"
	}
	return name
}

// byCgroup reads the names that engines give to control groups. Where the
// container has a namespace of its own there is nothing to see.
func (d detector) byCgroup() (name, evidence string) {
	for _, path := range []string{d.at.InitCgroup, d.at.SelfCgroup} {
		text := d.read(path)
		for _, e := range []struct{ part, name string }{
			{"kubepods", "kubernetes"}, {"libpod", "podman"}, {"/docker", "docker"}, {"docker-", "docker"},
			{"/lxc/", "lxc"}, {"/lxc.payload", "lxc"}, {"machine-lxc", "lxc"},
		} {
			if strings.Contains(text, e.part) {
				return e.name, path
			}
		}
	}
	return "", ""
}

// virt is the hypervisor that this machine runs on: as systemd says, as the
// firmware says, or "vm" where only the processor says that there is one.
func (d detector) virt() (name, evidence string) {
	if d.Virtualization != "" && d.Virtualization != "none" && !isContainer(d.Virtualization) {
		return d.Virtualization, "systemd's Virtualization"
	}
	if kind := d.read(d.at.HypervisorType); kind != "" {
		return kind, d.at.HypervisorType
	}
	for _, file := range []string{"sys_vendor", "product_name", "bios_vendor", "board_vendor"} {
		path := filepath.Join(d.at.DMI, file)
		if name := hypervisorOf(d.read(path)); name != "" {
			return name, path
		}
	}
	for line := range strings.Lines(d.read(d.at.CPUInfo)) {
		if flags, ok := strings.CutPrefix(line, "flags"); ok && strings.Contains(" "+strings.TrimSpace(flags)+" ", " hypervisor ") {
			return "vm", d.at.CPUInfo
		}
	}
	return "", ""
}

// hypervisorOf knows the makers that virtual machines' firmware names.
func hypervisorOf(vendor string) string {
	for _, h := range []struct{ begins, name string }{
		{"QEMU", "qemu"}, {"KVM", "kvm"}, {"OpenStack", "kvm"}, {"KubeVirt", "kvm"}, {"Amazon EC2", "amazon"},
		{"Google Compute Engine", "google"}, {"VMware", "vmware"}, {"VMW", "vmware"}, {"innotek GmbH", "oracle"},
		{"VirtualBox", "oracle"}, {"Oracle Corporation VirtualBox", "oracle"}, {"Xen", "xen"}, {"Bochs", "bochs"},
		{"Parallels", "parallels"}, {"BHYVE", "bhyve"}, {"Virtual Machine", "microsoft"}, {"Apple Virtualization", "apple"},
	} {
		if strings.HasPrefix(vendor, h.begins) {
			return h.name
		}
	}
	return ""
}

// everyID is how many user ids the host's own namespace maps.
const everyID = 4294967295

// fewestIDs is what a container has at least. A smaller map is that of a
// service's own sandbox, which says nothing about what is around it.
const fewestIDs = 1000

// unprivileged reads how many user ids are mapped: all of them for the host's
// own namespace. Whose they are cannot be told, since the numbers are shown as
// the reader's namespace sees them. PID 1's map counts before that of this
// process, which a unit's PrivateUsers= may have narrowed.
func (d detector) unprivileged() (unprivileged, known bool) {
	for _, path := range []string{d.at.InitUIDMap, d.at.SelfUIDMap} {
		ids := uint64(0)
		for line := range strings.Lines(d.read(path)) {
			if fields := strings.Fields(line); len(fields) == 3 {
				n, _ := strconv.ParseUint(fields[2], 10, 64) //nolint:errcheck // the kernel writes numbers
				ids += n
			}
		}
		if ids >= fewestIDs {
			return ids < everyID, true
		}
	}
	return false, false
}

// id is what the engine calls this container, where it can be seen from
// within; else the host name, which Docker makes of the id.
func (d detector) id(container string) string {
	if container != "" {
		for line := range strings.Lines(d.read(d.at.ContainerEnv)) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), `id="`); ok {
				return strings.TrimSuffix(id, `"`)
			}
		}
		for _, path := range []string{d.at.SelfCgroup, d.at.MountInfo} {
			if id := longHex(d.read(path)); id != "" {
				return id
			}
		}
	}
	return d.read(d.at.Hostname)
}

// longHex is the first name of 64 hex digits after a mark that engines put
// before the ids of containers.
func longHex(text string) string {
	for _, mark := range []string{"/containers/", "/docker/", "docker-", "libpod-", "cri-containerd-", "crio-"} {
		_, rest, _ := strings.Cut(text, mark)
		if len(rest) >= 64 && strings.Trim(rest[:64], "0123456789abcdef") == "" {
			return rest[:64]
		}
	}
	return ""
}
