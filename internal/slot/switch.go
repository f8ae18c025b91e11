package slot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

const (
	defaultSettle = 5 * time.Second
	// jobLimit bounds one job of systemd's: a drain, the gate's pause and a
	// start, each of which systemd bounds more closely. Every job has its own,
	// so that one that hangs leaves time for the way back.
	jobLimit   = 4 * time.Minute
	smokeLimit = time.Minute
)

// errNotServing marks the end of a switch after which the server does not run.
var errNotServing = errors.New("the server does not run")

// The steps of a switch, as Progress names them.
const (
	StepVerify   = "verify"   // the target against its manifest
	StepStart    = "start"    // the candidate beside the server that serves
	StepAttest   = "attest"   // a process runs what the manifest says
	StepSmoke    = "smoke"    // it answers
	StepActivate = "activate" // the link
	StepRestart  = "restart"  // the server, through the link
	StepStop     = "stop"     // the candidate: the server has taken over
	StepRollback = "rollback"
)

// Switch takes the running server from one slot to another. The listening
// socket is systemd's and stays open: the candidate is started beside the
// server, and serves while that one restarts through the link.
type Switch struct {
	Slots *Slots
	Units Units

	Service string                                    // unit of the server
	Next    func(slot string) (service, door string)  // units of a slot's candidate, and of the socket where it alone is asked
	Run     string                                    // directory of sockets
	Socket  string                                    // the server's own, on this machine
	Smoke   func(ctx context.Context, s string) error // asks the server behind a socket whether it serves
	Proc    string                                    // the proc file system

	Settle   time.Duration           // how long a started server may take to run the right program; 0 = 5 s
	Progress func(step, text string) // may be nil
}

// Outcome is how a switch went.
type Outcome struct {
	From       string `json:"from"` // "" where nothing served
	To         string `json:"to"`
	Already    bool   `json:"already"`    // the slot served before
	Overlapped bool   `json:"overlapped"` // two servers shared the socket; else the server was not running
}

// To makes the slot name serve. Until the link moves a failure, or the end of
// ctx, leaves everything as it was; from then on it goes through: to the new
// slot, or back to the old one where that does not come up, which is an error
// too. A server that does not run is started. The caller holds Lock. Where an
// earlier run was killed at any point, To goes on from what it finds.
func (s *Switch) To(ctx context.Context, name string) (Outcome, error) {
	out := Outcome{To: name}
	m, err := s.plan(ctx, &out)
	if err != nil {
		return out, err
	}
	st, err := s.Units.State(ctx, s.Service)
	if err != nil {
		return out, fmt.Errorf("switch to slot %s: %w", name, err)
	}
	if st.Active == "inactive" || st.Active == "failed" {
		return out, s.cold(ctx, out, m)
	}
	if out.Already = out.From == name && s.attestOnce(ctx, s.Service, name, m, "") == nil; out.Already {
		s.retire(ctx, name)
		return out, nil
	}
	out.Overlapped = true
	return out, s.overlapped(ctx, out, m, st.Invocation)
}

// plan refuses what need not be tried.
func (s *Switch) plan(ctx context.Context, out *Outcome) (Manifest, error) {
	if err := known(out.To); err != nil {
		return Manifest{}, err
	}
	var err error
	if out.From, err = s.Slots.Serving(); err != nil {
		return Manifest{}, err
	}
	s.tell(StepVerify, "slot "+out.To+" against its manifest")
	dir := s.Slots.Path(out.To)
	diffs, m, err := Verify(ctx, dir, Check{Owned: s.Slots.Owned})
	if err != nil {
		return m, err
	}
	if len(diffs) > 0 {
		return m, damaged(dir, diffs)
	}
	return m, m.Fits()
}

// overlapped switches under load.
func (s *Switch) overlapped(ctx context.Context, out Outcome, m Manifest, serving string) error {
	err := s.candidate(ctx, out.To, m)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// From here on it goes through.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		s.retire(ctx, out.To)
		return s.refused(out, err)
	}
	if err = s.takeOver(ctx, out, m, serving); !errors.Is(err, errNotServing) {
		s.retire(ctx, out.To) // else it is all that still answers
	}
	return err
}

// takeOver moves the link and the server, while the candidate serves.
func (s *Switch) takeOver(ctx context.Context, out Outcome, m Manifest, serving string) error {
	s.tell(StepActivate, "current names slot "+out.To)
	if err := s.Slots.Activate(out.To); err != nil {
		return s.rollback(ctx, out, serving, err)
	}
	s.tell(StepRestart, s.Service+" through the link")
	hint := job(ctx, s.Units.Restart, s.Service)
	faultpoint.Here("slot.restarted")
	if err := s.attest(ctx, s.Service, out.To, m, serving); err != nil {
		return s.rollback(ctx, out, serving, errors.Join(hint, err))
	}
	return nil
}

// candidate starts the slot's server beside the one that serves and looks
// closely at it.
func (s *Switch) candidate(ctx context.Context, name string, m Manifest) error {
	unit, _ := s.Next(name)
	s.retire(ctx, name)            // what a killed run left
	s.Units.ResetFailed(ctx, unit) //nolint:errcheck // there is mostly nothing to reset
	before := s.invocation(ctx, unit)
	s.tell(StepStart, unit)
	if err := job(ctx, s.Units.Start, unit); err != nil {
		return fmt.Errorf("start %s: %w", unit, err)
	}
	faultpoint.Here("slot.overlapped")
	if err := s.attest(ctx, unit, name, m, before); err != nil {
		return err
	}
	s.tell(StepSmoke, unit)
	if err := s.ask(ctx, s.door(name)); err != nil {
		return fmt.Errorf("smoke %s: %w", unit, err)
	}
	faultpoint.Here("slot.smoked")
	return nil
}

