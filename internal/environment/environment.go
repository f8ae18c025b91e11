// Package environment tells what kind of machine the appliance runs on, and
// on what evidence: a container and whose, a virtual machine, bare metal, or a
// checkout of the source. systemd's own view comes first, then the marks that
// container engines leave, then what the firmware and the processor say. It
// trusts these files as far as they go, changes nothing, and decides nothing:
// others ask it.
package environment

import (
	"os"
	"strings"

	"whisper-appliance/internal/paths"
)

// The deployments.
const (
	LXC         = "lxc"
	VM          = "vm"
	Docker      = "docker"
	Podman      = "podman"
	Kubernetes  = "kubernetes"
	Nspawn      = "nspawn"
	Container   = "container" // of an engine that is not one of these
	BareMetal   = "bare_metal"
	Development = "development"
)

// Environment is what was found.
type Environment struct {
	Deployment string `json:"deployment"`          // one of the deployments
	Container  string `json:"container,omitempty"` // the engine as it calls itself: "lxc", "systemd-nspawn", …; "" outside containers
	Virt       string `json:"virt,omitempty"`      // the hypervisor below, "kvm", "vmware", …; "" where none shows

	// Unprivileged tells that root here is not root on the host. Where
	// PrivilegeKnown is false a sandbox hid it.
	Unprivileged   bool `json:"unprivileged"`
	PrivilegeKnown bool `json:"privilege_known"`

	ID       string `json:"id"`       // the container's, as its engine has it; else the host name
	Profile  string `json:"profile"`  // [environment] profile as it stands
	Systemd  bool   `json:"systemd"`  // systemd is the service manager
	Evidence string `json:"evidence"` // which file or variable decided, for people
}

// Probe is what Detect asks of the machine.
type Probe struct {
	Root           string              // put before the machine's files; "" in earnest
	Getenv         func(string) string // nil for the process's own
	Virtualization string              // systemd's property of that name; "" where it was not asked
	Kind           paths.Kind
	Profile        string
}

// Detect looks. It always finds something.
func Detect(p Probe) Environment {
	if p.Getenv == nil {
		p.Getenv = os.Getenv
	}
	d := detector{Probe: p, at: paths.MachineAt(p.Root)}
	e := Environment{Profile: p.Profile}
	if info, err := os.Lstat(d.at.SystemdBooted); err == nil {
		e.Systemd = info.IsDir()
	}
	e.Container, e.Evidence = d.container()
	virt, evidence := d.virt()
	e.Virt = virt
	switch {
	case e.Container != "":
		e.Deployment = deploymentOf(e.Container)
	case virt != "":
		e.Deployment, e.Evidence = VM, evidence
	default:
		e.Deployment, e.Evidence = BareMetal, "no mark of a container or a hypervisor"
	}
	if p.Kind == paths.Development {
		e.Deployment, e.Evidence = Development, "the program lies in a checkout"
	}
	if e.Container != "" {
		e.Unprivileged, e.PrivilegeKnown = d.unprivileged()
	}
	e.ID = d.id(e.Container)
	return e
}

// Image reports whether this is an application's container image, without a
// service manager of its own, rather than a whole system in a container.
func (e Environment) Image() bool {
	switch e.Deployment {
	case Docker, Podman, Kubernetes, Container:
		return !e.Systemd
	}
	return false
}

// ContainerID is the ID of a container, "" outside one.
func (e Environment) ContainerID() string {
	if e.Container == "" {
		return ""
	}
	return e.ID
}

// Original gives the words of the appliance's predecessor, for clients that
// were written for it: deployment is one of proxmox_lxc, docker, development,
// bare_metal, systemd and unknown; container one of docker, privileged_lxc,
// unprivileged_lxc and lxc, or "" for none. It knew no virtual machines: one
// that systemd runs was "systemd" to it.
func (e Environment) Original() (deployment, container string) {
	switch {
	case e.Container == "lxc" || e.Container == "lxc-libvirt":
		deployment, container = "proxmox_lxc", e.privilege()
	case deploymentOf(e.Container) == Docker, deploymentOf(e.Container) == Podman, deploymentOf(e.Container) == Kubernetes:
		deployment, container = "docker", "docker"
	case e.Deployment == BareMetal:
		deployment = "bare_metal"
	case e.Systemd:
		deployment = "systemd"
	default:
		deployment = "unknown"
	}
	if e.Deployment == Development {
		deployment = "development"
	}
	return deployment, container
}

func (e Environment) privilege() string {
	switch {
	case !e.PrivilegeKnown:
		return "lxc"
	case e.Unprivileged:
		return "unprivileged_lxc"
	}
	return "privileged_lxc"
}

// deploymentOf sorts the names that engines have for themselves; systemd's
// list of them is in systemd-detect-virt(1).
func deploymentOf(container string) string {
	switch container {
	case "":
		return ""
	case "lxc", "lxc-libvirt":
		return LXC
	case "docker":
		return Docker
	case "podman":
		return Podman
	case "kubernetes":
		return Kubernetes
	case "systemd-nspawn":
		return Nspawn
	case "wsl":
		return VM
	}
	return Container
}

// isContainer tells systemd's names of containers from those of hypervisors.
func isContainer(virtualization string) bool {
	switch virtualization {
	case "lxc", "lxc-libvirt", "docker", "podman", "systemd-nspawn", "rkt", "openvz", "wsl", "proot", "pouch", "container-other":
		return true
	}
	return strings.HasPrefix(virtualization, "container")
}
