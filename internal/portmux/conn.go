package portmux

import (
	"errors"
	"net"
	"sync"
	"time"
)

// conn is a connection whose first byte was read ahead. Like any connection
// it has one reader at a time.
type conn struct {
	net.Conn
	first   [1]byte
	peeked  bool      // first waits to be read
	since   time.Time // taken from the kernel
	release func()
	closed  sync.Once
}

// peek waits for the first byte.
func (c *conn) peek() error {
	if _, err := c.Conn.Read(c.first[:]); err != nil {
		return err
	}
	c.peeked = true
	return nil
}

// Read gives the byte read ahead first.
func (c *conn) Read(p []byte) (int, error) {
	if !c.peeked || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.peeked = false
	return copy(p, c.first[:]), nil
}

// Close closes the connection and gives its place to another.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(c.release)
	return err
}

// CloseWrite sends the end of our side. net/http looks for it when it refuses a
// body that it has not read: without it the reset that follows would take the
// answer away from the client.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
