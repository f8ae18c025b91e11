package job

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"whisper-appliance/internal/fault"
)

// Get is a job as it is, all of it.
func (s *Store) Get(ctx context.Context, id string) (j Job, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		j, err = get(ctx, tx, id)
		return err
	})
	return j, err
}

// Glance is a job without Request, Plan and Result, which may be long.
func (s *Store) Glance(ctx context.Context, id string) (j Job, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		j, err = scan(tx.QueryRowContext(ctx, "SELECT "+shortColumns+" FROM jobs WHERE id = $1", plain(id)), false)
		if errors.Is(err, sql.ErrNoRows) {
			return Missing(id)
		}
		return err
	})
	return j, err
}

// Windows are the windows of a job that are stored, from an index on and in
// their order. There may be gaps. An unknown job has none.
func (s *Store) Windows(ctx context.Context, id string, from int) (all []Window, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		all = nil
		rows, err := tx.QueryContext(ctx, "SELECT idx, start_ns, end_ns, result, stored FROM windows WHERE job_id = $1 AND idx >= $2 ORDER BY idx", plain(id), from)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			var v Window
			var result string
			var stored int64
			err := rows.Scan(&v.Index, &v.Start, &v.End, &result, &stored)
			v.Result, v.Stored = document(result), at(stored)
			all = append(all, v)
			return err
		})
	})
	return all, err
}

// each calls fn for every row and closes them.
func each(rows *sql.Rows, fn func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := fn(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Filter says which jobs are listed.
type Filter struct {
	Owner    string // whose
	Everyone bool   // everybody's; Owner does not count then
	State    State  // "" = any
	Before   string // the id of the last job of the page before; "" = from the newest on
	Limit    int    // 0 = 100
}

// List are jobs, the newest first, without Request, Plan and Result.
func (s *Store) List(ctx context.Context, f Filter) (all []Job, err error) {
	const page = 100
	var where []string
	var args []any
	and := func(condition string, value any) {
		args = append(args, value)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.Limit <= 0 {
		f.Limit = page
	}
	if !f.Everyone {
		and("owner = $%d", plain(f.Owner))
	}
	if f.State != "" {
		and("state = $%d", string(f.State))
	}
	if f.Before != "" {
		and("id < $%d", plain(f.Before))
	}
	and("id <> '' ORDER BY id DESC LIMIT $%d", f.Limit)
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		all = nil
		rows, err := tx.QueryContext(ctx, "SELECT "+shortColumns+" FROM jobs WHERE "+strings.Join(where, " AND "), args...)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			j, err := scan(rows, false)
			all = append(all, j)
			return err
		})
	})
	return all, err
}

// Ahead is how many queued jobs would be claimed before the one of id, 0 where
// that is not queued. It goes by class, age and time; that owners take turns is
// left out, so it is about right where several wait.
func (s *Store) Ahead(ctx context.Context, id string) (n int, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		now, err := s.moment(ctx, tx)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `WITH waiting AS (SELECT id, queued, `+effective+` AS rank FROM jobs WHERE state = 'queued')
			SELECT count(*) FROM waiting a JOIN waiting me ON me.id = $3
			WHERE a.rank > me.rank OR (a.rank = me.rank AND (a.queued < me.queued OR (a.queued = me.queued AND a.id < me.id)))`,
			now.wall, s.age.Milliseconds(), plain(id)).Scan(&n)
	})
	return n, err
}

// Count is how many jobs there are of each state.
func (s *Store) Count(ctx context.Context) (of map[State]int, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		of = map[State]int{}
		rows, err := tx.QueryContext(ctx, "SELECT state, count(*) FROM jobs GROUP BY state")
		if err != nil {
			return err
		}
		return each(rows, func() error {
			var state State
			var n int
			err := rows.Scan(&state, &n)
			of[state] = n
			return err
		})
	})
	return of, err
}

// Recordings is how many bytes the recordings of all jobs take, and those of jobs
// that have ended.
func (s *Store) Recordings(ctx context.Context) (all, ended int64, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM jobs WHERE media <> ''").Scan(&all); err != nil {
			return err
		}
		k, err := kept(ctx, tx)
		ended = k.bytes
		return err
	})
	return all, ended, err
}

// Waiting is how many of an owner's jobs wait, and how many of all.
func (s *Store) Waiting(ctx context.Context, owner string) (mine, all int, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(CASE WHEN owner = $1 THEN 1 ELSE 0 END), 0), count(*)
			FROM jobs WHERE state = 'queued'`, plain(owner)).Scan(&mine, &all)
	})
	return mine, all, err
}

// Cancel stops a job: at once where nobody works on it, else its worker is told
// with its next window or heartbeat. Canceling it again changes nothing.
//
// Fault: job_ended (Conflict: it is done, or has failed).
func (s *Store) Cancel(ctx context.Context, id string) (j Job, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		if j, err = s.locked(ctx, tx, id); err != nil {
			return err
		}
		switch j.State {
		case Canceled:
			return nil
		case Done, Failed:
			return fault.New(fault.Conflict, "job_ended", "job %s is %s already", j.ID, j.State).On("id").Try("delete it, if it is not wanted any more")
		}
		if _, err := tx.ExecContext(ctx, "UPDATE jobs SET cancel_asked = $2 WHERE id = $1 AND cancel_asked = 0", j.ID, now.wall); err != nil {
			return err
		}
		if err := s.settle(ctx, tx, now); err != nil {
			return err
		}
		j, err = get(ctx, tx, id)
		return err
	})
	return j, err
}

// Retry queues a job again that failed or was canceled. It keeps its windows and
// goes on behind them; its deadline no longer counts. What was to tell of its
// end, and has not yet, is dropped: it will end anew.
//
// Faults (Conflict): job_not_ended, job_done, media_gone (the recording was
// deleted), idempotency_key_reused (a later job has its key).
func (s *Store) Retry(ctx context.Context, id string) (j Job, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		if j, err = s.locked(ctx, tx, id); err != nil {
			return err
		}
		if err := s.retryable(ctx, tx, j); err != nil {
			return err
		}
		if err := supersede(ctx, tx, j.ID); err != nil {
			return err
		}
		j, err = scan(tx.QueryRowContext(ctx, `UPDATE jobs SET state = 'queued', queued = $2, ended = 0, deadline = 0, cancel_asked = 0, lease_until = 0, failure = '', crashes = 0, announced = 0
			WHERE id = $1 RETURNING `+columns, id, now.wall), true)
		return err
	})
	return j, err
}

func (s *Store) retryable(ctx context.Context, tx *sql.Tx, j Job) error {
	switch {
	case j.State == Done:
		return fault.New(fault.Conflict, "job_done", "job %s is done", j.ID).On("id").Try("its result is there; send the recording again for another one")
	case !j.State.Ended():
		return fault.New(fault.Conflict, "job_not_ended", "job %s is %s", j.ID, j.State).On("id").Try("wait for it, or cancel it first")
	case j.Media == "" && (j.Source == "" || len(j.Plan) > 0): // what the URL gives now may be another one
		return fault.New(fault.Conflict, "media_gone", "the recording of job %s was deleted", j.ID).On("id").Try("send the recording again")
	case j.Key == "":
		return nil
	}
	var other string
	err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(id), '') FROM jobs
		WHERE owner = $1 AND idempotency_key = $2 AND state IN ('queued', 'running', 'done')`, j.Owner, j.Key).Scan(&other)
	if err == nil && other != "" {
		return reused(Job{ID: other})
	}
	return err
}
