// Package database opens the appliance's database and keeps its schema: a file
// of SQLite, or PostgreSQL where several appliances share their work. It is the
// one owner of both drivers, of the schema (migrations/, one text for both) and
// of the words in which either fails.
//
// # The schema only grows
//
// An update may be taken back, and then the release before it runs on the
// schema of the one after. So a migration adds tables, columns and indexes and
// does nothing else: a column that is added has a default, a unique index is
// made with its table alone, nothing is dropped, renamed or given another type.
// A test holds the migrations to it. What a release no longer needs stays. And
// a database that is newer than this program is used as it is.
//
// Before a migration changes a file that is there, the file is copied to
// FILE.before-N, N being the schema that it gets; the copy of the last migration
// stays. Two programs that migrate at once wait for each other: by a lock on the
// file's directory, or by an advisory lock in PostgreSQL.
//
// # SQLite
//
// There is one connection that writes, so writers of this process wait for
// their turn here, in order and only as long as their context lets them, rather
// than in SQLite, which asks again and again. Its transactions are immediate:
// none is ever refused in its middle because another process wrote. That matters
// while two servers overlap in an update. (Processes are not served in order: one
// that did nothing but write for 5 s could keep another out, database_busy. A
// job's writes are a few milliseconds in each second.) Readers have connections of their own
// and see what was committed. The log is written ahead (WAL) and synced with
// every commit (synchronous=FULL): what was acknowledged survives a power cut.
//
// It trusts the file's directory and the PostgreSQL server it is told of. It
// writes the file, its -wal and -shm, the copy, and nothing else; a file that is
// damaged is told of and never replaced.
package database

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
)

// Options say which database. Zero values are defaults.
type Options struct {
	// File is SQLite's, in a directory that is there. It is made where it is
	// missing, for its owner alone.
	File string
	// URL is the address of a PostgreSQL database, "postgres://user:password@host/name".
	// Where it is set, File is not used.
	URL string
	Log *slog.Logger // told of migrations; nil = nobody
}

// DB is an open database. Its methods may be called at the same time.
type DB struct {
	dialect dialect
	where   string  // what it is called in messages
	file    string  // SQLite's; "" = PostgreSQL
	write   *sql.DB // SQLite: one connection. PostgreSQL: the same as read
	read    *sql.DB
	schema  int
	log     *slog.Logger
}

// Open opens the database and brings its schema up to what this program knows.
// It may be called again after any failure.
//
// Faults, which every other method may end with, too: database_unreachable,
// database_refused (PostgreSQL's address or its credentials), database_busy,
// database_damaged, database_not_writable, database_disk_fails (Unavailable),
// database_full (NoSpace); and of Open alone bad_database_url (BadInput).
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	open := openFile
	if o.URL != "" {
		open = openServer
	}
	d, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx); err != nil {
		return nil, errors.Join(d.fault(ctx, err), d.Close())
	}
	return d, nil
}

// Close ends every connection.
func (d *DB) Close() error {
	err := d.read.Close()
	if d.write != d.read {
		err = errors.Join(err, d.write.Close())
	}
	return err
}

// Shared tells whether several machines may use the database: it is PostgreSQL,
// and its clock is the one that all of them go by.
func (d *DB) Shared() bool { return d.file == "" }

// Schema is the number of the newest migration that the database has. It may be
// above Known: a newer release has been here.
func (d *DB) Schema() int { return d.schema }

// Check tells whether the database answers. It takes as long as one small query;
// the caller's context bounds it.
func (d *DB) Check(ctx context.Context) error {
	return d.Read(ctx, func(tx *sql.Tx) error {
		_, err := d.version(ctx, tx)
		return err
	})
}

// attempts is how often a transaction is begun that was lost before its end: one
// more than the connections that may lie idle, all of which a restart of
// PostgreSQL breaks.
const attempts = idle + 1

// Write runs fn in a transaction and commits it. Where the connection is lost
// before the commit, or PostgreSQL wants it, fn is run again from its beginning.
// An error of fn undoes everything and is returned; those of the database become
// faults.
func (d *DB) Write(ctx context.Context, fn func(*sql.Tx) error) error {
	return d.again(ctx, func() error {
		tx, err := d.write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // nothing, once it is committed
		if err := fn(tx); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return &commitError{err}
		}
		return nil
	})
}

// Read is Write for a fn that only reads.
func (d *DB) Read(ctx context.Context, fn func(*sql.Tx) error) error {
	return d.again(ctx, func() error {
		tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		return fn(tx)
	})
}

// again repeats a transaction that was lost without a trace.
func (d *DB) again(ctx context.Context, transaction func() error) error {
	for try := 1; ; try++ {
		err := transaction()
		if err == nil {
			return nil
		}
		if try == attempts || ctx.Err() != nil || !d.lost(err) {
			return d.fault(ctx, err)
		}
	}
}

// commitError is an error of a commit, of which nobody knows whether it was done.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }
