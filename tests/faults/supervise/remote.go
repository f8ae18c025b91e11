package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// order is a line that a client sends; one is sent on each connection.
type order struct {
	Do   string `json:"do"` // start, stop, restart, reset, state
	Unit string `json:"unit"`
}

// reply is the line that answers it, when the order is done.
type reply struct {
	Unit  Unit   `json:"unit"`
	Error *wrong `json:"error,omitempty"`
}

// wrong is a fault on its way.
type wrong struct {
	Kind    fault.Kind `json:"kind"`
	Code    string     `json:"code"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// Serve has other processes use the supervisor through a Unix socket at path
// (see Dial), until Close. What one has asked for is done though it be killed.
func (s *Supervisor) Serve(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s.work.Go(func() {
		<-s.closing
		l.Close() //nolint:errcheck // it ends the loop below
	})
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if s.isMuted(path) {
				c.Close()
				continue
			}
			s.work.Go(func() { s.answer(c) })
		}
	})
	return nil
}

// Mute hangs up on whoever calls at path, where Serve listens, until it is told
// otherwise: a bus that is down.
func (s *Supervisor) Mute(path string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted[path] = on
}

func (s *Supervisor) isMuted(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.muted[path]
}

func (s *Supervisor) answer(c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := make(chan struct{})
	go func() { // a client that says nothing does not keep Close waiting
		select {
		case <-s.closing:
			c.Close()
		case <-idle:
		}
	}()
	defer close(idle)
	var o order
	if err := json.NewDecoder(c).Decode(&o); err != nil {
		return
	}
	err := s.obey(ctx, o)
	u, unknown := s.Unit(ctx, o.Unit)
	if err == nil {
		err = unknown
	}
	r := reply{Unit: u}
	if err != nil {
		r.Error = onItsWay(err)
	}
	json.NewEncoder(c).Encode(r) //nolint:errcheck // the client has gone
}

func (s *Supervisor) obey(ctx context.Context, o order) error {
	switch o.Do {
	case "start":
		return s.Start(ctx, o.Unit)
	case "stop":
		return s.Stop(ctx, o.Unit)
	case "restart":
		return s.Restart(ctx, o.Unit)
	case "reset":
		return s.ResetFailed(ctx, o.Unit)
	case "state":
		return nil
	}
	return fault.New(fault.BadInput, "unknown_order", "there is no order %q", o.Do)
}

func onItsWay(err error) *wrong {
	w := &wrong{Kind: fault.KindOf(err), Code: "internal_error", Message: err.Error(), Hint: fault.Hint(err)}
	var f *fault.Error
	if errors.As(err, &f) {
		w.Code = f.Code
	}
	return w
}

// Client is slot.Units over a socket that a Supervisor in another process
// serves.
type Client struct{ path string }

// Dial is a client of the socket at path. Each order has a connection of its
// own, so that there is nothing to close.
func Dial(path string) (*Client, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return &Client{path}, nil
}

// Start is Supervisor.Start.
func (c *Client) Start(ctx context.Context, unit string) error { return c.do(ctx, "start", unit) }

// Stop is Supervisor.Stop.
func (c *Client) Stop(ctx context.Context, unit string) error { return c.do(ctx, "stop", unit) }

// Restart is Supervisor.Restart.
func (c *Client) Restart(ctx context.Context, unit string) error { return c.do(ctx, "restart", unit) }

// ResetFailed is Supervisor.ResetFailed.
func (c *Client) ResetFailed(ctx context.Context, unit string) error {
	return c.do(ctx, "reset", unit)
}

// State is Supervisor.State.
func (c *Client) State(ctx context.Context, unit string) (slot.State, error) {
	u, err := c.Unit(ctx, unit)
	return u.state(), err
}

// Unit is Supervisor.Unit.
func (c *Client) Unit(ctx context.Context, unit string) (Unit, error) {
	r, err := c.ask(ctx, order{"state", unit})
	return r.Unit, err
}

func (c *Client) do(ctx context.Context, what, unit string) error {
	_, err := c.ask(ctx, order{what, unit})
	return err
}

func (c *Client) ask(ctx context.Context, o order) (reply, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return reply{}, fault.New(fault.Unavailable, "no_systemd", "the supervisor does not answer").Because(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var r reply
	err = json.NewEncoder(conn).Encode(o)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&r)
	}
	switch {
	case ctx.Err() != nil:
		return r, unfinished(o.Do, o.Unit, context.Cause(ctx))
	case err != nil:
		return r, fault.New(fault.Unavailable, "no_systemd", "the supervisor has gone").Because(err)
	case r.Error != nil:
		return r, &fault.Error{Kind: r.Error.Kind, Code: r.Error.Code, Message: r.Error.Message, Hint: r.Error.Hint}
	}
	return r, nil
}
