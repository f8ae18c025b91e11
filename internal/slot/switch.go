package slot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
)

const (
	defaultSettle  = 5 * time.Second
	defaultPatient = time.Minute

	// Within is how long a switch may take until the link moves, where the
	// caller's context has no deadline, and once more from then on: a start and a
	// drain, each of which systemd bounds more closely.
	Within = 4 * time.Minute
	// backLimit is the way back's alone, whatever the way there has used up: to
	// stop what does not want to, and to start what ran before.
	backLimit = 90 * time.Second
	// stopLimit bounds one stop, a drain among them.
	stopLimit = 90 * time.Second
	// askLimit bounds a question to systemd once the time was over.
	askLimit = 5 * time.Second
	// defaultEnough is many times what a server takes to start on a slow machine.
	defaultEnough = 20 * time.Second
)

// The codes of the faults that a switch ends with, once it has tried.
const (
	CandidateFailed = "candidate_failed" // the link never moved: what served before serves
	RolledBack      = "rolled_back"      // it moved, and is back: what served before serves again
	NotServing      = "not_serving"      // nothing came up
	SystemdAway     = "systemd_away"     // the link is back, and what runs nobody knows: Back goes on once systemd answers
	Stopped         = "stopped"          // somebody has stopped the server or the candidate, and may have started the server again: the link is where it was
)

// The codes of faults for which no candidate can answer. They end a switch whose
// link never moved, or are causes of the faults above.
const (
	NeverBegun   = "never_begun"   // a unit was not even begun
	UnitHindered = "unit_hindered" // systemd, or the machine, kept a unit from coming up
	UnitEdited   = "unit_edited"   // a unit is not what the package's is
	TooSlow      = "too_slow"      // the time was over before the candidate's own
	LinkStays    = "link_stays"    // the link could not be moved
	Unwell       = "unwell"        // the way back does not answer as it should, and there is no better
)

var (
	// errNotServing marks the end of a switch after which the server does not run.
	errNotServing = errors.New("the server does not run")
	errOutOfTime  = errors.New("the time for it was over")
	// errAway marks the end of a way back on which systemd did not answer any more.
	errAway = errors.New("systemd does not answer")
	// errStopped marks a unit that somebody has stopped.
	errStopped = errors.New("somebody has stopped it")
	// errEnded marks a candidate that was up, and has ended as if it were done.
	errEnded = errors.New("it has ended by itself")
	// errHangs marks a candidate that has had its time to start.
	errHangs = errors.New("it does not get ready")
	// errUnwell marks a way back that came up and does not pass the smoke test.
	errUnwell = errors.New("it does not answer as it should")
)

