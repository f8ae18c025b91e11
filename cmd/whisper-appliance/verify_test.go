package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
)

// TestPackageFiles: whatever root runs or systemd reads is looked at, in
// directories of drop-ins, too, and a release is left to its manifest.
func TestPackageFiles(t *testing.T) {
	root := t.TempDir()
	at := func(path ...string) string { return filepath.Join(append([]string{root}, path...)...) }
	p := paths.Paths{Kind: paths.Installed, Golden: at("lib", "golden"), Shipped: at("units"),
		Package: []string{at("lib"), at("bin", "whisper-appliance"), at("sysusers.d", "whisper-appliance.conf"), at("tmpfiles.d", "whisper-appliance.conf")}}
	files := []string{
		at("lib", "gate"), at("lib", "golden", "file"), at("bin", "whisper-appliance"), at("sysusers.d", "whisper-appliance.conf"),
		at("units", "whisper-appliance.service"), at("units", "whisper-appliance.service.d", "10-sandbox.conf"),
		at("units", "whisperappliance.slice"), at("units", "other.service"),
	}
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := &app{paths: p}
	if found := found(t, a, slot.Missing); !slices.Equal(found, []string{at("tmpfiles.d", "whisper-appliance.conf")}) {
		t.Errorf("missing: %v", found)
	}
	if found := found(t, a, slot.Mode); len(found) != 0 {
		t.Errorf("open to others: %v", found)
	}
	for _, file := range files {
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want := slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		return f == at("lib", "golden", "file") || f == at("units", "other.service")
	})
	slices.Sort(want)
	if found := found(t, a, slot.Mode); !slices.Equal(found, want) {
		t.Errorf("open to others:\n%v\nwant\n%v", found, want)
	}
}

// found gives the sorted paths of the differences of that sort.
func found(t *testing.T, a *app, what string) []string {
	t.Helper()
	diffs, err := a.packageFiles()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range diffs {
		if d.What == what {
			list = append(list, d.Path)
		}
	}
	slices.Sort(list)
	return list
}
