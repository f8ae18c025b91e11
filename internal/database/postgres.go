package database

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"whisper-appliance/internal/fault"
)

const (
	// connections are few: an appliance has two cores, and the server's are for
	// all appliances.
	connections    = 8
	idle           = 4
	idleTime       = 5 * time.Minute
	connectTimeout = 5 * time.Second
)

func postgresDialect() dialect {
	return dialect{name: goose.DialectPostgres, hasTable: "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0 ELSE 1 END"}
}

func openServer(ctx context.Context, o Options) (*DB, error) {
	c, err := pgx.ParseConfig(o.URL)
	if err != nil {
		// The driver's own words hold the address without its password.
		return nil, fault.New(fault.BadInput, "bad_database_url", "this is no address of a PostgreSQL database").On(setting).
			Because(err).Try(`it looks like "postgres://user:password@host:5432/name"`)
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "whisper-appliance"
	}
	d := &DB{dialect: postgresDialect(), where: "the database " + c.Database + " at " + c.Host, log: o.Log}
	d.read = stdlib.OpenDB(*c)
	d.read.SetMaxOpenConns(connections)
	d.read.SetMaxIdleConns(idle)
	d.read.SetConnMaxIdleTime(idleTime)
	d.write = d.read
	return d, nil
}