// The steps of a switch, as Progress names them.
const (
	StepVerify   = "verify"   // the target against its manifest
	StepStart    = "start"    // the candidate beside the server that serves
	StepAttest   = "attest"   // a process runs what the manifest says
	StepSmoke    = "smoke"    // it answers
	StepActivate = "activate" // the link
	StepRestart  = "restart"  // the server, through the link
	StepStop     = "stop"     // what is to run no longer: a candidate, an engine
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
	Engine  func(slot string) string                  // unit of a slot's engine
	Run     string                                    // directory of sockets
	Socket  string                                    // the server's own, on this machine
	Smoke   func(ctx context.Context, s string) error // asks the server behind a socket whether it serves
	Proc    string                                    // the proc file system
	Refused func(Manifest) error                      // why a release is no way back; nil = none is refused

	// Sure says last of all, before the link of a running server moves, why it is
	// not to; nil = nobody is asked. It is no fault of the candidate's.
	Sure func() error

	// Shipped is why a unit is not what the package's is, as far as a switch relies
	// on it: a fault, "unit_edited", whose hint says where it was changed. nil =
	// nobody is asked. It is no fault of the candidate's.
	Shipped func(ctx context.Context, unit string) error

	// WayOut says that the switch is a way out of trouble, as a rollback and a
	// recovery are: what Shipped finds is told, and refuses nothing. So is the
	// start of a server that does not run.
	WayOut bool

	Settle   time.Duration           // how long a started server may take to run the right program; 0 = 5 s
	Patience time.Duration           // how long it may take to pass Smoke; 0 = 1 min
	Enough   time.Duration           // how long a start lasts at least that is the candidate's failure where the caller's deadline ends it; 0 = 20 s
	Through  time.Duration           // how long the rest may take once the link is to move; 0 = Within
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
// too. The deadline of ctx, or else Within, bounds the way until the link moves,
// and is no fault of the candidate's; what is left has Through, and the way back
// 90 s of its own. A server that does not run is started. The caller holds Lock.
// Where an earlier run was killed at any point, To goes on from what it finds.
func (s *Switch) To(ctx context.Context, name string) (Outcome, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := Outcome{To: name}
	m, err := s.plan(ctx, &out)
	if err != nil {
		return out, late(ctx, out, err)
	}
	st, err := s.Units.State(ctx, s.Service)
	if err != nil {
		return out, late(ctx, out, fmt.Errorf("switch to slot %s: %w", name, err))
	}
	if st.up() && out.From == name {
		if _, err := s.attestOnce(ctx, s.Service, name, m, ""); err == nil {
			s.retire(ctx)
			out.Already = true
			return out, nil
		}
	}
	if err := s.asShipped(ctx, name, s.WayOut || !st.up()); err != nil {
		return out, late(ctx, out, fmt.Errorf("switch to slot %s: %w", name, err))
	}
	if !st.up() {
		return out, s.cold(ctx, out, m)
	}
	out.Overlapped = true
	return out, s.overlapped(ctx, out, m, st.Invocation)
}

// AsShipped is nil where the units that a switch to the slot name starts are what
// the package's are, as far as it relies on that, or where the switch is a way
// out; see Shipped and WayOut.
func (s *Switch) AsShipped(ctx context.Context, name string) error {
	st, err := s.Units.State(ctx, s.Service)
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.Service, err)
	}
	return s.asShipped(ctx, name, s.WayOut || !st.up())
}

// asShipped is AsShipped, told alone where the switch is a way out.
func (s *Switch) asShipped(ctx context.Context, name string, out bool) error {
	next, _ := s.Next(name)
	for _, unit := range []string{s.Service, next} {
		err := s.shipped(ctx, unit)
		if err != nil && !out {
			return err
		}
		if err != nil {
			s.tell(StepVerify, err.Error())
		}
	}
	return nil
}

func (s *Switch) shipped(ctx context.Context, unit string) error {
	if s.Shipped == nil {
		return nil
	}
	return s.Shipped(ctx, unit)
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

// bounded is ctx with a deadline.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, set := ctx.Deadline(); set {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, Within, errOutOfTime)
}

// inevitable is ctx once the link is to move: nobody can cancel it any more, and
// it has a deadline of its own, however little the caller had left.
func (s *Switch) inevitable(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), cmp.Or(s.Through, Within), errOutOfTime)
}

// overlapped switches under load.
func (s *Switch) overlapped(ctx context.Context, out Outcome, m Manifest, serving string) error {
	err := s.candidate(ctx, out, m)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.retire(ctx)
		return s.refused(ctx, out, err)
	}
	if s.Sure != nil {
		if err := s.Sure(); err != nil {
			s.retire(ctx)
			return fmt.Errorf("switch to slot %s: %w", out.To, err)
		}
	}
	through, cancel := s.inevitable(ctx)
	defer cancel()
	if err = s.takeOver(through, out, m, serving); !errors.Is(err, errNotServing) && !errors.Is(err, errAway) {
		s.retire(through) // else it is all that still answers
	}
	return err
}

// takeOver moves the link and the server, while the candidate serves.
func (s *Switch) takeOver(ctx context.Context, out Outcome, m Manifest, serving string) error {
	if err := s.activate(out.To); err != nil {
		return s.rollback(ctx, out, serving, err)
	}
	s.tell(StepRestart, s.Service+" through the link")
	hint := s.Units.Restart(ctx, s.Service)
	faultpoint.Here("slot.restarted")
	if err := s.attestShipped(ctx, s.Service, out.To, m, serving, hint); err != nil {
		return s.rollback(ctx, out, serving, stuckAt(ctx, s.Service, err))
	}
	return nil
}

