package decode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/fault"
)

// process is a running decoder and our end of its socket.
type process struct {
	conn *net.UnixConn
	cmd  *exec.Cmd // nil where systemd started it: it ends with the connection
	last tail      // of its standard error

	mu    sync.Mutex
	ended bool // reaped: its number may belong to somebody else
}

// start runs the program as systemd would: one connected socket as descriptor
// 3 and LISTEN_FDS=1. LISTEN_PID is left out, as nobody knows it before the fork.
func (d *Decoder) start() (*process, error) {
	if len(d.Program) == 0 {
		return nil, failed(errors.New("no decoder program is set"))
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, failed(err)
	}
	defer theirs.Close()
	p := &process{conn: conn, cmd: exec.Command(d.Program[0], d.Program[1:]...)}
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Env = []string{"LISTEN_FDS=1", "PATH=" + os.Getenv("PATH")}
	p.cmd.Stderr = &p.last
	p.cmd.WaitDelay = grace
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, startFault(err)
	}
	return p, nil
}

// connect has systemd start a decoder.
func (d *Decoder) connect(ctx context.Context) (*process, error) {
	conn, err := (&net.Dialer{Timeout: connectWait}).DialContext(ctx, "unix", d.Socket)
	if err != nil {
		return nil, fault.New(fault.Unavailable, CodeDecoderMissing, "no decoder answers at %s", d.Socket).
			Try("systemctl start whisper-appliance-decode.socket").Because(err)
	}
	return &process{conn: conn.(*net.UnixConn)}, nil
}

// connectWait is how long systemd may take to take a connection.
const connectWait = 10 * time.Second

func startFault(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return fault.New(fault.Unavailable, CodeDecoderMissing, "the decoder program is not installed").
			Try("install the appliance again").Because(err)
	}
	return failed(fmt.Errorf("start decoder: %w", err))
}

// socketPair makes a connected pair: ours and the file that the child inherits.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "decoder"), os.NewFile(uintptr(fds[1]), "server")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// kill ends the decoder and its children, whatever they do. It may be called
// at any time, by any goroutine.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal()
}

// signal is kill with mu held. The group lives as long as its leader is not
// reaped, so the number cannot have been given to others.
func (p *process) signal() {
	p.conn.Close()
	if !p.ended && p.cmd != nil {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// end kills and reaps.
func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal()
	if p.cmd != nil {
		p.cmd.Wait() // the error is its exit status: lastWords tells it
	}
	p.ended = true
}

// lastWords is how the process ended and what it said, for the log. Call it after end.
func (p *process) lastWords() string {
	if p.cmd == nil {
		return "journalctl -u 'whisper-appliance-decode@*' has its words"
	}
	said := strings.TrimSpace(string(p.last.b))
	if said == "" {
		said = "it said nothing"
	}
	return fmt.Sprintf("%v: %s", p.cmd.ProcessState, said)
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 2 << 10
	t.b = append(t.b, p...)
	if extra := len(t.b) - keep; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}
