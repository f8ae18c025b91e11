package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/slot"
)

// sockets are the listening sockets, by unit. Nobody accepts from them here:
// servers have the same sockets.
type sockets struct {
	run     string
	address string

	mu     sync.Mutex
	off    bool                  // none is opened
	listen map[string][]listener // nil = the unit is stopped
}

type listener struct {
	net.Listener
	fd uintptr // valid while the listener is open
}

func openSockets(run string) (*sockets, error) {
	s := &sockets{run: run, listen: map[string][]listener{Socket: nil}}
	for _, name := range []string{slot.A, slot.B} {
		_, door := Next(name)
		_, stage := Preflight(name)
		s.listen[door], s.listen[stage] = nil, nil
	}
	if err := os.MkdirAll(run, 0o755); err != nil {
		return nil, err
	}
	if err := s.open(Socket); err != nil {
		return nil, err
	}
	s.address = s.listen[Socket][0].Addr().String()
	return s, nil
}

func (s *sockets) known(unit string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.listen[unit]
	return ok
}

func (s *sockets) listens(unit string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen[unit] != nil
}

// open is the start of a socket unit; one that listens already stays as it is.
func (s *sockets) open(unit string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return noPower(unit)
	}
	if s.listen[unit] != nil {
		return nil
	}
	wanted := [][2]string{{"unix", filepath.Join(s.run, fileOf(unit))}}
	if unit == Socket {
		port := s.address
		if port == "" {
			port = "127.0.0.1:0"
		}
		wanted = [][2]string{{"tcp", port}, {"unix", filepath.Join(s.run, "api.sock")}}
	}
	var list []listener
	for _, w := range wanted {
		if w[0] == "unix" {
			os.Remove(w[1]) //nolint:errcheck // of a run that was killed; Listen says what is wrong
		}
		l, err := listenOn(w[0], w[1])
		if err != nil {
			closeAll(list)
			return fmt.Errorf("start %s: %w", unit, err)
		}
		list = append(list, l)
	}
	s.listen[unit] = list
	return nil
}

// fileOf is the socket's file: next-a.sock of whisper-appliance-next@a.socket.
func fileOf(unit string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(unit, "whisper-appliance-"), ".socket")
	return strings.ReplaceAll(name, "@", "-") + ".sock"
}

// listenOn makes a socket whose descriptor is known without os.File, which
// would make the socket blocking for every server that shares it.
func listenOn(network, address string) (listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return listener{}, err
	}
	source, ok := l.(syscall.Conn)
	if !ok {
		l.Close()
		return listener{}, errors.New("a listener without a descriptor")
	}
	conn, err := source.SyscallConn()
	if err != nil {
		l.Close()
		return listener{}, err
	}
	out := listener{Listener: l}
	err = conn.Control(func(fd uintptr) { out.fd = fd })
	return out, err
}

// shut is the stop of a socket unit: whoever connects is refused.
func (s *sockets) shut(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeAll(s.listen[unit])
	s.listen[unit] = nil
}

// power takes it away, and with it all sockets; or gives it back.
func (s *sockets) power(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = !on
	if on {
		return
	}
	for unit, list := range s.listen {
		closeAll(list)
		s.listen[unit] = nil
	}
}

func closeAll(list []listener) {
	for _, l := range list {
		l.Close() //nolint:errcheck // nothing waits in it that anybody would miss
	}
}

func (s *sockets) descriptors(unit string) (fds []uintptr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listen[unit] {
		fds = append(fds, l.fd)
	}
	return fds
}

// lookEvery is how often a socket without a server is looked at.
const lookEvery = 20 * time.Millisecond

// activate starts the server for a connection that waits while none runs, as a
// socket unit does.
func (s *Supervisor) activate() {
	v := s.services[Service]
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
		}
		v.mu.Lock()
		idle := v.life == nil
		v.mu.Unlock()
		if !idle || !waiting(s.sockets.descriptors(Socket)) {
			continue
		}
		s.work.Go(func() { v.start(context.Background()) }) //nolint:errcheck // what fails is in the unit's state
	}
}

// waiting tells whether somebody is in a backlog.
func waiting(fds []uintptr) bool {
	var on []unix.PollFd
	for _, fd := range fds {
		on = append(on, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	n, err := unix.Poll(on, 0)
	return err == nil && n > 0
}
