package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"whisper-appliance/internal/fault"
)

// setting is the one that people change when PostgreSQL cannot be used.
const setting = "database.url"

// damaged is what SQLite says of a file that is not whole.
type damaged struct{ says string }

func (e *damaged) Error() string { return e.says }

// trouble is a way in which a database fails, whichever it is.
type trouble int

const (
	unknown trouble = iota
	unreachable
	refused
	forbidden
	busy
	full
	readOnly
	failing
	corrupt
)

// fault puts a database's errors into words. What has words already, what the
// caller ended, and what a query means by having no rows stay as they are.
func (d *DB) fault(ctx context.Context, err error) error {
	var worded *fault.Error
	if err == nil || ctx.Err() != nil || errors.As(err, &worded) {
		return err
	}
	switch d.trouble(err) {
	case unreachable:
		return fault.New(fault.Unavailable, "database_unreachable", "%s cannot be reached", d.where).On(setting).Because(err).
			Try("see that PostgreSQL runs there and takes connections from this machine, or change url in [database] of config.toml; without it the appliance keeps a file of its own")
	case refused:
		return fault.New(fault.Unavailable, "database_refused", "%s does not let this appliance in", d.where).On(setting).Because(err).
			Try("user, password and name of the database are in url in [database] of config.toml; pg_hba.conf says who may connect")
	case forbidden:
		return fault.New(fault.Unavailable, "database_refused", "%s does not let this appliance make its tables", d.where).On(setting).Because(err).
			Try("make its user the owner of the database: ALTER DATABASE … OWNER TO …")
	case busy:
		return fault.New(fault.Unavailable, "database_busy", "%s was kept busy by somebody else for too long", d.where).Because(err).
			Try("try again; `fuser` names the programs that hold a file, pg_stat_activity those that hold PostgreSQL")
	case full:
		return fault.New(fault.NoSpace, "database_full", "there is no room left for %s", d.where).Because(err).
			Try("free some of that disk: old jobs and unused models are the largest")
	case readOnly:
		return d.unwritable(err)
	case failing:
		return fault.New(fault.Unavailable, "database_disk_fails", "the disk of %s does not do as it is told", d.where).Because(err).
			Try("the kernel's log says what the disk has (journalctl -k); keep a copy of what can be read")
	case corrupt:
		return d.damage(err)
	}
	return err
}

// damage never repairs: what is in the file may be all that there is.
func (d *DB) damage(err error) error {
	f := fault.New(fault.Unavailable, "database_damaged", "%s is damaged", d.where).Because(err)
	if d.Shared() {
		return f.Try("PostgreSQL's log says what it found")
	}
	found, _ := copies(d.file) // without one there is less to try
	if len(found) > 0 {
		return f.Try("stop the appliance, keep a copy of the file, and put %s in its place, or `sqlite3 FILE .recover` what can be read", found[len(found)-1])
	}
	return f.Try("stop the appliance, keep a copy of the file, and `sqlite3 FILE .recover` what can be read; where nothing in it is missed, move it away and a new one is made")
}

func (d *DB) unwritable(err error) error {
	if errors.Is(err, errEmptied) {
		return d.damage(err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.NoSpace, "database_full", "there is no room left for %s", d.where).Because(err).Try("free some of that disk")
	}
	return fault.New(fault.Unavailable, "database_not_writable", "%s cannot be written", d.where).Because(err).
		Try("the appliance's user must be able to write the file and its directory, and the disk must not be read-only")
}

func noBackup() error {
	return fault.New(fault.Unsupported, "no_backup", "PostgreSQL is not copied from here").Try("pg_dump copies it")
}

func (d *DB) trouble(err error) trouble {
	var says *damaged
	var lite *sqlite.Error
	var server *pgconn.PgError
	switch {
	case errors.As(err, &says):
		return corrupt
	case errors.As(err, &lite):
		return ofSQLite(lite.Code())
	case errors.As(err, &server):
		return ofPostgres(server.Code)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return full
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return readOnly
	case d.Shared() && broken(err):
		return unreachable
	}
	return unknown
}

// ofSQLite reads a result code; the lower eight bits are the primary one
// (https://sqlite.org/rescode.html).
func ofSQLite(code int) trouble {
	switch code & 0xff {
	case 5, 6: // BUSY, LOCKED
		return busy
	case 8, 14: // READONLY, CANTOPEN
		return readOnly
	case 10: // IOERR
		return failing
	case 11, 26: // CORRUPT, NOTADB
		return corrupt
	case 13: // FULL
		return full
	}
	return unknown
}

// ofPostgres reads a SQLSTATE (PostgreSQL's manual, appendix A).
func ofPostgres(code string) trouble {
	switch {
	case slices.Contains([]string{"57P01", "57P02", "57P03", "57P05"}, code), strings.HasPrefix(code, "08"):
		return unreachable
	case strings.HasPrefix(code, "28"), code == "3D000":
		return refused
	case code == "42501":
		return forbidden
	case strings.HasPrefix(code, "40"), code == "55P03", code == "53300":
		return busy
	case code == "53100":
		return full
	case code == "25006":
		return readOnly
	case code == "58030":
		return failing
	case strings.HasPrefix(code, "XX00"):
		return corrupt
	}
	return unknown
}

// broken tells whether an error is one of the connection, not of a statement.
func broken(err error) bool {
	var connecting *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connecting) || errors.As(err, &network) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}

// lost tells whether a transaction has ended without a trace, and by no fault of
// its own. A commit that broke off may have been done.
func (d *DB) lost(err error) bool {
	var server *pgconn.PgError
	var commit *commitError
	if errors.As(err, &server) && strings.HasPrefix(server.Code, "40") {
		return server.Code != "40003" // completion unknown
	}
	return !errors.As(err, &commit) && d.Shared() && d.trouble(err) == unreachable
}
