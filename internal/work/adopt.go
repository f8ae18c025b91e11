package work

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
)

// awaited is a wish that waits beside its recording until that is whole.
type awaited struct {
	Job      transcribe.Job `json:"job"`
	Name     string         `json:"name"`
	Class    job.Class      `json:"class"`
	Key      string         `json:"key,omitempty"`
	Deadline time.Time      `json:"deadline,omitzero"`
	Webhook  string         `json:"webhook,omitempty"`
}

// Await is the upload that a wish becomes whose recording is yet to come, size
// bytes of it. Its Audio is left out.
func (d *Desk) Await(w Wish, size int64) (u inbox.Upload, err error) {
	if err := d.Check(w); err != nil {
		return u, err
	}
	u = inbox.Upload{Owner: w.Job.Owner, Size: size, Created: time.Now().UTC()}
	if u.ID, err = inbox.NewID(); err != nil {
		return u, err
	}
	u.Wish, err = json.Marshal(awaited{Job: w.Job, Name: w.Job.Name, Class: job.Class(w.Job.Class), Key: w.Key, Deadline: w.Deadline, Webhook: w.Webhook})
	return u, err
}

// Adopt makes an upload that is whole a job, unless it has become one, and gives
// the job's id. The recording is linked, not copied. The job has the upload's
// id, so that whatever is interrupted here can be done again, and makes no
// second one; with an idempotency key it may be a job that was there.
func (d *Desk) Adopt(ctx context.Context, id string) (string, error) {
	unlock, err := d.Inbox.Lock(ctx, id, func() {})
	if err != nil {
		return "", err
	}
	defer unlock()
	return d.adopt(ctx, id)
}

// adopt is Adopt with the upload's lock.
func (d *Desk) adopt(ctx context.Context, id string) (string, error) {
	u, err := d.Inbox.Get(id)
	if err != nil || u.Job != "" {
		return u.Job, err
	}
	if !u.Whole() {
		return "", fmt.Errorf("upload %s is not whole: %d of %d bytes", id, u.Offset, u.Size)
	}
	var a awaited
	if err := json.Unmarshal(u.Wish, &a); err != nil {
		return "", fmt.Errorf("wish of upload %s: %w", id, err)
	}
	w := Wish{Job: a.Job, Key: a.Key, Deadline: a.Deadline, Webhook: a.Webhook, upload: id}
	w.Job.Name, w.Job.Owner, w.Job.Class = a.Name, u.Owner, schedule.Class(a.Class)
	if w.Job.Audio, err = d.Inbox.Open(id); err != nil {
		return "", err
	}
	defer w.Job.Audio.Close()
	if err := d.link(w.Job.Audio, id); err != nil {
		return "", err
	}
	// What it may ask for was judged when it was begun.
	j, joined, err := d.submit(ctx, w, job.Worker{})
	if err != nil {
		return "", err
	}
	d.Log.Info("upload became a job", "upload", id, "job", j.ID, "bytes", u.Size, "joined", joined)
	if err := d.Inbox.Settle(id, j.ID); err != nil { // the job is there; the next look settles it
		d.Log.Warn("what became of an upload cannot be noted", "upload", id, "job", j.ID, "error", err)
	}
	return j.ID, nil
}

// adoptAll makes jobs of the uploads that are whole, whose senders were never
// told so, and removes those for which nothing came for too long.
func (d *Desk) adoptAll(ctx context.Context) error {
	if d.Inbox == nil {
		return nil
	}
	all, err := d.Inbox.List()
	if err != nil {
		return err
	}
	for _, u := range all {
		if !u.Whole() || u.Job != "" || time.Now().After(d.Inbox.Expires(u)) {
			continue
		}
		unlock, ok := d.Inbox.TryLock(u.ID)
		if !ok {
			continue // its sender is here
		}
		if _, err := d.adopt(ctx, u.ID); err != nil && ctx.Err() == nil {
			d.Log.Warn("an upload that is whole cannot become a job", "upload", u.ID, "error", err)
		}
		unlock()
	}
	return d.Inbox.Sweep()
}
