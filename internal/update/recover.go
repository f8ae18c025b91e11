package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Recover settles what an earlier run has left, be it killed or cut off. boot
// says that the server has not been started since the machine was: then only
// links and state are moved, and the start that follows finds them right.
// It reports whether there is something to be watched, see Trial, with an error
// too.
func (u *Updater) Recover(ctx context.Context, boot bool) (watch bool, err error) {
	unlock, err := u.lock("recovery")
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err = u.settle(ctx, boot); err != nil {
		watch, _ = u.Trial() //nolint:errcheck // err is the one to tell
		return watch, err
	}
	return u.Trial()
}

// settle brings the state in line with where the links point. It ends in idle
// or on trial; or with an error, and may then be done again.
func (u *Updater) settle(ctx context.Context, boot bool) (*state, error) {
	st, err := u.load()
	if err != nil {
		return nil, err
	}
	u.sweep()
	alarm := st.Alarm
	moved, err := u.mendLinks(ctx, st, boot)
	if err != nil {
		return nil, err
	}
	if err := u.record(st); err != nil {
		return nil, err
	}
	if st.Step != idle && st.Step != onTrial {
		st.Attempt.Interrupted++
	}
	switch st.Step {
	case preparing:
		err = u.giveUp(st, "the update was interrupted before anything was switched")
	case armed:
		err = u.settleArmed(ctx, st, boot)
	case onTrial:
		err = u.settleTrial(ctx, st, boot, moved)
	case rollingBack:
		err = u.goBack(ctx, st, boot)
	}
	if err == nil && st.Step == idle {
		err = u.settleIdle(ctx, st, boot)
	}
	if serving, _ := u.links(); err == nil && serving == slot.Golden {
		u.stay(ctx, serving, boot) // a run may have been cut off after it had given golden another tree
	}
	if err == nil && st.Alarm != alarm {
		err = u.save(st)
	}
	if err != nil {
		return nil, err
	}
	u.show(st, nil)
	return st, nil
}

// giveUp ends a transaction that never took over.
func (u *Updater) giveUp(st *state, says string) error {
	st.Attempt.Reason, st.Attempt.Says, st.Attempt.Blame = "interrupted", says, deployment.Environment
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
	case serving != to && u.Site.TakenBack != nil && u.Site.TakenBack(to):
		return u.tookBack(st, u.whoMoved(st, false), deployment.TakeOver)
	case serving != to:
		u.stay(ctx, serving, boot)
		return errors.Join(u.cameBack(st), u.giveUp(st, "the update was interrupted while the new version was started; the link never moved, or was taken back"))
	}
	if !boot && u.idle(ctx) == "" {
		if err := u.follow(ctx, st, to); err != nil {
			return u.afterFailedSwitch(ctx, st, err)
		}
	}
	// A server that is stopped just now has proved nothing: it will be started.
	if !boot && !u.systemd() || !st.Proof || st.Attempt.From.Slot == "" {
		return u.commit(st, deployment.Committed)
	}
	st.Step = onTrial
	if st.BootID != u.BootID {
		st.BootID = u.BootID
		st.TriesLeft--
	}
	return u.save(st)
}

// tookBack ends a transaction whose candidate serves no more though nobody here
// has taken it back.
func (u *Updater) tookBack(st *state, v verdict, at deployment.Phase) error {
	u.blameTrial(st, v)
	st.Attempt.At = at
	if err := u.cameBack(st); err != nil {
		return err
	}
	return u.finish(st, deployment.RolledBack)
}

// stay sees that the server runs the slot that the link names, and stops what a
// killed switch has left beside it. At boot nothing runs yet.
func (u *Updater) stay(ctx context.Context, name string, boot bool) {
	if boot || name == "" || u.idle(ctx) != "" {
		return
	}
	if err := u.follow(ctx, nil, name); err != nil {
		u.Log.Error("the server does not run what it should", "slot", name, "error", err)
	}
}

