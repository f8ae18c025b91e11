package paths

import (
	"os"
	"path/filepath"
)

// Machine is where the kernel, systemd and container engines keep what the
// appliance reads of the machine it runs on. Nothing here is ours.
type Machine struct {
	SystemdPrivate string // systemd's own door, root's alone
	SystemBus      string // the D-Bus system bus
	SystemdBooted  string // a directory that is there while systemd is PID 1
	Journal        string // the journal's native socket

	Container        string // systemd's note of the container engine it found
	ContainerHost    string // the engine's own note, beside other things of the host
	InitEnviron      string // PID 1's environment
	InitUIDMap       string // the user namespace of PID 1, and of this process
	SelfUIDMap       string
	InitCgroup       string // control groups of PID 1, and of this process
	SelfCgroup       string
	DockerEnv        string // marks of Docker and Podman
	ContainerEnv     string
	CPUInfo          string
	DMI              string // directory of what the firmware says of the machine
	HypervisorType   string // Xen and its kin
	Hostname         string // as the kernel has it
	MountInfo        string // of this process
	Proc             string
	Cgroup           string // root of the control groups
	ImageHome        string // the predecessor's home in a container image
	kubernetesSecret string // mounted into every pod
}

// MachineAt is the machine below root; "" in earnest.
func MachineAt(root string) Machine {
	return Machine{
		SystemdPrivate:   root + "/run/systemd/private",
		SystemBus:        root + "/run/dbus/system_bus_socket",
		SystemdBooted:    root + "/run/systemd/system",
		Journal:          root + "/run/systemd/journal/socket",
		Container:        root + "/run/systemd/container",
		ContainerHost:    root + "/run/host/container-manager",
		InitEnviron:      root + "/proc/1/environ",
		InitUIDMap:       root + "/proc/1/uid_map",
		SelfUIDMap:       root + "/proc/self/uid_map",
		InitCgroup:       root + "/proc/1/cgroup",
		SelfCgroup:       root + "/proc/self/cgroup",
		DockerEnv:        root + "/.dockerenv",
		ContainerEnv:     root + "/run/.containerenv",
		CPUInfo:          root + "/proc/cpuinfo",
		DMI:              root + "/sys/class/dmi/id",
		HypervisorType:   root + "/sys/hypervisor/type",
		Hostname:         root + "/proc/sys/kernel/hostname",
		MountInfo:        root + "/proc/self/mountinfo",
		Proc:             root + "/proc",
		Cgroup:           root + "/sys/fs/cgroup",
		ImageHome:        root + "/app",
		kubernetesSecret: root + "/var/run/secrets/kubernetes.io",
	}
}

// Image tells the engine whose container image this process runs in, by the
// marks that engines leave: "kubernetes", "podman", "docker" or "" for none,
// and which mark it was.
func (m Machine) Image(getenv func(string) string, stat func(string) (os.FileInfo, error)) (engine, mark string) {
	if getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "kubernetes", "KUBERNETES_SERVICE_HOST"
	}
	for _, e := range []struct{ path, engine string }{
		{m.kubernetesSecret, "kubernetes"}, {m.ContainerEnv, "podman"}, {m.DockerEnv, "docker"},
	} {
		if _, err := stat(e.path); err == nil {
			return e.engine, e.path
		}
	}
	return "", ""
}

// image is the directory that holds the state in a container image, "" where
// there is none: /app/data or /app as the predecessor's images mounted it.
func (f *finder) image(kind Kind) string {
	m := MachineAt(f.env.Root)
	if kind == Development || f.env.Writable == nil {
		return ""
	}
	if engine, _ := m.Image(f.env.Getenv, f.env.Stat); engine == "" {
		return ""
	}
	for _, dir := range []string{filepath.Join(m.ImageHome, "data"), m.ImageHome} {
		if info, err := f.env.Stat(dir); err == nil && info.IsDir() && f.env.Writable(dir) {
			return dir
		}
	}
	return ""
}

// ofImage is where h lies in a container image: the state in its volume, and
// in it what an installed appliance would have elsewhere and a program that
// lies anywhere has not.
func (f *finder) ofImage(kind Kind, h home) string {
	dir := f.image(kind)
	switch {
	case dir == "" || h.variable == "STATE_DIRECTORY":
		return dir
	case kind == Installed:
		return ""
	}
	return filepath.Join(dir, h.name)
}
