// Package systemd is where the appliance meets its service manager: sockets
// that it hands down and states that are reported up. It trusts LISTEN_FDS and
// NOTIFY_SOCKET of its own environment, takes both out of it so that no child
// inherits them, and writes nothing else. Without systemd every call is harmless.
package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Listeners returns the listening sockets that were handed to this process, in
// order; none where it was started by hand.
func Listeners() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("inherited sockets: %w", err)
	}
	for i, l := range listeners {
		if l == nil {
			return nil, fmt.Errorf("inherited descriptor %d is no listening socket", 3+i)
		}
	}
	return listeners, nil
}

// Notify sends a state such as "READY=1" or "STATUS=…" to the service manager.
// It reports whether anybody listens.
func Notify(state string) (bool, error) {
	return daemon.SdNotify(false, state)
}
