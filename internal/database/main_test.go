package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"whisper-appliance/tests/postgres"
)

// servers is the PostgreSQL server that the tests of this package share.
type servers struct {
	once   sync.Once
	server *postgres.Server
	err    error
	made   atomic.Int64
}

var shared servers

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server is the shared server, and the address of an empty database of it.
func server(t *testing.T) (*postgres.Server, string) {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = postgres.Start() })
	if errors.Is(shared.err, postgres.ErrNone) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	name := fmt.Sprintf("test%d", shared.made.Add(1))
	if err := shared.server.Create(name); err != nil {
		t.Fatal(err)
	}
	return shared.server, shared.server.URL(name)
}

// onBoth runs a test on a new database of each kind: the contract is one. Where
// there is no PostgreSQL the tests of it alone say so.
func onBoth(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("sqlite", func(t *testing.T) { test(t, Options{File: filepath.Join(t.TempDir(), "appliance.db")}) })
	if postgres.Here() {
		t.Run("postgres", func(t *testing.T) {
			_, url := server(t)
			test(t, Options{URL: url})
		})
	}
}

func open(t *testing.T, o Options) *DB {
	t.Helper()
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
