package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const firstSocket = 3 // SD_LISTEN_FDS_START

// inherited are the sockets that were handed to this process, none where it was
// started by hand.
func inherited() ([]net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS: %w", err)
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var list []net.Listener
	for i := range count {
		name := "LISTEN_FD_" + strconv.Itoa(firstSocket+i)
		if i < len(names) {
			name = names[i]
		}
		f := os.NewFile(uintptr(firstSocket+i), name)
		l, err := net.FileListener(f)
		f.Close() //nolint:errcheck // FileListener has its own copy
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", name, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path is its maker's
		}
		list = append(list, l)
	}
	return list, nil
}

// notifier reports to the service manager at a socket; "" is nobody.
type notifier struct{ socket string }

func (n notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	c, err := net.Dial("unixgram", n.socket)
	if err != nil {
		return // it has gone, and will end us
	}
	defer c.Close()
	c.Write([]byte(state)) //nolint:errcheck // the same
}

// signsEvery is how often the watchdog wants a sign, 0 where it wants none.
func signsEvery() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 3
}
