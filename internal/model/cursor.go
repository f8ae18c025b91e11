package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// cursor reads a file piece by piece and jumps over what need not be read. The
// first error stays and ends all reading, so that a caller checks it once per
// step.
type cursor struct {
	r    io.ReaderAt
	size int64
	off  int64
	buf  []byte // bytes from base on
	base int64
	err  error
}

// readAhead is what one read from the file brings: a vocabulary is 50,000
// pieces of a few bytes.
const readAhead = 64 << 10

var errShort = errors.New("the file ends too early")

// next gives the next n bytes, valid until the following call; nil after an error.
func (c *cursor) next(n int) []byte {
	switch {
	case c.err != nil:
		return nil
	case n < 0 || c.off+int64(n) > c.size:
		c.err = fmt.Errorf("%w, at byte %d of %d", errShort, c.size, c.off+int64(n))
		return nil
	}
	if c.off < c.base || c.off+int64(n) > c.base+int64(len(c.buf)) {
		c.fill(n)
	}
	if c.err != nil {
		return nil
	}
	start := c.off - c.base
	c.off += int64(n)
	return c.buf[start : start+int64(n)]
}

func (c *cursor) fill(n int) {
	want := min(max(int64(n), readAhead), c.size-c.off)
	if int64(cap(c.buf)) < want {
		c.buf = make([]byte, want)
	}
	c.buf, c.base = c.buf[:want], c.off
	if _, err := c.r.ReadAt(c.buf, c.off); err != nil {
		c.buf, c.err = c.buf[:0], err
	}
}

func (c *cursor) int32() int32 {
	b := c.next(4)
	if b == nil {
		return 0
	}
	return int32(binary.LittleEndian.Uint32(b))
}

// skip jumps over n bytes, which must be there.
func (c *cursor) skip(n int64) {
	switch {
	case c.err != nil:
	case n < 0 || c.off+n > c.size:
		c.err = fmt.Errorf("%w, at byte %d of %d", errShort, c.size, c.off+n)
	default:
		c.off += n
	}
}
