//go:build e2e

package e2e

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/tests/e2e/load"
	"whisper-appliance/tests/e2e/offers"
)

// notOurs are places that dpkg, systemd and the users' database write by
// themselves, whatever is installed.
var notOurs = []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/srv/e2e",
	"/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt", "/var/cache/ldconfig", "/var/cache/debconf",
	"/var/log", "/var/tmp", "/etc/machine-id"}

// byThemselves are files that the users' tools and systemd's own timers write.
var byThemselves = regexp.MustCompile(`^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-? |^/etc/\.(pwd\.lock|updated) |^/var/\.updated ` +
	`|^/var/lib/systemd/(random-seed|catalog/database|timers/stamp-(apt|dpkg|e2scrub|fstrim).*) `)

// files is what the machine holds but for places that are nobody's.
func (b *box) files() []string {
	b.t.Helper()
	files, err := b.Files(b.t.Context(), notOurs...)
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.DeleteFunc(files, byThemselves.MatchString)
}

// purges removes the package with all it made, and looks that it is gone.
func (b *box) purges() {
	b.t.Helper()
	b.must(`apt-get purge -y -q whisper-appliance`)
	if left := b.must(`systemctl list-unit-files --no-legend 'whisper-appliance*' || true`); left != "" {
		b.t.Errorf("units are left:\n%s", left)
	}
	if left := b.must(`systemctl list-units --all --no-legend --plain 'whisper-appliance*' || true`); left != "" {
		b.t.Errorf("systemd still knows:\n%s", left)
	}
	if left := b.must(`grep whisper-appliance /etc/passwd /etc/group || true`); left != "" {
		b.t.Errorf("users are left:\n%s", left)
	}
	if left := b.must(`pgrep -a whisper-applian || true`); left != "" {
		b.t.Errorf("processes are left:\n%s", left)
	}
}

// added is what is in after and not in before.
func added(before, after []string) []string {
	known := map[string]bool{}
	for _, line := range before {
		known[line] = true
	}
	return slices.DeleteFunc(slices.Clone(after), func(line string) bool { return known[line] })
}

// TestPurgeLeavesNothing compares the whole file system.
func TestPurgeLeavesNothing(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(`rm -rf /etc/whisper-appliance /var/lib/whisper-appliance`)
	before := b.files()
	b.must(prepare)
	b.must(aptInstall)
	b.ready()
	b.transcribes(secure)
	b.purges()
	after := b.files()
	for _, line := range added(before, after) {
		t.Errorf("left behind or changed: %s", line)
	}
	for _, line := range added(after, before) {
		t.Errorf("gone or changed: %s", line)
	}
	figure(t, "file system: %d entries before, %d after", len(before), len(after))
}

// otherVersion is later than any of ours.
const otherVersion = "99.0.0"

// otherRelease makes the tree of a release of the same sources under that version.
func otherRelease(t *testing.T) (slot string) {
	t.Helper()
	slot = filepath.Join(t.TempDir(), "slot")
	if err := shop(t).Tree(t.Context(), offers.Recipe{Version: otherVersion}, slot); err != nil {
		t.Fatal(err)
	}
	return slot
}

// pack makes a package of a release in dir, by the script that builds the one
// under test.
func pack(t *testing.T, slot, dir string) {
	t.Helper()
	made := filepath.Join(dir, "made")
	lines := strings.Split(onHost(t, "", filepath.Join("packaging", "deb", "build.sh"), slot, "amd64", made), "\n")
	if err := os.Rename(lines[len(lines)-1], dir+".deb"); err != nil {
		t.Fatal(err)
	}
}

