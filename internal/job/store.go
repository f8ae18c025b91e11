package job

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"whisper-appliance/internal/database"
)

// Options are what a store goes by. Zero values are defaults.
type Options struct {
	Lease time.Duration    // how long a worker may be silent; 0 = 1 minute
	Age   time.Duration    // after so long a job counts a class higher; 0 = 10 minutes
	Now   func() time.Time // the clock, for tests; nil = PostgreSQL's, or else the machine's
}

// Store is the jobs in a database. Its methods may be called at the same time,
// and by several processes on one database.
//
// All of them fail with the faults of package database where that fails, and
// with unknown_job (NotFound) where there is no job of the id they are given.
type Store struct {
	db    *database.DB
	lease time.Duration
	age   time.Duration
	now   func() time.Time
	began time.Time // with the monotonic clock's reading
}

// NewStore is the store of the jobs in db.
func NewStore(db *database.DB, o Options) *Store {
	return &Store{
		db:    db,
		lease: cmp.Or(o.Lease, time.Minute),
		age:   cmp.Or(o.Age, 10*time.Minute),
		now:   o.Now,
		began: time.Now(),
	}
}

// moment is now, in milliseconds since 1970: as people see it, and as leases do.
type moment struct{ wall, lease int64 }

// moment asks the clock that all who share the database go by.
func (s *Store) moment(ctx context.Context, tx *sql.Tx) (moment, error) {
	if s.now != nil {
		ms := s.now().UnixMilli()
		return moment{ms, ms}, nil
	}
	if s.db.Shared() {
		var ms int64
		err := tx.QueryRowContext(ctx, "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)").Scan(&ms)
		return moment{ms, ms}, err
	}
	return moment{wall: time.Now().UnixMilli(), lease: s.began.Add(time.Since(s.began)).UnixMilli()}, nil
}

// until is when a lease that is given now ends.
func (s *Store) until(now moment) int64 { return now.lease + s.lease.Milliseconds() }

// change runs fn in a transaction that writes.
func (s *Store) change(ctx context.Context, fn func(tx *sql.Tx, now moment) error) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		now, err := s.moment(ctx, tx)
		if err != nil {
			return err
		}
		return fn(tx, now)
	})
}

// What is read of a job: first what every list has, then what may be long.
const (
	shortColumns = `id, owner, class, state, created, queued, started, ended, deadline, idempotency_key, digest, name, model, media, media_sha256,
		bytes, duration_ns, language, failure, windows_done, done_ns, attempts, crashes, cancel_asked, worker, lease_until, source, webhook`
	columns = shortColumns + `, request, plan, result`
)

// row is what both sql.Row and sql.Rows are.
type row interface{ Scan(dest ...any) error }

// scan reads a row of columns, or of shortColumns.
func scan(r row, long bool) (Job, error) {
	var j Job
	var created, queued, started, ended, deadline, canceling, lease int64
	var failure, request, plan, result string
	to := []any{&j.ID, &j.Owner, &j.Class, &j.State, &created, &queued, &started, &ended, &deadline, &j.Key, &j.Digest, &j.Name, &j.Model, &j.Media, &j.MediaSHA256,
		&j.Bytes, &j.Duration, &j.Language, &failure, &j.WindowsDone, &j.Covered, &j.Attempts, &j.Crashes, &canceling, &j.Worker, &lease, &j.Source, &j.Webhook}
	if long {
		to = append(to, &request, &plan, &result)
	}
	if err := r.Scan(to...); err != nil {
		return Job{}, err
	}
	j.Created, j.Queued, j.Started, j.Ended, j.Deadline = at(created), at(queued), at(started), at(ended), at(deadline)
	j.Canceling, j.LeaseUntil = canceling != 0, at(lease)
	j.Request, j.Plan, j.Result = document(request), document(plan), document(result)
	if failure != "" {
		j.Failure = new(Failure)
		if err := json.Unmarshal([]byte(failure), j.Failure); err != nil {
			return Job{}, fmt.Errorf("failure of job %s: %w", j.ID, err)
		}
	}
	return j, nil
}

// at is a time that is stored as milliseconds, zero for 0.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// stamp is at's inverse.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func document(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// plain is a text that both databases take: PostgreSQL refuses what is no UTF-8,
// and NUL.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// get reads one job, in a transaction.
func get(ctx context.Context, tx *sql.Tx, id string) (Job, error) {
	j, err := scan(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM jobs WHERE id = $1", plain(id)), true)
	if errors.Is(err, sql.ErrNoRows) {
		return Job{}, Missing(id)
	}
	return j, err
}

// forUpdate keeps a job that was read as it is until the transaction ends. In a
// file a transaction that writes is alone.
func (s *Store) forUpdate() string {
	if s.db.Shared() {
		return " FOR UPDATE"
	}
	return ""
}

// locked is get for a job that the transaction is about to change.
func (s *Store) locked(ctx context.Context, tx *sql.Tx, id string) (Job, error) {
	j, err := scan(tx.QueryRowContext(ctx, "SELECT "+columns+" FROM jobs WHERE id = $1"+s.forUpdate(), plain(id)), true)
	if errors.Is(err, sql.ErrNoRows) {
		return Job{}, Missing(id)
	}
	return j, err
}

// affected runs a statement and tells how many rows it changed.
func affected(ctx context.Context, tx *sql.Tx, statement string, args ...any) (int64, error) {
	r, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
