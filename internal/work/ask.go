package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
)

// Wish is a job that somebody asks for.
type Wish struct {
	Job      transcribe.Job // Audio is needed, unless URL is set
	URL      string         // that the recording is fetched from; "" = it is here
	Webhook  string         // URL that the job's end is told to; "" = to none
	Key      string         // idempotency key; "" = none
	Deadline time.Time      // zero = none

	upload string // id of the upload that it was, whose file is among the recordings; the job gets it
}

// new is what is stored.
func (d *Desk) new(w Wish) (job.New, error) {
	request, err := json.Marshal(w.Job)
	if err != nil {
		return job.New{}, err
	}
	n := job.New{
		ID: w.upload, Owner: w.Job.Owner, Class: job.Class(w.Job.Class), Deadline: w.Deadline, Key: w.Key,
		Name: w.Job.Name, Model: w.Job.Model, Media: w.upload, Source: w.URL, Webhook: w.Webhook, Request: request,
	}
	if w.URL == "" {
		info, err := w.Job.Audio.Stat()
		if err != nil {
			return job.New{}, err
		}
		n.Bytes = info.Size()
	}
	if w.Key == "" {
		return n, nil
	}
	return n, w.digest(&n)
}

// digest tells whether a request with a key is the same again: by the recording,
// or where that is to come from, and by all that was asked for.
func (w Wish) digest(n *job.New) error {
	sum := sha256.New()
	if w.URL != "" {
		fmt.Fprintf(sum, "url %q ", w.URL)
	} else {
		if _, err := io.Copy(sum, io.NewSectionReader(w.Job.Audio, 0, n.Bytes)); err != nil {
			return fmt.Errorf("read the recording: %w", err)
		}
		n.MediaSHA256 = hex.EncodeToString(sum.Sum(nil))
	}
	fmt.Fprintf(sum, "%s %v %v %v %v", w.Job.Asked, w.Job.From, w.Job.Until, w.Job.OnlyLanguage, w.Job.Logprobs)
	if w.Webhook != "" {
		fmt.Fprintf(sum, " webhook %q", w.Webhook)
	}
	n.Digest = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// Submit stores a job and its recording; when it returns, neither is lost.
// joined tells that the owner's key led to a job that was there. The error is a
// fault of the store's or of Check's, or that of storing the recording.
func (d *Desk) Submit(ctx context.Context, w Wish) (j job.Job, joined bool, err error) {
	if err := d.Check(w); err != nil {
		return d.sent(ctx, w, err)
	}
	return d.submit(ctx, w, job.Worker{})
}

// sent is the job of a wish that is refused now, and was not when it was sent
// before.
func (d *Desk) sent(ctx context.Context, w Wish, refused error) (job.Job, bool, error) {
	if w.Key == "" {
		return job.Job{}, false, refused
	}
	n, err := d.new(w)
	if err != nil {
		return job.Job{}, false, err
	}
	j, found, err := d.Store.Same(ctx, n)
	if err == nil && !found {
		err = refused
	}
	return j, found, err
}

// submit is Submit for a job that a worker does at once, where it is not zero.
func (d *Desk) submit(ctx context.Context, w Wish, claim job.Worker) (j job.Job, joined bool, err error) {
	d.init()
	n, err := d.new(w)
	if err != nil {
		return job.Job{}, false, err
	}
	if err := d.admit(ctx, n); err != nil {
		return job.Job{}, false, err
	}
	n.Claim = claim
	if n.Media == "" && w.URL == "" {
		if n.Media, err = d.keep(w.Job.Audio); err != nil {
			return job.Job{}, false, err
		}
	}
	j, joined, err = d.Store.Add(ctx, n)
	switch {
	case err == nil && !joined:
		token(d.arrived)
		return j, false, nil
	case err != nil && (w.upload != "" || passing(err) || fault.KindOf(err) == fault.Internal):
		return j, joined, err // it may be stored all the same; if not, the sweep finds the recording
	case joined && j.Media == n.Media:
		return j, joined, nil // the very job, not another one with its key
	}
	return j, joined, errors.Join(err, d.remove(n.Media))
}

// waitAgain is when to come again with a job that found no place: places become
// free as jobs are done, which nobody can foretell.
const waitAgain = time.Minute

// admit refuses a job that there is no place for. One whose key leads to a job
// that is there needs none, but that is not known yet, and it may come again.
func (d *Desk) admit(ctx context.Context, n job.New) error {
	if d.Most != nil {
		mine, all, err := d.Store.Waiting(ctx, n.Owner)
		switch most := d.Most(); {
		case err != nil:
			return err
		case all >= most:
			return full(fault.New(fault.Busy, "queue_full", "%d jobs wait already; no more are taken", all))
		case mine >= max(most/2, 1):
			return full(fault.New(fault.Busy, "queue_full_for_you", "%d jobs of yours wait already; one caller may have half of the places", mine))
		}
	}
	return d.makeRoom(ctx, n.Bytes)
}

func full(f *fault.Error) error {
	f.After = waitAgain
	return f.Try("send it again in %.0f s, or raise [jobs] most", waitAgain.Seconds())
}

// makeRoom sees to it that a recording finds room beside those that are there:
// those of jobs that have ended go, the oldest first.
func (d *Desk) makeRoom(ctx context.Context, bytes int64) error {
	for {
		over, ended, err := d.room(ctx, bytes)
		if err != nil || over <= 0 {
			return err
		}
		if _, err := d.expire(ctx, job.Limits{Bytes: max(ended-over, 1)}); err != nil {
			return err
		}
	}
}

// room is by how many bytes a recording is too large beside those that are there,
// and how many of jobs that have ended could go for it. It fails where these are
// too few.
func (d *Desk) room(ctx context.Context, bytes int64) (over, ended int64, err error) {
	if d.Limits == nil || d.Limits().Bytes <= 0 {
		return 0, 0, nil
	}
	limit := d.Limits().Bytes
	all, ended, err := d.Store.Recordings(ctx)
	if over = all + bytes - limit; err == nil && over > ended {
		err = fault.New(fault.NoSpace, "jobs_full", "the recordings of jobs take %s of the %s that they may, and this one has %s",
			fault.Bytes(all), fault.Bytes(limit), fault.Bytes(bytes)).Try("wait until some are done, or raise [jobs] disk")
	}
	return over, ended, err
}

// Do transcribes for somebody who waits. With a key it is a job, which goes on
// when he leaves, and which he finds again by the key. Without, nothing of it is
// stored: when its connection is gone, by his wish or with the server, nobody
// could ask for it, and done again it would only be in the way of who comes back.
// observe is called as transcribe.Service.Run does.
func (d *Desk) Do(ctx context.Context, w Wish, observe func(transcribe.Update)) (*transcript.Transcript, error) {
	d.init()
	if w.Key == "" {
		return d.Service.Run(ctx, w.Job, observe)
	}
	j, joined, err := d.submit(ctx, w, d.Self)
	if err != nil {
		return nil, err
	}
	defer d.attending(j.ID)()
	if !joined { // it needs no place: somebody waits
		d.doing.Go(func() { d.do(j, nil) })
	}
	return d.Attend(ctx, j.ID, observe)
}

// Attend tells how a job goes that is done here or elsewhere, and gives its
// transcript. When ctx ends the job goes on.
func (d *Desk) Attend(ctx context.Context, id string, observe func(transcribe.Update)) (*transcript.Transcript, error) {
	d.init()
	defer d.attending(id)()
	seen, done := 0, time.Duration(0)
	tell := func(u transcribe.Update) { // what is done stays done
		done = max(done, u.Done)
		u.Done = done
		observe(u)
	}
	for {
		news := d.newsOf(id)
		j, err := d.Store.Glance(ctx, id)
		if err != nil {
			return nil, err
		}
		fresh, err := d.Finished(ctx, id, seen)
		if err != nil {
			return nil, err
		}
		seen += len(fresh)
		for _, f := range fresh {
			tell(transcribe.Update{Phase: transcribe.Recognising, Done: f.End, Total: j.Duration,
				Language: f.Language, LanguageProb: f.LanguageProb, Segments: f.Segments, Tokens: f.Tokens})
		}
		if result, err, ended := d.outcome(ctx, j); ended {
			return result, err
		}
		if p, here := d.Progress(id); here && p.Update.Phase != "" {
			tell(p.Update)
		}
		select {
		case <-ctx.Done():
			return nil, canceled().Because(context.Cause(ctx))
		case <-news:
		case <-time.After(poll):
		}
	}
}

// outcome is what came of a job, once it has ended.
func (d *Desk) outcome(ctx context.Context, j job.Job) (result *transcript.Transcript, err error, ended bool) {
	switch j.State {
	case job.Done:
		if j, err = d.Store.Get(ctx, j.ID); err != nil {
			return nil, err, true
		}
		result = &transcript.Transcript{}
		if err := json.Unmarshal(j.Result, result); err != nil {
			return nil, fmt.Errorf("result of job %s: %w", j.ID, err), true
		}
		return result, nil, true
	case job.Failed:
		return nil, j.Failure.Fault(), true
	case job.Canceled:
		return nil, canceled(), true
	}
	return nil, nil, false
}

// Cancel stops a job, here at once.
func (d *Desk) Cancel(ctx context.Context, id string) (job.Job, error) {
	d.init()
	j, err := d.Store.Cancel(ctx, id)
	if err != nil {
		return job.Job{}, err
	}
	d.mu.Lock()
	if a := d.live[id]; a != nil {
		a.cancel(errAsked)
	}
	d.mu.Unlock()
	d.tell(id)
	token(d.untold)
	return j, nil
}

// Retry queues a job again that failed or was cancelled; it goes on behind the
// windows that it has.
func (d *Desk) Retry(ctx context.Context, id string) (job.Job, error) {
	d.init()
	j, err := d.Store.Retry(ctx, id)
	if err == nil {
		token(d.arrived)
		d.tell(id)
	}
	return j, err
}

// Delete removes a job with all that belongs to it. One that is being done has
// to be cancelled first.
func (d *Desk) Delete(ctx context.Context, id string) error {
	d.init()
	r, err := d.Store.Delete(ctx, id)
	if err != nil {
		return err
	}
	d.tell(id)
	return d.remove(r.Media)
}

// tidy removes what is too old, and what nobody knows, until ctx ends.
func (d *Desk) tidy(ctx context.Context) {
	for ctx.Err() == nil {
		for _, step := range []struct {
			what string
			do   func(context.Context) error
		}{
			{"uploads cannot be tidied up", d.adoptAll},
			{"recordings of jobs that are done cannot be removed", d.dropSpent},
			{"old jobs cannot be removed", d.expireAll},
			{"recordings without a job cannot be removed", d.sweepAll},
			{"the room of removed jobs cannot be given back", d.Store.Compact},
		} {
			if err := step.do(ctx); err != nil && ctx.Err() == nil {
				d.Log.Error(step.what, "error", err)
			}
		}
		sleep(ctx, tidying)
	}
}

// expireAll removes what is beyond the limits.
func (d *Desk) expireAll(ctx context.Context) error {
	if d.Limits == nil {
		return nil
	}
	for {
		if removed, err := d.expire(ctx, d.Limits()); err != nil || removed == 0 {
			return err
		}
	}
}

// expire removes some of the jobs that are beyond l, with their recordings.
func (d *Desk) expire(ctx context.Context, l job.Limits) (removed int, err error) {
	jobs, err := d.Store.Expire(ctx, l)
	for _, r := range jobs {
		err = errors.Join(err, d.remove(r.Media))
	}
	return len(jobs), err
}

func canceled() *fault.Error {
	return fault.New(fault.Canceled, "canceled", "the transcription was cancelled")
}
