package postgres

import (
	"errors"
	"os"
	"testing"
)

func TestServer(t *testing.T) {
	s, err := Start()
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Create("one"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("one"); err == nil {
		t.Error("a database is made twice")
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("two"); err == nil {
		t.Error("a server that was stopped makes a database")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("two"); err != nil {
		t.Error(err)
	}
	if err := s.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("two"); err == nil {
		t.Error("after a crash, a database that was made is gone")
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the server left %s: %v", s.dir, err)
	}
}

func TestNone(t *testing.T) {
	t.Setenv(Variable, t.TempDir())
	if _, err := Start(); !errors.Is(err, ErrNone) {
		t.Errorf("a server where there is none: %v", err)
	}
}
