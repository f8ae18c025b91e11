package slot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

// Back leaves the slot bad, as a trial that ended badly does: the link goes to
// the slot name, or where that is damaged or does not come up to the other ways
// back, and the server with it, unless somebody has stopped it: then the link
// alone. Connections wait at the socket meanwhile. What the slot is called that
// serves now is in Outcome.To, also where the error is a fault that says how:
// "unwell" or "stopped". Nobody can cancel it; like To it can be killed and called
// again. The caller holds Lock.
func (s *Switch) Back(ctx context.Context, bad, name string) (Outcome, error) {
	ctx = context.WithoutCancel(ctx)
	out := Outcome{From: bad}
	s.retire(ctx)
	st, err := s.Units.State(ctx, s.Service)
	if err == nil && st.stopped() {
		out.To, err = s.Slots.LinkBack(ctx, bad, name, s.Refused)
		return out, err
	}
	out.To, err = s.wayBack(ctx, bad, name, st.Invocation)
	switch {
	case isStopped(err):
		err = fault.New(fault.Canceled, Stopped, "somebody has stopped %s: current names slot %s, and no server is started", s.Service, out.To).Because(err).
			Try("`systemctl start %s` starts it", s.Service)
	case errors.Is(err, errUnwell):
		err = unwell(out.To, err)
	}
	return out, err
}

// LinkBack is Back where no server is to be started: the link alone. It gives
// the slot that the link names then; where no way back is whole the link stays,
// and the error is a fault, "no_way_back".
func (s *Slots) LinkBack(ctx context.Context, bad, name string, refused func(Manifest) error) (string, error) {
	to, err := s.wayBack(ctx, bad, name, refused, func(name string, _ Manifest) error { return s.Activate(name) })
	if ctx.Err() != nil && err != nil {
		return "", context.Cause(ctx)
	}
	if err != nil && to == "" {
		return "", fault.New(fault.Unavailable, "no_way_back", "no slot but %q could serve, and that one is not to", bad).Because(err).
			Try("`apt reinstall whisper-appliance` brings a whole release")
	}
	return to, err
}

// rollback is the undo of Activate: the link back, and the server with it where
// it does not run the old slot's program as it stands. cause is why. A server
// that somebody has stopped is not started.
func (s *Switch) rollback(ctx context.Context, out Outcome, before string, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if isStopped(cause) {
		s.tell(StepRollback, s.Service+" was stopped: the link alone")
		name, err := s.Slots.LinkBack(ctx, out.To, out.From, s.Refused)
		return s.stopped(out, name, errors.Join(cause, err))
	}
	name, err := s.wayBack(ctx, out.To, out.From, before)
	switch {
	case err == nil:
		return s.rolledBack(out, name, cause)
	case errors.Is(err, errAway):
		return errors.Join(err, cause)
	case isStopped(err):
		return s.stopped(out, name, errors.Join(err, cause))
	case errors.Is(err, errUnwell):
		return s.rolledBack(out, name, errors.Join(cause, unwell(name, err)))
	}
	return s.stuck(out, errors.Join(cause, err))
}

// unwell tells of a way back that serves for want of a better one.
func unwell(name string, err error) error {
	return fault.New(fault.Unavailable, Unwell, "slot %s serves, and does not answer as it should; no other does", name).Because(err).
		Try("`whisper-appliance doctor` says what is wrong; `apt reinstall whisper-appliance` brings a whole release")
}

func (s *Switch) wayBack(ctx context.Context, bad, first, before string) (string, error) {
	name, err := s.Slots.wayBack(ctx, bad, first, s.Refused, func(name string, m Manifest) error { return s.goBack(ctx, name, m, before) })
	if errors.Is(err, errAway) {
		err = fault.New(fault.Unavailable, SystemdAway, "current names slot %s, and systemd does not answer: the server cannot be restarted yet", name).
			Because(err).Try("`systemctl restart %s` does it by hand", s.Service)
	}
	return name, err
}

// wayBack leaves the slot bad for the first that is whole and comes up well: the
// one that served; the one last found good, as for a run that goes on after a
// kill, when the link had moved already; the other slot; the package's own
// release, or the one of the package before. Where none is well the first that
// came up serves. What is refused comes after all of these: it may serve where
// nothing else does. Where none comes up the link stays with the first that is
// whole, for the next start; so it does once systemd does not answer, and nothing
// more is tried: no release can show then that it is any better. Nor is anything
// tried once somebody has stopped the server.
func (s *Slots) wayBack(ctx context.Context, bad, first string, refused func(Manifest) error, try func(name string, m Manifest) error) (string, error) {
	committed, err := s.Committed()
	w := walk{slots: s, try: try, errs: []error{err}}
	var refusals []string
	for _, name := range []string{first, committed, A, B, Golden, Golden} {
		again := name == Golden && slices.Contains(w.seen, Golden)
		if name == "" || name == bad || !again && slices.Contains(w.seen, name) {
			continue
		}
		w.seen = append(w.seen, name)
		if again && !s.goldenBefore() {
			continue
		}
		m, err := s.acceptable(ctx, name)
		if err == nil && refused != nil {
			if err = refused(m); err != nil {
				refusals = append(refusals, name)
			}
		}
		if err != nil {
			w.errs = append(w.errs, err)
		} else if w.take(name, m) {
			return w.end()
		}
	}
	if w.unwell != "" {
		refusals = []string{w.unwell}
	}
	for _, name := range refusals {
		if m, err := s.acceptable(ctx, name); err == nil && w.take(name, m) {
			return w.end()
		}
	}
	return w.nowhere()
}

