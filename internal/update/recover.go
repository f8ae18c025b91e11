package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Recover settles what an earlier run has left, be it killed or cut off. boot
// says that the server has not been started since the machine was: then only
// links and state are moved, and the start that follows finds them right.
// It reports whether a trial is running that has to be watched.
func (u *Updater) Recover(ctx context.Context, boot bool) (watch bool, err error) {
	unlock, err := u.lock("recovery")
	if err != nil {
		return false, err
	}
	defer unlock()
	st, err := u.settle(ctx, boot)
	if err != nil {
		return false, err
	}
	return st.Step == onTrial || st.Queued != nil, nil
}

// settle brings the state in line with where the links point. It ends in idle
// or on trial.
func (u *Updater) settle(ctx context.Context, boot bool) (*state, error) {
	st, err := u.load()
	if err != nil {
		return nil, err
	}
	if err := u.record(st); err != nil {
		return nil, err
	}
	if err := u.mendLinks(ctx, st, boot); err != nil {
		return nil, err
	}
	if st.Step != idle && st.Step != onTrial {
		st.Attempt.Interrupted++
	}
	switch st.Step {
	case preparing:
		err = u.giveUp(st, "interrupted", "the update was interrupted before anything was switched")
	case armed:
		err = u.settleArmed(ctx, st, boot)
	case onTrial:
		err = u.settleTrial(ctx, st)
	case rollingBack:
		err = u.goBack(ctx, st, boot)
	default:
		err = u.settleIdle(st)
	}
	if err != nil {
		return nil, err
	}
	u.show(st, nil)
	return st, nil
}

// giveUp ends a transaction that never took over.
func (u *Updater) giveUp(st *state, reason, says string) error {
	st.Attempt.Reason, st.Attempt.Says, st.Attempt.Blame = reason, says, deployment.Environment
	if err := u.Slots.Sweep(); err != nil {
		return err
	}
	return u.finish(st, deployment.Aborted)
}

// settleArmed goes on with a switch that may have moved the link.
func (u *Updater) settleArmed(ctx context.Context, st *state, boot bool) error {
	serving, committed := u.links()
	to := st.Attempt.To.Slot
	switch {
	case serving == to && committed == to:
		return u.commit(st, deployment.Committed) // the commit was cut
	case serving != to:
		if err := u.retire(ctx, boot); err != nil {
			return err
		}
		return u.giveUp(st, "interrupted", "the update was interrupted while the new version was started; the link never moved, or was taken back")
	}
	if !boot && u.systemd() {
		if _, err := u.Site.Switch(func(step, text string) { u.Log.Info("recovery", "step", step, "what", text) }).To(ctx, to); err != nil {
			return u.afterFailedSwitch(st, err)
		}
	}
	if st.Attempt.From.Slot == "" {
		return u.commit(st, deployment.Committed)
	}
	st.Step = onTrial
	return u.save(st)
}

// retire stops what a killed switch has left beside the server. At boot nothing
// runs yet.
func (u *Updater) retire(ctx context.Context, boot bool) error {
	if boot || !u.systemd() {
		return nil
	}
	return u.Site.Switch(func(string, string) {}).Retire(ctx)
}

// afterFailedSwitch writes down how a switch ended that recovery went on with.
func (u *Updater) afterFailedSwitch(st *state, err error) error {
	outcome := deployment.RolledBack
	if !hasCode(err, slot.RolledBack) && !hasCode(err, slot.CandidateFailed) {
		outcome = deployment.Failed
		st.Alarm = deployment.ProblemOf(err, u.Now())
	}
	who, reason := blame(err)
	u.blameTrial(st, who, reason, err.Error(), nil)
	return u.finish(st, outcome)
}

