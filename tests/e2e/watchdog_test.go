//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// impatient gives a unit a watchdog that a test can wait for. It is taken back
// at the end.
func (b *box) impatient(unit string, more ...string) {
	b.t.Helper()
	dropIn := "/run/systemd/system/" + unit + ".d/99-e2e.conf"
	lines := append([]string{"[Service]", "WatchdogSec=3", "TimeoutAbortSec=2"}, more...)
	err := b.Write(b.t.Context(), dropIn, 0o644, strings.NewReader(strings.Join(lines, "\n")+"\n"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.must(`systemctl daemon-reload`)
	b.t.Cleanup(func() {
		b.Sh(context.WithoutCancel(b.t.Context()), `rm -f "$1"; systemctl daemon-reload; systemctl restart whisper-appliance.service`, dropIn)
	})
}

// killedByWatchdog waits until systemd has ended a unit for its silence and
// another process of it works.
func (b *box) killedByWatchdog(unit, pid, since string) {
	b.t.Helper()
	took := b.until(unit+" is killed by its watchdog", 60*time.Second, func() bool {
		r := b.Run(b.t.Context(), "journalctl", "--quiet", "--no-pager", "--since=@"+since, "--unit="+unit, "--grep=watchdog", "--case-sensitive=no")
		return strings.TrimSpace(r.Out) != "" && b.property(unit, "MainPID") != pid
	})
	b.ready()
	b.transcribes(plain)
	figure(b.t, "%s: killed and at work again after %.1f s", unit, took.Seconds())
}

// engineUnit is the engine of the slot that serves.
func (b *box) engineUnit() string {
	return "whisper-appliance-engine@" + b.serving() + ".service"
}

// TestWatchdogKills: a process that has stopped altogether, the engine's too,
// ends in systemd's kill and a restart that works.
func TestWatchdogKills(t *testing.T) {
	b := shared(t)
	for name, unit := range map[string]string{"deadlocked server": server, "stuck engine": b.engineUnit()} {
		t.Run(name, func(t *testing.T) {
			b := &box{b.Machine, t, b.client}
			b.impatient(unit)
			b.must(`systemctl restart "$1"`, unit)
			b.transcribes(plain)
			pid, since := b.property(unit, "MainPID"), b.must(`date +%s`)
			b.must(`[ "$1" -gt 1 ]; kill -STOP "$1"`, pid)
			b.killedByWatchdog(unit, pid, since)
		})
	}
}

// faultsIn is the file that says which fault point does what. Server and engine
// can write it, each as its own user.
const faultsIn = "/var/lib/whisper-appliance/e2e-faults"

// withFaults gives a program of the slot that serves its fault points, until
// the end of the test.
func (b *box) withFaults(name string, env []string, tags string) {
	b.t.Helper()
	program := filepath.Join(b.t.TempDir(), name)
	build := exec.CommandContext(b.t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-tags", tags, "-o", program, "./cmd/"+name)
	build.Dir, build.Env = checkout(b.t), append(os.Environ(), env...)
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	inside := "/opt/whisper-appliance/slots/" + b.serving() + "/bin/" + name
	b.must(`mv "$1" /srv/e2e/whole; install -m 0666 -o whisper-appliance /dev/null "$2"`, inside, faultsIn)
	b.t.Cleanup(func() {
		r := b.Sh(context.WithoutCancel(b.t.Context()), `mv /srv/e2e/whole "$1"; rm -f "$2"`, inside, faultsIn)
		if r.Code != 0 {
			b.t.Errorf("the slot is not as it was: %v", r)
		}
	})
	if err := b.CopyIn(b.t.Context(), program, inside, 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// messageOverdue is the id of the entry that names the call which hangs.
const messageOverdue = "b6d1f84e39c04a7795e20c1fd8a3764b"

// TestWatchdogHang: one call of ours that never returns, and one loop that
// stands still, are enough, though everything else goes on.
func TestWatchdogHang(t *testing.T) {
	for name, point := range map[string]string{"hanging call": "server.probe", "deadlocked loop": "server.status"} {
		t.Run(name, func(t *testing.T) {
			b := shared(t)
			b.withFaults("whisper-appliance-server", []string{"CGO_ENABLED=0"}, "faults")
			b.impatient(server, "Environment=WHISPER_APPLIANCE_FAULTS="+faultsIn)
			b.must(`systemctl restart whisper-appliance.service`)
			pid, since := b.property(server, "MainPID"), b.must(`date +%s`)
			b.must(`echo "$2 hang" >"$1"`, faultsIn, point)
			b.until("it hangs", 10*time.Second, func() bool { return b.must(`cat "$1"`, faultsIn) == "" })
			b.killedByWatchdog(server, pid, since)
			b.namesTheCall(since)
		})
	}
}

// namesTheCall wants the entry that says, before the kill, which call hangs.
func (b *box) namesTheCall(since string) {
	b.t.Helper()
	entries, err := b.Journal(b.t.Context(), "--since=@"+since, "MESSAGE_ID="+messageOverdue)
	if err != nil || len(entries) == 0 || entries[0]["CALL"] == "" || entries[0]["STACKS"] == "" {
		b.t.Errorf("the journal does not say which call hangs: %v, %v", entries, err)
	}
}

// TestWatchdogStuckEngine: a window that never ends costs the engine its life,
// and the next recording gets another.
func TestWatchdogStuckEngine(t *testing.T) {
	b := shared(t)
	unit := b.engineUnit()
	b.withFaults("whisper-appliance-engine", []string{"CGO_ENABLED=1"}, "whisper,netgo,osusergo,faults")
	b.impatient(unit, "Environment=WHISPER_APPLIANCE_FAULTS="+faultsIn, "BindPaths="+faultsIn, "ReadWritePaths="+faultsIn)
	b.must(`systemctl stop "$1"`, unit)
	b.transcribes(plain)
	pid, since := b.property(unit, "MainPID"), b.must(`date +%s`)
	b.must(`echo "engine.window hang" >"$1"`, faultsIn)
	wav, _ := reference(t)
	answered := make(chan int, 1)
	go func() {
		status, _ := b.upload(plain, "reference.wav", wav)
		answered <- status
	}()
	b.killedByWatchdog(unit, pid, since)
	figure(t, "the recording that the engine was stuck with: status %d", <-answered)
}

// slowDown holds a unit's process up for two thirds of its time.
const slowDown = `#!/bin/sh
while sleep 0.1; do
	pid=$(systemctl show --value --property=MainPID "$1")
	[ "$pid" != 0 ] || continue
	kill -STOP "$pid"
	sleep 0.2
	kill -CONT "$pid"
done
`

// TestWatchdogSpares: errors, a full disk, a slow engine and an idle one are no
// reason to be killed.
func TestWatchdogSpares(t *testing.T) {
	b := shared(t)
	b.impatient(server)
	b.impatient(b.engineUnit(), "WatchdogSec=9") // it gets a third of a processor that it shares
	b.must(`systemctl restart whisper-appliance.service; systemctl stop "$1"`, b.engineUnit())
	b.ready()
	pid, since := b.property(server, "MainPID"), b.must(`date +%s`)
	b.must(fullSpool)
	defer b.Sh(t.Context(), emptySpool)
	wav, _ := reference(t)
	if status, text := b.upload(plain, "reference.wav", wav); status/100 == 2 {
		t.Errorf("a full disk: %d %s", status, text)
	}
	b.must(emptySpool)
	// Slow: the engine's process is held up most of the time.
	if err := b.Write(t.Context(), "/srv/e2e/slow", 0o755, strings.NewReader(slowDown)); err != nil {
		t.Fatal(err)
	}
	b.must(`systemd-run --quiet --unit=e2e-slow /srv/e2e/slow "$1"`, b.engineUnit())
	b.until("the spool is found well", 30*time.Second, func() bool { return b.component("spool") == "ok" })
	b.transcribes(plain)
	b.must(`systemctl stop e2e-slow`)
	idle := time.NewTimer(12 * time.Second) // longer than the watchdogs' times
	defer idle.Stop()
	<-idle.C
	if status, body := b.get(plain + "/livez"); status != http.StatusOK {
		t.Errorf("/livez: %d %s", status, body)
	}
	if now := b.property(server, "MainPID"); now != pid {
		t.Errorf("the server was %s and is %s", pid, now)
	}
	if r := b.Run(t.Context(), "journalctl", "--quiet", "--no-pager", "--since=@"+since, "--unit=whisper-appliance*", "--grep=Watchdog timeout"); r.Out != "" {
		t.Errorf("somebody was killed:\n%s", r.Out)
	}
}
