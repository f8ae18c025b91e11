package systemd

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestEffective(t *testing.T) {
	f := newFake(t, false)
	type list struct {
		Allow bool
		Names []string
	}
	f.add(Service, map[string]any{
		"PrivateNetwork": true, "PrivateUsers": false, "ProtectSystem": "strict", "UMask": uint32(0o077),
		"CapabilityBoundingSet": uint64(0x400), "MemoryMax": uint64(math.MaxUint64), "TasksMax": uint64(64),
		"SystemCallFilter": list{false, []string{"mount", "unshare"}}, "RestrictAddressFamilies": list{true, []string{"AF_UNIX"}},
		"SystemCallArchitectures": []string{"native"}, "SystemCallErrorNumber": int32(1), "Description": "not a setting",
	})
	got, err := f.dial().Effective(t.Context(), Service)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"PrivateNetwork": "yes", "PrivateUsers": "no", "ProtectSystem": "strict", "UMask": "0077",
		"CapabilityBoundingSet": "0000000000000400", "MemoryMax": "infinity", "TasksMax": "64",
		"SystemCallFilter": "~mount unshare", "RestrictAddressFamilies": "AF_UNIX", "SystemCallArchitectures": "native",
		"SystemCallErrorNumber": "1",
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
	if _, ok := got["Description"]; ok || len(got) != 11 {
		t.Errorf("%v", got)
	}
	if _, err := f.dial().Effective(t.Context(), Target); codeOf(err) != "no_unit" {
		t.Errorf("no unit: %v", err)
	}
}

// process makes what the kernel shows of a process below proc.
func process(t *testing.T, proc string, pid int, status, mounts string, ns map[string]string) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"status": status, "mountinfo": mounts} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range ns {
		if err := os.Symlink(name+":["+id+"]", filepath.Join(dir, "ns", name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfined(t *testing.T) {
	proc := t.TempDir()
	process(t, proc, 1, "", "", map[string]string{"net": "1", "mnt": "1", "user": "1"})
	process(t, proc, 7, "Name:\tx\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		"20 1 0:1 / / rw - ext4 a rw\n21 20 0:1 /usr /usr ro,nodev - ext4 a rw\n", map[string]string{"net": "2", "mnt": "2", "user": "1"})
	process(t, proc, 8, "NoNewPrivs:\t0\nSeccomp:\t0\n", "20 1 0:1 / / rw - ext4 a rw\nshort\n", map[string]string{"net": "1"})
	held, err := Confined(proc, 7)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"NoNewPrivileges": "yes", "SystemCallFilter": "yes", "CapabilityBoundingSet": "0000000000000000",
		"PrivateNetwork": "yes", "PrivateMounts": "yes", "PrivateUsers": "no", "ProtectSystem": "yes", "PrivateIPC": ""} {
		if held[name] != want {
			t.Errorf("%s = %q, want %q", name, held[name], want)
		}
	}
	loose, err := Confined(proc, 8)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{"PrivateNetwork": "yes", "ProtectSystem": "strict", "PrivateUsers": "no", "NoNewPrivileges": "yes", "SystemCallFilter": ""}
	if got, want := Differences(told, loose), []string{"NoNewPrivileges", "PrivateNetwork", "ProtectSystem"}; !slices.Equal(got, want) {
		t.Errorf("differences %v, want %v", got, want)
	}
	if got := Differences(told, held); got != nil {
		t.Errorf("differences %v of one that is held", got)
	}
	if _, err := Confined(proc, 9); err == nil {
		t.Error("a process that is not there")
	}
}
