package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// errOff is met with by who asks a disk without power.
var errOff = errors.New("the disk has no power")

// Of the NBD protocol, newstyle negotiation in its fixed form.
const (
	greeting    = 0x4e42444d41474943 // "NBDMAGIC"
	optionMagic = 0x49484156454F5054 // "IHAVEOPT"
	replyMagic  = 0x3e889045565a9

	fixedNewstyle = 1
	noZeroes      = 2

	optionExport = 1
	optionAbort  = 2
	optionInfo   = 6
	optionGo     = 7

	answerAck         = 1
	answerInfo        = 3
	answerUnsupported = 1<<31 | 1

	hasFlags, sendsFlush, sendsFUA = 1, 4, 8

	requestMagic = 0x25609513
	simpleMagic  = 0x67446698

	doRead, doWrite, doDisconnect, doFlush = 0, 1, 2, 3

	commandFUA = 1 // that write has to survive
	ioError    = 5 // EIO

	mostOption = 4 << 10
	mostData   = 64 << 20
)

// Serve answers whoever connects to l, one after the other, until l is closed.
func (d *Disk) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		err = d.session(conn)
		conn.Close()
		if err != nil && !gone(err) {
			return fmt.Errorf("disk: %w", err)
		}
	}
}

// gone is how a session ends when its qemu, or the power, is no more.
func gone(err error) bool {
	var broken *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errOff) || errors.As(err, &broken)
}

func (d *Disk) session(conn net.Conn) error {
	in, out := bufio.NewReaderSize(conn, 256<<10), bufio.NewWriterSize(conn, 256<<10)
	ready, err := d.negotiate(in, out)
	if err != nil || !ready {
		return err
	}
	for {
		over, err := d.request(in, out)
		if err != nil || over {
			return err
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// negotiate agrees on the one export there is, whatever it is called.
func (d *Disk) negotiate(in *bufio.Reader, out *bufio.Writer) (ready bool, err error) {
	send(out, uint64(greeting), uint64(optionMagic), uint16(fixedNewstyle|noZeroes))
	var flags uint32
	if err := exchange(in, out, &flags); err != nil {
		return false, err
	}
	for {
		var option struct {
			Magic  uint64
			Option uint32
			Length uint32
		}
		if err := exchange(in, out, &option); err != nil {
			return false, err
		}
		if option.Magic != optionMagic || option.Length > mostOption {
			return false, fmt.Errorf("no option: %x of %d bytes", option.Magic, option.Length)
		}
		if _, err := in.Discard(int(option.Length)); err != nil {
			return false, err
		}
		switch option.Option {
		case optionExport:
			send(out, d.size, uint16(hasFlags|sendsFlush|sendsFUA))
			return true, out.Flush()
		case optionInfo, optionGo:
			answer(out, option.Option, answerInfo, 12)
			send(out, uint16(0), d.size, uint16(hasFlags|sendsFlush|sendsFUA))
			answer(out, option.Option, answerAck, 0)
			if option.Option == optionGo {
				return true, out.Flush()
			}
		case optionAbort:
			answer(out, option.Option, answerAck, 0)
			return false, out.Flush()
		default:
			answer(out, option.Option, answerUnsupported, 0)
		}
	}
}

// exchange sends what is due and reads into v.
func exchange(in *bufio.Reader, out *bufio.Writer, v any) error {
	if err := out.Flush(); err != nil {
		return err
	}
	return binary.Read(in, binary.BigEndian, v)
}

// send writes values; an error is met with again by the next flush.
func send(out *bufio.Writer, values ...any) {
	for _, v := range values {
		binary.Write(out, binary.BigEndian, v) //nolint:errcheck // as said
	}
}

func answer(out *bufio.Writer, option, kind, length uint32) {
	send(out, uint64(replyMagic), option, kind, length)
}

// request carries out one.
func (d *Disk) request(in *bufio.Reader, out *bufio.Writer) (over bool, err error) {
	var r struct {
		Magic  uint32
		Flags  uint16
		Type   uint16
		Handle uint64
		Offset uint64
		Length uint32
	}
	if err := binary.Read(in, binary.BigEndian, &r); err != nil {
		return false, err
	}
	if r.Magic != requestMagic || r.Length > mostData {
		return false, fmt.Errorf("no request: %x of %d bytes", r.Magic, r.Length)
	}
	var data []byte
	switch r.Type {
	case doRead:
		data = make([]byte, r.Length)
		err = d.read(data, int64(r.Offset))
	case doWrite:
		body := make([]byte, r.Length)
		if _, err := io.ReadFull(in, body); err != nil {
			return false, err
		}
		err = d.write(body, int64(r.Offset), r.Flags&commandFUA != 0)
	case doFlush:
		err = d.flush()
	case doDisconnect:
		return true, nil
	default:
		err = fmt.Errorf("request %d was not offered", r.Type)
	}
	code := uint32(0)
	switch {
	case errors.Is(err, errOff):
		return false, err // the power is gone: nobody answers
	case err != nil:
		code, data = ioError, nil
	}
	send(out, uint32(simpleMagic), code, r.Handle)
	out.Write(data) //nolint:errcheck // met with again by the flush
	return false, nil
}
