package updaterd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// stuck is how long a bus may take to take a message off our hands. One that
// hangs costs its connection, not the updater's work.
const stuck = 5 * time.Second

// patient is a connection whose writes end.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(stuck)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// dial connects to the bus at socket and is greeted within ctx, which bounds
// nothing after that.
func dial(ctx context.Context, socket string, options ...dbus.ConnOption) (*dbus.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	late := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) }) //nolint:errcheck // then it waits
	conn, err := greet(patient{c}, options)
	if !late() && err == nil { // the deadline has been set, or is about to be
		conn.Close() //nolint:errcheck // it was never used
		err = ctx.Err()
	}
	if err != nil {
		c.Close() //nolint:errcheck // it was never used
		return nil, fmt.Errorf("greet the bus at %s: %w", socket, errors.Join(ctx.Err(), err))
	}
	return conn, nil
}

// greet says to the bus who we are.
func greet(c net.Conn, options []dbus.ConnOption) (*dbus.Conn, error) {
	conn, err := dbus.NewConn(c, append(options, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))...)
	if err != nil {
		return nil, err
	}
	if err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it was never used
		return nil, err
	}
	return conn, nil
}
