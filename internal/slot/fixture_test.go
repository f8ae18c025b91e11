package slot

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// write makes a file of a test, and the directories above it.
func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// tree makes what a release consists of, without a manifest.
func tree(t *testing.T, dir, version string) {
	t.Helper()
	base, _, _ := strings.Cut(version, "+")
	write(t, filepath.Join(dir, "VERSION"), base+"\n", 0o644)
	write(t, filepath.Join(dir, ServerPath), "server "+version, 0o755)
	write(t, filepath.Join(dir, EnginePath), "engine "+version, 0o755)
	write(t, filepath.Join(dir, "lib/engine/ld.so"), "loader", 0o755)
	write(t, filepath.Join(dir, "share/doc/x y ü.txt"), "", 0o644)
	for _, d := range []string{"", "bin", "lib", "lib/engine", "share", "share/doc"} {
		if err := os.Chmod(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func info(version string) Info {
	return Info{Version: version, Commit: "c0ffee", Arch: runtime.GOARCH, Contract: Contract}
}

// release makes a sealed release in dir.
func release(t *testing.T, dir, version string) Manifest {
	t.Helper()
	tree(t, dir, version)
	m, err := Seal(t.Context(), dir, info(version))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testSlots are slots with a golden release 9.0.0 and nothing in them.
func testSlots(t *testing.T) *Slots {
	t.Helper()
	home := t.TempDir()
	s := &Slots{
		Dir:     filepath.Join(home, "opt", "slots"),
		Current: filepath.Join(home, "opt", "current"),
		Stable:  filepath.Join(home, "opt", "stable"),
		Golden:  filepath.Join(home, "package", "golden"),
	}
	release(t, s.Golden, "9.0.0+dev")
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	return s
}

// twoSlots have 9.0.0 in a, which serves and is stable, and 9.1.0 in b.
func twoSlots(t *testing.T) *Slots {
	t.Helper()
	s := testSlots(t)
	for name, version := range map[string]string{A: "9.0.0+dev", B: "9.1.0+dev"} {
		release(t, s.Path(name), version)
	}
	if err := errors.Join(s.Activate(A), s.Commit(A)); err != nil {
		t.Fatal(err)
	}
	return s
}

// wantCode fails where err is no fault with the code, or gives no hint.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code {
		t.Errorf("error %v (%+v), want a fault %q", err, f, code)
		return
	}
	if fault.Hint(err) == "" && code != "unknown_slot" {
		t.Errorf("%v: no hint", err)
	}
}

func serving(t *testing.T, s *Slots) (current, stable string) {
	t.Helper()
	current, err := s.Serving()
	if err != nil {
		t.Fatal(err)
	}
	stable, err = s.Committed()
	if err != nil {
		t.Fatal(err)
	}
	return current, stable
}

// sound fails where the slot does not hold that version, whole.
func sound(t *testing.T, s *Slots, name, version string) {
	t.Helper()
	diffs, m, err := Verify(t.Context(), s.Path(name), Check{})
	if err != nil || len(diffs) > 0 || m.Version != version {
		t.Errorf("slot %s holds %q, %v, %v; want %s and no difference", name, m.Version, diffs, err, version)
	}
}

// nothingLeft fails where .staging or .trash holds anything.
func nothingLeft(t *testing.T, s *Slots) {
	t.Helper()
	for _, dir := range []string{s.staging(), s.trash()} {
		if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
			t.Errorf("%s still holds %v", dir, left)
		}
	}
}
