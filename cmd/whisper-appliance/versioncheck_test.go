package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestJudgeSights(t *testing.T) {
	of := func(group, what, version, commit string) sight {
		return sight{What: what, Version: version, Commit: commit, group: group, plain: what == "VERSION" || what == "tag"}
	}
	good := []sight{of(ofRelease, "VERSION", "9.1.0", ""), of(ofRelease, "manifest", "9.1.0+dev", "c1"), of(ofRelease, "server", "9.1.0+dev", "c1"),
		of(ofRelease, "tag", "9.1.0", ""), of(ofPackage, "golden", "9.0.0+dev", "c0"), of(ofPackage, "package", "9.0.0+dev", "")}
	for _, tt := range []struct {
		name string
		with sight
		odd  string
	}{
		{"all agree", of(ofRelease, "engine", "9.1.0+dev", "c1"), ""},
		{"another version", of(ofRelease, "engine", "9.0.0+dev", "c0"), "engine is 9.0.0+dev c0"},
		{"another commit", of(ofRelease, "engine", "9.1.0+dev", "c2"), "engine is 9.1.0+dev c2"},
		{"another tag", of(ofRelease, "tag", "9.2.0", ""), "tag is 9.2.0"},
		{"another package", of(ofPackage, "package", "9.0.0", ""), "package is 9.0.0"},
		{"unknown", sight{What: "engine", State: unknown, group: ofRelease}, ""},
	} {
		list := append(append([]sight{}, good...), tt.with)
		odd := judgeSights(list)
		if got := strings.Join(odd, "; "); got != tt.odd {
			t.Errorf("%s: odd %q, want %q", tt.name, got, tt.odd)
		}
		for _, s := range list {
			if s.State == "" || s.State == differs && s.Note == "" {
				t.Errorf("%s: %+v", tt.name, s)
			}
		}
	}
}

func TestPackageVersion(t *testing.T) {
	const other = "Package: whisper-appliance-extra\nStatus: install ok installed\nVersion: 1\n\n"
	for _, tt := range []struct{ status, want string }{
		{other + "Package: whisper-appliance\nStatus: install ok installed\nDescription: x\n Version: 3\nVersion: 9.0.0+dev\n\n" + other, "9.0.0+dev"},
		{"Package: whisper-appliance\nVersion: 2:9-1\nStatus: install ok half-configured\n", "2:9-1"},
		{"Package: whisper-appliance\nStatus: deinstall ok config-files\nVersion: 9\n", ""},
		{other, ""}, {"", ""},
	} {
		got, err := packageVersion(tt.status)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v; want %q", tt.status, got, err, tt.want)
		}
	}
}

func TestVersionCheck(t *testing.T) {
	b := newSlotBench(t)
	b.installed(t)
	b.write(t, b.paths.DpkgStatus, "Package: whisper-appliance\nStatus: install ok installed\nVersion: 9.0.0+dev\n")
	out, err := b.command("version --check")
	if err != nil || strings.Count(out, agrees) != 9 || strings.Contains(out, differs) || strings.Contains(out, unknown) {
		t.Errorf("%v\n%s", err, out)
	}
	engine := filepath.Join(b.s.Path("a"), "lib/engine/ld.so")
	if err := os.WriteFile(engine, []byte("#!/bin/sh\necho 'whisper-appliance-engine 8.0.0 (commit old of x)'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err = b.command("version --check --json")
	if err == nil || fault.Hint(err) == "" || b.exitCode(err) != exitError ||
		!strings.Contains(err.Error(), "bin/whisper-appliance-engine is 8.0.0 old") {
		t.Errorf("an old engine: %v", err)
	}
	var list []sight
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	odd := 0
	for _, s := range list {
		if s.State == differs {
			odd++
		}
	}
	if odd != 1 {
		t.Errorf("%d are odd, want one\n%s", odd, out)
	}
	if err := os.WriteFile(engine, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err = b.command("version --check"); err == nil || !strings.Contains(err.Error(), "engine does not say: exit status 3") {
		t.Errorf("one that does not start: %v\n%s", err, out)
	}
}

// TestVersionCheckOfThePackage: updater and fetcher are of the package's
// release, whatever serves.
func TestVersionCheckOfThePackage(t *testing.T) {
	b := newSlotBench(t)
	b.installed(t)
	b.write(t, b.paths.DpkgStatus, "Package: whisper-appliance\nStatus: install ok installed\nVersion: 9.0.0+dev\n")
	for _, c := range []struct{ name, path, version, commit, odd string }{
		{"an old updater", b.paths.UpdaterBin, "8.0.0", "old", "whisper-appliance-updater is 8.0.0 old"},
		{"a fetcher of another build", b.paths.FetchBin, "9.0.0+dev", "other", "whisper-appliance-fetch is 9.0.0+dev other"},
	} {
		b.program(t, c.path, c.version, c.commit)
		out, err := b.command("version --check")
		if err == nil || b.exitCode(err) != exitError || !strings.Contains(err.Error(), c.odd) || strings.Count(out, differs) != 1 {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		b.program(t, c.path, "9.0.0+dev", "c0ffee")
	}
	if err := os.Remove(b.paths.FetchBin); err != nil {
		t.Fatal(err)
	}
	if _, err := b.command("version --check"); err == nil || !strings.Contains(err.Error(), "whisper-appliance-fetch does not say") {
		t.Errorf("one that is missing: %v", err)
	}
}
