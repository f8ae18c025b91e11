package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"whisper-appliance/internal/cert"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/portmux"
)

// openDoors makes the doors: the sockets handed down by systemd, or else the
// port and the Unix socket that the settings name.
func (a *appliant) openDoors(context.Context) error {
	if a.doors != nil {
		return nil
	}
	c := a.settings.Current()
	var listeners []net.Listener
	for _, l := range a.inherited {
		listeners = append(listeners, l.Listener)
	}
	if len(listeners) == 0 {
		var err error
		if listeners, err = listenOurselves(a.paths, c); err != nil {
			return err
		}
	}
	for _, l := range listeners {
		door := portmux.New(l, a.certs.TLSConfig())
		door.MaxConns = c.Server.MaxConnections
		a.doors = append(a.doors, door)
	}
	return nil
}

func listenOurselves(p paths.Paths, c *config.Config) ([]net.Listener, error) {
	tcp, err := net.Listen("tcp", c.Server.Listen)
	if err != nil {
		e := fault.New(fault.Unavailable, "cannot_listen", "cannot listen on %s", c.Server.Listen).On("server.listen").Because(err)
		if errors.Is(err, syscall.EADDRINUSE) {
			e.Try("another program has the port: `ss -ltnp` names it; choose another with --listen or [server] listen")
		}
		return nil, e
	}
	// What lies there is left from an earlier server: one that lives has the
	// lock of the engine's socket beside it, and appliance.New has asked.
	os.Remove(p.APISocket) //nolint:errcheck // Listen says what is wrong
	local, err := net.Listen("unix", p.APISocket)
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("open the local door: %w", err)
	}
	// Everybody on this machine may knock: who it is decides what they may.
	if err := os.Chmod(p.APISocket, 0o666); err != nil {
		return nil, err
	}
	return []net.Listener{tcp, local}, nil
}

// certificate makes, reads or renews the certificate. It is an optional
// component, and looked after as one: where none can be had, plain HTTP is
// served until it can.
func (a *appliant) certificate(ctx context.Context) error {
	event, err := a.certs.Refresh(ctx)
	if err != nil {
		return err
	}
	a.logCertificate(event)
	return nil
}

func (a *appliant) logCertificate(e cert.Event) {
	if e.Change != cert.None {
		a.log.Info("certificate", "change", string(e.Change), "reason", e.Reason, "names", e.Names,
			"not_after", e.NotAfter, "sha256", e.Fingerprint)
	}
}
