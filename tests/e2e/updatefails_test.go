//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/trial"
	"whisper-appliance/tests/e2e/offers"
)

// failing is a release that is no good, and what has to become of it.
type failing struct {
	release offers.Recipe
	outcome string
	at      deployment.Phase // in which it fails
	reason  string           // why it was taken back
	deaths  int              // of its server while it had the port: each may fail what it was holding
}

var failures = map[string]failing{
	"crashes at its start":      {release: crashes1st, outcome: deployment.Aborted, at: deployment.Preflight, reason: "rehearsal_failed"},
	"lies about its version":    {release: lies, outcome: deployment.Aborted, at: deployment.Preflight, reason: "rehearsal_failed"},
	"crashes while it is tried": {release: crashesLate, outcome: deployment.RolledBack, at: deployment.OnTrial, reason: trial.ReasonSignal, deaths: 2},
	"hangs while it is tried":   {release: hangsLate, outcome: deployment.RolledBack, at: deployment.OnTrial, reason: trial.ReasonWatchdog, deaths: 2},
}

// clients are those of the load that can each have one request under way.
const clients = 8

// TestUpdateFails: a release that is no good costs no request before it has
// taken over, and after that what its server was holding when it died; none is
// refused, and each succeeds when it is asked again. It is refused from then
// on, with its reason.
func TestUpdateFails(t *testing.T) {
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			b := updated(t, f.release)
			before := b.packaged()
			var ended deployment.Record
			counts := b.while(b.eight(), func() {
				if r := b.update("apply", f.release.Version, "--wait", "--json"); r.Code != 69 {
					t.Errorf("want exit code 69: %v", r)
				}
				ended = b.ends()
			})
			figure(t, "%s", took(ended))
			figure(t, "%v; %d refused, %d failed every time; a small request waited %.1f s at most", counts, counts.Refused, counts.Lost,
				max(counts.Kept.Slowest, counts.Fresh.Slowest).Seconds())
			if _, failed := counts.Total(); failed > f.deaths*clients || counts.Refused != 0 || counts.Lost != 0 {
				t.Errorf("at most %d may fail, none may be refused, or fail every time:\n%s", f.deaths*clients, strings.Join(counts.First, "\n"))
			}
			if ended.Outcome != f.outcome || ended.At != f.at || ended.Blame != deployment.Candidate || ended.Reason != f.reason || ended.Says == "" {
				t.Errorf("the record says %+v", ended)
			}
			t.Logf("the record says %s: %s (try: %s)", ended.Reason, ended.Says, ended.Hint)
			b.servesVersion(before)
			if left := b.must(`systemctl list-units --plain --no-legend --state=failed`); left != "" {
				t.Errorf("units have failed:\n%s", left)
			}
			b.neverAgain(f.release)
		})
	}
}

// neverAgain wants a release to be in quarantine with a reason, and that nothing
// but root's word brings it back.
func (b *box) neverAgain(r offers.Recipe) {
	b.t.Helper()
	s := b.status()
	if len(s.Quarantined) != 1 || s.Quarantined[0].Version != r.Version || s.Quarantined[0].Reason == "" || s.Quarantined[0].Says == "" {
		b.t.Errorf("the quarantine holds %+v", s.Quarantined)
	}
	var found struct{ Available *deployment.Offer }
	b.does(&found, "check")
	if found.Available == nil || !strings.HasPrefix(found.Available.Refused, "quarantined") {
		b.t.Errorf("on offer is %+v", found.Available)
	}
	b.refused(1, "quarantined", "apply")
	b.refused(1, "quarantined", "apply", r.Version)
	b.configure(strings.Replace(settingsOf, `"off"`, `"install"`+"\nwindow = \"\"", 1))
	b.must(`systemctl start whisper-appliance-update.service`)
	if s := b.status(); s.Transaction != "" || s.Current.Version == r.Version {
		b.t.Errorf("the timer has begun it again: %+v", s)
	}
}

// TestUpdateRace: of eight that want an update at once one gets through, and the
// others are told so in under a second.
func TestUpdateRace(t *testing.T) {
	b := updated(t, sound)
	b.withoutModel()
	said := b.must(`for n in 1 2 3 4 5 6 7 8; do
			(
				begin=$(date +%s%N)
				code=0
				whisper-appliance update apply "$1" >/dev/null 2>&1 || code=$?
				echo "$code $((($(date +%s%N) - begin) / 1000000))"
			) &
		done
		wait`, sound.Version)
	through, slowest := 0, 0
	for line := range strings.Lines(said) {
		var code, ms int
		if _, err := fmt.Sscan(line, &code, &ms); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch code {
		case 0:
			through++
		case 75:
			slowest = max(slowest, ms)
		default:
			t.Errorf("exit code %d after %d ms", code, ms)
		}
	}
	figure(t, "8 at once: %d got through, the slowest of the others was told after %d ms", through, slowest)
	if through != 1 || slowest >= 1000 {
		t.Errorf("want one to get through, and the others to be told in under a second:\n%s", said)
	}
	b.does(nil, "commit")
	b.servesVersion(sound.Version)
}

// withoutModel takes the model away until the end of the test: what is tried has
// nothing to transcribe with, and is sooner done.
func (b *box) withoutModel() {
	b.t.Helper()
	b.must(`mv ` + model + ` /srv/e2e/model.away; systemctl stop 'whisper-appliance-engine@*.service'`)
	b.t.Cleanup(func() { b.Sh(context.WithoutCancel(b.t.Context()), `mv /srv/e2e/model.away `+model) })
	b.until("the model is missed", 30*time.Second, func() bool { return b.component("models") == "failed" })
}

// TestUpdateScrub: a byte that has changed on the disk is found; the idle slot
// is brought anew, and of the one that serves there is an alarm in health.
func TestUpdateScrub(t *testing.T) {
	b := updated(t, sound)
	b.withoutModel()
	b.does(nil, "apply")
	b.does(nil, "commit")
	idle, serving := other(b.serving()), b.serving()
	rot := func(slot string) {
		b.must(`printf X | dd of=/opt/whisper-appliance/slots/"$1"/bin/whisper-appliance bs=1 seek=100000 conv=notrunc status=none`, slot)
	}
	rot(idle)
	if r := b.update("scrub"); r.Code != 0 || !strings.Contains(r.Out, "brought anew") {
		t.Errorf("an idle slot that is damaged: %v", r)
	}
	if r := b.update("scrub"); r.Code != 0 || strings.Contains(r.Out, "damaged") {
		t.Errorf("after it was healed: %v", r)
	}
	b.must(`cp -p /opt/whisper-appliance/slots/"$1"/bin/whisper-appliance /srv/e2e/whole-cli`, serving)
	rot(serving)
	if r := b.update("scrub"); r.Code == 0 || !strings.Contains(r.Out, "damaged") {
		t.Errorf("the slot that serves is damaged: %v", r)
	}
	b.until("health tells of it", 30*time.Second, func() bool { return b.component("updater") == "failed" })
	for _, c := range b.detail().Components {
		if c.Name == "updater" {
			t.Logf("health says: %s (try: %s)", c.Error, c.Hint)
			if !strings.Contains(c.Error, "slot "+serving+" is damaged") || c.Hint == "" {
				t.Errorf("health says %+v", c)
			}
		}
	}
	b.must(`cp -p /srv/e2e/whole-cli /opt/whisper-appliance/slots/"$1"/bin/whisper-appliance`, serving)
	if r := b.update("scrub"); r.Code != 0 {
		t.Errorf("after it was mended: %v", r)
	}
	b.until("health is content again", 30*time.Second, func() bool { return b.component("updater") == "ok" })
}