// onHost runs a command in the checkout and gives what it prints.
func onHost(t *testing.T, env string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = checkout(t), append(os.Environ(), env)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// version is that of the release which serves.
func (b *box) version() string {
	b.t.Helper()
	return b.must(`cat /opt/whisper-appliance/current/VERSION`)
}

const (
	otherIn  = "/srv/e2e/other.deb"
	brokenIn = "/srv/e2e/broken.deb"

	changeLimit = 90 * time.Second // for dpkg to unpack, switch and check
)

// TestPackageLife: reinstalled, upgraded, downgraded, removed and installed
// again, the appliance keeps what is the administrator's and the user's, and
// no request is lost while it changes.
func TestPackageLife(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(aptInstall)
	b.ready()
	slot, version := b.serving(), b.version()
	b.bringOthers()

	b.must(`apt-get install -y -q --reinstall ` + debIn)
	if b.serving() != slot {
		t.Errorf("reinstalling the same version moved from %s to %s", slot, b.serving())
	}
	b.must(`mkdir -p /etc/systemd/system/whisper-appliance.service.d
		printf '[Service]\nEnvironment=E2E=kept\n' >/etc/systemd/system/whisper-appliance.service.d/50-admin.conf
		systemctl daemon-reload
		systemctl disable --now whisper-appliance-housekeeping.timer
		systemctl mask --now whisper-appliance-journal.socket`)

	b.rollsBack(version)
	b.transcribes(plain)
	b.changes("upgrade", `dpkg -i `+otherIn)
	if got := b.version(); got != otherVersion || b.serving() == slot {
		t.Errorf("after an upgrade version %s serves from slot %s", got, b.serving())
	}
	b.transcribes(plain)
	b.asAdministratorsLeftIt()
	b.does(nil, "commit") // else what comes next waits for the trial's end
	b.changes("downgrade", `apt-get install -y -q --allow-downgrades `+debIn)
	if got := b.version(); got != version {
		t.Errorf("after a downgrade version %s serves, want %s", got, version)
	}
	b.transcribes(plain)
	b.asAdministratorsLeftIt()

	b.must(`apt-get remove -y -q whisper-appliance`)
	if status, _ := b.get(plain + "/livez"); status != 0 {
		t.Errorf("after the removal somebody answers with %d", status)
	}
	b.must(`test -s ` + model + ` && test -s ` + settings)
	b.must(aptInstall)
	b.ready()
	b.transcribes(plain)
}

// bringOthers puts a later release into the machine, and one whose server does
// not come up. The first test that wants them makes them.
func (b *box) bringOthers() {
	b.t.Helper()
	other, broken := filepath.Join(shop(b.t).Dir, "other"), filepath.Join(shop(b.t).Dir, "broken")
	if _, err := os.Stat(broken + ".deb"); err != nil {
		slot := otherRelease(b.t)
		pack(b.t, slot, other)
		server := filepath.Join(slot, "bin", "whisper-appliance-server")
		if err := os.WriteFile(server, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			b.t.Fatal(err)
		}
		pack(b.t, slot, broken)
	}
	for from, to := range map[string]string{other: otherIn, broken: brokenIn} {
		if err := b.CopyIn(b.t.Context(), from+".deb", to, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// changes installs another version and wants no request to fail meanwhile.
func (b *box) changes(what, script string) {
	b.t.Helper()
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 2, Fresh: 2, Pace: 5 * time.Millisecond}
	said, begin, since := "", time.Now(), b.must(`date +%s`)
	counts := b.while(l, func() { said = b.must(script) })
	took := time.Since(begin)
	figure(b.t, "%s: %.1f s, %v", what, took.Seconds(), counts)
	if took > changeLimit {
		b.t.Errorf("%s took %v, at most %v:\n%s\n%s", what, took, changeLimit, said,
			b.must(`journalctl --no-pager --since=@"$1" --output=short-precise | grep -v -e -probe- | head -n 200`, since))
	}
	if asked, failed := counts.Total(); failed != 0 || asked == 0 {
		b.t.Errorf("%s: failed:\n%s", what, strings.Join(counts.First, "\n"))
	}
}

// rollsBack has a release installed whose server does not come up: that is told
// in three lines, and the version before serves on.
func (b *box) rollsBack(version string) {
	b.t.Helper()
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 2, Fresh: 2, Pace: 5 * time.Millisecond}
	counts := b.while(l, func() {
		r := b.Sh(b.t.Context(), `dpkg -i `+brokenIn)
		said := 0
		for line := range strings.Lines(r.Err) {
			if strings.HasPrefix(line, "whisper-appliance: ") || strings.HasPrefix(line, "try: ") {
				said++
			}
		}
		if r.Code != 0 || said != 3 || !strings.Contains(r.Err, "the one before serves on") {
			b.t.Errorf("a release that does not come up: %d lines, %v", said, r)
		}
	})
	figure(b.t, "upgrade rolled back: %v", counts)
	if asked, failed := counts.Total(); failed != 0 || asked == 0 {
		b.t.Errorf("rolled back: failed:\n%s", strings.Join(counts.First, "\n"))
	}
	if got := b.version(); got != version {
		b.t.Errorf("version %s serves, want %s", got, version)
	}
	if got := b.must(`dpkg-query -W -f '${Status}' whisper-appliance`); got != "install ok installed" {
		b.t.Errorf("the package is %q", got)
	}
}

// asAdministratorsLeftIt looks for their drop-in, and for what they disabled
// and masked.
func (b *box) asAdministratorsLeftIt() {
	b.t.Helper()
	if got := b.property(server, "Environment"); !strings.Contains(got, "E2E=kept") {
		b.t.Errorf("the administrator's drop-in is gone: %q", got)
	}
	for unit, want := range map[string]string{"whisper-appliance-housekeeping.timer": "disabled", "whisper-appliance-journal.socket": "masked"} {
		if got := b.must(`systemctl is-enabled "$1" || true`, unit); got != want {
			b.t.Errorf("%s is %q, and was %s", unit, got, want)
		}
		if got := b.property(unit, "ActiveState"); got != "inactive" {
			b.t.Errorf("%s is %s", unit, got)
		}
	}
}

// TestImage: installed where systemd does not run, as when an image is made,
// the release is placed and nothing is started; the first boot serves.
func TestImage(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(`unshare --mount --pid --fork sh -euc 'mount -t tmpfs tmpfs /run; dpkg -i "$1"' sh ` + debIn)
	if got := b.must(`readlink /opt/whisper-appliance/current; readlink /opt/whisper-appliance/stable`); got != "slots/a\nslots/a" {
		t.Errorf("current and stable name %q", got)
	}
	if got := b.must(`pgrep -a whisper-applian || true`); got != "" {
		t.Errorf("processes run: %s", got)
	}
	if status, _ := b.get(plain + "/livez"); status != 0 {
		t.Errorf("somebody answers with %d", status)
	}
	b.must(`systemctl is-enabled whisper-appliance.target whisper-appliance.socket`)
	if err := b.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.transcribes(secure)
	b.smoke()
}

// TestReload: settings that are wrong fail it and change nothing, those that
// are right are taken in, and no request is lost.
func TestReload(t *testing.T) {
	const bad, good = "/etc/whisper-appliance/config.d/98-bad.toml", "/etc/whisper-appliance/config.d/99-good.toml"
	b := shared(t)
	pid := b.property(server, "MainPID")
	defer b.Sh(t.Context(), `rm -f "$1" "$2"; systemctl reload whisper-appliance`, bad, good)
	wav, _ := reference(t)
	since := b.must(`date +%s`)
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 2, Fresh: 2, Pace: 5 * time.Millisecond, Short: wav, Expect: "window"}
	counts := b.while(l, func() {
		for _, level := range []string{"debug", "info", "warn", "info"} {
			b.must(`printf '[log]\nlevel = "%s"\n' "$2" >"$1"; systemctl reload whisper-appliance`, good, level)
		}
		r := b.Sh(t.Context(), `printf '[log]\nlevel = "loud"\n' >"$1"; systemctl reload whisper-appliance`, bad)
		if r.Code == 0 {
			t.Error("a reload with settings that are wrong says nothing")
		}
	})
	figure(t, "5 reloads: %v", counts)
	if asked, failed := counts.Total(); failed != 0 || asked == 0 {
		t.Errorf("failed:\n%s", strings.Join(counts.First, "\n"))
	}
	if now := b.property(server, "MainPID"); now != pid {
		t.Errorf("reload made process %s of %s", now, pid)
	}
	entries, err := b.Journal(t.Context(), "--since=@"+since, "_SYSTEMD_UNIT="+server, "--grep=^reloaded")
	if err != nil || len(entries) != 3 { // at warn it is not told
		t.Errorf("%d entries say that the settings were taken in, want 3: %v", len(entries), err)
	}
}

// TestSystemctl: the verbs do what they say.
func TestSystemctl(t *testing.T) {
	b := shared(t)
	answers := func() bool { status, _ := b.get(plain + "/livez"); return status == http.StatusOK }
	b.must(`systemctl stop whisper-appliance.service`)
	if !answers() { // the socket starts it again
		t.Error("the service stopped, the socket did not start it")
	}
	b.must(`systemctl stop whisper-appliance.target`)
	if answers() {
		t.Error("the target stopped, and somebody answers")
	}
	b.must(`systemctl start whisper-appliance.target`)
	b.ready()
	pid := b.property(server, "MainPID")
	b.must(`systemctl reload whisper-appliance`)
	if now := b.property(server, "MainPID"); now != pid {
		t.Errorf("reload made process %s of %s", now, pid)
	}
	if r := b.Sh(t.Context(), `echo nonsense >/etc/whisper-appliance/config.d/99-bad.toml; systemctl reload whisper-appliance`); r.Code == 0 {
		t.Error("a reload with settings that are wrong says nothing")
	}
	b.must(`rm /etc/whisper-appliance/config.d/99-bad.toml; systemctl reload whisper-appliance`)
	if !answers() {
		t.Error("it does not answer after a reload")
	}
	b.must(`systemctl restart whisper-appliance`)
	b.ready()
	if got := b.property(server, "StatusText"); !strings.Contains(got, "slot "+b.serving()) || !strings.Contains(got, "tiny") {
		t.Errorf("the status line is %q", got)
	}
	b.must(`systemctl disable whisper-appliance; systemctl is-enabled whisper-appliance.socket && exit 1; systemctl enable whisper-appliance; systemctl is-enabled whisper-appliance.socket`)
	b.must(`systemctl mask --runtime whisper-appliance; systemctl stop whisper-appliance; systemctl unmask --runtime whisper-appliance; systemctl start whisper-appliance`)
	b.ready()
}

// TestFirstModel: without a model the installation goes well, and one that lies
// in the directory named then is taken in the background.
func TestFirstModel(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(`rm -r /var/lib/whisper-appliance`)
	said := b.must("WHISPER_APPLIANCE_MODELS_FROM=" + modelsIn + " " + aptInstall)
	if !strings.Contains(said, "model") {
		t.Errorf("the installation says nothing of the model:\n%s", said)
	}
	took := b.until("the model is there", 60*time.Second, func() bool { status, _ := b.get(plain + "/readyz"); return status == http.StatusOK })
	figure(t, "the model was there %.1f s after the installation", took.Seconds())
	b.transcribes(plain)
}

// TestReboot: it comes back, and work that was pending is taken up though
// nobody visits.
func TestReboot(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(aptInstall)
	b.ready()
	b.must(`systemctl stop whisper-appliance.path whisper-appliance.service; rm -f ` + model + `*
		printf '%s\n' ` + modelsIn + ` >/var/lib/whisper-appliance/pending/first-model
		chown whisper-appliance: /var/lib/whisper-appliance/pending/first-model`)
	if err := b.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	figure(t, "the machine was up again after %.1f s", b.Booted.Seconds())
	if b.State != "running" {
		t.Errorf("the machine is %s:\n%s", b.State, b.must(`systemctl --failed`))
	}
	took := b.until("the pending model is fetched though nobody visits", 60*time.Second, func() bool {
		return b.Sh(t.Context(), `test -s `+model+` && test ! -e /var/lib/whisper-appliance/pending/first-model`).Code == 0
	})
	figure(t, "the pending model was there %.1f s after the boot", took.Seconds())
	b.transcribes(plain)
	if err := b.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.transcribes(secure)
}
