package job

import (
	"context"
	"database/sql"
	"time"

	"whisper-appliance/internal/fault"
)

// Removed is a job that is gone, or has no recording any more, and what it leaves
// to its caller.
type Removed struct {
	ID    string
	Media string // file to be removed; "" = none
	Bytes int64
}

// Delete removes a job that nobody works on, and its windows. The file of its
// recording is then nobody's, and the caller's to remove.
//
// Fault: job_running (Conflict).
func (s *Store) Delete(ctx context.Context, id string) (r Removed, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		j, err := s.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		switch running := j.State == Running && stamp(j.LeaseUntil) > now.lease; {
		case running && j.Canceling:
			return fault.New(fault.Conflict, "job_running", "job %s is being cancelled, and its worker has yet to stop", j.ID).On("id").Try("try again in a few seconds")
		case running:
			return fault.New(fault.Conflict, "job_running", "job %s is being worked on", j.ID).On("id").Try("cancel it first")
		}
		r = Removed{j.ID, j.Media, j.Bytes}
		_, err = tx.ExecContext(ctx, "DELETE FROM jobs WHERE id = $1", j.ID)
		return err
	})
	return r, err
}

// DropMedia notes that the recording of a job that has ended is not kept any
// longer, and gives the name of its file, which is then the caller's to remove.
//
// Fault: job_not_ended (Conflict).
func (s *Store) DropMedia(ctx context.Context, id string) (media string, err error) {
	err = s.change(ctx, func(tx *sql.Tx, _ moment) error {
		j, err := s.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		if !j.State.Ended() {
			return fault.New(fault.Conflict, "job_not_ended", "job %s is %s, and needs its recording", j.ID, j.State).On("id").Try("cancel it first")
		}
		media = j.Media
		_, err = tx.ExecContext(ctx, "UPDATE jobs SET media = '' WHERE id = $1", j.ID)
		return err
	})
	return media, err
}

// Media are the files of recordings that jobs have. A file that is not among
// them, and that is older than an upload may take, belongs to nobody.
func (s *Store) Media(ctx context.Context) (all []string, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		all = nil
		rows, err := tx.QueryContext(ctx, "SELECT media FROM jobs WHERE media <> '' ORDER BY media")
		if err != nil {
			return err
		}
		return each(rows, func() error {
			var m string
			err := rows.Scan(&m)
			all = append(all, m)
			return err
		})
	})
	return all, err
}

// spentAtOnce bounds what Spent gives.
const spentAtOnce = 500

// Spent are ids of jobs that are done and have the name of a recording still:
// their worker went before it could call DropMedia, which is now the caller's to
// do. It gives a bounded number of them.
func (s *Store) Spent(ctx context.Context) (ids []string, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		ids = nil
		rows, err := tx.QueryContext(ctx, "SELECT id FROM jobs WHERE state = 'done' AND media <> '' ORDER BY ended, id LIMIT $1", spentAtOnce)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			var id string
			err := rows.Scan(&id)
			ids = append(ids, id)
			return err
		})
	})
	return ids, err
}

// Limits are how much is kept of jobs that have ended. Zero values are no limit.
type Limits struct {
	Age   time.Duration // since they ended
	Jobs  int           // how many
	Bytes int64         // of recordings that are still there
}

// expireAtOnce bounds a transaction of Expire, and with it how long others wait.
const expireAtOnce = 500

// Expire removes jobs that have ended, the oldest first, until what is left is
// within the limits; for Bytes alone a job whose end is yet to be told loses its
// recording and stays. It removes a bounded number: who wants all of it calls until
// nothing comes back. Each recording is given to one caller.
func (s *Store) Expire(ctx context.Context, l Limits) (removed []Removed, err error) {
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		k, err := kept(ctx, tx)
		if err != nil {
			return err
		}
		removed = nil
		over := func(j Job) bool {
			return l.Age > 0 && j.Ended.UnixMilli() <= now.wall-l.Age.Milliseconds() || l.Jobs > 0 && k.jobs > l.Jobs
		}
		if err := k.remove(ctx, tx, false, over, &removed); err != nil {
			return err
		}
		// One that has no recording any more takes next to no room.
		over = func(Job) bool { return l.Bytes > 0 && k.bytes > l.Bytes }
		return k.remove(ctx, tx, true, over, &removed)
	})
	return removed, err
}

// Compact gives the room of jobs that were removed back to the disk.
func (s *Store) Compact(ctx context.Context) error { return s.db.Compact(ctx) }

const ended = `state IN ('done', 'failed', 'canceled')`

// keeping is what there is of jobs that have ended.
type keeping struct {
	jobs  int
	bytes int64 // of recordings
}

func kept(ctx context.Context, tx *sql.Tx) (k keeping, err error) {
	err = tx.QueryRowContext(ctx, "SELECT count(*), CAST(COALESCE(SUM(CASE WHEN media = '' THEN 0 ELSE bytes END), 0) AS BIGINT) FROM jobs WHERE "+ended).
		Scan(&k.jobs, &k.bytes)
	return k, err
}

// remove removes the oldest jobs for as long as they are over a limit; with forRoom
// only those with a recording.
func (k *keeping) remove(ctx context.Context, tx *sql.Tx, forRoom bool, over func(Job) bool, removed *[]Removed) error {
	where := ""
	if forRoom {
		where = "AND media <> ''"
	}
	old, err := oldest(ctx, tx, where)
	if err != nil {
		return err
	}
	for _, j := range old {
		if !over(j) {
			return nil
		}
		n := int64(0)
		if forRoom {
			n, err = affected(ctx, tx, `UPDATE jobs SET media = '' WHERE id = $1 AND media <> '' AND `+ended+`
				AND EXISTS (SELECT 1 FROM deliveries WHERE job_id = jobs.id AND deliveries.state = 'sending')`, j.ID)
		}
		if err == nil && n == 0 {
			n, err = affected(ctx, tx, "DELETE FROM jobs WHERE id = $1 AND media = $2 AND "+ended, j.ID, j.Media)
		}
		if err != nil {
			return err
		}
		if k.jobs--; j.Media != "" {
			k.bytes -= j.Bytes
		}
		if n > 0 { // else another appliance has removed it, or its recording
			*removed = append(*removed, Removed{j.ID, j.Media, j.Bytes})
		}
	}
	return nil
}

// oldest are the ended jobs that go first.
func oldest(ctx context.Context, tx *sql.Tx, where string) (all []Job, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+shortColumns+" FROM jobs WHERE "+ended+" "+where+" ORDER BY ended, id LIMIT $1", expireAtOnce)
	if err != nil {
		return nil, err
	}
	err = each(rows, func() error {
		j, err := scan(rows, false)
		all = append(all, j)
		return err
	})
	return all, err
}
