//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

const goldenOld = "/usr/lib/whisper-appliance/golden.old"

// TestUpdateDpkg: what dpkg brings goes through the same transaction, and apt
// stays usable whatever becomes of it. (TestPackageLife has the model and the
// load, TestImage has no systemd.)
func TestUpdateDpkg(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(`rm -f ` + model + `*`)
	b.configure(strings.Replace(settingsOf, "10s", "1h", 1))
	if said := b.must(aptInstall); !strings.Contains(said, "no model yet") {
		t.Errorf("without a model the installation says\n%s", said)
	}
	before := b.packaged()
	b.bringOthers()

	begin := time.Now()
	b.must(`dpkg -i ` + otherIn)
	figure(t, "dpkg -i without a model, up to the trial: %.1f s", time.Since(begin).Seconds())
	b.onTrial(otherVersion)
	b.must(`test -s ` + goldenOld + `/manifest.json`)

	said := b.must(`apt-get install -y -q --allow-downgrades ` + debIn + ` 2>&1`)
	if !strings.Contains(said, "queued behind the trial of "+otherVersion) {
		t.Errorf("during a trial dpkg says\n%s", said)
	}
	b.servesVersion(otherVersion)
	if s := b.status(); s.Queued == nil || s.Queued.Version != before {
		t.Errorf("queued is %+v", s.Queued)
	}
	b.does(nil, "commit")
	b.onTrial(before) // taken up by itself
	b.must(`test -s ` + goldenOld + `/manifest.json`)
	b.does(nil, "commit")
	b.servesVersion(before)
	if s := b.status(); s.Floor != before {
		t.Errorf("the floor is %s, want %s: dpkg's word counts", s.Floor, before)
	}
	b.must(`test ! -e ` + goldenOld)
	b.aptUsable()
	b.brokenPackage(before)
	b.inTheMiddle(before)
}

// aptUsable wants dpkg to have nothing half done.
func (b *box) aptUsable() {
	b.t.Helper()
	if said := b.must(`apt-get check -q; dpkg --audit`); strings.Contains(said, "whisper") {
		b.t.Errorf("apt says\n%s", said)
	}
	if got := b.must(`dpkg-query -W -f '${Status}' whisper-appliance`); got != "install ok installed" {
		b.t.Errorf("the package is %q", got)
	}
}

// brokenPackage has a package whose release does not come up: an alarm, and the
// package after it makes it well.
func (b *box) brokenPackage(before string) {
	b.t.Helper()
	b.must(`dpkg -i ` + brokenIn)
	b.servesVersion(before)
	b.by(deployment.DoorDpkg, deployment.Aborted, otherVersion)
	s := b.status()
	if s.Alarm == nil || s.Alarm.Code != "package_not_serving" || s.Alarm.Hint == "" {
		b.t.Errorf("the alarm is %+v", s.Alarm)
	}
	b.until("health tells of it", 30*time.Second, func() bool { return b.component("updater") == "failed" })
	b.aptUsable()
	b.must(`apt-get install -y -q --allow-downgrades ` + debIn)
	b.servesVersion(before)
	b.until("health is content", 30*time.Second, func() bool { return b.component("updater") == "ok" })
}

// inTheMiddle configures the package while a transaction is under way.
func (b *box) inTheMiddle(before string) {
	b.t.Helper()
	b.offer(sound)
	said := b.must(`systemd-run --quiet --unit=e2e-apply whisper-appliance update apply "$1"
		n=0
		until grep -q '^ "phase": "preflight"' /run/whisper-appliance-updater/status.json; do
			n=$((n + 1))
			[ $n -lt 20000 ] || exit 1
		done
		dpkg-reconfigure whisper-appliance 2>&1`, sound.Version)
	b.t.Logf("dpkg says\n%s", said)
	b.onTrial(sound.Version)
	b.aptUsable()
	// It was told that somebody is at it, or it came when the trial had begun.
	queued := b.status().Queued != nil
	b.does(nil, "commit")
	if queued {
		b.onTrial(before)
		b.does(nil, "commit")
	}
	b.ends()
}
