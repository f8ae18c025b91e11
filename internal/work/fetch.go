package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net/url"
	"os"
	"path"

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

// fetch brings the recording of a job, keeps it and notes it with the job: from
// then on the job is as any other, and whoever goes on with it has the recording.
func (d *Desk) fetch(ctx context.Context, j job.Job) (job.Job, error) {
	if d.From == nil {
		return j, goesNowhere("url")
	}
	d.progress(j.ID, transcribe.Update{Phase: Fetching})
	f, err := durable.Nameless(d.Dir, 0o444)
	if err != nil {
		return j, keepFault(err)
	}
	defer f.Close()
	r, err := d.download(ctx, j, f)
	if err != nil {
		return j, err
	}
	if err := d.makeRoom(ctx, r.Bytes); err != nil {
		return j, err
	}
	if r.Media, err = d.keep(f); err != nil {
		return j, err
	}
	canceling, err := d.Store.Fetched(ctx, j.ID, d.Self, r)
	switch {
	case errors.Is(err, job.ErrLost):
		return j, errors.Join(err, d.remove(r.Media))
	case err != nil: // it may be the job's all the same; if not, the sweep finds it
		return j, err
	case canceling:
		return j, errAsked
	}
	d.Log.Info("recording fetched", "job", j.ID, "from", outbound.Shown(j.Source), "bytes", r.Bytes)
	j.Media, j.MediaSHA256, j.Bytes = r.Media, r.SHA256, r.Bytes
	return j, nil
}

// download writes the recording of a job to f.
func (d *Desk) download(ctx context.Context, j job.Job, f *os.File) (r job.Recording, err error) {
	sum := sha256.New()
	r.Bytes, err = d.From.Download(ctx, j.Source, io.MultiWriter(f, sum), outbound.Transfer{
		Most: d.largest(),
		Began: func(size int64) error {
			if err := d.onDisk(max(size, 0)); err != nil {
				return err
			}
			return d.makeRoom(ctx, max(size, 0))
		},
		Got: func(done, size int64) { d.fetched(j.ID, done, size) },
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
	free, err := durable.Free(d.Dir)
	if err != nil || free >= bytes+transcribe.Reserve {
		return nil // what cannot be told, writing tells
	}
	return fault.New(fault.NoSpace, "disk_full", "the recording has %s, and %s are free where jobs are kept", fault.Bytes(bytes), fault.Bytes(free)).
		Try("free some space in the directory of [jobs], or name another one there")
}

// fetched notes how much of a job's recording has come.
func (d *Desk) fetched(id string, done, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.live[id]; a != nil {
		a.last.Fetched, a.last.Size, a.last.Held = done, max(size, 0), ""
	}
}
