package slot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"whisper-appliance/internal/fault"
)

// State is how a unit is.
type State struct {
	Active     string // "active", "inactive", "failed", "activating", …
	PID        int    // of the main process, 0 for none
	Invocation string // another for every start; "" for a unit that never ran

	Result string // how its last run ended, as systemd calls it: "success", "exit-code", "oom-kill", …; "" where nobody knows
	Exit   int    // status or signal with which its main process ended last
}

// up tells whether the unit has a process, or will have one by itself.
func (st State) up() bool { return st.Active != "inactive" && st.Active != "failed" }

// idle tells whether the unit was never begun, or has ended well.
func (st State) idle() bool { return st.Active == "inactive" && st.Result == "success" }

// stopped tells whether somebody has stopped the server's unit: one that ends by
// itself is started again or has failed. Of a candidate's see gone.
func (st State) stopped() bool { return st.idle() && st.Invocation != "" }

// down tells whether the unit ends or has ended, and is not started again.
func (st State) down() bool { return st.Active == "inactive" || st.Active == "deactivating" }

// gone is why a unit that was up has ended well. systemd starts a server again
// that ends by itself, and no candidate: one that ends with status 0, or by a
// signal such as SIGTERM, looks as if somebody had stopped it. That is believed
// where the server is stopped as well, as by stopping the target.
func (s *Switch) gone(ctx context.Context, unit string) error {
	if unit == s.Service {
		return errStopped
	}
	if st, err := s.Units.State(ctx, s.Service); err == nil && st.down() {
		return errStopped
	}
	return errEnded
}

// neverBegun is err of a unit that was not even begun, as a socket that it needs
// has failed.
func neverBegun(unit string, err error) error {
	return fault.New(fault.Unavailable, NeverBegun, "it was never begun").Because(err).Try("`systemctl list-dependencies %s` shows what it needs", unit)
}

// Exit statuses with which systemd says that it could not set a process up; see
// systemd.exec(5). That there is no program is no fault of its.
const firstOfSystemd, lastOfSystemd, noProgram = 200, 245, 203

// hindered is why the unit's last run failed that was not its program's doing, ""
// where it was.
func (st State) hindered() string {
	switch {
	case st.Result == "resources", st.Result == "oom-kill":
		return "the machine could not give it what it needs (" + st.Result + ")"
	case st.Result == startLimit:
		return "it was started too often before"
	case st.Result == "exit-code" && st.Exit >= firstOfSystemd && st.Exit <= lastOfSystemd && st.Exit != noProgram:
		return fmt.Sprintf("systemd could not set it up, status %d", st.Exit)
	case st.Result == "exit-code" && st.Exit == 0: // of a main process nothing is known: a command before it failed
		return "systemd could not run the commands of its unit"
	}
	return ""
}

// startLimit is the result of a unit that was not even begun.
const startLimit = "start-limit-hit"

// ends are those of a unit's runs since it was started: what systemd tries again
// has another state soon.
type ends struct {
	before   string // invocation that does not count, "" where each does
	own      bool   // a run ended by its program's doing
	hindered string // why one ended otherwise
}

func (e *ends) note(st State) {
	switch why := st.hindered(); {
	case st.Result == "" || st.Result == "success":
	case e.before != "" && st.Invocation == e.before && st.Result != startLimit:
	case why != "":
		e.hindered = why
	default:
		e.own = true
	}
}

// explain is err, the failure of a unit to come up, with whose failure that is.
func (e *ends) explain(unit string, err error) error {
	if e.hindered == "" || e.own {
		return err
	}
	return fault.New(fault.Unavailable, UnitHindered, "%s does not come up, which is not its program's doing: %s", unit, e.hindered).
		Because(err).Try("`systemctl status %s` and `journalctl -u %s -n 50` say what it lacks", unit, unit)
}

// Caused is the first fault in err that has one of the codes, of all that are
// joined in it; nil where there is none.
func Caused(err error, codes ...string) *fault.Error {
	if f, is := err.(*fault.Error); is && slices.Contains(codes, f.Code) { //nolint:errorlint // each is looked at
		return f
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() error }:
		return Caused(e.Unwrap(), codes...)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if f := Caused(one, codes...); f != nil {
				return f
			}
		}
	}
	return nil
}

// isStopped tells whether err is because somebody has stopped a unit.
func isStopped(err error) bool {
	return errors.Is(err, errStopped) || Caused(err, "job_canceled") != nil
}

// late is err, the end of a switch whose link never moved, or where ctx has ended
// that: it was cancelled, or its time was over. A candidate has limits of its own,
// and did not outlive them.
func late(ctx context.Context, out Outcome, err error) error {
	var why *fault.Error
	switch {
	case ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.Canceled), errors.As(context.Cause(ctx), &why):
		return fmt.Errorf("switch to slot %s: %w", out.To, context.Cause(ctx))
	}
	return fault.New(fault.Unavailable, TooSlow, "slot %s was not switched to: the time for it was over; the release before serves on", out.To).
		Because(err).Try("give it more, as by --within 10m, and try again")
}

// refused words the end of a switch whose link never moved.
func (s *Switch) refused(ctx context.Context, out Outcome, cause error) error {
	unit, _ := s.Next(out.To)
	switch {
	case ctx.Err() != nil && !errors.Is(cause, errHangs):
		return late(ctx, out, cause)
	case isStopped(cause):
		return s.stopped(out, out.From, cause)
	}
	if f := Caused(cause, UnitEdited, UnitHindered); f != nil {
		return fmt.Errorf("slot %s was not switched to, the release before serves on: %w", out.To, f)
	}
	return fault.New(fault.Unavailable, CandidateFailed, "slot %s was not switched to: its server does not come up as it should; the release before serves on", out.To).
		Because(cause).Try("`journalctl -u %s -n 50` says why", unit)
}

// stopped words the end of a switch in which somebody has stopped a unit. The
// link names the slot name.
func (s *Switch) stopped(out Outcome, name string, cause error) error {
	return fault.New(fault.Canceled, Stopped, "somebody stopped the server while it was switched to slot %s: current names slot %s, and nothing was started", out.To, name).
		Because(cause).Try("`systemctl start %s` starts it; then try again", s.Service)
}

// interrupted words the end of a switch in which somebody has stopped the server
// and started it again. The slot name serves.
func (s *Switch) interrupted(out Outcome, name string, cause error) error {
	return fault.New(fault.Canceled, Stopped, "somebody stopped the server and started it again while it was switched to slot %s: slot %s serves", out.To, name).
		Because(cause).Try("try again once nobody else is at it")
}

func (s *Switch) rolledBack(out Outcome, from string, cause error) error {
	hint := fmt.Sprintf("`journalctl -u %s -n 100` says why", s.Service)
	if f := Caused(cause, UnitEdited, UnitHindered, TooSlow, LinkStays); f != nil {
		hint = f.Hint
	}
	return fault.New(fault.Unavailable, RolledBack, "slot %s did not take over; slot %s serves again", out.To, from).
		Because(cause).Try("%s", hint)
}

func (s *Switch) stuck(out Outcome, cause error) error {
	return fault.New(fault.Unavailable, NotServing, "slot %s did not take over, and there is no way back that serves", out.To).
		Because(errors.Join(errNotServing, cause)).Try("`journalctl -u %s -n 100` says why; `whisper-appliance slot list` shows what there is", s.Service)
}
