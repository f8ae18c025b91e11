package updaterd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
)

// Users of the tests, which the bus must find among the system's: daemon stands
// for the server's, nobody has nothing to do with us.
const (
	serverUID   = 1
	strangerUID = 65534
)

// open lets everybody do everything: what is then refused, the Server refuses.
const open = `<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>`

// systemLike is what a system bus allows before the policies of services.
const systemLike = `<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/></policy>`

// bus is a message bus of the test's own.
type bus struct {
	socket, config string
	cmd            *exec.Cmd
}

// newBus starts a bus with a policy. It ends with the test.
func newBus(t *testing.T, policy string) *bus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("there is no dbus-daemon here (Debian's package dbus-daemon): ", err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // so that other users reach the socket
		t.Fatal(err)
	}
	b := &bus{socket: filepath.Join(dir, "bus"), config: filepath.Join(dir, "bus.conf")}
	config := "<busconfig><type>custom</type><listen>unix:path=" + b.socket + "</listen><auth>EXTERNAL</auth>" +
		`<limit name="max_replies_per_connection">50000</limit>` + policy + "</busconfig>"
	if err := os.WriteFile(b.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

// start waits until the bus listens.
func (b *bus) start(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--print-address=1", "--config-file="+b.config)
	var said bytes.Buffer
	b.cmd.Stderr = &said
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.stop()
		t.Fatalf("the bus did not start: %v\n%s", err, &said)
	}
}

func (b *bus) stop() {
	b.cmd.Process.Kill() //nolint:errcheck // it may have ended
	b.cmd.Wait()         //nolint:errcheck // it was killed
}

// call is a call that the fake has seen.
type call struct {
	method string
	caller Caller
	args   string
}

// fake answers every method with words of its own and notes the calls.
type fake struct {
	mu   sync.Mutex
	seen []call
	fail error
	wait func(ctx context.Context, method string) // before an answer; nil = not at all
}

func (f *fake) note(ctx context.Context, c Caller, method, args string) (string, error) {
	f.mu.Lock()
	f.seen = append(f.seen, call{method, c, args})
	fail, wait := f.fail, f.wait
	f.mu.Unlock()
	if wait != nil {
		wait(ctx, method)
	}
	return "answer to " + method, fail
}

// latest is the last call.
func (f *fake) latest() call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) == 0 {
		return call{}
	}
	return f.seen[len(f.seen)-1]
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

func (f *fake) set(fail error, wait func(context.Context, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.wait = fail, wait
}

func (f *fake) only(ctx context.Context, c Caller, method, args string) error {
	_, err := f.note(ctx, c, method, args)
	return err
}

func (f *fake) Check(ctx context.Context, c Caller) (string, error) {
	return f.note(ctx, c, "Check", "")
}
func (f *fake) Download(ctx context.Context, c Caller, v string) error {
	return f.only(ctx, c, "Download", v)
}
func (f *fake) Apply(ctx context.Context, c Caller, v string) (string, error) {
	return f.note(ctx, c, "Apply", v)
}
func (f *fake) InstallFile(ctx context.Context, c Caller, p string) (string, error) {
	return f.note(ctx, c, "InstallFile", p)
}
func (f *fake) Rollback(ctx context.Context, c Caller) (string, error) {
	return f.note(ctx, c, "Rollback", "")
}
func (f *fake) Commit(ctx context.Context, c Caller) error { return f.only(ctx, c, "Commit", "") }
func (f *fake) Cancel(ctx context.Context, c Caller) error { return f.only(ctx, c, "Cancel", "") }
func (f *fake) Restart(ctx context.Context, c Caller) (string, error) {
	return f.note(ctx, c, "Restart", "")
}
func (f *fake) Pin(ctx context.Context, c Caller, v string) error { return f.only(ctx, c, "Pin", v) }
func (f *fake) Unpin(ctx context.Context, c Caller) error         { return f.only(ctx, c, "Unpin", "") }
func (f *fake) Unquarantine(ctx context.Context, c Caller, w string) error {
	return f.only(ctx, c, "Unquarantine", w)
}
func (f *fake) SetPolicy(ctx context.Context, c Caller, p deployment.PolicyChange) error {
	word := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	days := "-"
	if p.Days != nil {
		days = fmt.Sprint(p.Days)
	}
	return f.only(ctx, c, "SetPolicy", strings.Join([]string{word(p.Channel), word(p.Automatic), word(p.Window), days}, "|"))
}

// running is a Server at work.
type running struct {
	*Server
	*fake
	stop func() // ends it and waits
}

// serve runs a Server at b until the test ends.
func serve(t *testing.T, b *bus) running {
	t.Helper()
	return serveAndLog(t, b, slog.New(slog.DiscardHandler))
}

func serveAndLog(t *testing.T, b *bus, log *slog.Logger) running {
	t.Helper()
	f := &fake{}
	s := &Server{Socket: b.socket, Handler: f, admin: uint32(os.Geteuid()), Log: log,
		ServerUID: func() (uint32, bool) { return serverUID, true }}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	r := running{s, f, func() { cancel(); wg.Wait() }}
	t.Cleanup(r.stop)
	eventually(t, "the name", s.Owned)
	return r
}

// journal is a log that is read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func client(t *testing.T, b *bus) *Client {
	t.Helper()
	c, err := Dial(t.Context(), b.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw is a connection without manners.
func raw(t *testing.T, b *bus) *dbus.Conn {
	t.Helper()
	conn, err := dial(t.Context(), b.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// as does f as another user, as far as the kernel and the bus can see: its
// thread alone changes.
func as(t *testing.T, uid int, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be other users")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			panic("become user " + strconv.Itoa(uid) + ": " + errno.Error())
		}
	}
	become(uid)
	defer become(0)
	f()
}

func clientAs(t *testing.T, b *bus, uid int) (c *Client) {
	t.Helper()
	as(t, uid, func() { c = client(t, b) })
	return c
}

func rawAs(t *testing.T, b *bus, uid int) (c *dbus.Conn) {
	t.Helper()
	as(t, uid, func() { c = raw(t, b) })
	return c
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s never came", what)
		}
	}
}
