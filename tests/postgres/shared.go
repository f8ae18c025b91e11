package postgres

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// Shared is the one server that the tests of a package share. It starts with the
// first test that needs it.
type Shared struct {
	once   sync.Once
	server *Server
	err    error
	made   atomic.Int64
}

// Main is for TestMain: it runs the tests, ends the server and then the process.
func (s *Shared) Main(m *testing.M) {
	code := m.Run()
	if s.server != nil {
		if err := s.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// New is the server, and the address of an empty database of it. Where there is
// none the test is skipped.
func (s *Shared) New(t testing.TB) (server *Server, url string) {
	t.Helper()
	s.once.Do(func() { s.server, s.err = Start() })
	if errors.Is(s.err, ErrNone) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	name := fmt.Sprintf("test%d", s.made.Add(1))
	if err := s.server.Create(name); err != nil {
		t.Fatal(err)
	}
	return s.server, s.server.URL(name)
}
