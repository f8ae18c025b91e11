package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// silent is a socket where nobody answers.
func silent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if sent, err := Notify("READY=1"); sent || err != nil {
		t.Errorf("nobody listens: %v, %v", sent, err)
	}
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	read := func() string {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return NotifyStatus("serving, tiny\nREADY=0") }, "STATUS=serving, tiny READY=0"},
		{func() error { return ExtendTimeout(90 * time.Second) }, "EXTEND_TIMEOUT_USEC=90000000"},
		{func() error { return ExtendTimeout(1500 * time.Microsecond) }, "EXTEND_TIMEOUT_USEC=1500"},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if err := Reloading(); err != nil {
		t.Fatal(err)
	}
	usec, ok := strings.CutPrefix(read(), "RELOADING=1\nMONOTONIC_USEC=")
	n, err := strconv.ParseInt(usec, 10, 64)
	if !ok || err != nil || time.Since(clockOffset().Add(time.Duration(n)*time.Microsecond)).Abs() > time.Minute {
		t.Errorf("reloading at %s, %v", usec, err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-gone")
	if err := NotifyStatus("x"); err == nil {
		t.Error("a manager that is gone was told")
	}
}

func TestWatchdogInterval(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", own, 30 * time.Second}, {"30000000", "", 30 * time.Second},
		{"30000000", "1", 0}, {"soon", own, 0}, {"-1", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := WatchdogInterval(); got != c.want {
			t.Errorf("%q for %q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

func TestSupervised(t *testing.T) {
	for _, c := range []struct {
		invocation, notify, fds string
		want                    bool
	}{
		{"", "", "", false}, {"x", "", "", false}, {"x", "s", "", true}, {"x", "", "1", true}, {"", "s", "1", false},
	} {
		t.Setenv("INVOCATION_ID", c.invocation)
		t.Setenv("NOTIFY_SOCKET", c.notify)
		t.Setenv("LISTEN_FDS", c.fds)
		if Supervised() != c.want {
			t.Errorf("%+v", c)
		}
	}
}

func TestListenersByHand(t *testing.T) {
	t.Setenv("LISTEN_FDS", "")
	if l, err := NamedListeners(); l != nil || err != nil {
		t.Errorf("%v, %v", l, err)
	}
	// Meant for another process, as where a parent was activated.
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	if l, err := Listeners(); len(l) != 0 || err != nil {
		t.Errorf("%v, %v", l, err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("children would inherit LISTEN_FDS")
	}
}
