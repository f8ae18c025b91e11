package update

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
	"whisper-appliance/internal/slot"
)

// verdict is why a trial ends badly.
type verdict struct {
	reason, blame, says string
	door                deployment.Door // where it was asked for; "" where nobody has
	evidence            []string
}

// blameTrial writes into the record why the trial ended, and refuses the release
// from now on where it is to blame. One that a person did not want is held.
func (u *Updater) blameTrial(st *state, v verdict) {
	r := &st.Attempt
	r.At, r.Blame, r.Reason, r.Says = deployment.OnTrial, v.blame, v.reason, v.says
	r.Evidence = append(r.Evidence, v.evidence...)
	if v.blame == deployment.Candidate {
		st.ban(deployment.Quarantine{Version: r.To.Version, Digest: r.To.Digest, Artefact: st.Artefact, Reason: v.reason, Says: clip(v.says), At: u.Now()})
	}
	if v.blame != deployment.Candidate && v.door != deployment.DoorDpkg { // dpkg removes what serves, and decides nothing
		st.Held, st.Hold = r.To.Version, hold{v.door, u.Now()} // or the timer would install it again, into the same trouble
	}
}

// beginRollback writes down that the trial is over, and goes back.
func (u *Updater) beginRollback(ctx context.Context, st *state, v verdict, boot bool) error {
	u.blameTrial(st, v)
	st.Step = rollingBack
	if err := u.save(st); err != nil {
		// The way back needs no state: what is not written is found out again.
		u.Log.Error("the rollback is not written down", "error", err)
	}
	faultpoint.Here("update.rolling_back")
	return u.goBack(ctx, st, boot)
}

// goBack is the rollback itself. It may be done again from any point, and has to
// be where it gives an error and the state still says that the trial is taken
// back. Nobody can cancel it.
func (u *Updater) goBack(ctx context.Context, st *state, boot bool) error {
	ctx = context.WithoutCancel(ctx)
	u.dropBallast()
	began := u.Clock()
	u.show(st, &doing{State: deployment.RollingBack, Phase: deployment.Rollback, Message: "going back to version " + st.Attempt.From.Version})
	err := u.back(ctx, st, boot)
	if hasCode(err, slot.SystemdAway) {
		return err
	}
	outcome, came := deployment.RolledBack, err
	switch {
	case hasCode(err, slot.Stopped): // the link is back: the next start runs what it names
		u.Log.Info("the server was stopped on its way back, and is not started", "reason", err)
		err = nil
	case hasCode(err, slot.Unwell):
		err = nil
	case err != nil:
		outcome = deployment.Failed
		st.raise(&deployment.Problem{Code: "rollback_failed", Message: fmt.Sprintf("the way back from version %s failed: %v", st.Attempt.To.Version, err),
			Hint: fault.Hint(err), At: u.Now()})
	}
	if cerr := u.cameBack(st); cerr != nil {
		return errors.Join(err, cerr)
	}
	st.tellUnwell(came, u.Now())
	st.Attempt.Phases = append(st.Attempt.Phases, deployment.PhaseTime{Phase: deployment.Rollback, Seconds: (u.Clock() - began).Seconds()})
	return errors.Join(err, u.finish(st, outcome))
}

// back moves the link, and the server where one runs.
func (u *Updater) back(ctx context.Context, st *state, boot bool) error {
	from, to := st.Attempt.From.Slot, st.Attempt.To.Slot
	linkAlone := func() error {
		_, err := u.Slots.LinkBack(ctx, to, from, st.refusal)
		return err
	}
	if boot || !u.systemd() {
		return linkAlone()
	}
	why, err := u.Site.Idle(ctx)
	if err != nil {
		// The next start runs what the link names; until then it is tried again.
		return fault.New(fault.Unavailable, slot.SystemdAway, "the link goes back, and the server cannot be restarted yet").
			Because(errors.Join(err, linkAlone())).Try("`systemctl restart whisper-appliance` does it by hand")
	}
	if why != "" {
		return linkAlone()
	}
	sw := u.Site.Switch(func(step, text string) {
		u.Log.Info("rollback", "step", step, "what", text)
		u.show(st, &doing{State: deployment.RollingBack, Phase: deployment.Rollback, Message: text})
	})
	sw.Refused = st.refusal
	_, err = sw.Back(ctx, to, from)
	return err
}

// Rollback goes back: from a trial to the release before, or from what was
// committed to what the other slot holds. The version that it leaves is held
// until Unpin.
func (u *Updater) Rollback(ctx context.Context, door deployment.Door) (Result, error) {
	unlock, err := u.lockOver("rollback")
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	st, err := u.settle(ctx, false)
	if err != nil {
		return Result{}, err
	}
	if st.Step == onTrial {
		return u.leaveTrial(ctx, st, door)
	}
	to, err := u.otherSlot(ctx, st)
	if err != nil {
		return Result{}, err
	}
	st.Queued = nil
	return u.run(ctx, st, Want{Door: door, Slot: to, back: true})
}

