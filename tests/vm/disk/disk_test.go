package disk

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T) (*Disk, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 64*block), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func filled(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// TestCut: what was flushed is there after it, of the rest some blocks are and
// some are not, and each of them whole.
func TestCut(t *testing.T) {
	d, path := open(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.write(filled('a', 8*block), 0, false))
	must(d.flush())
	must(d.write(filled('b', 32*block), 8*block, false))
	must(d.write(filled('c', 100), 50*block+7, true))
	got := make([]byte, 9*block)
	must(d.read(got, 0))
	if !bytes.Equal(got[:8*block], filled('a', 8*block)) || !bytes.Equal(got[8*block:], filled('b', block)) {
		t.Error("what was written is not what is read")
	}
	cuts, err := d.Cut()
	must(err)
	if cuts.Lost == 0 || cuts.Kept == 0 || cuts.Lost+cuts.Kept != 32*block || cuts.Cuts != 1 || cuts.Flushes != 1 {
		t.Errorf("%+v", cuts)
	}
	if d.write(filled('d', block), 0, true) == nil || d.read(got, 0) == nil || d.flush() == nil {
		t.Error("a disk without power answers")
	}
	data, err := os.ReadFile(path)
	must(err)
	if !bytes.Equal(data[:8*block], filled('a', 8*block)) || !bytes.Equal(data[50*block+7:][:100], filled('c', 100)) {
		t.Error("what was flushed is gone")
	}
	kept := int64(0)
	for n := 8; n < 40; n++ {
		switch piece := data[n*block:][:block]; {
		case bytes.Equal(piece, filled('b', block)):
			kept += block
		case !bytes.Equal(piece, make([]byte, block)):
			t.Errorf("block %d is torn", n)
		}
	}
	if kept != cuts.Kept {
		t.Errorf("%d bytes were kept, said %d", kept, cuts.Kept)
	}
	d.On()
	must(d.read(got, 0))
}

// TestAge: a full cache writes some of itself.
func TestAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate((mostAge + 1024) * block); err != nil {
		t.Fatal(err)
	}
	f.Close()
	d, err := Open(path, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for n := int64(0); n < mostAge+1024; n += 1024 {
		if err := d.write(filled('a', 1024*block), n*block, false); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.cache) > mostAge {
		t.Errorf("%d blocks are in the cache", len(d.cache))
	}
}

// TestBounds: what lies outside is refused.
func TestBounds(t *testing.T) {
	d, _ := open(t)
	for _, at := range []int64{-1, 64 * block, 1 << 62} {
		if d.write([]byte{1}, at, false) == nil || d.read(make([]byte, 1), at) == nil {
			t.Errorf("%d is within the disk", at)
		}
	}
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, []byte{1}, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(odd, 1); err == nil {
		t.Error("a file of one byte is a disk")
	}
}

// client is the other end of the protocol, as far as the tests need it.
type client struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, d *Disk) *client {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		d.session(there) //nolint:errcheck // the test sees what it answers
		there.Close()
	}()
	t.Cleanup(func() { here.Close() })
	return &client{t, here}
}

func (c *client) put(values ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) get(values ...any) {
	c.t.Helper()
	for _, v := range values {
		if err := binary.Read(c, binary.BigEndian, v); err != nil {
			c.t.Fatal(err)
		}
	}
}

// hello negotiates as qemu does: an option that is not known first.
func (c *client) hello() {
	c.t.Helper()
	var magic, option uint64
	var flags, export uint16
	c.get(&magic, &option, &flags)
	c.put(uint32(3), uint64(optionMagic), uint32(8), uint32(0))
	var kind, length, of uint32
	c.get(&magic, &of, &kind, &length)
	if kind != answerUnsupported || of != 8 {
		c.t.Fatalf("an unknown option is answered with %x", kind)
	}
	c.put(uint64(optionMagic), uint32(optionGo), uint32(6), uint32(0), uint16(0))
	var size int64
	c.get(&magic, &of, &kind, &length, &export, &size, &flags)
	if kind != answerInfo || size != 64*block || flags&(sendsFlush|sendsFUA) != sendsFlush|sendsFUA {
		c.t.Fatalf("the export: %d bytes, flags %x", size, flags)
	}
	c.get(&magic, &of, &kind, &length)
	if kind != answerAck {
		c.t.Fatalf("no acknowledgement: %x", kind)
	}
}

func (c *client) ask(flags, kind uint16, at uint64, length uint32, body []byte) (code uint32) {
	c.t.Helper()
	c.put(uint32(requestMagic), flags, kind, uint64(42), at, length, body)
	var magic uint32
	var handle uint64
	c.get(&magic, &code, &handle)
	if magic != simpleMagic || handle != 42 {
		c.t.Fatalf("the answer begins with %x for %d", magic, handle)
	}
	return code
}

// TestSession: written, flushed and read over the protocol; a request that
// reaches over the end is an error and not the end; without power nobody
// answers.
func TestSession(t *testing.T) {
	d, path := open(t)
	c := dial(t, d)
	c.hello()
	if code := c.ask(0, doWrite, block, 5, []byte("hello")); code != 0 {
		t.Errorf("write: %d", code)
	}
	if code := c.ask(0, doRead, 1<<40, 4, nil); code != ioError {
		t.Errorf("a read over the end: %d", code)
	}
	if code := c.ask(0, doFlush, 0, 0, nil); code != 0 {
		t.Errorf("flush: %d", code)
	}
	got := make([]byte, 5)
	if code := c.ask(0, doRead, block, 5, nil); code != 0 {
		t.Errorf("read: %d", code)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data[block:block+5]) != "hello" {
		t.Errorf("the file has %q, %v", data[block:block+5], err)
	}
	if _, err := d.Cut(); err != nil {
		t.Fatal(err)
	}
	c.put(uint32(requestMagic), uint16(0), uint16(doFlush), uint64(1), uint64(0), uint32(0))
	if n, err := c.Read(got); err == nil {
		t.Errorf("a disk without power answers %d bytes", n)
	}
}

// TestStrangers: what is not the protocol ends the session.
func TestStrangers(t *testing.T) {
	for name, first := range map[string][]any{
		"no option":   {uint32(3), uint64(1), uint32(7), uint32(0)},
		"long option": {uint32(3), uint64(optionMagic), uint32(7), uint32(1 << 30)},
	} {
		d, _ := open(t)
		c := dial(t, d)
		var magic, option uint64
		var flags uint16
		c.get(&magic, &option, &flags)
		c.put(first...)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s is answered", name)
		}
	}
}
