package environment

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/paths"
)

// machine makes files below a root of the test's; a name that ends in a slash
// is a directory.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	hostMap = "         0          0 4294967295\n"
	lxcMap  = "         0     100000      65536\n"
	booted  = "run/systemd/system/"
)

func TestDetect(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		name  string
		files map[string]string
		env   map[string]string
		probe Probe
		want  Environment // Evidence is a part of it
		old   [2]string   // Original
	}{
		{"bare metal", map[string]string{booted: "", "sys/class/dmi/id/sys_vendor": "Dell Inc.\n", "proc/cpuinfo": "flags\t\t: fpu vme\n", "proc/sys/kernel/hostname": "box\n"}, nil, Probe{},
			Environment{Deployment: BareMetal, ID: "box", Systemd: true, Evidence: "no mark"}, [2]string{"bare_metal", ""}},
		{"unprivileged LXC", map[string]string{booted: "", "run/systemd/container": "lxc\n", "proc/1/uid_map": lxcMap, "proc/sys/kernel/hostname": "speech"}, nil, Probe{Virtualization: "lxc"},
			Environment{Deployment: LXC, Container: "lxc", Unprivileged: true, PrivilegeKnown: true, ID: "speech", Systemd: true, Evidence: "systemd/container"}, [2]string{"proxmox_lxc", "unprivileged_lxc"}},
		{"privileged LXC", map[string]string{booted: "", "run/systemd/container": "lxc", "proc/1/uid_map": hostMap}, nil, Probe{},
			Environment{Deployment: LXC, Container: "lxc", PrivilegeKnown: true, Systemd: true, Evidence: "systemd/container"}, [2]string{"proxmox_lxc", "privileged_lxc"}},
		{"LXC from a sandbox", map[string]string{booted: "", "run/systemd/container": "lxc", "proc/self/uid_map": "0 0 1\n990 990 1\n"}, nil, Probe{},
			Environment{Deployment: LXC, Container: "lxc", Systemd: true, Evidence: "systemd/container"}, [2]string{"proxmox_lxc", "lxc"}},
		{"LXC without systemd's note", map[string]string{"proc/1/environ": "TERM=linux\x00container=lxc\x00", "proc/self/uid_map": lxcMap}, nil, Probe{},
			Environment{Deployment: LXC, Container: "lxc", Unprivileged: true, PrivilegeKnown: true, Evidence: "environ"}, [2]string{"proxmox_lxc", "unprivileged_lxc"}},
		{"LXC by its control group", map[string]string{"proc/1/cgroup": "1:name=systemd:/lxc/101/init.scope\n"}, nil, Probe{},
			Environment{Deployment: LXC, Container: "lxc", Evidence: "cgroup"}, [2]string{"proxmox_lxc", "lxc"}},
		{"LXC on a virtual host", map[string]string{"run/systemd/container": "lxc", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, nil, Probe{},
			Environment{Deployment: LXC, Container: "lxc", Virt: "qemu", Evidence: "systemd/container"}, [2]string{"proxmox_lxc", "lxc"}},
		{"docker in LXC", map[string]string{".dockerenv": "", "proc/1/uid_map": lxcMap, "proc/self/mountinfo": "1 2 0:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw - x x rw\n"}, nil, Probe{},
			Environment{Deployment: Docker, Container: "docker", Unprivileged: true, PrivilegeKnown: true, ID: id, Evidence: ".dockerenv"}, [2]string{"docker", "docker"}},
		{"docker by its control group", map[string]string{"proc/self/cgroup": "0::/system.slice/docker-" + id + ".scope\n"}, nil, Probe{},
			Environment{Deployment: Docker, Container: "docker", ID: id, Evidence: "cgroup"}, [2]string{"docker", "docker"}},
		{"docker with systemd inside", map[string]string{booted: "", "run/systemd/container": "docker", ".dockerenv": "", "proc/sys/kernel/hostname": "c0ffee"}, nil, Probe{},
			Environment{Deployment: Docker, Container: "docker", ID: "c0ffee", Systemd: true, Evidence: "systemd/container"}, [2]string{"docker", "docker"}},
		{"podman", map[string]string{"run/.containerenv": "engine=\"podman-4.3\"\nid=\"abc\"\n"}, map[string]string{"container": "podman"}, Probe{},
			Environment{Deployment: Podman, Container: "podman", ID: "abc", Evidence: "containerenv"}, [2]string{"docker", "docker"}},
		{"podman, told as oci", map[string]string{"run/systemd/container": "oci", "run/.containerenv": ""}, nil, Probe{},
			Environment{Deployment: Podman, Container: "podman", Evidence: "containerenv"}, [2]string{"docker", "docker"}},
		{"kubernetes", map[string]string{"proc/sys/kernel/hostname": "pod-1"}, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Probe{},
			Environment{Deployment: Kubernetes, Container: "kubernetes", ID: "pod-1", Evidence: "KUBERNETES_SERVICE_HOST"}, [2]string{"docker", "docker"}},
		{"kubernetes over docker", map[string]string{".dockerenv": "", "run/systemd/container": "docker", "var/run/secrets/kubernetes.io/": ""}, nil, Probe{},
			Environment{Deployment: Kubernetes, Container: "kubernetes", Evidence: "kubernetes.io"}, [2]string{"docker", "docker"}},
		{"nspawn", map[string]string{booted: "", "run/host/container-manager": "systemd-nspawn\n", "proc/1/uid_map": hostMap}, nil, Probe{},
			Environment{Deployment: Nspawn, Container: "systemd-nspawn", PrivilegeKnown: true, Systemd: true, Evidence: "container-manager"}, [2]string{"systemd", ""}},
		{"some engine", nil, map[string]string{"container": "bubblewrap"}, Probe{},
			Environment{Deployment: Container, Container: "bubblewrap", Evidence: "variable"}, [2]string{"unknown", ""}},
		{"a container over D-Bus", nil, nil, Probe{Virtualization: "openvz"},
			Environment{Deployment: Container, Container: "openvz", Evidence: "Virtualization"}, [2]string{"unknown", ""}},
		{"a VM over D-Bus", map[string]string{booted: ""}, nil, Probe{Virtualization: "kvm"},
			Environment{Deployment: VM, Virt: "kvm", Systemd: true, Evidence: "Virtualization"}, [2]string{"systemd", ""}},
		{"a VM by its firmware", map[string]string{booted: "", "sys/class/dmi/id/product_name": "VMware Virtual Platform\n"}, nil, Probe{},
			Environment{Deployment: VM, Virt: "vmware", Systemd: true, Evidence: "product_name"}, [2]string{"systemd", ""}},
		{"a VM by its processor", map[string]string{"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu hypervisor lm\n"}, nil, Probe{},
			Environment{Deployment: VM, Virt: "vm", Evidence: "cpuinfo"}, [2]string{"unknown", ""}},
		{"Xen", map[string]string{"sys/hypervisor/type": "xen\n"}, nil, Probe{},
			Environment{Deployment: VM, Virt: "xen", Evidence: "hypervisor"}, [2]string{"unknown", ""}},
		{"a checkout", map[string]string{booted: ""}, nil, Probe{Kind: paths.Development, Profile: "development"},
			Environment{Deployment: Development, Profile: "development", Systemd: true, Evidence: "checkout"}, [2]string{"development", ""}},
		{"a checkout in docker", map[string]string{".dockerenv": ""}, nil, Probe{Kind: paths.Development},
			Environment{Deployment: Development, Container: "docker", Evidence: "checkout"}, [2]string{"development", "docker"}},
		{"nothing to see", nil, nil, Probe{}, Environment{Deployment: BareMetal, Evidence: "no mark"}, [2]string{"bare_metal", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.probe.Root = machine(t, c.files)
			c.probe.Getenv = func(name string) string { return c.env[name] }
			got := Detect(c.probe)
			if !strings.Contains(got.Evidence, c.want.Evidence) {
				t.Errorf("evidence %q lacks %q", got.Evidence, c.want.Evidence)
			}
			c.want.Evidence = got.Evidence
			if got != c.want {
				t.Errorf("%+v\nwant %+v", got, c.want)
			}
			deployment, container := got.Original()
			if deployment != c.old[0] || container != c.old[1] {
				t.Errorf("in old words %s, %s; want %v", deployment, container, c.old)
			}
		})
	}
}

func TestImage(t *testing.T) {
	for _, c := range []struct {
		e    Environment
		want bool
		id   string
	}{
		{Environment{Deployment: Docker, Container: "docker", ID: "x"}, true, "x"},
		{Environment{Deployment: Docker, Container: "docker", ID: "x", Systemd: true}, false, "x"},
		{Environment{Deployment: Kubernetes, Container: "kubernetes", ID: "p"}, true, "p"},
		{Environment{Deployment: LXC, Container: "lxc", ID: "l"}, false, "l"},
		{Environment{Deployment: VM, ID: "v"}, false, ""},
		{Environment{Deployment: Development, Container: "docker", ID: "d"}, false, "d"},
	} {
		if c.e.Image() != c.want || c.e.ContainerID() != c.id {
			t.Errorf("%+v: %v, %q", c.e, c.e.Image(), c.e.ContainerID())
		}
	}
}

// TestHere: the machine of the test is something.
func TestHere(t *testing.T) {
	if e := Detect(Probe{}); e.Deployment == "" || e.Evidence == "" {
		t.Errorf("%+v", e)
	}
}