// activate moves the link. That it cannot be moved is the disk's fault.
func (s *Switch) activate(name string) error {
	s.tell(StepActivate, "current names slot "+name)
	if err := s.Slots.Activate(name); err != nil {
		return fault.New(fault.Unavailable, LinkStays, "the link to slot %s cannot be made", name).Because(err).
			Try("see whether %s can be written to", filepath.Dir(s.Slots.Current))
	}
	return nil
}

// attestShipped is attest of what the package's unit started. On a way out what
// the unit is was told before.
func (s *Switch) attestShipped(ctx context.Context, unit, name string, m Manifest, before string, hint error) error {
	if err := s.attest(ctx, unit, name, m, before, hint); err != nil || s.WayOut {
		return err
	}
	return s.shipped(ctx, unit)
}

// stuckAt is err, or why it is not the candidate's failure: systemd bounds what
// that may take, and had not ended it yet.
func stuckAt(ctx context.Context, unit string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fault.New(fault.Unavailable, TooSlow, "systemd was still at it with %s", unit).Because(err).
		Try("`systemctl list-jobs` and `systemctl status %s` say where it is", unit)
}

// candidate starts the slot's server beside the one that serves and looks
// closely at it.
func (s *Switch) candidate(ctx context.Context, out Outcome, m Manifest) error {
	unit, _ := s.Next(out.To)
	s.retire(ctx) // what a killed run left
	if err := s.Vacate(ctx, out.To); err != nil {
		return err
	}
	s.Units.ResetFailed(ctx, unit) //nolint:errcheck // there is mostly nothing to reset
	before := s.invocation(ctx, unit)
	s.tell(StepStart, unit)
	began := time.Now()
	if err := s.Units.Start(ctx, unit); err != nil {
		return fmt.Errorf("start %s: %w", unit, s.notStarted(ctx, unit, before, time.Since(began), err))
	}
	faultpoint.Here("slot.overlapped")
	if err := s.attestShipped(ctx, unit, out.To, m, before, nil); err != nil {
		return err
	}
	if err := s.passes(ctx, unit, s.door(out.To), out.To); err != nil {
		return s.since(ctx, unit, before, err)
	}
	faultpoint.Here("slot.smoked")
	return nil
}

// notStarted is err, with which the candidate's start ended after it had lasted
// so long, with whose failure that is, as far as systemd knows.
func (s *Switch) notStarted(ctx context.Context, unit, before string, lasted time.Duration, err error) error {
	if isStopped(err) {
		return err
	}
	if ctx.Err() != nil {
		return s.cutOff(ctx, unit, before, lasted, err)
	}
	if s.invocation(ctx, unit) == before {
		return neverBegun(unit, err)
	}
	return s.since(ctx, unit, before, err)
}

// cutOff is err of a start that the end of ctx cut off. A candidate that has had
// enough time, or all that its unit gives it, hangs, whoever's deadline came then.
func (s *Switch) cutOff(ctx context.Context, unit, before string, lasted time.Duration, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
	defer cancel()
	st, unknown := s.Units.State(ask, unit)
	switch {
	case unknown != nil || st.Invocation == before:
		return err
	case st.Result == "timeout", st.Active == "activating" && st.PID != 0 && lasted >= cmp.Or(s.Enough, defaultEnough):
		return errors.Join(fmt.Errorf("%w, after %v", errHangs, lasted.Round(time.Second)), err)
	}
	return err
}

// since is err, with which a unit that was started has failed, with what has
// become of the unit.
func (s *Switch) since(ctx context.Context, unit, before string, err error) error {
	st, unknown := s.Units.State(ctx, unit)
	if unknown != nil {
		return errors.Join(err, unknown)
	}
	if st.idle() {
		return errors.Join(s.gone(ctx, unit), err)
	}
	runs := ends{before: before}
	runs.note(st)
	return runs.explain(unit, err)
}

