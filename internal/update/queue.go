package update

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// queue keeps a release for the end of the trial that runs.
func (u *Updater) queue(ctx context.Context, st *state, w Want) (Result, error) {
	behind := st.Attempt.To.Version
	if w.Slot != "" {
		return Result{}, fault.New(fault.Busy, "trial_running", "version %s is on trial, and slot %s is the way back", behind, st.Attempt.From.Slot).
			Try("wait until the trial has ended, or end it: `whisper-appliance update commit` or `update rollback`")
	}
	if w.Auto && st.Queued != nil { // what somebody asked for, or what would come next anyway
		return Result{Outcome: Queued, To: deployment.Release{Version: st.Queued.Version}, Behind: behind, Running: true}, nil
	}
	q := &queued{Door: w.Door, Tree: w.Tree, Behind: behind, Auto: w.Auto, Was: w.Was}
	if w.Tree != "" {
		m, err := slot.Read(w.Tree)
		if err != nil {
			return Result{}, err
		}
		if m.Digest() == st.Attempt.To.Digest {
			return Result{Outcome: OnTrial, Transaction: st.Attempt.Transaction, From: st.Attempt.From, To: st.Attempt.To, Running: true}, nil
		}
		if err := u.allowed(st, &candidate{want: w, m: m}); err != nil {
			return Result{}, err
		}
		q.Version = m.Version
	} else {
		o, err := u.keep(ctx, st, w)
		st.now = nil
		if err != nil {
			return Result{}, errors.Join(err, u.save(st))
		}
		if o == "" || o == behind {
			return Result{Outcome: Already, To: st.Attempt.To, Running: true}, u.save(st)
		}
		q.Version = o
	}
	return u.enqueue(st, w, q)
}

// enqueue has q wait. The record tells of what waited before, whose place it
// takes: whoever asked for that would look for it in vain.
func (u *Updater) enqueue(st *state, w Want, q *queued) (Result, error) {
	res := Result{Outcome: Queued, To: deployment.Release{Version: q.Version}, Behind: q.Behind, Running: true}
	if was := st.Queued; was != nil && was.Version != q.Version {
		res.Replaced = was.Version
		st.Unrecorded = &deployment.Record{Transaction: u.newID(), Door: was.Door, Kind: Want{Tree: was.Tree}.kind(), From: st.Attempt.To,
			To: deployment.Release{Version: was.Version}, Started: u.Now(), Ended: u.Now(), At: deployment.Plan, Outcome: deployment.Canceled,
			Reason: "replaced", Blame: deployment.Operator,
			Says: fmt.Sprintf("it waited for the end of the trial of version %s, and version %s was asked for in its place (%s)", q.Behind, q.Version, w.Door)}
	}
	st.Queued = q
	if err := u.save(st); err != nil {
		return res, err
	}
	return res, u.record(st)
}

// keep fetches and verifies a release and gives its version, "" where there is
// nothing newer.
func (u *Updater) keep(ctx context.Context, st *state, w Want) (string, error) {
	if w.Bundle == "" {
		o, err := u.download(ctx, st, w.Version)
		if err != nil || o == nil {
			return "", err
		}
		return o.Version, nil
	}
	c := &candidate{want: w, close: func() error { return nil }}
	defer func() { c.close() }() //nolint:errcheck // it was only read
	if err := u.findInBundle(ctx, c); err != nil {
		return "", err
	}
	if err := u.fits(st, *c.offer); err != nil {
		return "", err
	}
	meter := u.meter(st, deployment.Trial, deployment.Fetch, "keeping version "+c.offer.Version+" for the end of the trial")
	if err := u.take(ctx, c.src, *c.offer, filepath.Join(u.artefacts(), c.offer.Target), meter); err != nil {
		return "", err
	}
	st.Check.Fetched = c.offer.Target
	return c.offer.Version, nil
}

// takeQueued installs what waits, now that no trial runs. It leaves the queue
// when its transaction is written down: a kill in between loses nothing.
func (u *Updater) takeQueued(ctx context.Context) error {
	st, err := u.load()
	if err != nil || st.Step != idle || st.Queued == nil {
		return err
	}
	next := st.Queued
	want := Want{Door: next.Door, Tree: next.Tree, Trial: true, Auto: next.Auto, Was: next.Was, queued: true}
	if next.Tree == "" {
		want.Version = next.Version
	}
	if _, err := u.Apply(ctx, want); err != nil {
		return fmt.Errorf("install what was queued: %w", err)
	}
	return u.Watch(ctx)
}
