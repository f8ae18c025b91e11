package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"whisper-appliance/internal/durable"
)

const (
	busyTimeout = 5 * time.Second // for the lock of another process
	readers     = 4
	lookLimit   = time.Second // for the look at the whole file when it is opened
	longestLog  = 16 << 20    // bytes that the -wal file keeps once all of it is in the file
)

func sqliteDialect() dialect {
	return dialect{name: goose.DialectSQLite3, hasTable: "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1"}
}

func openFile(ctx context.Context, o Options) (*DB, error) {
	file, err := filepath.Abs(o.File)
	if err != nil {
		return nil, fmt.Errorf("database file %s: %w", o.File, err)
	}
	d := &DB{dialect: sqliteDialect(), where: file, file: file, log: o.Log}
	empty, err := create(file)
	if err != nil {
		return nil, d.unwritable(err)
	}
	if d.write, err = sql.Open("sqlite", writing(file, empty)); err != nil {
		return nil, d.fault(ctx, err)
	}
	d.write.SetMaxOpenConns(1)
	if d.read, err = sql.Open("sqlite", source(file, "_pragma=query_only(1)")); err != nil {
		return nil, errors.Join(d.fault(ctx, err), d.write.Close())
	}
	d.read.SetMaxOpenConns(readers)
	d.read.SetMaxIdleConns(readers)
	if err := d.look(ctx); err != nil {
		return nil, errors.Join(d.fault(ctx, err), d.Close())
	}
	return d, nil
}

// create makes an empty file for its owner alone, because SQLite would make one
// for everybody to read. A file that is empty beside the copy of one that was
// not has lost its content: SQLite would take it for a new database.
func create(file string) (empty bool, err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() > 0 {
		return false, err
	}
	if copies, err := copies(file); err != nil || len(copies) > 0 {
		return true, errors.Join(err, errEmptied)
	}
	return true, durable.SyncDir(filepath.Dir(file))
}

var errEmptied = errors.New("the file is empty, though it was not when it was last copied")

// source is the data source name of a connection. The driver sets the pragmas in
// the order of their names, busy_timeout before all.
func source(file, more string) string {
	u := url.URL{Scheme: "file", Path: file}
	return fmt.Sprintf("%s?_pragma=busy_timeout(%d)&_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(%d)"+
		"&_pragma=synchronous(FULL)&%s", u.String(), busyTimeout.Milliseconds(), longestLog, more)
}

// writing is the source of the connection that writes. That room can be given
// back is decided before anything is in a file; said later it changes nothing,
// but writes the file.
func writing(file string, empty bool) string {
	more := "_txlock=immediate"
	if empty {
		more += "&_pragma=auto_vacuum(incremental)"
	}
	return source(file, more)
}

// look opens the file, and reads as much of it as a second allows to see
// whether it is whole.
func (d *DB) look(ctx context.Context) error {
	if err := d.write.PingContext(ctx); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var says string
	err := d.read.QueryRowContext(limited, "PRAGMA quick_check(1)").Scan(&says)
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		return nil // a large file; what it reads later is looked at then
	case err != nil:
		return err
	case says != "ok":
		return &damaged{says}
	}
	return nil
}

// Backup copies a SQLite database as it is at this moment to the file to, which
// is replaced once the copy is whole and on disk. Those who write wait for it.
// PostgreSQL has pg_dump for that (Unsupported, no_backup).
func (d *DB) Backup(ctx context.Context, to string) error {
	if d.Shared() {
		return noBackup()
	}
	return d.fault(ctx, d.copy(ctx, to))
}

func (d *DB) copy(ctx context.Context, to string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			os.Remove(f.Name() + "-journal")
		}
	}()
	// It fills an empty file, and that one is its owner's alone.
	if _, err := d.write.ExecContext(ctx, "VACUUM INTO $1", f.Name()); err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	return durable.Publish(f, to)
}

// Compact gives the room of what was deleted back to the disk, where that is
// SQLite's; PostgreSQL does so by itself.
func (d *DB) Compact(ctx context.Context) error {
	if d.Shared() {
		return nil
	}
	given := 0
	for pages := 1; pages > 0; given += pages {
		err := d.Write(ctx, func(tx *sql.Tx) (err error) {
			pages, err = giveBack(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if given == 0 {
		return nil
	}
	// Where somebody reads it does less, and says so in a row that nobody needs.
	_, err := d.write.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return d.fault(ctx, err)
}

// giveBack frees so many pages that nobody has to wait long for it.
func giveBack(ctx context.Context, tx *sql.Tx) (pages int, err error) {
	rows, err := tx.QueryContext(ctx, "PRAGMA incremental_vacuum(2000)") // a row for each
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		pages++
	}
	return pages, errors.Join(rows.Err(), rows.Close())
}

// copies are the copies that were made of a file before it was migrated.
func copies(file string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscanf(e.Name(), filepath.Base(file)+".before-%d", &n); err == nil && e.Name() == filepath.Base(before(file, n)) {
			found = append(found, filepath.Join(filepath.Dir(file), e.Name()))
		}
	}
	return found, nil
}

// before is the name of the copy made of file before it got schema n.
func before(file string, n int) string { return fmt.Sprintf("%s.before-%d", file, n) }

// keepOnly removes the copies of earlier migrations.
func keepOnly(file string, n int) error {
	found, err := copies(file)
	if err != nil {
		return err
	}
	for _, old := range slices.DeleteFunc(found, func(name string) bool { return name == before(file, n) }) {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lockBeside keeps other programs from migrating the same file. The lock is on
// the directory, so that no file of it stays behind, and not on the file itself,
// whose locks are SQLite's.
func lockBeside(ctx context.Context, file string) (unlock func(), err error) {
	const again = 20 * time.Millisecond
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir.Name(), err), dir.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), dir.Close())
		case <-tick.C:
		}
	}
}
