package release

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the memory that a frame may ask of its reader, in bytes.
const maxWindow = 64 << 20

var errWindow = errors.New("it asks for more memory than a release may")

// frame passes on the one compressed frame that r begins with, and nothing that
// follows it. A decoder by itself goes on with the next frame, and leaps over
// frames that are there to be leapt over.
type frame struct {
	r        *bufio.Reader
	left     int64 // bytes of the part that is being passed on
	began    bool
	last     bool // the last block is being passed on, or was
	checksum bool // one is still to come
}

func newFrame(r io.Reader) *frame { return &frame{r: bufio.NewReaderSize(r, 64<<10)} }

// Read gives bytes of one part at a time.
func (f *frame) Read(p []byte) (int, error) {
	for f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	if int64(len(p)) > f.left {
		p = p[:f.left]
	}
	n, err := f.r.Read(p)
	f.left -= int64(n)
	return n, whole(err)
}

// next measures the part that comes: the header, a block, the checksum.
func (f *frame) next() error {
	switch {
	case !f.began:
		return f.begin()
	case !f.last:
		return f.block()
	case f.checksum:
		f.checksum, f.left = false, 4
		return nil
	}
	return io.EOF
}

func (f *frame) begin() error {
	head, err := f.r.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return err
	}
	if h.Skippable {
		return errors.New("it begins with a frame that holds nothing")
	}
	if h.WindowSize > maxWindow || h.SingleSegment && h.FrameContentSize > maxWindow {
		return errWindow
	}
	f.began, f.checksum, f.left = true, h.HasCheckSum, int64(h.HeaderSize)
	return nil
}

// block reads a block's header as RFC 8878, 3.1.1.2 has it: one bit for the
// last, two for the kind, the size. A block of kind 1 is one byte, repeated.
func (f *frame) block() error {
	head, err := f.r.Peek(3)
	if err != nil {
		return whole(err)
	}
	bits := int64(head[0]) | int64(head[1])<<8 | int64(head[2])<<16
	f.last = bits&1 != 0
	f.left = 3 + bits>>3
	switch kind := bits >> 1 & 3; kind {
	case 1:
		f.left = 3 + 1
	case 3:
		return fmt.Errorf("a block of kind %d", kind)
	}
	return nil
}

// whole makes an end in the middle one that nobody takes for a good one.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ended is nil where nothing follows the frame.
func (f *frame) ended() error {
	switch _, err := f.r.Peek(1); {
	case err == nil:
		return errors.New("more follows its end")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
