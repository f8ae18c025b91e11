package job

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// held is the condition under which a worker may change a job. A lease that has
// run out and that nobody else has taken is still the worker's.
const held = ` WHERE id = $1 AND worker = $2 AND state = 'running'`

// Renew moves the lease ahead, between two windows. canceling tells that a
// cancel was asked for: the worker stops, and calls Requeue.
func (s *Store) Renew(ctx context.Context, id string, w Worker) (canceling bool, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		canceling, err = s.renew(ctx, tx, id, w, "lease_until = $3", s.until(now))
		return err
	})
	return canceling, err
}

// renew sets columns of a job that w holds; $1 and $2 are taken.
func (s *Store) renew(ctx context.Context, tx *sql.Tx, id string, w Worker, set string, args ...any) (canceling bool, err error) {
	var asked int64
	err = tx.QueryRowContext(ctx, "UPDATE jobs SET "+set+held+" RETURNING cancel_asked", append([]any{plain(id), w.ID}, args...)...).Scan(&asked)
	if errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("job %s: %w", id, ErrLost)
	}
	return asked != 0, err
}

// Recording is one that was fetched for a job.
type Recording struct {
	Media  string // file, relative
	SHA256 string // hexadecimal
	Bytes  int64
}

// Fetched notes the recording of a job that came without one, and renews the
// lease: from then on it is the job's, and is not fetched again. canceling tells
// that a cancel was asked for. It fails with ErrLost where the job is not w's any
// more. Any error may come after all was stored: the file is the caller's to remove
// where the job has another one, or none.
func (s *Store) Fetched(ctx context.Context, id string, w Worker, r Recording) (canceling bool, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		canceling, err = s.renew(ctx, tx, id, w, "lease_until = $3, media = $4, media_sha256 = $5, bytes = $6, crashes = 0", s.until(now), plain(r.Media), r.SHA256, r.Bytes)
		return err
	})
	return canceling, err
}

// Plan stores what is known of a recording once speech was looked for in it, how
// long it is and where that is, and renews the lease. The windows that are stored
// stay: who goes on takes the plan that is there.
func (s *Store) Plan(ctx context.Context, id string, w Worker, duration time.Duration, plan json.RawMessage) (canceling bool, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		canceling, err = s.renew(ctx, tx, id, w, "lease_until = $3, plan = $4, duration_ns = $5", s.until(now), string(plan), int64(duration))
		return err
	})
	return canceling, err
}

// Window stores a window that is done, with the job's progress and its lease, in
// one transaction: once it returns, the window is not decoded again, whatever
// happens. language is that of the job where it is known now, "" leaves it.
//
// It fails with ErrLost where the job is not w's any more, and with ErrStored
// where the window is there already; nothing is changed then. A window that
// failed with database_unreachable may be there all the same, where that broke
// off at the very end: ErrStored, when it is stored again, is then good news.
func (s *Store) Window(ctx context.Context, id string, w Worker, v Window, language string) (canceling bool, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		canceling, err = s.renew(ctx, tx, id, w, `lease_until = $3, windows_done = windows_done + 1, crashes = 0,
			done_ns = CASE WHEN done_ns < CAST($4 AS BIGINT) THEN $4 ELSE done_ns END,
			language = CASE WHEN CAST($5 AS TEXT) = '' THEN language ELSE $5 END`, s.until(now), int64(v.End), plain(language))
		if err != nil {
			return err
		}
		n, err := affected(ctx, tx, `INSERT INTO windows (job_id, idx, start_ns, end_ns, result, stored)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, id, v.Index, int64(v.Start), int64(v.End), string(v.Result), now.wall)
		if err == nil && n == 0 {
			return fmt.Errorf("window %d of job %s: %w", v.Index, id, ErrStored)
		}
		return err
	})
	return canceling, err
}

// Finish ends a job with its result. It is done even where a cancel was asked
// for meanwhile: that came too late. The windows stay until the job is deleted.
func (s *Store) Finish(ctx context.Context, id string, w Worker, result json.RawMessage) error {
	return s.end(ctx, id, w, `state = 'done', result = $4`, string(result))
}

// Fail ends a job with the reason. Where a cancel was asked for it is canceled:
// what fails then, fails because of it.
func (s *Store) Fail(ctx context.Context, id string, w Worker, f Failure) error {
	words, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.end(ctx, id, w, `state = CASE WHEN cancel_asked <> 0 THEN 'canceled' ELSE 'failed' END,
		failure = CASE WHEN cancel_asked <> 0 THEN '' ELSE CAST($4 AS TEXT) END`, string(words))
}

func (s *Store) end(ctx context.Context, id string, w Worker, set, value string) error {
	return s.change(ctx, func(tx *sql.Tx, now moment) error {
		if _, err := s.renew(ctx, tx, id, w, "ended = $3, lease_until = 0, cancel_asked = 0, "+set, now.wall, value); err != nil {
			return err
		}
		return announce(ctx, tx, now, plain(id))
	})
}

// Requeue gives a job back that w will not finish: because it stops, or because
// a cancel was asked for, and then the job is canceled. Else it keeps its place
// and its windows.
func (s *Store) Requeue(ctx context.Context, id string, w Worker) error {
	return s.change(ctx, func(tx *sql.Tx, now moment) error {
		if _, err := s.renew(ctx, tx, id, w, `lease_until = 0, cancel_asked = 0,
			state = CASE WHEN cancel_asked <> 0 THEN 'canceled' ELSE 'queued' END,
			ended = CASE WHEN cancel_asked <> 0 THEN CAST($3 AS BIGINT) ELSE 0 END`, now.wall); err != nil {
			return err
		}
		return announce(ctx, tx, now, plain(id))
	})
}
