package decode

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Types of frame.
const (
	framePCM   = 'P'
	frameDone  = 'D'
	frameError = 'E'
)

const (
	frameHeader = 5
	maxFrame    = 64 << 10 // of payload, bytes
	maxRequest  = 4 << 10  // of the request line, bytes
)

// sendRequest sends the limits and the descriptor of f in one message.
func sendRequest(conn *net.UnixConn, f *os.File, l Limits) error {
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, _, sent = conn.WriteMsgUnix(append(line, '\n'), syscall.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sent)
}

// receiveRequest is the other end of sendRequest. The caller closes the file.
func receiveRequest(conn *net.UnixConn) (*os.File, Limits, error) {
	var l Limits
	line, oob := make([]byte, maxRequest), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(line, oob)
	if err != nil {
		return nil, l, fmt.Errorf("receive request: %w", err)
	}
	f, err := fileFrom(oob[:oobn])
	if err != nil {
		return nil, l, fmt.Errorf("receive descriptor: %w", err)
	}
	if err := json.Unmarshal(line[:n], &l); err != nil {
		f.Close()
		return nil, l, fmt.Errorf("read request: %w", err)
	}
	return f, l, nil
}

// fileFrom takes the one descriptor out of a control message.
func fileFrom(oob []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages, want 1", len(messages))
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		return nil, fmt.Errorf("%d descriptors, want 1", len(fds))
	}
	return os.NewFile(uintptr(fds[0]), "input"), nil
}

// writeFrame sends one frame; the payload is at most maxFrame bytes.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// readFrame reads one frame into buf, which holds maxFrame bytes.
func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame %q of %d bytes, at most %d are allowed", head[0], n, maxFrame)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, err
	}
	return head[0], buf[:n], nil
}

// pcmFrames sends what is written to it as frames.
type pcmFrames struct{ w io.Writer }

func (p pcmFrames) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		n := min(maxFrame, len(b)-done)
		if err := writeFrame(p.w, framePCM, b[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(b), nil
}
