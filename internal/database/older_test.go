package database

import (
	"database/sql"
	"log/slog"
	"testing"
	"testing/fstest"
)

// first is the schema of the first release.
func first(t *testing.T) fstest.MapFS {
	t.Helper()
	data, err := migrations.ReadFile("migrations/00001_jobs.sql")
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{"00001_jobs.sql": {Data: data}}
}

// TestFromTheFirstSchema: a database of the first release keeps its jobs, and the
// statements of that release work on what becomes of it.
func TestFromTheFirstSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		opening := openFile
		if o.URL != "" {
			opening = openServer
		}
		o.Log = slog.New(slog.DiscardHandler)
		d, err := opening(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.migrateTo(ctx, first(t)); err != nil || d.Schema() != 1 {
			t.Fatalf("schema %d, %v", d.Schema(), err)
		}
		if err := add(d, "old"); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = open(t, o)
		if err := add(d, "by the older release"); err != nil {
			t.Error(err)
		}
		if n := count(t, d, "jobs"); n != 2 || d.Schema() != Known() {
			t.Errorf("%d jobs, schema %d", n, d.Schema())
		}
		err = d.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO deliveries (id, job_id, event, url, state, created, due) VALUES ('m', 'old', 'done', 'u', 'sending', 1, 1)"); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "DELETE FROM jobs WHERE id = 'old'")
			return err
		})
		if err != nil || count(t, d, "deliveries") != 0 {
			t.Errorf("%v; %d deliveries of a job that an older release deletes", err, count(t, d, "deliveries"))
		}
	})
}
