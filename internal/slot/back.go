package slot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

// Back leaves the slot bad, as a trial that ended badly does: the link goes to
// the slot name, or where that is damaged or does not come up to the other ways
// back, and the server with it. Connections wait at the socket meanwhile. What
// the slot is called that serves now is in Outcome.To. Nobody can cancel it; like
// To it can be killed and called again. The caller holds Lock.
func (s *Switch) Back(ctx context.Context, bad, name string) (Outcome, error) {
	ctx = context.WithoutCancel(ctx)
	out := Outcome{From: bad}
	s.retire(ctx)
	var err error
	out.To, err = s.wayBack(ctx, bad, name, s.invocation(ctx, s.Service))
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
// it does not run the old slot's program as it stands. cause is why.
func (s *Switch) rollback(ctx context.Context, out Outcome, before string, cause error) error {
	ctx = context.WithoutCancel(ctx)
	name, err := s.wayBack(ctx, out.To, out.From, before)
	if errors.Is(err, errAway) {
		return errors.Join(err, cause)
	}
	if err != nil {
		return s.stuck(out, errors.Join(cause, err))
	}
	return s.rolledBack(out, name, cause)
}

func (s *Switch) wayBack(ctx context.Context, bad, first, before string) (string, error) {
	return s.Slots.wayBack(ctx, bad, first, s.Refused, func(name string, m Manifest) error { return s.goBack(ctx, name, m, before) })
}

// wayBack leaves the slot bad for the first that is whole and comes up: the one
// that served; the one last found good, as for a run that goes on after a kill,
// when the link had moved already; the other slot; the package's own release, or
// the one of the package before. What is refused comes after all of these: it may
// serve where nothing else does. Where none comes up the link stays with the
// first that is whole, for the next start. Once systemd does not answer nothing
// more is tried: no release can show then that it is any better.
func (s *Slots) wayBack(ctx context.Context, bad, first string, refused func(Manifest) error, try func(name string, m Manifest) error) (string, error) {
	committed, err := s.Committed()
	errs := []error{err}
	whole := ""
	var tried, refusals []string
	take := func(name string, m Manifest) (done bool, err error) {
		whole = cmp.Or(whole, name)
		if err = try(name, m); errors.Is(err, errAway) {
			return true, err
		}
		errs = append(errs, err)
		return err == nil, err
	}
	for _, name := range []string{first, committed, A, B, Golden, Golden} {
		again := name == Golden && slices.Contains(tried, Golden)
		if name == "" || name == bad || !again && slices.Contains(tried, name) {
			continue
		}
		tried = append(tried, name)
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
			errs = append(errs, err)
		} else if done, err := take(name, m); done {
			return name, err
		}
	}
	for _, name := range refusals {
		if m, err := s.acceptable(ctx, name); err == nil {
			if done, err := take(name, m); done {
				return name, err
			}
		}
	}
	if whole == "" {
		return "", fmt.Errorf("no way back: %w", errors.Join(append(errs, errors.New("no other slot is whole"))...))
	}
	return whole, fmt.Errorf("no way back comes up: %w", errors.Join(append(errs, s.Activate(whole))...))
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

// goBack makes the slot name serve again, within backLimit.
func (s *Switch) goBack(ctx context.Context, name string, m Manifest, before string) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), backLimit, errOutOfTime)
	defer cancel()
	s.tell(StepRollback, "current names slot "+name)
	faultpoint.Here("slot.rolling_back")
	if err := s.Slots.Activate(name); err != nil {
		return err
	}
	if s.attestOnce(ctx, s.Service, name, m, "") == nil {
		return nil
	}
	s.Units.ResetFailed(ctx, s.Service) //nolint:errcheck // there is mostly nothing to reset
	s.tell(StepRestart, s.Service+" through the link")
	hint := s.Units.Restart(ctx, s.Service)
	faultpoint.Here("slot.back")
	err := s.attest(ctx, s.Service, name, m, before)
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f) && f.Code == "no_systemd":
		return fault.New(fault.Unavailable, SystemdAway, "current names slot %s, and systemd does not answer: the server cannot be restarted yet", name).
			Because(errors.Join(errAway, hint, err)).Try("`systemctl restart %s` does it by hand", s.Service)
	}
	return errors.Join(hint, err)
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
	if err := s.attest(ctx, s.Service, name, m, before); err != nil {
		return "", fault.New(fault.Unavailable, "not_restarted", "the server was not restarted").Because(errors.Join(hint, err)).
			Try("`journalctl -u %s -n 50` says why", s.Service)
	}
	return s.invocation(ctx, s.Service), nil
}
