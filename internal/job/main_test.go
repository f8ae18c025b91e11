package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/database"
	"whisper-appliance/internal/fault"
	"whisper-appliance/tests/postgres"
)

var ctx = context.Background()

var shared postgres.Shared

func TestMain(m *testing.M) {
	if file := os.Getenv(childVariable); file != "" {
		child(file)
	}
	shared.Main(m)
}

// place is a new database, of either kind.
type place struct {
	options database.Options
	server  *postgres.Server // nil = SQLite
}

func file(t testing.TB) place {
	return place{options: database.Options{File: filepath.Join(t.TempDir(), "appliance.db")}}
}

func server(t testing.TB) place {
	t.Helper()
	server, url := shared.New(t)
	return place{options: database.Options{URL: url}, server: server}
}

// store opens the database anew, as another process would.
func (p place) store(t testing.TB, o Options) *Store {
	t.Helper()
	db, err := database.Open(ctx, p.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return NewStore(db, o)
}

// onBoth runs a test on a new database of each kind: the contract is one. Where
// there is no PostgreSQL the tests of it alone say so.
func onBoth(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("sqlite", func(t *testing.T) { test(t, file(t)) })
	if postgres.Here() {
		t.Run("postgres", func(t *testing.T) { test(t, server(t)) })
	}
}

// clock is a clock that stands still.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(1_700_000_000_000)
	return c
}

func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// code is the stable code of an error, "" where it has none.
func code(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (s *Store) add(t testing.TB, n New) Job {
	t.Helper()
	j, joined, err := s.Add(ctx, n)
	if err != nil || joined {
		t.Fatalf("add: %v, joined %v", err, joined)
	}
	return j
}

// claimed claims, and gives the job's name, "" where there is none.
func (s *Store) claimed(t testing.TB, w Worker, classes ...Class) Job {
	t.Helper()
	j, found, err := s.Claim(ctx, w, classes...)
	if err != nil || found != (j.ID != "") {
		t.Fatalf("claim: %v, found %v", err, found)
	}
	return j
}

func (s *Store) got(t testing.TB, id string) Job {
	t.Helper()
	j, err := s.Get(ctx, id)
	must(t, err)
	return j
}