// retire stops candidates that a switch has left beside the server because
// systemd did not answer any more.
func (u *Updater) retire(ctx context.Context, boot bool) {
	if boot || !u.systemd() {
		return
	}
	if _, err := u.Site.Idle(ctx); err != nil {
		return // it does not answer yet
	}
	if err := u.Site.Switch(func(string, string) {}).Retire(ctx); err != nil {
		u.Log.Warn("candidates may still run", "error", err)
	}
}

// follow has the server run the slot that the link names.
func (u *Updater) follow(ctx context.Context, st *state, name string) error {
	sw := u.Site.Switch(func(step, text string) { u.Log.Info("recovery", "step", step, "what", text) })
	if sw.WayOut = true; st != nil { // the link is where it is: to refuse its server would mend nothing
		sw.Refused = st.refusal
	}
	_, err := sw.To(ctx, name)
	return err
}

// afterFailedSwitch ends what recovery could not go on with. Where nothing was
// tried, as without systemd's answer, the error stands, and the next run goes on.
func (u *Updater) afterFailedSwitch(ctx context.Context, st *state, err error) error {
	who, reason := blame(err)
	rotten := slices.Contains(damage(), reason) // it was whole when it was placed
	if rotten {
		who = deployment.Environment
	}
	outcome := deployment.RolledBack
	switch {
	case hasCode(err, slot.RolledBack):
	case hasCode(err, slot.NotServing):
		outcome = deployment.Failed
		st.raise(deployment.ProblemOf(err, u.Now()))
	case ctx.Err() != nil && who != deployment.Candidate:
		return err // the caller's time was over, which says nothing of the release: the next run goes on
	case who == deployment.Candidate, rotten, // the link still names it
		slices.Contains([]string{slot.UnitHindered, slot.UnitEdited, slot.TooSlow, slot.Stopped}, reason): // or did until just now
		return u.beginRollback(ctx, st, verdict{reason: reason, blame: who, says: err.Error()}, false)
	default:
		return err
	}
	v := verdict{reason: reason, blame: who, says: err.Error()}
	if said, known := u.ended(st); known && who == deployment.Candidate { // it was started, and this is how that went
		v.blame, v.evidence = said.Blame, said.Evidence
	}
	u.blameTrial(st, v)
	st.Attempt.At = deployment.TakeOver
	if err := u.cameBack(st); err != nil {
		return err
	}
	return u.finish(st, outcome)
}

// settleTrial goes on with a trial, unless something else has ended it. moved
// tells that mendLinks has.
func (u *Updater) settleTrial(ctx context.Context, st *state, boot, moved bool) error {
	serving, committed := u.links()
	to := st.Attempt.To.Slot
	switch {
	case serving == to && committed == to:
		return u.commit(st, deployment.Committed)
	case serving != to:
		return u.tookBack(st, u.whoMoved(st, moved), deployment.OnTrial)
	case st.BootID == u.BootID:
		return nil
	}
	st.BootID = u.BootID
	if st.TriesLeft--; st.TriesLeft > 0 {
		return u.save(st)
	}
	// That may have been anybody's doing, and the gate's notes went with the power.
	return u.beginRollback(ctx, st, verdict{reason: "tries_exhausted", blame: deployment.Environment,
		says: fmt.Sprintf("the machine was started %d times during the trial", tries)}, boot)
}

// whoMoved says why a release on trial serves no more though its trial has not
// ended. moved tells that its slot was damaged.
func (u *Updater) whoMoved(st *state, moved bool) verdict {
	switch {
	case moved:
		return verdict{reason: "slot_damaged", blame: deployment.Environment, says: "its slot was damaged on the disk"}
	case u.Site.TakenBack != nil && !u.Site.TakenBack(st.Attempt.To.Slot):
		return verdict{reason: "link_moved", blame: deployment.Environment, says: "`current` was moved back, and not by the gate: by hand, or on a way back that was cut off before it was written down"}
	}
	v := verdict{reason: "gate", blame: deployment.Candidate, says: "its server failed three times in a row, and the gate took it back"}
	if said, known := u.ended(st); known {
		v.blame, v.evidence = said.Blame, said.Evidence
		v.says += ": " + said.Says
	}
	return v
}

