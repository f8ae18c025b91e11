package updaterd

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
)

// Watch shows the status as it is and whenever it changes, until ctx ends; then
// it returns nil. Where the first look fails it returns why; after that it
// comes back by itself whenever bus or updater do.
func (c *Client) Watch(ctx context.Context, show func(deployment.Status)) error {
	began := false
	seen := func(st deployment.Status) {
		began = true
		show(st)
	}
	for {
		err := c.watch(ctx, seen)
		if ctx.Err() != nil {
			return nil
		}
		if !began {
			return err
		}
		again := time.NewTimer(againSoon)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

// watch is one connection's look at it.
func (c *Client) watch(ctx context.Context, show func(deployment.Status)) error {
	limited, cancel := context.WithTimeout(ctx, quickLimit)
	defer cancel()
	conn, err := dial(limited, c.Socket)
	if err != nil {
		return unreachable(err)
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals) // before the first look, so that no change falls between
	for _, rule := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(Name), dbus.WithMatchInterface(propertiesInterface), dbus.WithMatchObjectPath(Path)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, Name)},
	} {
		if err := conn.AddMatchSignalContext(limited, rule...); err != nil {
			return fromBus(err)
		}
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	show(st)
	for {
		select {
		case sig, ok := <-signals:
			if !ok {
				return unreachable(dbus.ErrClosed)
			}
			if err := c.follow(ctx, sig, show); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// follow shows what a signal says.
func (c *Client) follow(ctx context.Context, sig *dbus.Signal, show func(deployment.Status)) error {
	switch {
	case sig.Name == propertiesChanged && sig.Path == Path && len(sig.Body) > 1:
		changed, _ := sig.Body[1].(map[string]dbus.Variant) //nolint:errcheck // none is none
		v, ok := changed["Status"]
		if !ok {
			return nil
		}
		st, err := statusIn(v)
		if err == nil {
			show(st)
		}
		return err
	case sig.Name == "org.freedesktop.DBus.NameOwnerChanged" && len(sig.Body) > 2 && sig.Body[2] != "":
		st, err := c.Status(ctx) // another updater: what was missed is in its status
		if err == nil {
			show(st)
		}
		return err
	}
	return nil
}
