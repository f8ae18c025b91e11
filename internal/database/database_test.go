package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"whisper-appliance/internal/fault"
)

var ctx = context.Background()

// code is the stable code of an error, "" where it has none.
func code(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

func count(t *testing.T, d *DB, table string) (n int) {
	t.Helper()
	if err := d.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

const addJob = "INSERT INTO jobs (id, state, created, queued) VALUES ($1, 'queued', $2, $2)"

func add(d *DB, id string) error {
	return d.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, addJob, id, 1)
		return err
	})
}

func TestOpenMigratesOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		d := open(t, o)
		if d.Schema() != Known() || Known() < 1 {
			t.Fatalf("schema %d, known %d", d.Schema(), Known())
		}
		if err := errors.Join(add(d, "a"), d.Check(ctx), d.Close()); err != nil {
			t.Fatal(err)
		}
		d = open(t, o)
		if n := count(t, d, "jobs"); n != 1 || d.Schema() != Known() {
			t.Errorf("%d jobs, schema %d after opening again", n, d.Schema())
		}
	})
}

// TestOpenTogether: programs that start at once, as both servers of a switch or
// several appliances do.
func TestOpenTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		var wg sync.WaitGroup
		failed := make(chan error, 6)
		for range cap(failed) {
			wg.Go(func() {
				d, err := Open(ctx, o)
				if err == nil {
					err = errors.Join(d.Check(ctx), d.Close())
				}
				failed <- err
			})
		}
		wg.Wait()
		for range cap(failed) {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
		if n := count(t, open(t, o), versions); n != Known()+1 { // and goose's own row for 0
			t.Errorf("%d migrations were noted", n)
		}
	})
}

func TestANewerSchemaIsUsedAsItIs(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		d := open(t, o)
		if err := d.migrateTo(ctx, grown()); err != nil {
			t.Fatal(err)
		}
		if d.Schema() != Known()+1 {
			t.Fatalf("schema %d", d.Schema())
		}
		d.Close()
		d = open(t, o)
		if d.Schema() != Known()+1 {
			t.Errorf("schema %d of a database that is newer", d.Schema())
		}
		if err := add(d, "by the older release"); err != nil {
			t.Error(err)
		}
	})
}

// grown is the program's migrations and one more.
func grown() fstest.MapFS {
	all := fstest.MapFS{fmt.Sprintf("%05d_more.sql", Known()+1): {Data: []byte("-- +goose Up\nALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';\n")}}
	entries, _ := migrations.ReadDir("migrations")
	for _, e := range entries {
		data, _ := migrations.ReadFile("migrations/" + e.Name())
		all[e.Name()] = &fstest.MapFile{Data: data}
	}
	return all
}

// TestAMigrationIsWholeOrNot: one that fails in its middle has changed nothing.
func TestAMigrationIsWholeOrNot(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		d := open(t, o)
		broken := grown()
		broken[fmt.Sprintf("%05d_broken.sql", Known()+2)] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE half (a TEXT);\nCREATE TABLE jobs (a TEXT);\n")}
		if err := d.migrateTo(ctx, broken); err == nil {
			t.Fatal("a broken migration was applied")
		}
		if err := d.migrateTo(ctx, grown()); err != nil || d.Schema() != Known()+1 {
			t.Errorf("schema %d, %v: what came before the broken one must stay", d.Schema(), err)
		}
		var found int
		if err := d.read.QueryRowContext(ctx, d.dialect.hasTable, "half").Scan(&found); err != nil || found != 0 {
			t.Errorf("%d tables of half a migration (%v)", found, err)
		}
	})
}

func TestWriteIsAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		d := open(t, o)
		mine := errors.New("mine")
		err := d.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, addJob, "a", 1); err != nil {
				return err
			}
			return mine
		})
		if !errors.Is(err, mine) || count(t, d, "jobs") != 0 {
			t.Errorf("%v, %d jobs", err, count(t, d, "jobs"))
		}
		if err := d.Read(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, addJob, "b", 1)
			return err
		}); err == nil {
			t.Error("a reader wrote")
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if err := d.Write(canceled, func(*sql.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}

// TestWritersTakeTurns: none is refused, whether they share a connection or a
// file.
func TestWritersTakeTurns(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		one, two := open(t, o), open(t, o)
		const each = 25
		var wg sync.WaitGroup
		for i, d := range []*DB{one, two, one, two} {
			wg.Go(func() {
				for n := range each {
					if err := add(d, fmt.Sprintf("%d-%d", i, n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, one, "jobs"); n != 4*each {
			t.Errorf("%d jobs", n)
		}
	})
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, err = Open(ctx, Options{URL: "postgres://me:secret@" + address + "/jobs"})
	if code(err) != "database_unreachable" || fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Hint(err), "[database]") {
		t.Errorf("%v (%s), %s", err, code(err), fault.Hint(err))
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is told: %v", err)
	}
	_, err = Open(ctx, Options{URL: "postgres://me:secret@host:port/jobs"})
	if code(err) != "bad_database_url" || strings.Contains(err.Error(), "secret") {
		t.Errorf("no address: %v", err)
	}
}

// TestSilence: a server that takes the connection and says nothing is given up.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(ctx, Options{URL: "postgres://" + l.Addr().String() + "/jobs?connect_timeout=1"})
	if code(err) != "database_unreachable" {
		t.Errorf("%v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := Open(short, Options{URL: "postgres://" + l.Addr().String() + "/jobs"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own limit: %v", err)
	}
}

func TestPostgresRefuses(t *testing.T) {
	s, url := shared.New(t)
	d := open(t, Options{URL: url})
	if _, err := Open(ctx, Options{URL: s.URL("missing")}); code(err) != "database_refused" {
		t.Errorf("a database that is not there: %v", err)
	}
	if _, err := d.write.ExecContext(ctx, "CREATE ROLE guest LOGIN"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("guests"); err != nil {
		t.Fatal(err)
	}
	guest := strings.Replace(s.URL("guests"), "user=appliance", "user=guest", 1)
	if _, err := Open(ctx, Options{URL: guest}); code(err) != "database_refused" || !strings.Contains(fault.Hint(err), "OWNER") {
		t.Errorf("somebody who may make no tables: %v", err)
	}
	if err := d.Backup(ctx, filepath.Join(t.TempDir(), "copy")); code(err) != "no_backup" {
		t.Errorf("a copy: %v", err)
	}
	if err := d.Compact(ctx); err != nil || !d.Shared() {
		t.Error(err)
	}
}

func TestPostgresRestarts(t *testing.T) {
	s, url := shared.New(t)
	d := open(t, Options{URL: url})
	// As many connections as are kept, all of which break.
	var held []*sql.Tx
	for range idle {
		tx, err := d.read.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, tx)
	}
	for _, tx := range held {
		tx.Rollback()
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := add(d, "x"); code(err) != "database_unreachable" {
			t.Errorf("stopped: %v", err)
		}
		if err := d.Check(ctx); code(err) != "database_unreachable" {
			t.Errorf("stopped: %v", err)
		}
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(add(d, "x"), d.Check(ctx)); err != nil {
		t.Errorf("started again: %v", err)
	}
	for range idle { // each is broken by a restart that nobody noticed
		if err := d.read.PingContext(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Pause(), s.Resume()); err != nil {
		t.Fatal(err)
	}
	if err := add(d, "y"); err != nil {
		t.Errorf("restarted while nobody asked: %v", err)
	}
}

func TestFileIsItsOwners(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a b%20?#&.db")
	d := open(t, Options{File: file})
	if err := add(d, "a"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 { // with -wal and -shm
		t.Errorf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 || !strings.HasPrefix(e.Name(), filepath.Base(file)) {
			t.Errorf("%s: %v, %v", e.Name(), st.Mode(), err)
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "auto_vacuum": "2"} {
		for name, pool := range map[string]*sql.DB{"write": d.write, "read": d.read} {
			var got string
			if err := pool.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %s is %s, want %s (%v)", name, pragma, got, want, err)
			}
		}
	}
}
