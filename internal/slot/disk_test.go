package slot

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/fault"
)

// mount puts a small file system of its own at dir.
func mount(t *testing.T, dir, size string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system needs root to mount")
	}
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("none", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestTheDiskFillsUp: the space was there when it was asked for and is not when
// it is written to.
func TestTheDiskFillsUp(t *testing.T) {
	s, from := testSlots(t), newer(t)
	write(t, filepath.Join(from, "share/big"), string(make([]byte, 256<<10)), 0o644)
	_, err := Seal(t.Context(), from, info("9.2.0+dev"))
	must(t, err)
	home := t.TempDir()
	mount(t, home, "128k")
	s.Dir = filepath.Join(home, "slots")
	s.Room = -1 << 40
	_, err = s.Place(t.Context(), from, A, nil)
	wantCode(t, err, "disk_full")
	if fault.KindOf(err) != fault.NoSpace {
		t.Errorf("kind of %v is %v", err, fault.KindOf(err))
	}
	nothingLeft(t, s)
	s.Room = 1
	_, err = s.Place(t.Context(), from, A, nil)
	wantCode(t, err, "disk_full")
	if _, err := os.Stat(s.Path(A)); !os.IsNotExist(err) {
		t.Errorf("slot a: %v", err)
	}
}

func TestTwoFileSystems(t *testing.T) {
	s, from := twoSlots(t), newer(t)
	mount(t, s.trash(), "1m")
	_, err := s.Place(t.Context(), from, B, nil)
	wantCode(t, err, "two_file_systems")
	sound(t, s, B, "9.1.0+dev")
}
