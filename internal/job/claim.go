package job

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"slices"

	"whisper-appliance/internal/fault"
)

// effective is a job's class with what it has gained by waiting; $1 is now, $2
// the age of a class. A clock that was set back takes nothing away.
const effective = `CASE WHEN CAST($1 AS BIGINT) < queued THEN class
	WHEN class + (CAST($1 AS BIGINT) - queued) / CAST($2 AS BIGINT) > 3 THEN 3
	ELSE class + (CAST($1 AS BIGINT) - queued) / CAST($2 AS BIGINT) END`

// Claim leases the next job to w: one that is queued, or whose worker's lease
// has run out; one of w's own is not lost because w was held up. Only jobs of the
// classes count, of all where none is named. Nobody else gets the same job. found
// is false where there is none.
func (s *Store) Claim(ctx context.Context, w Worker, classes ...Class) (j Job, found bool, err error) {
	return s.next(ctx, w, math.MaxInt, classes)
}

// ClaimFetching is Claim that gives w no job whose recording is to be fetched of an
// owner for whom w fetches that many; 0 gives none at all.
func (s *Store) ClaimFetching(ctx context.Context, w Worker, most int, classes ...Class) (j Job, found bool, err error) {
	return s.next(ctx, w, most, classes)
}

func (s *Store) next(ctx context.Context, w Worker, fetches int, classes []Class) (j Job, found bool, err error) {
	args := []any{w.Instance, w.ID}
	for _, c := range Classes() {
		if len(classes) > 0 && !slices.Contains(classes, c) {
			c = -1
		}
		args = append(args, int64(c))
	}
	args = append(args, fetches)
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		if err := s.settle(ctx, tx, now); err != nil {
			return err
		}
		all := append([]any{now.wall, s.age.Milliseconds(), now.lease, s.until(now)}, args...)
		j, err = scan(tx.QueryRowContext(ctx, s.claim(), all...), true)
		found = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil // and what was settled stays
		}
		return err
	})
	return j, found && err == nil, err
}

// claim is the statement; PostgreSQL passes over what another transaction is
// about to take.
func (s *Store) claim() string {
	skip := ""
	if s.db.Shared() {
		skip = "FOR UPDATE OF jobs SKIP LOCKED"
	}
	return `WITH busy AS MATERIALIZED (
			SELECT owner AS who, count(*) AS running, SUM(CASE WHEN source <> '' AND media = '' AND worker = $6 THEN 1 ELSE 0 END) AS fetching
			FROM jobs WHERE state = 'running' AND lease_until > $3 GROUP BY owner
		), best AS (
			SELECT id FROM jobs LEFT JOIN busy ON who = owner
			WHERE (state = 'queued' OR (state = 'running' AND lease_until <= $3 AND worker <> $6)) AND class IN ($7, $8, $9, $10)
				AND (source = '' OR media <> '' OR COALESCE(fetching, 0) < CAST($11 AS BIGINT))
			ORDER BY ` + effective + ` DESC, COALESCE(running, 0), queued, id LIMIT 1 ` + skip + `
		)
		UPDATE jobs SET state = 'running', instance = $5, worker = $6, lease_until = $4, attempts = attempts + 1,
			crashes = crashes + CASE WHEN state = 'running' THEN 1 ELSE 0 END,
			started = CASE WHEN started = 0 THEN CAST($1 AS BIGINT) ELSE started END
		WHERE id IN (SELECT id FROM best) RETURNING ` + columns
}

// settle ends what nobody is to do any more: jobs that were canceled while
// their worker died, and those of which the deadline has passed and that nobody
// works on. It writes nothing where there are none.
func (s *Store) settle(ctx context.Context, tx *sql.Tx, now moment) error {
	const unheld = `(state = 'queued' OR (state = 'running' AND lease_until <= $2))`
	if _, err := tx.ExecContext(ctx, `UPDATE jobs SET state = 'canceled', ended = $1, lease_until = 0, cancel_asked = 0
		WHERE cancel_asked <> 0 AND `+unheld, now.wall, now.lease); err != nil {
		return err
	}
	late, err := json.Marshal(FailureOf(overdue()))
	if err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, `UPDATE jobs SET state = 'failed', ended = $1, lease_until = 0, failure = $3
		WHERE deadline <> 0 AND deadline <= $1 AND `+unheld, now.wall, now.lease, string(late)); err != nil {
		return err
	}
	return announce(ctx, tx, now, "")
}

func overdue() error {
	return fault.New(fault.Unavailable, "deadline_passed", "the job's time was over before it was done").
		Try("try again, with more time or when less is going on")
}

// Free gives back what the runs of w's instance before this one have left: they
// are queued again, at their old place, and keep their windows. It is to be
// called once the predecessor is known to be gone, and before the first Claim.
// Deliveries that they were sending are due again. Jobs whose recording is to be
// fetched, of which older releases know nothing, and which have failed for lack of
// it, are queued again, without a key: that may be another job's by now.
// Freed is how many there were.
func (s *Store) Free(ctx context.Context, w Worker) (freed int, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		n, err := affected(ctx, tx, `UPDATE jobs SET state = 'queued', lease_until = 0, crashes = crashes + 1
			WHERE state = 'running' AND worker <> $2 AND instance = $1`, w.Instance, w.ID)
		if err != nil {
			return err
		}
		again, err := affected(ctx, tx, `UPDATE jobs SET state = 'queued', ended = 0, failure = '', crashes = 0, idempotency_key = ''
			WHERE state = 'failed' AND source <> '' AND media = '' AND failure LIKE '%"code":"recording_gone"%'`)
		if err != nil {
			return err
		}
		freed = int(n + again)
		if _, err := tx.ExecContext(ctx, `UPDATE deliveries SET lease_until = 0
			WHERE state = 'sending' AND lease_until <> 0 AND worker <> $2 AND instance = $1`, w.Instance, w.ID); err != nil {
			return err
		}
		return s.settle(ctx, tx, now)
	})
	return freed, err
}
