package job

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Telling is where a delivery is.
type Telling string

// The states of a delivery.
const (
	Sending   Telling = "sending"   // to be sent, or sent again
	Delivered Telling = "delivered" // its receiver has taken it
	GivenUp   Telling = "given_up"  // its receiver has not, for too long or for good
)

// Delivery is a message about the end of a job.
type Delivery struct {
	ID       string // the same at each attempt
	Job      string
	Event    State  // in which the job had ended
	URL      string // of the receiver
	State    Telling
	Created  time.Time
	Due      time.Time // of one that is to be sent: not before then
	Ended    time.Time
	Attempts int
	Error    string // what the last attempt came to, in words
}

const deliveryColumns = `id, job_id, event, url, state, created, due, ended, attempts, error`

func scanDelivery(r row) (v Delivery, err error) {
	var created, due, ended int64
	err = r.Scan(&v.ID, &v.Job, &v.Event, &v.URL, &v.State, &created, &due, &ended, &v.Attempts, &v.Error)
	v.Created, v.Due, v.Ended = at(created), at(due), at(ended)
	return v, err
}

// announce stores a delivery for each job that has ended and whose end is to be
// told and is not yet, in the transaction that ends it. One that an older release
// has ended, which knows of no deliveries, is found by the next Claim; where that
// has tried a job again, too, what told of its end before goes.
func announce(ctx context.Context, tx *sql.Tx, now moment, id string) error {
	statement, args := `UPDATE jobs SET announced = ended WHERE webhook <> '' AND announced <> ended AND `+ended, []any{}
	if id != "" {
		statement, args = statement+" AND id = $1", []any{id}
	}
	rows, err := tx.QueryContext(ctx, statement+" RETURNING id, state, webhook", args...)
	if err != nil {
		return err
	}
	var all []Delivery
	err = each(rows, func() error {
		var v Delivery
		err := rows.Scan(&v.Job, &v.Event, &v.URL)
		all = append(all, v)
		return err
	})
	for _, v := range all {
		if err == nil {
			err = supersede(ctx, tx, v.Job)
		}
		if err == nil {
			err = insertDelivery(ctx, tx, now, v)
		}
	}
	return err
}

func insertDelivery(ctx context.Context, tx *sql.Tx, now moment, v Delivery) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO deliveries (id, job_id, event, url, state, created, due) VALUES ($1, $2, $3, $4, 'sending', $5, $6)`,
		"msg_"+id.String(), v.Job, string(v.Event), v.URL, now.wall, now.lease)
	return err
}

// supersede removes the deliveries of a job that is tried again, or was: what they
// tell is no longer so.
func supersede(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM deliveries WHERE job_id = $1", id)
	return err
}

// longestPause is longer than any delivery is put off: one that is due later was
// put off by a clock that has been set back since.
const longestPause = 48 * time.Hour

// ClaimDelivery leases to w a delivery that is due, for as long as Options.Lease:
// of the owner for whom the fewest are being sent, and of several the one that has
// been due for longest. An owner for whom w sends so many as most gets no further
// one. Nobody else gets it meanwhile. One whose job is not as it would tell is
// passed over. found is false where there is none.
func (s *Store) ClaimDelivery(ctx context.Context, w Worker, most int) (v Delivery, found bool, err error) {
	skip := ""
	if s.db.Shared() {
		skip = "FOR UPDATE OF deliveries SKIP LOCKED"
	}
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		v, err = scanDelivery(tx.QueryRowContext(ctx, `WITH busy AS MATERIALIZED (
				SELECT jobs.owner AS who, count(*) AS sending, SUM(CASE WHEN deliveries.worker = $4 THEN 1 ELSE 0 END) AS here
				FROM deliveries JOIN jobs ON jobs.id = job_id WHERE deliveries.state = 'sending' AND deliveries.lease_until > $1 GROUP BY jobs.owner
			), best AS MATERIALIZED (
				SELECT deliveries.id FROM deliveries JOIN jobs ON jobs.id = job_id AND jobs.state = event LEFT JOIN busy ON who = jobs.owner
				WHERE deliveries.state = 'sending' AND deliveries.lease_until <= $1 AND (due <= $1 OR due > $2) AND COALESCE(here, 0) < $6
				ORDER BY COALESCE(sending, 0), due, deliveries.id LIMIT 1 `+skip+`
			)
			UPDATE deliveries SET instance = $3, worker = $4, lease_until = $5, attempts = attempts + 1
			WHERE id IN (SELECT id FROM best) RETURNING `+deliveryColumns,
			now.lease, now.lease+longestPause.Milliseconds(), w.Instance, w.ID, s.until(now), most))
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return v, err == nil && v.ID != "", err
}

// Attempt is what came of sending a delivery once.
type Attempt struct {
	State Telling       // Delivered, GivenUp, or Sending: it is to be sent again
	Again time.Duration // from now, where it is
	Error string        // in words; "" = none
	None  bool          // it was none of the receiver's, and does not count
}

// Attempted stores what came of a delivery that w has claimed. It fails with
// ErrLost where that is no longer w's, and then nothing is changed.
func (s *Store) Attempted(ctx context.Context, id string, w Worker, a Attempt) error {
	return s.change(ctx, func(tx *sql.Tx, now moment) error {
		over, none := int64(0), 0
		if a.State != Sending {
			over = now.wall
		}
		if a.None {
			none = 1
		}
		n, err := affected(ctx, tx, `UPDATE deliveries SET state = $3, due = $4, ended = $5, error = $6, attempts = attempts - $7, lease_until = 0
			WHERE id = $1 AND worker = $2 AND state = 'sending'`, id, w.ID, string(a.State), now.lease+a.Again.Milliseconds(), over, plain(a.Error), none)
		if err == nil && n == 0 {
			return fmt.Errorf("delivery %s: %w", id, ErrLost)
		}
		return err
	})
}

// Deliveries are those of some jobs, by the jobs' ids; each has one at most. Due
// is by the clock that people see.
func (s *Store) Deliveries(ctx context.Context, jobs ...string) (last map[string]Delivery, err error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	places, args := make([]string, len(jobs)), make([]any, len(jobs))
	for i, id := range jobs {
		places[i], args[i] = "$"+strconv.Itoa(i+1), plain(id)
	}
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		now, err := s.moment(ctx, tx)
		if err != nil {
			return err
		}
		last = map[string]Delivery{}
		rows, err := tx.QueryContext(ctx, "SELECT "+deliveryColumns+" FROM deliveries WHERE job_id IN ("+strings.Join(places, ", ")+") ORDER BY created, id", args...)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			v, err := scanDelivery(rows)
			v.Due = v.Due.Add(time.Duration(now.wall-now.lease) * time.Millisecond)
			last[v.Job] = v
			return err
		})
	})
	return last, err
}
