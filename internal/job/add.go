package job

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/fault"
)

// New is a job that is asked for.
type New struct {
	ID          string // a UUIDv7 that its caller made, so that asking again makes no second job; "" = a new one
	Owner       string
	Class       Class
	Deadline    time.Time // zero = none
	Key         string    // idempotency key, at most 255 bytes; "" = none
	Digest      string    // of the request, to tell whether it is the same again
	Name        string
	Model       string
	Media       string
	MediaSHA256 string
	Source      string // URL that the recording is fetched from, where it does not come with the job
	Webhook     string // URL that the job's end is told to; "" = to none
	Bytes       int64
	Request     json.RawMessage

	// Claim is the worker that does the job itself and at once: it is leased
	// to it as it is stored, so that nobody else can be first. Zero = queued.
	Claim Worker
}

// longestKey is what an idempotency key may have, in bytes.
const longestKey = 255

// rejoins is how often a key's job is looked for that was there a moment ago.
const rejoins = 5

// Add stores a job. Where its owner has a job of the same key that is queued,
// running or done, nothing is stored and that job is returned, joined: of any
// number that come at once with one key, one is stored. Likewise a job whose id
// is given is stored once, whatever has come of it since. A job that is joined is
// not claimed.
//
// Faults: idempotency_key_reused (Conflict: the key came with another digest),
// bad_idempotency_key (BadInput).
func (s *Store) Add(ctx context.Context, n New) (j Job, joined bool, err error) {
	n.Owner, n.Name, n.Media, n.Source, n.Webhook = plain(n.Owner), plain(n.Name), plain(n.Media), plain(n.Source), plain(n.Webhook)
	if err := CheckKey(n.Key); err != nil {
		return Job{}, false, err
	}
	if n.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return Job{}, false, err
		}
		n.ID = id.String()
	}
	err = s.change(ctx, func(tx *sql.Tx, now moment) error {
		j, joined, err = s.addOrJoin(ctx, tx, now, n)
		return err
	})
	if err != nil {
		return Job{}, false, err
	}
	return j, joined, nil
}

// CheckKey refuses what is no idempotency key, with Add's fault.
func CheckKey(key string) error {
	if len(key) > longestKey || plain(key) != key {
		return fault.New(fault.BadInput, "bad_idempotency_key", "an idempotency key is text of at most %d bytes", longestKey).
			On("idempotency_key").Try("a UUID is a good one")
	}
	return nil
}

func (s *Store) addOrJoin(ctx context.Context, tx *sql.Tx, now moment, n New) (Job, bool, error) {
	for range rejoins {
		j, err := s.insert(ctx, tx, now, n)
		if !errors.Is(err, sql.ErrNoRows) {
			return j, false, err
		}
		if same, err := get(ctx, tx, n.ID); fault.KindOf(err) != fault.NotFound {
			return same, err == nil, err
		}
		there, err := withKey(ctx, tx, n)
		if errors.Is(err, sql.ErrNoRows) {
			continue // it has failed since, and its key is free again
		}
		if err == nil && there.Digest != n.Digest {
			err = reused(there)
		}
		return there, true, err
	}
	return Job{}, false, fault.New(fault.Busy, "idempotency_key_busy", "jobs of this idempotency key come and go").On("idempotency_key").Try("try again")
}

// withKey is the job that has the key of another one of its owner.
func withKey(ctx context.Context, tx *sql.Tx, n New) (Job, error) {
	return scan(tx.QueryRowContext(ctx, "SELECT "+columns+` FROM jobs
		WHERE owner = $1 AND idempotency_key = $2 AND idempotency_key <> '' AND state IN ('queued', 'running', 'done')`, plain(n.Owner), n.Key), true)
}

// Same is the job that Add would join n to by its key: the same request came before.
func (s *Store) Same(ctx context.Context, n New) (j Job, found bool, err error) {
	err = s.db.Read(ctx, func(tx *sql.Tx) error {
		j, err = withKey(ctx, tx, n)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return j, err == nil && j.ID != "" && j.Digest == n.Digest, err
}

func reused(there Job) error {
	return fault.New(fault.Conflict, "idempotency_key_reused", "this idempotency key came with another request, job %s", there.ID).On("idempotency_key").
		Try("send the same request as before, or a new key")
}

// insert gives sql.ErrNoRows where the key or the id is taken.
func (s *Store) insert(ctx context.Context, tx *sql.Tx, now moment, n New) (Job, error) {
	state, attempts, started, until := Queued, 0, int64(0), int64(0)
	if n.Claim != (Worker{}) {
		state, attempts, started, until = Running, 1, now.wall, s.until(now)
	}
	return scan(tx.QueryRowContext(ctx, `INSERT INTO jobs (id, owner, class, state, created, queued, started, deadline, idempotency_key, digest,
			name, media, media_sha256, bytes, request, attempts, instance, worker, lease_until, model, source, webhook)
		VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
		ON CONFLICT DO NOTHING RETURNING `+columns,
		n.ID, n.Owner, int64(n.Class), string(state), now.wall, started, stamp(n.Deadline), n.Key, n.Digest,
		n.Name, n.Media, n.MediaSHA256, n.Bytes, string(n.Request), attempts, n.Claim.Instance, n.Claim.ID, until, plain(n.Model), n.Source, n.Webhook), true)
}
