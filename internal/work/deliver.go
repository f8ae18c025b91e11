package work

import (
	"context"
	"errors"
	"sync"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/webhook"
)

const (
	// deliveriesAtOnce are sent side by side, and half of them for one owner, so that
	// one whose receiver does not answer holds nobody else up.
	deliveriesAtOnce = 4
	// deliveryPoll is how often deliveries are looked for that are due again, or
	// that others have stored.
	deliveryPoll = 3 * time.Second
	// ownPause is before a delivery is looked at again that was not sent for
	// reasons of our own, and ownPauseMost where these last.
	ownPause     = 30 * time.Second
	ownPauseMost = 10 * time.Minute
	// ownLongest is for how long reasons of our own put a delivery off.
	ownLongest = 24 * time.Hour
	// attemptTime is how long one attempt may take: less than a lease.
	attemptTime = 20 * time.Second
)

// deliver tells receivers how their jobs have ended, until ctx ends. Jobs do not
// wait for it.
func (d *Desk) deliver(ctx context.Context) {
	if d.Webhooks == nil || d.Event == nil {
		return
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	places := make(chan struct{}, deliveriesAtOnce)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case places <- struct{}{}:
		}
		v, found, err := d.Store.ClaimDelivery(ctx, d.Self, deliveriesAtOnce/2)
		if err != nil && ctx.Err() == nil {
			d.Log.Error("webhooks cannot be looked for", "error", err)
		}
		if found {
			sending.Go(func() {
				d.send(v)
				<-places
				token(d.untold) // its owner may have another one
			})
			continue
		}
		<-places
		select {
		case <-ctx.Done():
		case <-d.untold:
		case <-time.After(deliveryPoll):
		}
	}
}

// send makes one attempt at a delivery, and stores what came of it.
func (d *Desk) send(v job.Delivery) {
	ctx, cancel := context.WithTimeout(d.base, attemptTime)
	defer cancel()
	m, err := d.message(ctx, v)
	if errors.Is(err, errOutdated) || fault.KindOf(err) == fault.NotFound {
		return // the store has removed it, or gives it to nobody
	}
	ours := err != nil
	if !ours {
		err = d.Webhooks.Send(ctx, m)
		ours = job.FailureOf(err).Code == webhook.CodeSecret
	}
	a := d.judge(ctx, v, err, ours)
	storing, done := context.WithTimeout(context.WithoutCancel(d.base), settleTime)
	defer done()
	if err := d.Store.Attempted(storing, v.ID, d.Self, a); err != nil && !errors.Is(err, job.ErrLost) {
		d.Log.Error("what came of a webhook cannot be stored", "job", v.Job, "webhook", v.ID, "error", err)
	}
	if d.Told != nil && !a.None {
		d.Told(string(a.State))
	}
}

// errOutdated is of a delivery whose job has been tried again.
var errOutdated = errors.New("the job is no longer as the delivery would tell")

// message is what a delivery sends, of the job as it is.
func (d *Desk) message(ctx context.Context, v job.Delivery) (m webhook.Message, err error) {
	j, err := d.Store.Glance(ctx, v.Job)
	if err != nil {
		return m, err
	}
	if j.State != v.Event {
		return m, errOutdated
	}
	body, err := d.Event(j)
	return webhook.Message{ID: v.ID, To: v.URL, Body: body}, err
}

// judge says what comes of a delivery after an attempt that came to err, for
// reasons of ours or the receiver's: those alone count.
func (d *Desk) judge(ctx context.Context, v job.Delivery, err error, ours bool) job.Attempt {
	log := d.Log.With("job", v.Job, "webhook", v.ID, "to", outbound.Host(v.URL), "attempt", v.Attempts)
	switch {
	case err == nil:
		log.Info("webhook delivered")
		return job.Attempt{State: job.Delivered}
	case d.base.Err() != nil: // the next server sends it
		return job.Attempt{State: job.Sending, None: true}
	case ours && time.Since(v.Created) > ownLongest:
		log.Error("webhook given up: it could not be sent", "error", err)
		return job.Attempt{State: job.GivenUp, Error: job.FailureOf(err).Message, None: true}
	case ours:
		pause := min(max(time.Since(v.Created)/4, ownPause), ownPauseMost)
		log.Warn("webhook cannot be sent; trying again", "error", err, "after", pause)
		return job.Attempt{State: job.Sending, Again: pause, Error: job.FailureOf(err).Message, None: true}
	case ctx.Err() != nil:
		err = fault.New(fault.Unavailable, outbound.CodeUnreachable, "the receiver took more than %v", attemptTime).Because(err)
	}
	words := job.FailureOf(err).Message
	pause, more := webhook.Again(v.Attempts, err)
	if !more {
		log.Error("webhook given up", "error", err)
		return job.Attempt{State: job.GivenUp, Error: words}
	}
	log.Warn("webhook not delivered; trying again", "error", err, "after", pause)
	return job.Attempt{State: job.Sending, Again: pause, Error: words}
}
