package database

import (
	"context"
	"path/filepath"
	"testing"

	"whisper-appliance/tests/postgres"
)

var shared postgres.Shared

func TestMain(m *testing.M) { shared.Main(m) }

// onBoth runs a test on a new database of each kind: the contract is one. Where
// there is no PostgreSQL the tests of it alone say so.
func onBoth(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("sqlite", func(t *testing.T) { test(t, Options{File: filepath.Join(t.TempDir(), "appliance.db")}) })
	if postgres.Here() {
		t.Run("postgres", func(t *testing.T) {
			_, url := shared.New(t)
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