// settleTrial goes on with a trial, unless something else has ended it.
func (u *Updater) settleTrial(ctx context.Context, st *state) error {
	serving, committed := u.links()
	to := st.Attempt.To.Slot
	switch {
	case serving == to && committed == to:
		return u.commit(st, deployment.Committed)
	case serving != to:
		u.blameTrial(st, deployment.Candidate, "gate", "its server failed three times in a row, and the gate took it back", nil)
		return u.finish(st, deployment.RolledBack)
	case st.BootID == u.BootID:
		return nil
	}
	st.BootID = u.BootID
	if st.TriesLeft--; st.TriesLeft > 0 {
		return u.save(st)
	}
	return u.beginRollback(ctx, st, verdict{
		reason: "tries_exhausted", blame: deployment.Candidate, says: fmt.Sprintf("the machine was started %d times during the trial", tries),
	}, true)
}

// settleIdle looks at links that no transaction explains.
func (u *Updater) settleIdle(st *state) error {
	serving, committed := u.links()
	if serving == "" || serving == committed {
		return u.Slots.Sweep()
	}
	if committed == "" {
		return u.Slots.Commit(serving)
	}
	// A trial whose state was lost, or a link that somebody moved by hand: it
	// serves, and is looked at as any trial is.
	st.Step, st.TriesLeft, st.BootID = onTrial, tries, u.BootID
	st.Attempt = deployment.Record{Transaction: u.newID(), Door: deployment.DoorBoot, Kind: kindSwitch,
		From: u.release(committed), To: u.release(serving), Started: u.Now()}
	return u.save(st)
}

// mendLinks gives `current` a whole release to name where it has none. At boot
// every byte of it is read; while the server runs a damaged file is no reason to
// move anything.
func (u *Updater) mendLinks(ctx context.Context, st *state, boot bool) error {
	serving, committed := u.links()
	if serving != "" {
		err := u.whole(ctx, serving, !boot)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		u.Log.Error("the slot that serves is damaged", "slot", serving, "error", err)
		st.Alarm = &deployment.Problem{Code: "slot_damaged", Message: fmt.Sprintf("slot %s, which serves, is damaged: %v", serving, err), At: u.Now(),
			Hint: "`whisper-appliance verify` lists every difference; `apt reinstall whisper-appliance` brings a whole release"}
	} else if _, err := os.Lstat(u.Slots.Current); errors.Is(err, fs.ErrNotExist) && committed == "" && !u.anything() {
		return nil // nothing was ever installed
	}
	return u.firstWhole(ctx, st, serving, committed)
}

// anything tells whether some slot holds a release.
func (u *Updater) anything() bool {
	for _, name := range []string{slot.A, slot.B} {
		if _, err := slot.Read(u.Slots.Path(name)); err == nil {
			return true
		}
	}
	return false
}

// whole is nil where the slot name is what its manifest says.
func (u *Updater) whole(ctx context.Context, name string, shallow bool) error {
	diffs, m, err := slot.Verify(ctx, u.Slots.Path(name), slot.Check{Owned: u.Slots.Owned, Shallow: shallow})
	if err != nil {
		return err
	}
	if len(diffs) > 0 {
		return fault.New(fault.Internal, "damaged_release", "%s", diffs[0])
	}
	return m.Fits()
}

// firstWhole points `current` to the first whole release there is.
func (u *Updater) firstWhole(ctx context.Context, st *state, serving, committed string) error {
	for _, name := range []string{committed, slot.A, slot.B, slot.Golden} {
		if name == "" || name == serving || u.whole(ctx, name, false) != nil {
			continue
		}
		if err := u.Slots.Activate(name); err != nil {
			return err
		}
		u.Log.Warn("`current` was mended", "was", serving, "slot", name)
		st.Alarm = &deployment.Problem{Code: "current_mended", At: u.Now(),
			Message: fmt.Sprintf("the release that was to serve was damaged or missing: slot %s serves in its place", name),
			Hint:    "`whisper-appliance slot list` shows the slots; `apt reinstall whisper-appliance` brings a whole release"}
		if name == slot.Golden || committed != "" && name != committed {
			return u.Slots.Commit(name)
		}
		return nil
	}
	u.Log.Error("no slot holds a whole release", "links", filepath.Dir(u.Slots.Current))
	return nil // what is there may still run
}