// settleIdle looks at links that no transaction explains.
func (u *Updater) settleIdle(ctx context.Context, st *state, boot bool) error {
	u.retire(ctx, boot)
	serving, committed := u.links()
	if err := u.goldenGivenUp(st, serving); err != nil {
		return err
	}
	if serving == "" || serving == committed {
		return u.Slots.Sweep()
	}
	if committed == "" || u.whole(ctx, committed, true) != nil {
		return u.Slots.Commit(serving) // there is nothing to go back to
	}
	// A trial whose state was lost, or a link that somebody moved by hand: it
	// serves, and is looked at as any trial is.
	if err := u.forgetTaken(serving); err != nil {
		return err
	}
	st.Step, st.Proof, st.TriesLeft, st.BootID = onTrial, true, tries, u.BootID
	st.Attempt = deployment.Record{Transaction: u.newID(), Door: deployment.DoorBoot, Kind: kindSwitch,
		From: u.release(committed), To: u.release(serving), Started: u.Now()}
	return u.save(st)
}

// goldenGivenUp tells of the package's release that failed where nothing else could
// serve: the gate has put the one of the package before in its place. It is
// recorded once, and the mark goes.
func (u *Updater) goldenGivenUp(st *state, serving string) error {
	link, err := os.Readlink(u.Slots.Path(slot.Golden))
	if err != nil || serving != slot.Golden || link != u.Slots.GoldenBefore || u.Site.TakenBack == nil || !u.Site.TakenBack(slot.Golden) {
		return nil //nolint:nilerr // then it is not so
	}
	r := deployment.Record{Transaction: u.newID(), Door: deployment.DoorBoot, Kind: kindRollback, From: u.release(slot.Golden), To: deployment.Release{Slot: slot.Golden},
		Started: u.Now(), Ended: u.Now(), At: deployment.Rollback, Outcome: deployment.RolledBack, Reason: "gate", Blame: deployment.Candidate,
		Says: "the package's release failed three times in a row, and the gate put the one of the package before in its place"}
	if m, err := slot.Read(u.Slots.Golden); err == nil {
		r.To = describe(m, slot.Golden)
	}
	if u.Site.Ends != nil {
		for _, e := range u.Site.Ends(slot.Golden) {
			r.Evidence = append(r.Evidence, e.String())
		}
	}
	bound(&r)
	st.raise(&deployment.Problem{Code: "current_mended", At: u.Now(),
		Message: "the package's release failed three times in a row: that of the package before serves in its place",
		Hint:    "`whisper-appliance update history` says how it failed; a newer package, or another release, makes it right"})
	if last := st.Last; last == nil || last.Reason != r.Reason || last.From != r.From || last.To != r.To {
		st.Unrecorded = &r
	}
	if err := u.save(st); err != nil {
		return err
	}
	if u.Site.ForgetTaken != nil {
		if err := u.Site.ForgetTaken(slot.Golden); err != nil {
			u.Log.Warn("the gate's mark stays", "error", err)
		}
	}
	return u.record(st)
}

