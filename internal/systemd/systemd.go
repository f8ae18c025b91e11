// Package systemd is where the appliance meets its service manager: sockets
// that it hands down, states that are reported up, entries for the journal,
// and over D-Bus what it knows of our units and what it is asked to do with
// them. It is the one owner of godbus and of coreos/go-systemd. It trusts
// LISTEN_FDS, NOTIFY_SOCKET and their kin of its own environment, and what
// systemd answers. It takes LISTEN_* out of the environment, so that no child
// inherits them; NOTIFY_SOCKET stays, for each report is sent through it, and
// children are given environments of their own. Without systemd every report
// is harmless, and Dial says that there is none.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Listener is a listening socket that systemd handed down.
type Listener struct {
	net.Listener
	Name string // FileDescriptorName= of the socket unit, the unit's own name by default
}

// NamedListeners returns the listening sockets that were handed to this
// process, in order; none where it was started by hand, and none the second
// time.
func NamedListeners() ([]Listener, error) {
	var list []Listener
	for i, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		f.Close() //nolint:errcheck // FileListener has its own copy
		if err != nil {
			return nil, fmt.Errorf("inherited descriptor %d is no listening socket: %w", 3+i, err)
		}
		list = append(list, Listener{l, f.Name()})
	}
	return list, nil
}

// Listeners is NamedListeners for a program whose sockets need no names.
func Listeners() ([]net.Listener, error) {
	named, err := NamedListeners()
	var list []net.Listener
	for _, l := range named {
		list = append(list, l.Listener)
	}
	return list, err
}

// Supervised reports whether systemd started this process as a service that
// reports to it or is given sockets. Ask before the listeners are taken.
func Supervised() bool {
	return os.Getenv("INVOCATION_ID") != "" && (os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("LISTEN_FDS") != "")
}

// Notify sends a state such as "READY=1" or "STATUS=…" to the service manager.
// It reports whether anybody listens.
func Notify(state string) (bool, error) {
	return daemon.SdNotify(false, state)
}

// NotifyStatus sets the line that `systemctl status` shows.
func NotifyStatus(line string) error {
	_, err := Notify("STATUS=" + oneLine(line))
	return err
}

// ExtendTimeout asks for d more, from now, before a start or stop that is
// under way counts as failed.
func ExtendTimeout(d time.Duration) error {
	_, err := Notify("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
	return err
}

// Reloading says that the settings are being read again; READY=1 ends it.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	_, err := Notify("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10))
	return err
}

// WatchdogInterval is how long systemd waits for WATCHDOG=1 before it kills
// this process, 0 where it does not.
func WatchdogInterval() time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0 // what cannot be read was not set by systemd
	}
	return d
}

// oneLine keeps a status from being read as further assignments.
func oneLine(s string) string {
	line := []byte(s)
	for i, c := range line {
		if c == '\n' || c == '\r' {
			line[i] = ' '
		}
	}
	return string(line)
}
