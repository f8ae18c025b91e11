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
	// deliveriesAtOnce are sent side by side, so that a receiver who does not
	// answer holds few others up.
	deliveriesAtOnce = 4
	// deliveryPoll is how often deliveries are looked for that are due again, or
	// that others have stored.
	deliveryPoll = 3 * time.Second
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
		v, found, err := d.Store.ClaimDelivery(ctx, d.Self)
		if err != nil && ctx.Err() == nil {
			d.Log.Error("webhooks cannot be looked for", "error", err)
		}
		if found {
			sending.Go(func() {
				defer func() { <-places }()
				d.send(v)
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
	err := d.attemptDelivery(ctx, v)
	if errors.Is(err, errOutdated) || fault.KindOf(err) == fault.NotFound {
		return // the store has ended it, or removed it
	}
	a := d.judge(v, err)
	storing, done := context.WithTimeout(context.WithoutCancel(d.base), settleTime)
	defer done()
	if err := d.Store.Attempted(storing, v.ID, d.Self, a); err != nil && !errors.Is(err, job.ErrLost) {
		d.Log.Error("what came of a webhook cannot be stored", "job", v.Job, "webhook", v.ID, "error", err)
	}
	if d.Told != nil && d.base.Err() == nil {
		d.Told(string(a.State))
	}
}

// errOutdated is of a delivery whose job has been tried again, or was removed.
var errOutdated = errors.New("the job is no longer as the delivery would tell")

// attemptDelivery sends a delivery with the job as it is.
func (d *Desk) attemptDelivery(ctx context.Context, v job.Delivery) error {
	j, err := d.Store.Get(ctx, v.Job)
	if err != nil {
		return err
	}
	if j.State != v.Event {
		return errOutdated
	}
	body, err := d.Event(j)
	if err != nil {
		return err
	}
	return d.Webhooks.Send(ctx, webhook.Message{ID: v.ID, To: v.URL, Body: body})
}

// judge says what comes of a delivery after an attempt that came to err.
func (d *Desk) judge(v job.Delivery, err error) job.Attempt {
	log := d.Log.With("job", v.Job, "webhook", v.ID, "to", outbound.Shown(v.URL), "attempt", v.Attempts)
	switch {
	case err == nil:
		log.Info("webhook delivered")
		return job.Attempt{State: job.Delivered}
	case d.base.Err() != nil: // the next server sends it
		return job.Attempt{State: job.Sending}
	case errors.Is(err, context.DeadlineExceeded):
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