// leaveTrial takes the trial back because somebody says so.
func (u *Updater) leaveTrial(ctx context.Context, st *state, door deployment.Door) (Result, error) {
	res := Result{Transaction: st.Attempt.Transaction, Outcome: deployment.RolledBack, From: st.Attempt.To, To: st.Attempt.From, Running: true}
	return res, u.beginRollback(ctx, st, verdict{
		reason: "rollback_asked", blame: deployment.Operator, says: "somebody asked for it (" + string(door) + ")", door: door,
	}, false)
}

// otherSlot is the slot to go back to where no trial runs: the one that holds what
// served before what is committed, and nothing else.
func (u *Updater) otherSlot(ctx context.Context, st *state) (string, error) {
	serving, _ := u.links()
	for _, name := range []string{slot.A, slot.B} {
		m, err := slot.Read(u.Slots.Path(name))
		if name == serving || err != nil || st.Before == "" || m.Digest() != st.Before || m.Version == st.Held {
			continue
		}
		if err := u.whole(ctx, name, false); err != nil {
			continue
		}
		return name, st.refusal(m)
	}
	return "", fault.New(fault.NotFound, "nothing_before", "there is no release to go back to: no slot holds, whole, what served before this one").
		Try("`whisper-appliance slot list` shows the slots, and `slot switch` serves what one holds; an older package can be installed with apt")
}

// Commit ends the trial well, because somebody says so.
func (u *Updater) Commit(ctx context.Context) (deployment.Release, error) {
	var to deployment.Release
	err := u.ofTrial(ctx, func(st *state) error {
		to = st.Attempt.To
		st.Attempt.Reason, st.Attempt.Says = "commit_asked", "somebody committed it before the trial had ended"
		return u.commit(st, deployment.Committed)
	})
	return to, err
}

// ofTrial is work on the trial that runs.
func (u *Updater) ofTrial(ctx context.Context, work func(*state) error) error {
	unlock, err := u.lockFirst("the end of the trial")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := u.settle(ctx, false)
	if err != nil {
		return err
	}
	if st.Step != onTrial {
		return fault.New(fault.Conflict, "no_trial", "no release is on trial").Try("`whisper-appliance update status` shows what goes on")
	}
	return work(st)
}

// Cancel stops an update that has not taken over yet, takes a trial back, and
// forgets what is queued. Where nothing goes on, or nothing that can be stopped,
// it is a fault of kind Conflict.
func (u *Updater) Cancel(ctx context.Context, door deployment.Door) (Result, error) {
	unlock, err := u.lock("a cancellation")
	if hasCode(err, "slots_busy") {
		return u.stopHolder(err)
	}
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	st, err := u.load()
	if err != nil {
		return Result{}, err
	}
	if st.Queued != nil {
		st.Queued = nil
		return Result{Outcome: deployment.Canceled}, u.save(st)
	}
	if st, err = u.settle(ctx, false); err != nil {
		return Result{}, err
	}
	if st.Step == onTrial {
		return u.leaveTrial(ctx, st, door)
	}
	return Result{}, fault.New(fault.Conflict, "nothing_to_cancel", "no update is under way").Try("`whisper-appliance update status` shows what goes on")
}

// stopHolder asks whoever holds the lock to stop, where that is possible. held is
// the fault that names it.
func (u *Updater) stopHolder(held error) (Result, error) {
	if !u.late() {
		if heard, err := u.askAndSee(); heard || err != nil {
			return Result{Outcome: deployment.Canceled, Asked: true}, err
		}
	}
	return Result{}, fault.New(fault.Conflict, "not_cancellable", "what goes on cannot be cancelled, or not any more: %v", held).
		Try("wait until it has ended; `whisper-appliance update rollback` goes back then")
}

// late tells of an update whose link has moved, or is about to.
func (u *Updater) late() bool {
	s, err := deployment.ReadStatus(u.Run)
	after := []deployment.Phase{deployment.Switch, deployment.TakeOver, deployment.OnTrial, deployment.Commit, deployment.Clean, deployment.Rollback}
	return err == nil && s.State == deployment.Updating && slices.Contains(after, s.Phase)
}

// Restart restarts the server that serves, and gives the invocation of the new
// one.
func (u *Updater) Restart(ctx context.Context) (string, error) {
	if u.Site.Restart == nil {
		return "", fault.New(fault.Unavailable, "no_systemd", "systemd does not run here: there is no server to restart").
			Try("start the server anew as it was started")
	}
	unlock, err := u.lockBeside("a restart of the server")
	if err != nil {
		return "", err
	}
	defer unlock()
	return u.Site.Restart(ctx)
}