// walk goes through the ways back, one by one.
type walk struct {
	slots  *Slots
	try    func(name string, m Manifest) error
	seen   []string // names, whatever came of them
	whole  string   // the first that could be tried
	unwell string   // the first that came up, and not well
	name   string   // the last that was tried
	last   error    // what came of that
	errs   []error
}

// take tries one, true where nothing more is to be tried.
func (w *walk) take(name string, m Manifest) (done bool) {
	again := w.unwell == name // nothing was any better
	w.whole = cmp.Or(w.whole, name)
	w.name, w.last = name, w.try(name, m)
	w.errs = append(w.errs, w.last)
	sick := errors.Is(w.last, errUnwell)
	if sick && w.unwell == "" {
		w.unwell = name
	}
	return w.last == nil || sick && again || errors.Is(w.last, errAway) || isStopped(w.last)
}

// end is what the last try came to. Where systemd was away the first way back is
// as good as any that came after it.
func (w *walk) end() (string, error) {
	if errors.Is(w.last, errAway) && w.name != w.whole {
		return w.whole, errors.Join(w.last, w.slots.Activate(w.whole))
	}
	return w.name, w.last
}

// nowhere is the end where none came up.
func (w *walk) nowhere() (string, error) {
	if w.whole == "" {
		return "", fmt.Errorf("no way back: %w", errors.Join(append(w.errs, errors.New("no other slot is whole"))...))
	}
	return w.whole, fmt.Errorf("no way back comes up: %w", errors.Join(append(w.errs, w.slots.Activate(w.whole))...))
}

// acceptable is nil for a slot whose every byte is as its manifest says.
func (s *Slots) acceptable(ctx context.Context, name string) (Manifest, error) {
	diffs, m, err := Verify(ctx, s.Path(name), Check{Owned: s.Owned})
	switch {
	case err != nil:
		return m, err
	case len(diffs) > 0:
		return m, damaged(s.Path(name), diffs)
	}
	return m, m.Fits()
}

// goBack makes the slot name serve again, and well, within backLimit and what a
// smoke test may take.
func (s *Switch) goBack(ctx context.Context, name string, m Manifest, before string) error {
	limited, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), backLimit, errOutOfTime)
	defer cancel()
	s.tell(StepRollback, "current names slot "+name)
	faultpoint.Here("slot.rolling_back")
	if err := s.Slots.Activate(name); err != nil {
		return err
	}
	st, err := s.attestOnce(limited, s.Service, name, m, "")
	switch {
	case err == nil:
		return s.well(ctx, name)
	case st.stopped() && st.Invocation != before: // since the way back began, or not long before
		return fmt.Errorf("restart %s: %w", s.Service, errStopped)
	}
	s.Units.ResetFailed(limited, s.Service) //nolint:errcheck // there is mostly nothing to reset
	s.tell(StepRestart, s.Service+" through the link")
	hint := s.Units.Restart(limited, s.Service)
	faultpoint.Here("slot.back")
	switch err = s.attest(limited, s.Service, name, m, before, hint); {
	case err == nil:
		return s.well(ctx, name)
	case Caused(err, "no_systemd") != nil:
		return errors.Join(errAway, err)
	}
	return err
}

// well is nil where the server, which runs what is in the slot name, answers as
// it should, within s.Settle: it has only just come up. The candidate goes first:
// both answer behind the server's socket.
func (s *Switch) well(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	s.retire(ctx)
	patience := time.NewTimer(cmp.Or(s.Settle, defaultSettle))
	defer patience.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.passes(ctx, s.Service, s.Socket, name)
		if err == nil {
			return nil
		}
		select {
		case <-patience.C:
			return errors.Join(errUnwell, err)
		case <-tick.C:
		}
	}
}

// Retire stops the candidates that a killed switch has left beside the server.
// The caller holds Lock.
func (s *Switch) Retire(ctx context.Context) error {
	s.retire(ctx)
	return ctx.Err()
}

// Again restarts the server and waits until another process of it runs what the
// link names, and answers. It gives the invocation of the new one. The caller
// holds Lock.
func (s *Switch) Again(ctx context.Context) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	name, err := s.Slots.Serving()
	if err != nil {
		return "", err
	}
	m, err := Read(s.Slots.Path(name))
	if err != nil {
		return "", err
	}
	before := s.invocation(ctx, s.Service)
	hint := s.Units.Restart(ctx, s.Service)
	if err := s.attest(ctx, s.Service, name, m, before, hint); err != nil {
		return "", fault.New(fault.Unavailable, "not_restarted", "the server was not restarted").Because(err).
			Try("`journalctl -u %s -n 50` says why", s.Service)
	}
	return s.invocation(ctx, s.Service), nil
}
