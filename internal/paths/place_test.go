package paths

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestGrantable(t *testing.T) {
	p, err := Find(machine(slotsDir+"/a/bin/x", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	for dir, why := range map[string]string{
		"/srv/models": "", "/mnt/disk": "", "/opt/models": "", "/var/lib/models": "", "/etcetera": "",
		"/": "holds what others have", "/var/lib": "holds what others have", "/home": "holds what others have", "/srv/..": "holds what others have",
		"/etc": "the system's", "/usr/share/models": "the system's", "/run": "the system's", "/dev/shm": "the system's", "/proc/1/root": "the system's",
		link: "the system's", link + "/models": "the system's",
		stateHome: "holds the appliance's own", "/var/lib/whisper-appliance-updater": "the appliance's own", "/var/lib/whisper-appliance-updater/x": "lies in the appliance's own",
		slotsDir + "/a": "lies in the appliance's own", optHome: "holds the appliance's own", "models": "no full path",
	} {
		err := p.Grantable(dir)
		if why == "" && err != nil {
			t.Errorf("%s is refused: %v", dir, err)
		}
		var e *fault.Error
		if why != "" && (!errors.As(err, &e) || e.Code != "bad_place" || e.Hint == "" || !strings.Contains(err.Error(), why)) {
			t.Errorf("%s: %v, want %q", dir, err, why)
		}
	}
}

func TestOurUnits(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"whisper-appliance.service", "whisper-appliance.service.d", "whisperappliance.slice", "whisperappliance.slice.d", "other.service"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := OurUnits(dir)
	if err != nil || len(found) != 4 || strings.Contains(strings.Join(found, " "), "other") {
		t.Errorf("%v, %v", found, err)
	}
}

func TestMayRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the rights of another user are told apart from root's")
	}
	root := t.TempDir()
	dir := filepath.Join(root, "tls")
	file := filepath.Join(dir, "server.key")
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o755), os.Mkdir(dir, 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	somebody := User{Name: "somebody", UID: 4711, GIDs: []int{4711}}
	if !somebody.MayRead(file) {
		t.Error("an open file in open directories cannot be read")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if somebody.MayRead(file) {
		t.Error("it can be read in a closed directory")
	}
}
