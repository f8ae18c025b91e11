//go:build e2e

package machine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start boots a machine with nothing but the agent on its stick.
func start(t *testing.T) *Machine {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	stick := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(stick, "agent"), "whisper-appliance/tests/vm/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m, err := Start(t.Context(), root, Options{Suite: "bookworm", Stick: stick, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

// TestMachine: systemd is number 1 and well, control groups have their
// controllers, what was flushed stays over a cut, what was not flushed may not,
// and the machine loses its power when it asks for it.
func TestMachine(t *testing.T) {
	m := start(t)
	ctx := t.Context()
	t.Logf("up in %v", m.Booted)
	if m.State != "running" {
		t.Errorf("systemd is %s:\n%v", m.State, m.Run(ctx, "systemctl", "--failed"))
	}
	if got := m.Run(ctx, "cat", "/sys/fs/cgroup/cgroup.controllers").Out; !strings.Contains(got, "memory") || !strings.Contains(got, "pids") {
		t.Errorf("the controllers are %q", got)
	}
	if r := m.Sh(ctx, `echo out; echo err >&2; exit 3`); r.Out != "out\n" || r.Err != "err\n" || r.Code != 3 {
		t.Errorf("a command: %v", r)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r := m.Run(short, "sleep", "600"); r.Code != -1 || !strings.Contains(r.Err, "sleep 600") {
		t.Errorf("a command that was given up: %v", r)
	}
	echoes(t, m)

	if err := m.Write(ctx, "/srv/deep/kept", 0o640, strings.NewReader("it stays")); err != nil {
		t.Fatal(err)
	}
	m.Sh(ctx, `sync; dd if=/dev/zero of=/srv/deep/lost bs=64k count=64 status=none; echo phase two >/run/phase.new`)
	if err := m.CutWhen(ctx, "/run/phase", "phase two", 0); err != nil {
		t.Fatal(err)
	}
	m.Run(ctx, "mv", "/run/phase.new", "/run/phase")
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := m.Pulled(soon); err != nil {
		t.Fatal(err)
	}
	if r := m.Run(ctx, "true"); r.Code != -1 {
		t.Errorf("a machine without power answers: %v", r)
	}
	if err := m.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("up again in %v: %+v", m.Booted, m.disk.Cuts())
	if r := m.Sh(ctx, `stat -c '%a %U' /srv/deep/kept; cat /srv/deep/kept`); r.Out != "640 root\nit stays" {
		t.Errorf("after the cut: %v", r)
	}
	if r := m.Sh(ctx, `stat -c %b /srv/deep/lost 2>/dev/null || echo none`); r.Out != "0\n" && r.Out != "none\n" {
		t.Errorf("what was never flushed is there: %s blocks", strings.TrimSpace(r.Out))
	}
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	dir := m.dir
	m.Stop()
	m.Stop()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}

// echoes talks to a server in the machine.
func echoes(t *testing.T, m *Machine) {
	t.Helper()
	ctx := t.Context()
	r := m.Sh(ctx, `
		cd /run/systemd/system
		printf '[Socket]\nListenStream=127.0.0.1:7007\nAccept=yes\n' >vm-echo.socket
		printf '[Service]\nExecStart=cat\nStandardInput=socket\n' >vm-echo@.service
		systemctl daemon-reload
		systemctl start vm-echo.socket`)
	if r.Code != 0 {
		t.Fatal(r)
	}
	conn, err := m.Dial(ctx, "tcp", "127.0.0.1:7007")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "who is there")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "who is there\n" {
		t.Errorf("the echo says %q, %v", line, err)
	}
	if _, err := m.Dial(ctx, "tcp", "127.0.0.1:7008"); err == nil {
		t.Error("a door where nobody listens opens")
	}
}
