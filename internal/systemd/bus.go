package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

const (
	managerName      = "org.freedesktop.systemd1"
	managerPath      = "/org/freedesktop/systemd1"
	managerInterface = "org.freedesktop.systemd1.Manager"
)

// askLimit bounds one question to systemd where the caller set no deadline.
const askLimit = 5 * time.Second

// door is one address at which systemd answers.
type door struct {
	path string
	bus  bool // a message bus is between: it wants a Hello and is told what to pass on
}

// Bus is systemd over D-Bus. It is safe for concurrent use and dials anew
// after its connection broke.
type Bus struct {
	doors []door

	mu   sync.Mutex
	conn *dbus.Conn // for questions; nil before the first and after it broke
}

// New is systemd as this process reaches it: for root by its private socket,
// which works while the bus is down, for others and failing that by the system
// bus. It connects with the first question. Close ends it.
func New() *Bus { return newBus(paths.MachineAt(""), os.Geteuid()) }

func newBus(m paths.Machine, euid int) *Bus {
	doors := []door{{m.SystemBus, true}}
	if euid == 0 {
		doors = []door{{m.SystemdPrivate, false}, {m.SystemBus, true}}
	}
	return &Bus{doors: doors}
}

// Dial is New after a first connection. The error is a fault with the code
// "no_systemd".
func Dial(ctx context.Context) (*Bus, error) { return New().dialed(ctx) }

func (b *Bus) dialed(ctx context.Context) (*Bus, error) {
	if _, err := b.connection(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Close ends the connection. A later question opens another.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil
	}
	err := b.conn.Close()
	b.conn = nil
	return err
}

// Booted reports whether systemd is the service manager of the machine below
// root.
func Booted(root string) bool {
	info, err := os.Lstat(paths.MachineAt(root).SystemdBooted)
	return err == nil && info.IsDir()
}

// connection is the one for questions, dialled anew where it broke.
func (b *Bus) connection(ctx context.Context) (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	conn, _, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return conn, nil
}

// dial opens a connection of its own at the first door that answers.
func (b *Bus) dial(ctx context.Context) (*dbus.Conn, door, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	var errs []error
	for _, d := range b.doors {
		conn, err := d.open(ctx)
		if err == nil {
			return conn, d, nil
		}
		errs = append(errs, err)
	}
	return nil, door{}, fault.New(fault.Unavailable, "no_systemd", "systemd does not answer over D-Bus").
		Because(errors.Join(errs...)).
		Try("where systemd is the service manager: `systemctl status dbus`; elsewhere there are no units to look at")
}

// open connects and makes itself known within ctx, which ends with the
// greeting; the connection does not.
func (d door) open(ctx context.Context) (conn *dbus.Conn, err error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", d.path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close() //nolint:errcheck // it was never used
			err = fmt.Errorf("greet %s: %w", d.path, err)
		}
	}()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	conn, err = dbus.NewConn(c, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return nil, err
	}
	greet := conn.Hello
	if !d.bus {
		greet = func() error { return wake(ctx, conn) }
	}
	if err := greet(); err != nil {
		return nil, err
	}
	return conn, c.SetDeadline(time.Time{})
}

// wakeAgain is how long a first message may wait for its answer.
const wakeAgain = 20 * time.Millisecond

// wake asks systemd for any answer. Where the first message comes in one packet
// with the end of the greeting, systemd looks at it only when more bytes come:
// without a second one it would lie there for ever. (Seen with systemd 252, in
// two of five connections.)
func wake(ctx context.Context, conn *dbus.Conn) error {
	answers := make(chan *dbus.Call, 1000)
	tick := time.NewTicker(wakeAgain)
	defer tick.Stop()
	for {
		conn.Object(managerName, managerPath).Go("org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case <-answers: // an error is an answer, too
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// limited is ctx with askLimit where it has no deadline.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, askLimit)
}

// ask calls a method of systemd and stores its answer. A connection that broke
// since the last question, as when the bus was restarted, is replaced once;
// what is asked by this way may be asked twice.
func (b *Bus) ask(ctx context.Context, object dbus.ObjectPath, method string, args []any, answer ...any) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	for attempt := 0; ; attempt++ {
		conn, err := b.connection(ctx)
		if err != nil {
			return err
		}
		err = conn.Object(managerName, object).CallWithContext(ctx, method, 0, args...).Store(answer...)
		if err == nil || attempt > 0 || ctx.Err() != nil || errors.As(err, new(dbus.Error)) {
			return err
		}
		b.drop(conn)
	}
}

// drop forgets a connection that broke, unless another has replaced it.
func (b *Bus) drop(conn *dbus.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == conn {
		b.conn = nil
	}
	conn.Close() //nolint:errcheck // it is broken
}

// askManager is ask for a method of the manager itself.
func (b *Bus) askManager(ctx context.Context, method string, args []any, answer ...any) error {
	return b.ask(ctx, managerPath, managerInterface+"."+method, args, answer...)
}

// properties is every property of an object, of all its interfaces.
func (b *Bus) properties(ctx context.Context, object dbus.ObjectPath) (map[string]dbus.Variant, error) {
	var all map[string]dbus.Variant
	err := b.ask(ctx, object, "org.freedesktop.DBus.Properties.GetAll", []any{""}, &all)
	return all, err
}
