package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/updaterd"
)

// serversUID stands for the server's user: one that the bus finds among the
// system's.
const serversUID = 1

// testBus is a message bus of the test's own, on which everybody may do
// everything: what is refused then, the updater refuses.
type testBus struct {
	socket, config string
	cmd            *exec.Cmd
}

func newBus(t *testing.T) *testBus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("there is no dbus-daemon here (Debian's package dbus-daemon): ", err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // so that other users reach the socket
		t.Fatal(err)
	}
	b := &testBus{socket: filepath.Join(dir, "bus"), config: filepath.Join(dir, "bus.conf")}
	config := "<busconfig><type>custom</type><listen>unix:path=" + b.socket + `</listen><auth>EXTERNAL</auth><policy context="default">` +
		`<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`
	if err := os.WriteFile(b.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

// start waits until the bus listens.
func (b *testBus) start(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--print-address=1", "--config-file="+b.config)
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *testBus) stop() {
	b.cmd.Process.Kill() //nolint:errcheck // it may have ended
	b.cmd.Wait()         //nolint:errcheck // it was killed
}

func (b *testBus) client(t *testing.T) *updaterd.Client {
	t.Helper()
	c, err := updaterd.Dial(t.Context(), b.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// server is a client of the server's user, as far as the kernel and the bus can
// see: the thread that dials changes alone.
func (b *testBus) server(t *testing.T) *updaterd.Client {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be other users")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid uintptr) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0)); errno != 0 {
			panic(errno.Error())
		}
	}
	become(serversUID)
	defer become(0)
	return b.client(t)
}

// running is a daemon at work.
type running struct {
	*daemon
	stop func() error // tells it to end, as systemd does, and waits
	over chan struct{}
	err  *error
}

// daemonOn runs a daemon of the bench until the test ends.
func (b *bench) daemonOn(bus *testBus, stay time.Duration) running {
	b.t.Helper()
	u := b.updater()
	d := newDaemon(u, u.Log, bus.socket, func() (uint32, bool) { return serversUID, true })
	d.stay = stay
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	var err error
	go func() {
		defer close(over)
		err = d.run(ctx)
	}()
	r := running{d, func() error { cancel(); <-over; return err }, over, &err}
	b.t.Cleanup(func() { r.stop() }) //nolint:errcheck // the tests ask for it that want it
	eventually(b.t, "the name", d.bus.Owned)
	return r
}

// idle waits until the daemon does nothing but what it does by itself.
func (r running) idle(t *testing.T) {
	t.Helper()
	eventually(t, "the end of the work", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.busy == ""
	})
}

// reach waits until everybody is shown a state.
func (b *bench) reach(s deployment.State) {
	b.t.Helper()
	eventually(b.t, "the state "+string(s), func() bool { return b.status().State == s })
}
