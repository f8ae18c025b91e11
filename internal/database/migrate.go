package database

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versions is the table in which goose notes what the database has.
const versions = "schema_versions"

// dialect is what differs between the two.
type dialect struct {
	name     goose.Dialect
	hasTable string // a query: how many tables of the name $1 there are
}

// Known is the newest schema that this program knows: the number of its last
// migration.
func Known() int { return newest(scripts()) }

// scripts are the migrations, a file each.
func scripts() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return embed.FS{} // the name is valid; a database with no migration would say so
	}
	return sub
}

func newest(scripts fs.FS) int {
	names, err := fs.Glob(scripts, "*.sql")
	if err != nil {
		return 0 // the pattern is valid
	}
	most := 0
	for _, name := range names {
		if n, err := goose.NumericComponent(name); err == nil {
			most = max(most, int(n))
		}
	}
	return most
}

// query is a transaction or a pool of connections.
type query interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// version is the schema that the database has, 0 where it is new.
func (d *DB) version(ctx context.Context, q query) (int, error) {
	var tables, n int
	if err := q.QueryRowContext(ctx, d.dialect.hasTable, versions).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	err := q.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+versions).Scan(&n)
	return n, err
}

// migrate brings the schema up to Known.
func (d *DB) migrate(ctx context.Context) error { return d.migrateTo(ctx, scripts()) }

func (d *DB) migrateTo(ctx context.Context, scripts fs.FS) (err error) {
	if d.schema, err = d.version(ctx, d.read); err != nil || d.schema >= newest(scripts) {
		return err
	}
	if d.Shared() {
		return d.apply(ctx, scripts)
	}
	unlock, err := lockBeside(ctx, d.file)
	if err != nil {
		return err
	}
	defer unlock()
	// Another program may have been here meanwhile.
	if d.schema, err = d.version(ctx, d.read); err != nil || d.schema >= newest(scripts) {
		return err
	}
	if d.schema == 0 {
		return d.apply(ctx, scripts)
	}
	if err := d.copy(ctx, before(d.file, newest(scripts))); err != nil {
		return err
	}
	if err := d.apply(ctx, scripts); err != nil {
		return err
	}
	return keepOnly(d.file, newest(scripts))
}

// apply runs what the database does not have yet, each migration in a
// transaction of its own.
func (d *DB) apply(ctx context.Context, scripts fs.FS) error {
	options := []goose.ProviderOption{goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true)}
	if d.Shared() {
		const seconds, times = 1, 300
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(seconds, times))
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	provider, err := goose.NewProvider(d.dialect.name, d.write, scripts, options...)
	if err != nil {
		return err
	}
	began, from := time.Now(), d.schema
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s from schema %d: %w", d.where, from, err)
	}
	d.schema, err = d.version(ctx, d.write)
	if err == nil && d.schema > from {
		d.log.Info("database migrated", "from", from, "to", d.schema, "took", time.Since(began))
	}
	return err
}
