//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/tests/e2e/load"
)

const (
	busDown = `systemctl stop dbus.socket dbus.service 2>/dev/null || systemctl stop dbus.socket dbus.service`
	busUp   = `systemctl start dbus.socket`
)

// TestUpdateBusDown: without D-Bus an update goes through, over systemd's private
// socket, and so does a way back; HTTP says why it cannot ask the updater, and
// transcribes. When the bus is back the updater is there again.
func TestUpdateBusDown(t *testing.T) {
	b := updated(t, sound)
	before := b.packaged()
	key := b.must(`whisper-appliance keys add --scope admin e2e 2>/dev/null`)
	defer b.must(`whisper-appliance keys remove e2e`)
	b.does(nil, "check")
	defer b.Sh(context.WithoutCancel(t.Context()), busUp)
	b.must(busDown)
	status, said := b.ask("POST", "/api/v1/updates/apply", key, "")
	if status != http.StatusServiceUnavailable || !strings.Contains(said, `"hint"`) {
		t.Errorf("with the bus down apply is answered with %d %s", status, said)
	}
	t.Logf("people are told: %s", said)
	b.transcribes(plain)
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 2, Fresh: 2, Pace: 10 * time.Millisecond}
	counts := b.while(l, func() { b.does(nil, "apply", "--wait") })
	figure(t, "update without a bus: %v; %s", counts, took(b.last()))
	b.nothingFailed("update without a bus", counts)
	b.by(deployment.DoorCLI, deployment.Committed, sound.Version)
	b.does(nil, "rollback")
	b.servesVersion(before)
	b.must(busUp)
	b.must(`whisper-appliance update unpin`)
	b.inTrial(before)
}

// inTrial takes the bus away in a trial, and brings it back: the updater takes
// its name again, and goes on.
func (b *box) inTrial(before string) {
	b.t.Helper()
	b.configure(strings.Replace(settingsOf, "10s", "5m", 1))
	b.does(nil, "apply")
	b.onTrial(sound.Version)
	pid := b.property(updater, "MainPID")
	b.must(busDown)
	b.until("the trial goes on", 30*time.Second, func() bool {
		s := b.status()
		return s.Trial != nil && s.Trial.Samples > 1
	})
	b.must(busUp)
	b.until("the updater has its name again", 30*time.Second, func() bool {
		return b.Run(b.t.Context(), "busctl", "--auto-start=no", "get-property", "org.whisperappliance.Updater1", "/org/whisperappliance/Updater1", "org.whisperappliance.Updater1", "State").Code == 0
	})
	if now := b.property(updater, "MainPID"); now != pid {
		b.t.Errorf("the updater was %s and is %s", pid, now)
	}
	b.until("HTTP reaches it again", 30*time.Second, func() bool { return b.component("updater") == "ok" })
	b.does(nil, "rollback")
	b.servesVersion(before)
}

// TestUpdateReboot: a trial goes on when the machine starts anew, be it in order
// or because it was killed; what was left
// of an update is settled before the port opens, wherever the updater was
// killed; three starts in a trial are too many.
func TestUpdateReboot(t *testing.T) {
	b := fresh(t, bookworm)
	b.must(`rm -f ` + model + `*`)
	b.must(`whisper-appliance --version >/dev/null 2>&1 || ` + aptInstall)
	before := b.packaged()
	b.offer(sound)
	b.configure(strings.Replace(settingsOf, "10s", "1h", 1))
	b.killedInPhases(before)
	b.does(nil, "apply", sound.Version)
	b.onTrial(sound.Version)
	b.until("the trial has some credit", 60*time.Second, func() bool { s := b.status(); return s.Trial != nil && s.Trial.Samples > 0 })
	for boot := 1; boot <= 3; boot++ {
		again := b.Reboot
		if boot == 2 {
			again = b.Crash
		}
		if err := again(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.beforeThePort()
		if boot == 3 {
			break
		}
		b.onTrial(sound.Version)
		b.servesVersion(sound.Version)
		if s := b.status(); s.Trial == nil || s.Trial.TriesLeft != 3-boot {
			t.Errorf("after start %d the trial is %+v", boot, s.Trial)
		}
	}
	b.servesVersion(before)
	if r := b.last(); r.Outcome != deployment.RolledBack || r.Reason != "tries_exhausted" {
		t.Errorf("the record says %s, %s", r.Outcome, r.Reason)
	}
	if s := b.status(); s.Held != sound.Version {
		t.Errorf("held is %q, want %s: the timer would install it again", s.Held, sound.Version)
	}
}

// beforeThePort wants recovery to have ended before the port was open.
func (b *box) beforeThePort() {
	b.t.Helper()
	if result := b.property("whisper-appliance-recover.service", "Result"); result != "success" {
		b.t.Errorf("recovery ended with %s", result)
	}
	settled, open := b.must(`systemctl show --value -p ExecMainExitTimestampMonotonic whisper-appliance-recover.service`), b.property(socketUnit, "ActiveEnterTimestampMonotonic")
	if len(settled) > len(open) || len(settled) == len(open) && settled > open || settled == "0" {
		b.t.Errorf("recovery ended at %s µs, and the port was open at %s", settled, open)
	}
}

// killedInPhases kills an updater, without a warning, in one phase after the
// other. The next one settles what it has left.
func (b *box) killedInPhases(before string) {
	b.t.Helper()
	l := load.Load{Dial: b.Dial, URL: plain, Small: "/livez", Kept: 2, Fresh: 2, Pace: 10 * time.Millisecond}
	for _, phase := range []deployment.Phase{deployment.Stage, deployment.Preflight, deployment.Overlap, deployment.TakeOver} {
		counts := b.while(l, func() {
			b.must(`systemctl reset-failed e2e-apply.service 2>/dev/null || true
				systemd-run --quiet --unit=e2e-apply whisper-appliance update apply "$2"
				n=0
				until grep -q "^ \"phase\": \"$1\"" /run/whisper-appliance-updater/status.json; do
					n=$((n + 1))
					[ $n -lt 20000 ] || exit 1
				done
				systemctl kill --signal=KILL e2e-apply.service`, string(phase), sound.Version)
			b.does(nil, "recover")
		})
		b.nothingFailed("killed in "+string(phase), counts)
		s := b.status()
		figure(b.t, "killed in %s: %s serves, %s; %v", phase, s.Current.Version, s.State, counts)
		switch s.State {
		case deployment.Trial:
			b.servesVersion(sound.Version)
			b.does(nil, "rollback")
			b.does(nil, "unpin")
		case deployment.Idle:
			if r := b.last(); r.Outcome != deployment.Aborted || r.Reason != "interrupted" {
				b.t.Errorf("killed in %s: the record says %s, %s", phase, r.Outcome, r.Reason)
			}
		default:
			b.t.Errorf("killed in %s: %+v", phase, s)
		}
		b.servesVersion(before)
		if left := b.must(`ls -A /opt/whisper-appliance/.staging /opt/whisper-appliance/.trash 2>/dev/null | grep -v : || true`); left != "" {
			b.t.Errorf("killed in %s: left behind: %s", phase, left)
		}
	}
}