// passes is nil where the unit behind socket, which runs what is in the slot
// name, answers as it should, and its engine is that slot's.
func (s *Switch) passes(ctx context.Context, unit, socket, name string) error {
	if err := s.ask(ctx, unit, socket); err != nil {
		return err
	}
	return s.attestEngine(ctx, name)
}

// ask is Smoke of the unit behind a socket, within Patience.
func (s *Switch) ask(ctx context.Context, unit, socket string) error {
	s.tell(StepSmoke, unit)
	patience := cmp.Or(s.Patience, defaultPatient)
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.Smoke(limited, socket)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("it did not pass within %v: %w", patience, err)
	}
	if err != nil {
		return fmt.Errorf("smoke %s: %w", unit, err)
	}
	return nil
}

// door is where the candidate alone is asked.
func (s *Switch) door(name string) string { return filepath.Join(s.Run, "next-"+name+".sock") }

// cold switches a server that does not run: there is nothing to overlap with,
// and connections wait at the socket meanwhile.
func (s *Switch) cold(ctx context.Context, out Outcome, m Manifest) error {
	if ctx.Err() != nil {
		return late(ctx, out, context.Cause(ctx))
	}
	ctx, cancel := s.inevitable(ctx)
	defer cancel()
	s.retire(ctx)
	if err := s.Vacate(ctx, out.To); err != nil {
		return fmt.Errorf("switch to slot %s: %w", out.To, err)
	}
	before := s.invocation(ctx, s.Service)
	if err := s.activate(out.To); err != nil {
		return s.rollback(ctx, out, before, err)
	}
	s.Units.ResetFailed(ctx, s.Service) //nolint:errcheck // there is mostly nothing to reset
	s.tell(StepStart, s.Service)
	hint := s.Units.Start(ctx, s.Service)
	if err := s.attest(ctx, s.Service, out.To, m, before, hint); err != nil {
		return s.rollback(ctx, out, before, stuckAt(ctx, s.Service, err))
	}
	if err := s.passes(ctx, s.Service, s.Socket, out.To); err != nil {
		return s.rollback(ctx, out, before, stuckAt(ctx, s.Service, s.since(ctx, s.Service, before, err)))
	}
	return nil
}

// retire stops the candidates of all slots, and their sockets: they are started
// by nobody but a switch, and one to another slot may have been killed. One that
// does not go leaves two servers on one socket, which serve: it is told, and no
// reason to undo anything. It is done though ctx has ended.
func (s *Switch) retire(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for _, name := range names() {
		unit, door := s.Next(name)
		for _, u := range []string{unit, door} {
			if st, err := s.Units.State(ctx, u); err == nil && st.Active == "inactive" {
				continue
			}
			if err := s.stop(ctx, u); err != nil {
				s.tell(StepStop, fmt.Sprintf("%s does not stop: %v", u, err))
			}
		}
	}
}

func (s *Switch) stop(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	s.tell(StepStop, unit)
	return s.Units.Stop(ctx, unit)
}

// Vacate stops the engine of a slot. One that still idles holds the engine's
// socket, and the tree it was started from though that has been replaced: the
// slot's next server would be served by the release before. It is called before
// a slot's tree is replaced; To does so before it starts anything. The engine of
// the slot that serves is left alone.
func (s *Switch) Vacate(ctx context.Context, name string) error {
	serving, err := s.Slots.Serving()
	if err != nil || serving == name {
		return err
	}
	unit := s.Engine(name)
	was, err := s.Units.State(ctx, unit)
	if err == nil && !was.up() {
		return nil
	}
	hint := s.stop(ctx, unit)
	is, err := s.Units.State(ctx, unit)
	if err == nil && (!is.up() || is.Invocation != was.Invocation) {
		return nil
	}
	return fault.New(fault.Unavailable, "engine_stays", "the engine of slot %s, which the release before has left, does not stop", name).
		Because(errors.Join(hint, err)).Try("`systemctl kill -s KILL %s`, and try again", unit)
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
