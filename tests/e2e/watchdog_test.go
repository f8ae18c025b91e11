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

// TestWatchdogHang: one call of ours that never returns is enough, though
// everything else goes on. The server is one built with fault points.
func TestWatchdogHang(t *testing.T) {
	const point = "server.call"
	root := checkout(t)
	if exec.Command("grep", "-rqF", `faultpoint.Here("`+point+`")`, filepath.Join(root, "internal"), filepath.Join(root, "cmd")).Run() != nil {
		t.Skipf("the server has no fault point %q", point)
	}
	b := shared(t)
	program := filepath.Join(t.TempDir(), "server")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "faults", "-o", program, "./cmd/whisper-appliance-server")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// Beside the slot's own: a program knows its slot by where it lies.
	inside := "/opt/whisper-appliance/slots/" + b.serving() + "/bin/e2e-server"
	const faults = "/var/lib/whisper-appliance/e2e-faults"
	if err := b.CopyIn(t.Context(), program, inside, 0o755); err != nil {
		t.Fatal(err)
	}
	defer b.Sh(t.Context(), `rm -f "$1" "$2"`, inside, faults)
	b.must(`echo "$2 hang" >"$1"; chown whisper-appliance: "$1"`, faults, point)
	since := b.must(`date +%s`)
	b.impatient(server, "ExecStart=", "ExecStart="+inside, "Environment=WHISPER_APPLIANCE_FAULTS="+faults)
	b.must(`systemctl restart whisper-appliance.service`)
	pid := b.property(server, "MainPID")
	go b.client.Get(plain + "/health/detailed") //nolint:errcheck,bodyclose // what may hang is asked for
	b.killedByWatchdog(server, pid, since)
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
	b.impatient(b.engineUnit())
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
	idle := time.NewTimer(10 * time.Second) // three times the watchdog's time
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
