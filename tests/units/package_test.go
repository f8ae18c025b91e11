package units

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a machine that a maintainer script is let loose on: the places that
// it names are below root, and every command that would reach the real machine
// is a stand-in that notes how it was called.
type tree struct{ root, bin string }

func newTree(t *testing.T) tree {
	t.Helper()
	root := t.TempDir()
	m := tree{root, filepath.Join(root, "bin")}
	for _, command := range []string{"deb-systemd-helper", "deb-systemd-invoke", "systemctl", "systemd-sysusers", "systemd-tmpfiles", "busctl",
		"hostname", "runuser", "userdel", "groupdel", "getent"} {
		m.program(t, "bin/"+command, 0)
	}
	m.write(t, "run/systemd/system/.keep", "")
	m.write(t, "var/lib/whisper-appliance/models/ggml-tiny.bin", "a model")
	m.program(t, "usr/lib/whisper-appliance/golden/bin/whisper-appliance", 0)
	m.program(t, "usr/lib/whisper-appliance/golden/bin/whisper-appliance-server", 0)
	m.write(t, "usr/lib/whisper-appliance/golden/manifest.json", "new")
	m.program(t, "usr/lib/whisper-appliance/whisper-appliance-updater", 0)
	return m
}

func (m tree) path(name string) string { return filepath.Join(m.root, name) }

