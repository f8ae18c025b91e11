package updaterd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Client asks the updater. It is safe for concurrent use, connects with its
// first question and dials anew after the bus broke. Its errors are faults:
// those of the updater as they were, CodeUnreachable and CodeDenied.
type Client struct {
	Socket string // path of the bus' socket

	mu   sync.Mutex
	conn *dbus.Conn // nil before the first question and after it broke
}

// What a question may take where the caller's context has no deadline: one that
// is answered from memory or begins something, one that asks the sources, and
// one that waits for a new server.
const (
	quickLimit   = 30 * time.Second
	checkLimit   = 5 * time.Minute
	restartLimit = 4 * time.Minute
)

// Dial is a Client after a first connection to the bus. It starts no updater.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{Socket: socket}
	if _, err := c.connection(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection. A later question opens another.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// connection is the one for questions.
func (c *Client) connection(ctx context.Context) (*dbus.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Connected() {
		return c.conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	conn, err := dial(ctx, c.Socket)
	if err != nil {
		return nil, unreachable(err)
	}
	c.conn = conn
	return conn, nil
}

// ask calls a method of the updater's object, which starts an updater where
// none runs. Nothing is asked twice: a question may have been heard although
// the bus broke before the answer.
func (c *Client) ask(ctx context.Context, limit time.Duration, method string, args []any, answer ...any) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	conn, err := c.connection(ctx)
	if err != nil {
		return err
	}
	call := conn.Object(Name, Path).CallWithContext(ctx, method, 0, args...)
	if call.Err != nil {
		return fromBus(call.Err)
	}
	if err := call.Store(answer...); err != nil {
		return fault.New(fault.Unsupported, "updater_other", "the updater's answer to %s is not as expected", method).Because(err).
			Try("`systemctl restart whisper-appliance-updater` starts the one that is installed")
	}
	return nil
}

// do calls a method of our interface that gives nothing.
func (c *Client) do(ctx context.Context, method string, args ...any) error {
	return c.ask(ctx, quickLimit, Interface+"."+method, args)
}

// get calls one that gives a string.
func (c *Client) get(ctx context.Context, limit time.Duration, method string, args ...any) (s string, err error) {
	err = c.ask(ctx, limit, Interface+"."+method, args, &s)
	return s, err
}

// Check asks the sources and gives the version on offer, "" for none.
func (c *Client) Check(ctx context.Context) (version string, err error) {
	return c.get(ctx, checkLimit, "Check")
}

// Download begins to fetch version, "" for what is on offer.
func (c *Client) Download(ctx context.Context, version string) error {
	return c.do(ctx, "Download", clean(version))
}

// Apply begins to install version, "" for what is on offer.
func (c *Client) Apply(ctx context.Context, version string) (transaction string, err error) {
	return c.get(ctx, quickLimit, "Apply", clean(version))
}

// InstallFile begins to install from the bundle at path. For root.
func (c *Client) InstallFile(ctx context.Context, path string) (transaction string, err error) {
	return c.get(ctx, quickLimit, "InstallFile", clean(path))
}

// Rollback begins the way back to the release before.
func (c *Client) Rollback(ctx context.Context) (transaction string, err error) {
	return c.get(ctx, quickLimit, "Rollback")
}

// Commit ends the trial well. For root.
func (c *Client) Commit(ctx context.Context) error { return c.do(ctx, "Commit") }

// Cancel ends what has not taken over yet.
func (c *Client) Cancel(ctx context.Context) error { return c.do(ctx, "Cancel") }

// Restart restarts the server and waits until the new process is attested;
// invocation is systemd's id of its run. The updater goes on with it where ctx
// ends before that, as it does for a server that asks for itself.
func (c *Client) Restart(ctx context.Context) (invocation string, err error) {
	return c.get(ctx, restartLimit, "Restart")
}

// Pin stays with version, "" for the one that serves. For root.
func (c *Client) Pin(ctx context.Context, version string) error {
	return c.do(ctx, "Pin", clean(version))
}

// Unpin ends Pin, and what a manual rollback holds. For root.
func (c *Client) Unpin(ctx context.Context) error { return c.do(ctx, "Unpin") }

// Unquarantine lets a digest or version in again, "" for all. For root.
func (c *Client) Unquarantine(ctx context.Context, what string) error {
	return c.do(ctx, "Unquarantine", clean(what))
}

// SetPolicy changes what is not nil.
func (c *Client) SetPolicy(ctx context.Context, change deployment.PolicyChange) error {
	return c.do(ctx, "SetPolicy", variants(change))
}

// Status is what the updater does now, by its own word. It starts an updater
// where none runs; deployment.ReadStatus asks nobody.
func (c *Client) Status(ctx context.Context) (deployment.Status, error) {
	var v dbus.Variant
	if err := c.ask(ctx, quickLimit, propertiesInterface+".Get", []any{Interface, "Status"}, &v); err != nil {
		return deployment.Status{}, err
	}
	return statusIn(v)
}

func statusIn(v dbus.Variant) (deployment.Status, error) {
	var st deployment.Status
	s, ok := v.Value().(string)
	if !ok {
		return st, fmt.Errorf("the updater's status is of the type %s", v.Signature())
	}
	if err := json.Unmarshal([]byte(s), &st); err != nil {
		return st, fmt.Errorf("read the updater's status: %w", err)
	}
	return st, nil
}

// Reachable is nil where a question would find an updater: one has the name, or
// the bus knows how to start one. It starts none.
func (c *Client) Reachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, greeting)
	defer cancel()
	conn, err := c.connection(ctx)
	if err != nil {
		return err
	}
	bus := conn.BusObject()
	var owned bool
	var known []string
	if err := bus.CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, Name).Store(&owned); err != nil {
		return unreachable(err)
	}
	if owned {
		return nil
	}
	if err := bus.CallWithContext(ctx, "org.freedesktop.DBus.ListActivatableNames", 0).Store(&known); err != nil {
		return unreachable(err)
	}
	if !slices.Contains(known, Name) {
		return fault.New(fault.Unavailable, CodeUnreachable, "the bus knows no updater: nobody has the name %s, and nothing is there to be started", Name).
			Try("`apt install --reinstall whisper-appliance` puts its files back; `systemctl reload dbus` reads them")
	}
	return nil
}
