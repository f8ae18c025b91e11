package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
)

// place puts a release in a slot.
func place(t *testing.T, dir, version string) {
	t.Helper()
	server := filepath.Join(dir, slot.ServerPath)
	if err := os.MkdirAll(filepath.Dir(server), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{server: "server", filepath.Join(dir, "VERSION"): version + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slot.Seal(t.Context(), dir, slot.Info{Version: version, Commit: "c0ffee", Arch: runtime.GOARCH, Contract: slot.Contract}); err != nil {
		t.Fatal(err)
	}
}

// TestReleases: an empty slot is none, and a damaged one does not hide the
// others.
func TestReleases(t *testing.T) {
	slots := t.TempDir()
	place(t, filepath.Join(slots, slot.A), "1.0.0")
	place(t, filepath.Join(slots, slot.Golden), "0.9.0")
	u := newUpdater(paths.Paths{Slots: slots})
	versions := func() map[string]string {
		list, err := u.Releases()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, r := range list {
			got[r.Slot] = r.Version
			if r.Path == "" || r.Version != "" && (r.Bytes == 0 || r.Placed.IsZero()) {
				t.Errorf("release %+v", r)
			}
		}
		return got
	}
	if got := versions(); len(got) != 2 || got[slot.A] != "1.0.0" || got[slot.Golden] != "0.9.0" {
		t.Errorf("releases %v", got)
	}
	manifest := filepath.Join(slots, slot.A, slot.ManifestName)
	if err := os.WriteFile(manifest, []byte("{ half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := versions(); len(got) != 2 || got[slot.A] != "" || got[slot.Golden] != "0.9.0" {
		t.Errorf("with a damaged one: %v", got)
	}
}

// TestLastRestart is read where the updater has left it.
func TestLastRestart(t *testing.T) {
	run := t.TempDir()
	u := newUpdater(paths.Paths{UpdaterRun: run})
	if _, err := u.LastRestart(); fault.KindOf(err) != fault.NotFound || fault.Hint(err) == "" {
		t.Errorf("before the first: %v", err)
	}
	want := deployment.Restart{Asked: time.Now().UTC(), Ended: time.Now().UTC(), Invocation: "0123"}
	if err := deployment.WriteRestart(run, want); err != nil {
		t.Fatal(err)
	}
	if got, err := u.LastRestart(); err != nil || got.Invocation != want.Invocation || !got.Asked.Equal(want.Asked) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(run, deployment.RestartFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := u.LastRestart(); err == nil || fault.KindOf(err) == fault.NotFound {
		t.Errorf("half a file: %v", err)
	}
}