func (m tree) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program is a stand-in that notes its arguments and ends with code.
func (m tree) program(t *testing.T, name string, code int) {
	t.Helper()
	m.write(t, name, fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >>%s\nexit %d\n", filepath.Base(name), m.path("calls"), code))
	if err := os.Chmod(m.path(name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// serves makes the links as they are where slot a serves and way is the way back.
func (m tree) serves(t *testing.T, way string) {
	t.Helper()
	m.program(t, "opt/whisper-appliance/slots/a/bin/whisper-appliance-server", 0)
	for link, to := range map[string]string{"current": "slots/a", "stable": "slots/" + way} {
		if err := os.Symlink(to, m.path("opt/whisper-appliance/"+link)); err != nil {
			t.Fatal(err)
		}
	}
}

// run is a maintainer script with its arguments.
func (m tree) run(t *testing.T, script string, args ...string) (code int, said string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "packaging", "deb", script))
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, script, m.here(string(data)))
	return m.sh(t, `. "$0"`, append([]string{m.path(script)}, args...)...)
}

// here is a script with its places below the root.
func (m tree) here(text string) string {
	for _, place := range []string{"/usr/lib/whisper-appliance", "/opt/whisper-appliance", "/var/lib/", "/var/cache/", "/run/", "/etc/"} {
		text = strings.ReplaceAll(text, place, m.root+place)
	}
	return text
}

// sh runs a script of a few words, or one that is here already.
func (m tree) sh(t *testing.T, script string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", m.here(script)}, args...)...)
	cmd.Env = []string{"PATH=" + m.bin + ":" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// calls gives what was called, in order, those that begin with one of the words.
func (m tree) calls(words ...string) []string {
	data, _ := os.ReadFile(m.path("calls")) //nolint:errcheck // nothing was called
	var list []string
	for line := range strings.Lines(string(data)) {
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(line, w) }) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

func (m tree) exists(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

func (m tree) text(name string) string {
	data, _ := os.ReadFile(m.path(name)) //nolint:errcheck // "" where it is not
	return string(data)
}

const deployed = "whisper-appliance-updater deploy --door dpkg --within 90s"

// TestUpgrade: whatever becomes of the new release, apt stays usable, and what
// went wrong is told in three lines, of which the updater's own say two.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  int // of the deployment
		words string
	}{
		{"deployed, or queued behind a trial", 0, ""},
		{"rolled back", 69, "did not come up, and the one before serves on; to try again: whisper-appliance slot deploy"},
		{"no space", 73, "make room, and then: whisper-appliance slot deploy"},
		{"busy", 75, "the version that serves stays for now; to try again: whisper-appliance slot deploy"},
		{"cancelled, or stopped", 130, "somebody has stopped"},
		{"something else", 1, "could not take over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTree(t)
			m.serves(t, "a")
			m.program(t, "usr/lib/whisper-appliance/whisper-appliance-updater", c.code)
			code, said := m.run(t, "postinst", "configure", "0.0.1")
			if code != 0 {
				t.Errorf("it ends with %d:\n%s", code, said)
			}
			if lines := strings.Count(said, "whisper-appliance: "); c.code != 0 && lines != 1 || !strings.Contains(said, c.words) {
				t.Errorf("it says, in %d lines:\n%s", lines, said)
			}
			if smoked := len(m.calls("whisper-appliance smoke")) > 0; smoked != (c.code == 0) {
				t.Errorf("the check after it: %v", smoked)
			}
			// Recovery and deployment take the same lock, and neither waits.
			got := m.calls("deb-systemd-invoke start", deployed, "whisper-appliance doctor")
			want := []string{"whisper-appliance doctor --fix --quiet", "deb-systemd-invoke start whisper-appliance.target",
				"deb-systemd-invoke start whisper-appliance-recover.service", deployed + " --was 0.0.1"}
			if !slices.Equal(got, want) {
				t.Errorf("it calls\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestFirstInstallation: one that cannot be deployed fails, and nothing is
// started before there is a release.
func TestFirstInstallation(t *testing.T) {
	for _, c := range []struct{ updater, code int }{{0, 0}, {69, 1}, {75, 1}} {
		m := newTree(t)
		m.program(t, "usr/lib/whisper-appliance/whisper-appliance-updater", c.updater)
		code, said := m.run(t, "postinst", "configure", "")
		if code != c.code {
			t.Errorf("deployment %d: it ends with %d, want %d\n%s", c.updater, code, c.code, said)
		}
		got := m.calls(deployed, "deb-systemd-invoke start")
		if len(got) == 0 || got[0] != deployed+" --was" || c.code != 0 && len(got) != 1 {
			t.Errorf("deployment %d: it calls %v", c.updater, got)
		}
	}
}

// TestImageInstallation: where systemd does not run the release is placed, and
// nothing is asked of systemd.
func TestImageInstallation(t *testing.T) {
	m := newTree(t)
	if err := os.RemoveAll(m.path("run/systemd")); err != nil {
		t.Fatal(err)
	}
	if code, said := m.run(t, "postinst", "configure", ""); code != 0 {
		t.Fatalf("%d\n%s", code, said)
	}
	if got := m.calls("deb-systemd-invoke", "systemctl", "busctl", "whisper-appliance "); len(got) > 0 {
		t.Errorf("it calls %v", got)
	}
	if len(m.calls(deployed)) != 1 {
		t.Error("nothing is placed")
	}
}

// TestUnitsAreEnabledAndPurged: both scripts know every unit that is enabled.
func TestUnitsAreEnabledAndPurged(t *testing.T) {
	m := newTree(t)
	m.run(t, "postinst", "configure", "")
	m.run(t, "postrm", "purge")
	helped := m.calls("deb-systemd-helper")
	for _, kind := range []string{"whisper*.service", "whisper*.path", "whisper*.timer", "whisper*.target"} {
		for name, u := range all(t, kind) {
			wanted := len(u["Install.WantedBy"]) > 0
			for _, verb := range []string{"enable ", "purge "} {
				if got := slices.Contains(helped, "deb-systemd-helper "+verb+name); got != wanted {
					t.Errorf("%s%s: %v, want %v", verb, name, got, wanted)
				}
			}
		}
	}
}

// TestPreinstKeepsGolden: the release that is about to be replaced stays, unless
// an older one does already because it never proved itself.
func TestPreinstKeepsGolden(t *testing.T) {
	m := newTree(t)
	const golden, old = "usr/lib/whisper-appliance/golden/", "usr/lib/whisper-appliance/golden.old/"
	m.write(t, old+"left", "of a release that was committed")
	m.write(t, golden+"manifest.json", "one")
	if code, said := m.run(t, "preinst", "upgrade", "0.0.1"); code != 0 || said != "" {
		t.Fatalf("%d\n%s", code, said)
	}
	if m.text(old+"manifest.json") != "one" || m.exists(old+"left") || m.exists("usr/lib/whisper-appliance/golden.old.new") {
		t.Error("the golden of before was not kept as it was")
	}
	one, err1 := os.Stat(m.path(golden + "manifest.json"))
	two, err2 := os.Stat(m.path(old + "manifest.json"))
	if err1 != nil || err2 != nil || !os.SameFile(one, two) {
		t.Error("it was copied: that takes a release's room")
	}
	// dpkg puts the new file under its name by a rename.
	m.write(t, golden+"fresh", "two")
	if err := os.Rename(m.path(golden+"fresh"), m.path(golden+"manifest.json")); err != nil {
		t.Fatal(err)
	}
	if code, _ := m.run(t, "preinst", "upgrade", "0.0.2"); code != 0 || m.text(old+"manifest.json") != "one" {
		t.Errorf("%d: a release that never proved itself replaced the one that did: %s", code, m.text(old+"manifest.json"))
	}
}

const (
	packaged = "usr/lib/whisper-appliance/golden"
	kept     = "usr/lib/whisper-appliance/golden.old"
)

// servesGolden is a machine whose server runs from golden itself, with a release
// of the package before beside it.
func servesGolden(t *testing.T) tree {
	t.Helper()
	m := newTree(t)
	m.write(t, packaged+"/manifest.json", "one")
	m.write(t, kept+"/manifest.json", "older")
	m.program(t, kept+"/bin/whisper-appliance-server", 0)
	for link, to := range map[string]string{"current": "slots/golden", "stable": "slots/a", "slots/golden": m.path(packaged)} {
		link = m.path("opt/whisper-appliance/" + link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.RemoveAll(link), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestPreinstKeepsWhatServes: a server that runs from golden itself stays with its
// release, or the upgrade is refused before anything is unpacked, in words that
// help there. What is not whole cannot be kept, and does not keep its repair out.
func TestPreinstKeepsWhatServes(t *testing.T) {
	const server = "/bin/whisper-appliance-server"
	for _, c := range []struct {
		name    string
		prepare func(m tree)
		words   string // "" = it is not refused
		leads   string // where slots/golden leads then
		old     string // what golden.old is then
	}{
		{"whole", func(tree) {}, "", kept, "one"},
		{"nothing can be copied", func(m tree) { m.program(t, "bin/cp", 1) }, "make room in ", packaged, "older"},
		{"the copy does not reach the disk", func(m tree) { m.program(t, "bin/sync", 1) }, "make room in ", packaged, "older"},
		{"no link can be made", func(m tree) { m.program(t, "bin/ln", 1) }, "slots cannot be written", packaged, "one"},
		{"it has no manifest", func(m tree) { must(t, os.Remove(m.path(packaged+"/manifest.json"))) }, "", packaged, "older"},
		{"its manifest is empty", func(m tree) { m.write(t, packaged+"/manifest.json", "") }, "", packaged, "older"},
		{"it has no server", func(m tree) { must(t, os.Remove(m.path(packaged+server))) }, "", packaged, "older"},
		{"it is gone", func(m tree) { must(t, os.RemoveAll(m.path(packaged))) }, "", packaged, "older"},
		{"it is damaged, and nothing can be copied", func(m tree) {
			m.write(t, packaged+"/manifest.json", "")
			m.program(t, "bin/cp", 1)
		}, "", packaged, "older"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := servesGolden(t)
			c.prepare(m)
			code, said := m.run(t, "preinst", "upgrade", "0.0.1")
			if (code != 0) != (c.words != "") || !strings.Contains(said, c.words) || c.words == "" && said != "" {
				t.Errorf("%d %q, want %q", code, said, c.words)
			}
			to, err := os.Readlink(m.path("opt/whisper-appliance/slots/golden"))
			if err != nil || to != m.path(c.leads) || m.text(kept+"/manifest.json") != c.old {
				t.Errorf("slots/golden leads to %s, %v; golden.old is %q", to, err, m.text(kept+"/manifest.json"))
			}
			if m.exists(kept+".new") || m.exists("opt/whisper-appliance/slots/.golden.new") {
				t.Error("half of it lies about")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPreinstGoesOnWithout: no links, no golden, nothing to keep: no reason to
// refuse an upgrade.
func TestPreinstGoesOnWithout(t *testing.T) {
	m := newTree(t)
	m.program(t, "bin/cp", 1)
	code, said := m.run(t, "preinst", "upgrade", "0.0.1")
	if code != 0 || !strings.Contains(said, "going on without") || m.exists("usr/lib/whisper-appliance/golden.old") || m.exists("usr/lib/whisper-appliance/golden.old.new") {
		t.Errorf("%d %q", code, said)
	}
	for _, args := range [][]string{{"install"}, {"abort-upgrade", "0.0.1"}} {
		if code, said := newTree(t).run(t, "preinst", args...); code != 0 || said != "" {
			t.Errorf("%v: %d %q", args, code, said)
		}
	}
}

// TestRemove: what waits and then the trial end before the updater does, it
// forgets the slots, and the record and what was decided stay until the purge.
func TestRemove(t *testing.T) {
	for _, way := range []string{"a", "b"} {
		m := newTree(t)
		m.serves(t, way)
		m.write(t, "usr/lib/whisper-appliance/golden.old/manifest.json", "old")
		for _, name := range []string{"updater/state.json", "updater/state.json.prev", "updater/deployments.jsonl", "fetch/result.json"} {
			m.write(t, "var/lib/whisper-appliance-"+name, "{}")
		}
		if code, said := m.run(t, "prerm", "remove"); code != 0 {
			t.Fatalf("prerm: %d\n%s", code, said)
		}
		const cancel, forget = "whisper-appliance-updater cancel --door dpkg", "whisper-appliance-updater forget-slots --door dpkg"
		got, want := m.calls("whisper-appliance-updater"), []string{forget}
		if way != "a" {
			want = []string{cancel, cancel, forget}
		}
		if !slices.Equal(got, want) || len(m.calls("deb-systemd-invoke stop whisper-appliance-updater.service")) != 1 {
			t.Errorf("with the way back %s it calls %v", way, got)
		}
		if code, said := m.run(t, "postrm", "remove"); code != 0 {
			t.Fatalf("postrm: %d\n%s", code, said)
		}
		for name, stays := range map[string]bool{
			"opt/whisper-appliance": false, "usr/lib/whisper-appliance/golden.old": false, "var/lib/whisper-appliance-fetch": false,
			"var/lib/whisper-appliance-updater/state.json": true, "var/lib/whisper-appliance-updater/state.json.prev": true,
			"var/lib/whisper-appliance-updater/deployments.jsonl": true, "var/lib/whisper-appliance/models/ggml-tiny.bin": true,
		} {
			if m.exists(name) != stays {
				t.Errorf("after the removal %s: there %v, want %v", name, m.exists(name), stays)
			}
		}
		m.run(t, "postrm", "purge")
		if left, err := filepath.Glob(m.path("var/*/whisper-appliance*")); err != nil || len(left) > 0 {
			t.Errorf("after the purge there are %v", left)
		}
	}
}

// TestUpgradeStopsNothing: the slots are not the package's files.
func TestUpgradeStopsNothing(t *testing.T) {
	m := newTree(t)
	m.serves(t, "b")
	m.write(t, "usr/lib/whisper-appliance/golden.old/manifest.json", "old")
	code, said := m.run(t, "prerm", "upgrade", "0.0.2")
	if code != 0 || said != "" || m.exists("calls") || !m.exists("usr/lib/whisper-appliance/golden.old/manifest.json") {
		t.Errorf("%d %q, called %s", code, said, m.text("calls"))
	}
}

// TestCommand: what mends or updates is the package's own; the rest is the
// release's that serves, where there is one.
func TestCommand(t *testing.T) {
	const bin = "bin/whisper-appliance"
	for _, c := range []struct {
		verb string
		gone []string // releases without a command
		want string
	}{
		{"status", nil, "current"},
		{"status", []string{"opt/whisper-appliance/current"}, "golden"},
		{"update", nil, "golden"},
		{"doctor", nil, "golden"},
		{"slot", []string{"usr/lib/whisper-appliance/golden"}, "golden.old"},
		{"status", []string{"opt/whisper-appliance/current", "usr/lib/whisper-appliance/golden"}, "golden.old"},
	} {
		m := newTree(t)
		for _, release := range []string{"opt/whisper-appliance/current", "usr/lib/whisper-appliance/golden", "usr/lib/whisper-appliance/golden.old"} {
			m.write(t, release+"/"+bin, "#!/bin/sh\necho "+filepath.Base(release)+" $*\n")
			mode := os.FileMode(0o755)
			if slices.Contains(c.gone, release) {
				mode = 0o644
			}
			if err := os.Chmod(m.path(release+"/"+bin), mode); err != nil {
				t.Fatal(err)
			}
		}
		if _, said := m.run(t, "whisper-appliance", c.verb, "x y"); said != c.want+" "+c.verb+" x y\n" {
			t.Errorf("%s without %v: %q, want %s", c.verb, c.gone, said, c.want)
		}
	}
}
