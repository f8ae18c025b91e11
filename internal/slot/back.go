package slot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
		if err != nil || s.stays(ctx) {
			return out, err
		}
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
// that somebody has stopped is not started. One that somebody has stopped and
// started again runs what the link named then, which nobody has judged.
func (s *Switch) rollback(ctx context.Context, out Outcome, before string, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if isStopped(cause) && s.stays(ctx) {
		s.tell(StepRollback, s.Service+" was stopped: the link alone")
		name, err := s.Slots.LinkBack(ctx, out.To, out.From, s.Refused)
		if s.stays(ctx) {
			return s.stopped(out, name, errors.Join(cause, err))
		}
	}
	name, err := s.wayBack(ctx, out.To, out.From, before)
	switch {
	case errors.Is(err, errAway):
		return errors.Join(err, cause)
	case isStopped(cause) && errors.Is(err, errUnwell):
		return s.interrupted(out, name, errors.Join(cause, unwell(name, err)))
	case isStopped(cause) && err == nil:
		return s.interrupted(out, name, cause)
	case err == nil:
		return s.rolledBack(out, name, cause)
	case isStopped(err):
		return s.stopped(out, name, errors.Join(err, cause))
	case errors.Is(err, errUnwell):
		return s.rolledBack(out, name, errors.Join(cause, unwell(name, err)))
	}
	return s.stuck(out, errors.Join(cause, err))
}

// stays tells whether the server is down, and nobody starts it: to restart it
// would be to start what somebody has stopped.
func (s *Switch) stays(ctx context.Context) bool {
	st, err := s.Units.State(ctx, s.Service)
	return err == nil && st.down()
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
	w := walk{slots: s, try: try, refuse: refused, errs: []error{err}}
	var seen []string
	for _, name := range []string{first, committed, A, B, Golden} {
		if name == "" || name == bad || slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		if w.visit(ctx, name) {
			return w.end()
		}
	}
	was := s.way(Golden)
	if bad != Golden && s.goldenBefore() && s.way(Golden) != was && w.visit(ctx, Golden) {
		return w.end()
	}
	if w.again(ctx, w.unwell) {
		return w.end()
	}
	w.unwell = nil // it does not come up any more
	if w.again(ctx, w.refused) || w.again(ctx, w.unwell) {
		return w.end()
	}
	return w.nowhere()
}

// way is a slot to go back to. There may be two called golden.
type way struct {
	name string
	tree string // where the link golden leads, of golden alone
}

func (s *Slots) way(name string) way {
	this := way{name: name}
	if name == Golden {
		this.tree, _ = os.Readlink(s.Path(Golden)) //nolint:errcheck // what is no link is led nowhere else
	}
	return this
}

// lead has the slot be what it was when it was first tried.
func (s *Slots) lead(to way) error {
	if to.tree == "" || s.way(to.name) == to {
		return nil
	}
	return replaceLink(s.Path(Golden), to.tree)
}

// walk goes through the ways back, one by one.
type walk struct {
	slots   *Slots
	refuse  func(Manifest) error // nil = none is refused
	try     func(name string, m Manifest) error
	whole   way   // the first that could be tried
	unwell  []way // the first that came up, and not well; none or one
	refused []way // whole, and to serve only where nothing else does
	this    way   // the last that was tried
	last    error // what came of that
	errs    []error
}

// visit tries a slot that is whole and not refused, true where nothing more is to
// be tried.
func (w *walk) visit(ctx context.Context, name string) (done bool) {
	this := w.slots.way(name)
	m, err := w.slots.acceptable(ctx, name)
	if err == nil && w.refuse != nil {
		if err = w.refuse(m); err != nil {
			w.refused = append(w.refused, this)
		}
	}
	if err != nil {
		w.errs = append(w.errs, err)
		return false
	}
	return w.take(this, m)
}

// again tries those of which nothing was any better.
func (w *walk) again(ctx context.Context, list []way) (done bool) {
	for _, this := range list {
		if err := w.slots.lead(this); err != nil {
			w.errs = append(w.errs, err)
			continue
		}
		if m, err := w.slots.acceptable(ctx, this.name); err == nil && w.take(this, m) {
			return true
		}
	}
	return false
}

// take tries one, true where nothing more is to be tried.
func (w *walk) take(this way, m Manifest) (done bool) {
	again := slices.Contains(w.unwell, this) // nothing was any better
	w.whole = cmp.Or(w.whole, this)
	w.this, w.last = this, w.try(this.name, m)
	w.errs = append(w.errs, w.last)
	sick := errors.Is(w.last, errUnwell)
	if sick && len(w.unwell) == 0 {
		w.unwell = []way{this}
	}
	return w.last == nil || sick && again || errors.Is(w.last, errAway) || isStopped(w.last)
}

// end is what the last try came to. Where systemd was away the first way back is
// as good as any that came after it.
func (w *walk) end() (string, error) {
	if errors.Is(w.last, errAway) && w.this != w.whole {
		return w.whole.name, errors.Join(w.last, w.toWhole())
	}
	return w.this.name, w.last
}

// nowhere is the end where none came up.
func (w *walk) nowhere() (string, error) {
	if w.whole.name == "" {
		return "", fmt.Errorf("no way back: %w", errors.Join(append(w.errs, errors.New("no other slot is whole"))...))
	}
	return w.whole.name, fmt.Errorf("no way back comes up: %w", errors.Join(append(w.errs, w.toWhole())...))
}

// toWhole has the link name the first that could be tried.
func (w *walk) toWhole() error {
	return errors.Join(w.slots.lead(w.whole), w.slots.Activate(w.whole.name))
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
