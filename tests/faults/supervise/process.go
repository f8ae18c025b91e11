package supervise

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// forker starts processes from one thread that lives as long as the supervisor:
// a process's death signal is sent when the thread that started it ends, which
// others of Go's threads do.
type forker struct{ work, done chan func() }

func newForker() *forker {
	f := &forker{make(chan func()), make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(f.done)
		for do := range f.work {
			do()
		}
	}()
	return f
}

func (f *forker) close() {
	close(f.work)
	<-f.done
}

func (f *forker) fork(argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	ended := make(chan struct{})
	f.work <- func() {
		pid, err = syscall.ForkExec(argv[0], argv, attr)
		close(ended)
	}
	<-ended
	return pid, err
}

// asMain sets what only the process itself can know, and becomes the program.
const asMain = `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0"`

// process is one that runs, or ran.
type process struct {
	pid    int
	said   chan string   // what it notifies
	exited chan struct{} // closed when it has ended, and all of its group
	notify *net.UnixConn

	mu     sync.Mutex
	gone   bool // its number may be another's
	status syscall.WaitStatus
}

var errBroken = errors.New("the unit asks for what is not there")

// spawn starts the service's program with its sockets.
func (v *service) spawn() (*process, error) {
	s := v.s
	s.mu.Lock()
	s.runs++
	broken := s.broken
	path := s.Path("notify-" + strconv.Itoa(s.runs))
	s.mu.Unlock()
	if broken {
		return nil, errBroken
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	p := &process{said: make(chan string, 64), exited: make(chan struct{}), notify: notify}
	if err := v.fork(p, path); err != nil {
		p.release()
		return nil, fmt.Errorf("start %s: %w", v.program, err)
	}
	s.work.Go(p.wait)
	s.work.Go(p.listen)
	return p, nil
}

func (v *service) fork(p *process, notify string) error {
	s := v.s
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	files := []uintptr{null.Fd(), in.Fd(), in.Fd()}
	var names []string
	for _, socket := range v.sockets {
		for _, fd := range s.sockets.descriptors(socket) {
			files, names = append(files, fd), append(names, socket)
		}
	}
	env := []string{
		"PATH=" + s.config.Path, "NOTIFY_SOCKET=" + notify, "INVOCATION_ID=" + v.now().Invocation,
		"LISTEN_FDS=" + strconv.Itoa(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"),
		"WATCHDOG_USEC=" + strconv.FormatInt(s.config.Watchdog.Microseconds(), 10),
	}
	p.pid, err = s.forks.fork([]string{"/bin/sh", "-c", asMain, v.program},
		&syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		out.Close()
		return err
	}
	s.work.Go(func() {
		defer out.Close()
		io.Copy(&v.journal, out) //nolint:errcheck // it ends with the last of the group
	})
	return nil
}

func (p *process) wait() {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	p.mu.Lock()
	p.gone, p.status = true, status
	p.mu.Unlock()
	syscall.Kill(-p.pid, syscall.SIGKILL) //nolint:errcheck // mostly nobody is left of the group
	close(p.exited)
}

// listen hands on what the process notifies, until release.
func (p *process) listen() {
	b := make([]byte, 4096)
	for {
		n, err := p.notify.Read(b)
		if err != nil {
			return
		}
		select {
		case p.said <- string(b[:n]):
		case <-p.exited:
		}
	}
}

// release ends listening.
func (p *process) release() {
	path := p.notify.LocalAddr().String()
	p.notify.Close()
	os.Remove(path) //nolint:errcheck // the next run has another
}

func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		syscall.Kill(p.pid, sig) //nolint:errcheck // it cannot have gone
	}
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		syscall.Kill(-p.pid, syscall.SIGKILL) //nolint:errcheck // the same
	}
}

// end is how a process that has exited did so by itself.
func (p *process) end() end {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := end{result: success, code: "exited", status: strconv.Itoa(p.status.ExitStatus())}
	if p.status.Signaled() {
		e.code, e.status = "killed", strings.TrimPrefix(unix.SignalName(p.status.Signal()), "SIG")
		if p.status.CoreDump() {
			e.code = "dumped"
		}
	}
	switch {
	case p.status.Signaled() && p.status.Signal() != syscall.SIGTERM: // systemd counts that one as clean
		e.result, e.exit = signaled, int(p.status.Signal())
		if p.status.CoreDump() {
			e.result = coreDump
		}
	case p.status.ExitStatus() > 0:
		e.result, e.exit = exitCode, p.status.ExitStatus()
	}
	return e
}

// mostJournal is how much of a service's output is kept.
const mostJournal = 64 << 10

// journal keeps the end of what is written to it.
type journal struct {
	mu   sync.Mutex
	text []byte
}

// Write is io.Writer's.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, b...)
	if extra := len(j.text) - mostJournal; extra > 0 {
		j.text = j.text[extra:]
	}
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}