// job does one thing to one unit, within jobLimit.
func job(ctx context.Context, do func(ctx context.Context, unit string) error, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	return do(ctx, unit)
}

// ask is Smoke within smokeLimit.
func (s *Switch) ask(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, smokeLimit)
	defer cancel()
	return s.Smoke(ctx, socket)
}

// door is where the candidate alone is asked.
func (s *Switch) door(name string) string { return filepath.Join(s.Run, "next-"+name+".sock") }

// cold switches a server that does not run: there is nothing to overlap with,
// and connections wait at the socket meanwhile.
func (s *Switch) cold(ctx context.Context, out Outcome, m Manifest) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	s.retire(ctx, out.To)
	before := s.invocation(ctx, s.Service)
	s.tell(StepActivate, "current names slot "+out.To)
	if err := s.Slots.Activate(out.To); err != nil {
		return s.rollback(ctx, out, before, err)
	}
	s.Units.ResetFailed(ctx, s.Service) //nolint:errcheck // there is mostly nothing to reset
	s.tell(StepStart, s.Service)
	hint := job(ctx, s.Units.Start, s.Service)
	if err := s.attest(ctx, s.Service, out.To, m, before); err != nil {
		return s.rollback(ctx, out, before, errors.Join(hint, err))
	}
	s.tell(StepSmoke, s.Service)
	if err := s.ask(ctx, s.Socket); err != nil {
		return s.rollback(ctx, out, before, fmt.Errorf("smoke %s: %w", s.Service, err))
	}
	return nil
}

// rollback is the undo of Activate: the link back, and the server with it where
// it does not run the old slot's program as it stands. cause is why.
func (s *Switch) rollback(ctx context.Context, out Outcome, before string, cause error) error {
	from, m, err := s.wayBack(ctx, out)
	if err != nil {
		return s.stuck(out, errors.Join(cause, err))
	}
	s.tell(StepRollback, "current names slot "+from)
	faultpoint.Here("slot.rolling_back")
	if err := s.Slots.Activate(from); err != nil {
		return s.stuck(out, errors.Join(cause, err))
	}
	if s.attestOnce(ctx, s.Service, from, m, "") == nil {
		return s.rolledBack(out, from, cause)
	}
	s.Units.ResetFailed(ctx, s.Service) //nolint:errcheck // there is mostly nothing to reset
	s.tell(StepRestart, s.Service+" through the link")
	hint := job(ctx, s.Units.Restart, s.Service)
	if err := s.attest(ctx, s.Service, from, m, before); err != nil {
		return s.stuck(out, errors.Join(cause, hint, err))
	}
	return s.rolledBack(out, from, cause)
}

// wayBack is the slot to return to: the one that served; or the one last found
// good, as for a run that goes on after a kill, when the link had moved
// already; or else the package's own release. One that is damaged is passed over.
func (s *Switch) wayBack(ctx context.Context, out Outcome) (string, Manifest, error) {
	committed, err := s.Slots.Committed()
	errs := []error{err}
	for _, name := range []string{out.From, committed, Golden} {
		if name == "" || name == out.To {
			continue
		}
		diffs, m, err := Verify(ctx, s.Slots.Path(name), Check{Owned: s.Slots.Owned})
		if err == nil && len(diffs) > 0 {
			err = damaged(s.Slots.Path(name), diffs)
		}
		if err == nil {
			return name, m, nil
		}
		errs = append(errs, err)
	}
	return "", Manifest{}, fmt.Errorf("no way back: %w", errors.Join(append(errs, errors.New("no other slot is whole"))...))
}

// retire stops the candidate and its socket: it is started by nobody but a
// switch. One that does not go leaves two servers on one socket, which serve: it
// is told, and no reason to undo anything.
func (s *Switch) retire(ctx context.Context, name string) {
	unit, door := s.Next(name)
	for _, u := range []string{unit, door} {
		if st, err := s.Units.State(ctx, u); err == nil && st.Active == "inactive" {
			continue
		}
		s.tell(StepStop, u)
		if err := job(ctx, s.Units.Stop, u); err != nil {
			s.tell(StepStop, fmt.Sprintf("%s does not stop: %v", u, err))
		}
	}
}

// invocation is the unit's last one, "" where there was none or nobody knows.
func (s *Switch) invocation(ctx context.Context, unit string) string {
	st, err := s.Units.State(ctx, unit)
	if err != nil {
		return ""
	}
	return st.Invocation
}

func (s *Switch) tell(step, text string) {
	if s.Progress != nil {
		s.Progress(step, text)
	}
}

// refused words the end of a switch whose link never moved.
func (s *Switch) refused(out Outcome, cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("switch to slot %s: %w", out.To, cause)
	}
	unit, _ := s.Next(out.To)
	return fault.New(fault.Unavailable, "candidate_failed", "slot %s was not switched to: its server does not come up as it should; what served before serves on", out.To).
		Because(cause).Try("`journalctl -u %s -n 50` says why", unit)
}

func (s *Switch) rolledBack(out Outcome, from string, cause error) error {
	return fault.New(fault.Unavailable, "rolled_back", "slot %s did not take over; slot %s serves again", out.To, from).
		Because(cause).Try("`journalctl -u %s -n 100` says why", s.Service)
}

func (s *Switch) stuck(out Outcome, cause error) error {
	return fault.New(fault.Unavailable, "not_serving", "slot %s did not take over, and there is no way back that serves", out.To).
		Because(errors.Join(errNotServing, cause)).Try("`journalctl -u %s -n 100` says why; `whisper-appliance slot list` shows what there is", s.Service)
}
