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
	b.inTheMiddle()
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

// inTheMiddle configures the package anew while a transaction is under way, which
// that does not disturb: nobody wants another release then.
func (b *box) inTheMiddle() {
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
	if s := b.status(); s.Queued != nil || strings.Contains(said, "not done") {
		b.t.Errorf("queued is %+v: the package was configured already", s.Queued)
	}
	b.does(nil, "commit")
	b.ends()
	b.servesVersion(sound.Version)
}

// TestPackageKeepsUpdates: what an update has brought outlives the package's next
// configuration, and what was decided outlives the package.
func TestPackageKeepsUpdates(t *testing.T) {
	b := fresh(t, bookworm)
	b.configure(settingsOf)
	b.must(aptInstall)
	b.ready()
	before := b.packaged()
	b.offer(sound, crashes1st)
	b.bringOthers()
	b.does(nil, "apply", sound.Version, "--wait")

	for _, again := range []string{`dpkg-reconfigure whisper-appliance 2>&1`, `apt-get install -y -q --reinstall ` + debIn + ` 2>&1`} {
		begin := time.Now()
		said := b.must(again)
		figure(t, "%.40s after an update: %.1f s", again, time.Since(begin).Seconds())
		if !strings.Contains(said, "the package is as it was") {
			t.Errorf("%s says\n%s", again, said)
		}
		b.servesVersion(sound.Version)
		b.by(deployment.DoorCLI, deployment.Committed, sound.Version)
	}
	b.must(`printf x >>/opt/whisper-appliance/current/VERSION`)
	b.must(`dpkg-reconfigure whisper-appliance 2>&1`)
	b.onTrial(before)
	b.does(nil, "commit")
	b.servesVersion(before)
	b.removed(before)
	b.upgradedUnderGolden(before)
}

// removed takes the package away in a trial with a release behind it, and brings
// it back.
func (b *box) removed(before string) {
	b.t.Helper()
	b.update("apply", crashes1st.Version)
	b.configure(strings.Replace(settingsOf, "10s", "1h", 1))
	b.does(nil, "pin", before)
	b.must(`dpkg -i ` + otherIn)
	b.onTrial(otherVersion)
	b.must(`apt-get install -y -q --allow-downgrades ` + debIn)
	was := b.status()
	if was.Queued == nil || len(was.Quarantined) != 1 {
		b.t.Fatalf("queued is %+v, quarantined %+v", was.Queued, was.Quarantined)
	}
	b.must(`apt-get remove -y -q whisper-appliance && test ! -e /opt/whisper-appliance`)
	if record := b.must(`tail -n 1 ` + stateDir + `/deployments.jsonl`); !strings.Contains(record, `"outcome":"rolled_back"`) || !strings.Contains(record, `"version":"`+otherVersion) {
		b.t.Errorf("the trial ended as %s", record)
	}
	b.must(aptInstall)
	b.ready()
	is := b.status()
	if is.Pinned != before || len(is.Quarantined) != 1 || is.Quarantined[0] != was.Quarantined[0] || is.Queued != nil || is.State != deployment.Idle {
		b.t.Errorf("installed again: pinned %q, quarantined %+v, queued %+v, %s: %s", is.Pinned, is.Quarantined, is.Queued, is.State, is.Message)
	}
	b.servesVersion(before)
	b.does(nil, "unpin")
}

// upgradedUnderGolden has the server run from the package's own release, as where
// nothing else is whole, while its package brings another, which does not come up.
func (b *box) upgradedUnderGolden(before string) {
	b.t.Helper()
	b.must(`cd /opt/whisper-appliance && ln -sfn slots/golden current && ln -sfn slots/golden stable && systemctl restart whisper-appliance.service`)
	b.ready()
	b.must(`dpkg -i ` + brokenIn)
	if got := b.must(`cd /opt/whisper-appliance && readlink slots/golden && readlink current`); got != goldenOld+"\nslots/golden" {
		b.t.Errorf("golden and current lead to\n%s", got)
	}
	b.servesVersion(before)
	b.does(nil, "restart")
	b.servesVersion(before)
	b.aptUsable()
	b.must(`apt-get install -y -q --allow-downgrades ` + debIn)
	b.onTrial(before)
	b.does(nil, "commit")
	b.servesVersion(before)
	b.must(`! readlink /opt/whisper-appliance/current | grep golden`)
}