// mendLinks gives `current` a whole release to name where it has none, and
// `stable` the way back of a trial. At boot every byte of what serves is read;
// while a server runs a damaged file is no reason to move anything: it is told.
// moved says that `current` was moved.
func (u *Updater) mendLinks(ctx context.Context, st *state, boot bool) (moved bool, err error) {
	serving, committed := u.links()
	if serving != slot.Golden && committed != slot.Golden {
		if err := u.Slots.Prepare(); err != nil {
			u.Log.Warn("the link to the package's release is not made", "error", err)
		}
	}
	if serving == "" {
		if _, err := os.Lstat(u.Slots.Current); errors.Is(err, fs.ErrNotExist) && committed == "" && !u.anything() {
			return false, nil // nothing was ever installed
		}
		return u.firstWhole(ctx, st, serving, committed, boot)
	}
	running := !boot && u.systemd()
	if u.refusedGolden(ctx, st, serving) {
		return false, u.goldenBefore(st)
	}
	why := u.whole(ctx, serving, running)
	if why == nil {
		return false, u.mendStable(ctx, st, committed)
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	u.Log.Error("the slot that serves is damaged", "slot", serving, "error", why)
	st.raise(&deployment.Problem{Code: "slot_damaged", Message: fmt.Sprintf("slot %s, which serves, is damaged: %v", serving, why), At: u.Now(),
		Hint: "`whisper-appliance verify` lists every difference; `apt reinstall whisper-appliance` brings a whole release"})
	if _, err := slot.Read(u.Slots.Path(serving)); running && err == nil {
		return false, nil
	}
	return u.firstWhole(ctx, st, serving, committed, boot)
}

// refusedGolden tells whether the package's own release serves, is quarantined,
// and has one from before it that is whole and is not.
func (u *Updater) refusedGolden(ctx context.Context, st *state, serving string) bool {
	before := u.Slots.GoldenBefore
	if serving != slot.Golden || before == "" || st.banned(u.release(slot.Golden).Digest, "") == nil {
		return false
	}
	diffs, m, err := slot.Verify(ctx, before, slot.Check{Owned: u.Slots.Owned})
	return err == nil && len(diffs) == 0 && m.Fits() == nil && st.refusal(m) == nil
}

// goldenBefore has the slot golden be the release of the package before; settle
// sees that a server follows it. The alarm comes first: once the link has moved
// nobody could tell any more that there was a reason.
func (u *Updater) goldenBefore(st *state) error {
	u.Log.Warn("the package's release is quarantined: the one of the package before serves in its place")
	st.raise(&deployment.Problem{Code: "current_mended", At: u.Now(),
		Message: "the package's release, which was to serve, is quarantined: that of the package before serves in its place",
		Hint:    "`whisper-appliance update quarantine list` says why; a newer package, or another release, makes it right"})
	if err := u.save(st); err != nil {
		u.Log.Error("the alarm is not written down", "error", err)
	}
	before := *u.Slots
	before.Golden = before.GoldenBefore
	return before.Prepare()
}

// mendStable gives a trial its way back again: on a full disk the gate makes
// `current` of `stable` itself.
func (u *Updater) mendStable(ctx context.Context, st *state, committed string) error {
	from := st.Attempt.From.Slot
	if committed != "" || from == "" || st.Step != armed && st.Step != onTrial || u.whole(ctx, from, true) != nil {
		return nil
	}
	return u.Slots.Commit(from)
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

// firstWhole points `current` to the first whole release there is, and has a
// server that runs follow it.
func (u *Updater) firstWhole(ctx context.Context, st *state, serving, committed string, boot bool) (moved bool, err error) {
	name, err := u.Slots.LinkBack(ctx, serving, committed, st.refusal)
	if hasCode(err, "no_way_back") {
		u.Log.Error("no slot holds a whole release", "error", err)
		return false, nil // what is there may still run
	}
	if err != nil {
		return false, err
	}
	u.Log.Warn("`current` was mended", "was", serving, "slot", name)
	st.raise(&deployment.Problem{Code: "current_mended", At: u.Now(),
		Message: fmt.Sprintf("the release that was to serve was damaged or missing: slot %s serves in its place", name),
		Hint:    "`whisper-appliance slot list` shows the slots; `apt reinstall whisper-appliance` brings a whole release"})
	if name == slot.Golden || committed != "" && name != committed {
		err = u.Slots.Commit(name)
	}
	u.stay(ctx, name, boot)
	return true, err
}
