package fakerelease

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/slot"
)

// TestReleases: they are whole, the same ones are the same, and others have
// another server; the version is the release's own.
func TestReleases(t *testing.T) {
	m := New(t)
	r := Release{Version: "9.8.7+dev", Mode: "crash", Padding: 100_000, Known: map[string]string{"a": "the letter a"}}
	dir, first := m.In(t, r)
	_, again := m.In(t, r)
	if !first.Same(again) {
		t.Errorf("%+v\n%+v", first, again)
	}
	diffs, _, err := slot.Verify(t.Context(), dir, slot.Check{})
	if err != nil || len(diffs) > 0 {
		t.Errorf("%v, %v", diffs, err)
	}
	if err := first.Fits(); err != nil {
		t.Error(err)
	}
	server, _ := first.File(slot.ServerPath)
	t.Logf("%d bytes in %d files, the server %d", first.Size(), len(first.Files), server.Size)
	for _, other := range []Release{{Version: "9.8.8"}, {Version: "9.8.7+dev"}} {
		_, different := m.In(t, other)
		if s, ok := different.File(slot.ServerPath); !ok || s.SHA256 == server.SHA256 {
			t.Errorf("%+v has the same server", other)
		}
	}
	out, err := exec.Command(filepath.Join(dir, slot.ServerPath), "--version").CombinedOutput()
	if want := "whisper-appliance-server 9.8.7+dev (commit c0ffee of "; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%q, %v", out, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "share", "padding")); err != nil || info.Size() != r.Padding {
		t.Errorf("padding: %v", err)
	}
}

func TestUnfitReleases(t *testing.T) {
	m := &Maker{[]byte("no program")}
	for _, r := range []Release{{Version: "1.0.0", Arch: "s390x"}, {Version: "1.0.0", Contract: slot.Contract + 1}} {
		if _, manifest := m.In(t, r); manifest.Fits() == nil {
			t.Errorf("%+v fits", r)
		}
	}
	if _, err := m.Make(t.Context(), t.TempDir(), Release{}); err == nil {
		t.Error("a release without a version was made")
	}
}
