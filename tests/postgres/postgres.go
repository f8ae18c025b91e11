// Package postgres runs a PostgreSQL server for tests: the one that
// packaging/postgres.sh unpacked, in a directory of its own, as an unprivileged
// user (PostgreSQL does not run as root), reached by a Unix socket alone. It
// ends with its test, even where that is killed, and leaves nothing behind.
package postgres

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Variable names the directory that packaging/postgres.sh made. Where it is not
// set there is no server to test with.
const Variable = "WA_POSTGRES"

// ErrNone is why there is no server.
var ErrNone = errors.New("no PostgreSQL here, and nothing is tested on it: make test-postgres does")

// nobody is who the server runs as where the test runs as root.
const nobody = 65534

// Here tells whether there is a server to test with.
func Here() bool { return os.Getenv(Variable) != "" }

// Server is a running server.
type Server struct {
	bin, lib, dir string
	cmd           *exec.Cmd
	ended         chan struct{} // closed when cmd has been waited for
	words         *tail
}

// Start makes a new server and waits until it takes connections.
func Start() (*Server, error) {
	home := os.Getenv(Variable)
	found, err := filepath.Glob(filepath.Join(home, "usr", "lib", "postgresql", "*", "bin", "initdb"))
	if home == "" || err != nil || len(found) == 0 {
		return nil, ErrNone
	}
	libs, err := filepath.Glob(filepath.Join(home, "usr", "lib", "*-linux-*"))
	if err != nil {
		return nil, err
	}
	s := &Server{bin: filepath.Dir(found[0]), lib: strings.Join(libs, ":")}
	// A test's own directory has a longer path than a socket can have, and is
	// closed to other users.
	if s.dir, err = os.MkdirTemp("", "wapg"); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

func (s *Server) begin() error {
	if os.Getuid() == 0 {
		if err := os.Chown(s.dir, nobody, nobody); err != nil {
			return err
		}
	}
	initdb := s.command("initdb", "--pgdata", s.data(), "--username", "appliance", "--auth", "trust", "--encoding", "UTF8",
		"--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	if said, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, said)
	}
	return s.launch()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command is one of the programs, as the server's user.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "TZ=UTC", "LD_LIBRARY_PATH=" + s.lib, "PGHOST=" + s.dir, "PGUSER=appliance"}
	// SIGQUIT ends PostgreSQL at once, with its children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// launch starts the server and waits for the line in which it says that it is
// ready.
func (s *Server) launch() error {
	const limit = 30 * time.Second
	s.cmd = s.command("postgres", "-D", s.data(), "-c", "listen_addresses=", "-c", "unix_socket_directories="+s.dir,
		"-c", "max_connections=60", "-c", "shared_buffers=16MB", "-c", "jit=off", "-c", "lc_messages=C", "-c", "log_checkpoints=off")
	out, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan struct{})
	s.ended, s.words = make(chan struct{}), &tail{ready: ready}
	go func(cmd *exec.Cmd, ended chan struct{}, words *tail) {
		defer close(ended)
		words.read(out)
		cmd.Wait()
	}(s.cmd, s.ended, s.words)
	select {
	case <-ready:
		return nil
	case <-s.ended:
		return fmt.Errorf("postgres ended:\n%s", s.words.last)
	case <-time.After(limit):
		return errors.Join(fmt.Errorf("postgres is not ready after %v", limit), s.halt(syscall.SIGQUIT))
	}
}

// tail reads what the server says to its end, and keeps the last lines.
type tail struct {
	ready chan struct{}
	last  []byte // to be read once the server has ended
}

func (w *tail) read(r io.Reader) {
	const most = 4 << 10
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if w.ready != nil && bytes.Contains(line, []byte("ready to accept connections")) {
			close(w.ready)
			w.ready = nil
		}
		if w.last = append(w.last, line...); len(w.last) > most {
			w.last = append([]byte(nil), w.last[len(w.last)-most:]...)
		}
		if err != nil {
			return
		}
	}
}

// URL is the address of the database name, which need not be there yet.
func (s *Server) URL(name string) string {
	return "postgres:///" + name + "?" + url.Values{"host": {s.dir}, "user": {"appliance"}}.Encode()
}

// Create makes an empty database.
func (s *Server) Create(name string) error {
	if said, err := s.command("createdb", name).CombinedOutput(); err != nil {
		return fmt.Errorf("createdb %s: %w\n%s", name, err, said)
	}
	return nil
}

// Pause stops the server as `systemctl stop` would: transactions that run are
// undone, connections are broken.
func (s *Server) Pause() error { return s.halt(syscall.SIGINT) }

// Crash ends the server at once, as a power cut would: what runs in it is broken
// off, and the next start recovers the database first.
func (s *Server) Crash() error { return s.halt(syscall.SIGQUIT) }

// Resume starts it again after Pause or Crash.
func (s *Server) Resume() error { return s.launch() }

func (s *Server) halt(signal os.Signal) error {
	const limit = 30 * time.Second
	if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(limit):
		return errors.Join(fmt.Errorf("postgres does not end after %v", limit), s.cmd.Process.Kill())
	}
}

// Stop ends the server and removes all that it wrote.
func (s *Server) Stop() error { return errors.Join(s.halt(syscall.SIGQUIT), os.RemoveAll(s.dir)) }
