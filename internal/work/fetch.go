package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path"
	"syscall"

	"github.com/google/uuid"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/transcribe"
)

// Fetching is the phase of a job whose recording is on its way.
const Fetching transcribe.Phase = "fetching"

// triesOfFetch is how often a recording is asked for that does not come, and
// triesOfEngine how often a job is done that may itself be what ends the engine.
const (
	triesOfFetch  = 8
	triesOfEngine = 5
)

// Check refuses a wish for places that the appliance does not go to. Its faults
// are those of outbound.Places.Check and webhook.Sender.Check.
func (d *Desk) Check(w Wish) error {
	if w.URL != "" {
		if d.From == nil {
			return goesNowhere("url")
		}
		if _, err := d.From.Check(w.URL); err != nil {
			return err
		}
	}
	if w.Webhook == "" {
		return nil
	}
	if d.Webhooks == nil {
		return goesNowhere("webhook")
	}
	return d.Webhooks.Check(w.Webhook)
}

func goesNowhere(field string) error {
	return fault.New(fault.Forbidden, "outbound_off", "the appliance goes nowhere for %s", field).On(field)
}

// NameOf is what a recording is called that is fetched from a URL, "" where that
// does not say.
func NameOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	if name := path.Base(u.Path); name != "/" && name != "." {
		return name
	}
	return u.Host
}

// away tells whether the recording of a job is yet to be fetched.
func away(j job.Job) bool { return j.Media == "" && j.Source != "" }

// bring has the recording of a job fetched, keeps it and notes it with the job: from
// then on the job is as any other, and whoever goes on with it has the recording.
func (d *Desk) bring(ctx context.Context, j job.Job, l *place) (job.Job, error) {
	if d.From == nil {
		return j, goesNowhere("url")
	}
	within, end := d.From.Within(ctx)
	defer end()
	var f *os.File
	var r job.Recording
	err := d.patiently(within, &j, l, func(error) int { return triesOfFetch }, func() (err error) {
		f, r, err = d.fetch(within, j)
		return err
	})
	if err != nil {
		if ctx.Err() == nil && within.Err() != nil {
			err = context.Cause(within)
		}
		return j, err
	}
	defer f.Close()
	if err := d.patiently(ctx, &j, l, triesToTake, func() error { return d.take(ctx, &j, f, &r) }); err != nil {
		return j, err // the job may have the recording all the same; if not, the sweep finds it
	}
	d.Log.Info("recording fetched", "job", j.ID, "from", outbound.Host(j.Source), "bytes", r.Bytes)
	return j, nil
}

// triesToTake: a recording that there is no room for is not held for ever.
func triesToTake(err error) int {
	switch job.FailureOf(err).Code {
	case "jobs_full", "disk_full":
		return triesOfFetch
	}
	return math.MaxInt
}

// fetch brings the recording of a job, into a file without a name.
func (d *Desk) fetch(ctx context.Context, j job.Job) (*os.File, job.Recording, error) {
	d.progress(j.ID, transcribe.Update{Phase: Fetching})
	f, err := durable.Nameless(d.Dir, 0o444)
	if err != nil {
		return nil, job.Recording{}, keepFault(err)
	}
	r, err := d.download(ctx, j, f)
	if err != nil {
		return nil, r, errors.Join(err, f.Close())
	}
	return f, r, nil
}

// take keeps a recording and notes it with its job. Both may be done again.
func (d *Desk) take(ctx context.Context, j *job.Job, f *os.File, r *job.Recording) error {
	if j.Media != "" && j.Media == r.Media {
		return nil // by a write whose answer got lost
	}
	if err := d.makeRoom(ctx, r.Bytes); err != nil {
		return err
	}
	if r.Media == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		r.Media = id.String()
	}
	if err := d.link(f, r.Media); err != nil {
		return err
	}
	canceling, err := d.Store.Fetched(ctx, j.ID, d.Self, *r)
	switch {
	case err != nil:
		return err
	case canceling:
		return errAsked
	}
	j.Media, j.MediaSHA256, j.Bytes = r.Media, r.SHA256, r.Bytes
	return nil
}

// roomEach is after how many bytes of a recording it is seen whether there is room
// for more: a server may send more than it said, or say nothing.
const roomEach = 4 << 20

// download writes the recording of a job to f. Other jobs' recordings go for it
// once it is here, as what a server says of its size may be wrong.
func (d *Desk) download(ctx context.Context, j job.Job, f *os.File) (r job.Recording, err error) {
	sum := sha256.New()
	looked := int64(0)
	r.Bytes, err = d.From.Download(ctx, j.Source, io.MultiWriter(f, sum), outbound.Transfer{
		Most: d.largest(),
		Began: func(size int64) error {
			_, _, err := d.room(ctx, max(size, 0))
			return errors.Join(d.onDisk(max(size, 0)), err)
		},
		Got: func(done, size int64) error {
			d.fetched(j.ID, done, size)
			if done-looked < roomEach {
				return nil
			}
			looked = done
			return d.onDisk(max(size-done, 0))
		},
	})
	var worded *fault.Error
	if err != nil && ctx.Err() == nil && !errors.As(err, &worded) {
		err = keepFault(err)
	}
	r.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return r, err
}

// largest is how many bytes a recording that is fetched may have: as one that is
// sent, and no more than those of all jobs may have together.
func (d *Desk) largest() int64 {
	most := int64(math.MaxInt64 - 1)
	if d.Largest != nil {
		most = d.Largest()
	}
	if d.Limits != nil && d.Limits().Bytes > 0 {
		most = min(most, d.Limits().Bytes)
	}
	return most
}

// onDisk refuses a recording for which the disk has no room: other jobs' may go
// meanwhile.
func (d *Desk) onDisk(bytes int64) error {
	free, err := d.free(d.Dir)
	if err != nil || free >= bytes+transcribe.Reserve {
		return nil // what cannot be told, writing tells
	}
	return keepFault(fmt.Errorf("%w: %s are free, for %s more", syscall.ENOSPC, fault.Bytes(free), fault.Bytes(bytes)))
}

// fetched notes how much of a job's recording has come.
func (d *Desk) fetched(id string, done, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.live[id]; a != nil {
		a.last.Fetched, a.last.Size, a.last.Held = done, max(size, 0), ""
	}
}
