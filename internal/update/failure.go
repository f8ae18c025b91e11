package update

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// damagedArtefact is the code of one that is not what was signed.
const damagedArtefact = "artefact_damaged"

// damage are the codes of a release that is not what it should be: it is refused
// from now on, by its digest.
func damage() []string {
	return []string{"damaged_release", "bad_archive", "path_escape", "link", "special_file", "setuid", "duplicate", "bomb", "mislabelled",
		"bad_bundle", "bad_manifest", "no_manifest"}
}

// behaviour are the codes of a release that was started and is no good.
func behaviour() []string {
	return []string{slot.CandidateFailed, slot.RolledBack, "rehearsal_failed"}
}

// surroundings are the codes of what no release can help: where one of them is
// the cause, it is not to blame for what it could not show.
func surroundings() []string {
	return []string{"no_systemd", "no_unit", "unit_masked", "not_allowed", "engine_stays", "engine_astray", "disk_full",
		slot.NeverBegun, slot.UnitHindered, slot.TooSlow, slot.LinkStays, slot.Unwell}
}

// settings are the codes of what an administrator has to decide otherwise.
func settings() []string {
	return []string{"no_source", "pinned", "bad_config", "bad_version", "wrong_arch", "wrong_contract", "old_updater", "wrong_schema",
		"downgrade", "held", "quarantined", "two_file_systems", "bad_link", slot.UnitEdited}
}

// blame says who has to answer for err, and why: where a release could not show
// what it is worth, for what kept it from that.
func blame(err error) (who, reason string) {
	var f *fault.Error
	if errors.As(err, &f) && slices.Contains(behaviour(), f.Code) {
		if cause := slot.Caused(err, slot.UnitEdited); cause != nil {
			return deployment.Configuration, cause.Code
		}
		if cause := slot.Caused(err, surroundings()...); cause != nil {
			return deployment.Environment, cause.Code
		}
		return deployment.Candidate, f.Code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &f):
		return deployment.Environment, "timeout"
	case !errors.As(err, &f):
		return deployment.Environment, "internal"
	case f.Kind == fault.Canceled, f.Code == errYielded.Code:
		return deployment.Operator, f.Code
	case slices.Contains(damage(), f.Code):
		return deployment.Candidate, f.Code
	case slices.Contains(settings(), f.Code):
		return deployment.Configuration, f.Code
	}
	return deployment.Environment, f.Code
}

// blame is blame, but for what only the transaction knows. Damage to what was whole
// in its slot before is the disk's. An artefact that is not what was signed may
// have been damaged by the line, or by who answers at its other end; a file that
// somebody has handed over is what it is.
func (t *transaction) blame(err error) (who, reason string) {
	who, reason = blame(err)
	if reason == damagedArtefact && t.want.Bundle != "" {
		who = deployment.Candidate
	}
	if who == deployment.Candidate && reason == slot.RolledBack { // it was started, and systemd may have said how that went
		if said, known := t.u.ended(t.st); known {
			who = said.Blame
		}
	}
	if t.c != nil && (t.c.there || t.res.Placed) && slices.Contains(damage(), reason) {
		who = deployment.Environment
	}
	return who, reason
}

// failed ends a transaction that did not get to its trial: what served before
// serves, or where not even that is so, somebody has to look. The words of err
// come back with what became of it.
func (t *transaction) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.Join(orderOf(ctx), err)
	}
	t.waitAgain(ctx, err)
	if t.staged != nil {
		t.staged.Discard()
	}
	r := &t.st.Attempt
	t.enterEnd()
	r.At = cmp.Or(t.broke, t.phase)
	r.Blame, r.Reason = t.blame(err)
	r.Says, r.Hint, r.Evidence = err.Error(), fault.Hint(err), t.notes
	if said, known := t.u.ended(t.st); known && r.Reason == slot.RolledBack {
		r.Evidence = append(r.Evidence, said.Evidence...)
	}
	outcome := deployment.Aborted
	switch {
	case hasCode(err, slot.NotServing):
		outcome = deployment.Failed
		t.st.raise(deployment.ProblemOf(err, t.u.Now()))
	case hasCode(err, slot.RolledBack):
		outcome = deployment.RolledBack
	case r.Blame == deployment.Operator:
		outcome = deployment.Canceled
	}
	t.hinder()
	if hasCode(err, slot.SystemdAway) {
		return t.waits(ctx, err)
	}
	t.quarantine(err)
	t.res.Outcome = outcome
	if outcome != deployment.Aborted && outcome != deployment.Canceled || hasCode(err, slot.Stopped) {
		if cerr := t.u.cameBack(t.st); cerr != nil {
			return errors.Join(err, cerr) // the state is as before: the next run settles it
		}
	}
	t.st.tellUnwell(err, t.u.Now())
	return errors.Join(err, t.u.finish(t.st, outcome))
}

// orderOf is the order by which ctx was ended, to cancel where nobody gave one.
func orderOf(ctx context.Context) error {
	if err := context.Cause(ctx); errors.As(err, new(*fault.Error)) {
		return err
	}
	return errCanceled
}

// waitAgain gives what has waited its place again where it was ended for another's
// sake, or with its process: it was not tried.
func (t *transaction) waitAgain(ctx context.Context, err error) {
	ended := hasCode(err, errYielded.Code) || errors.Is(context.Cause(ctx), context.Canceled)
	if ended && t.swapped == 0 && t.st.Queued == nil {
		t.st.Queued = t.waited
	}
}

// mostHindered is how often in a row a release is started that something else
// keeps from serving.
const mostHindered = 3

// hinder holds a release that was started and could not be tried, as a trial does
// that ends so: else the timer would take it into the same trouble at every look.
// Where the server was restarted for it once is enough.
func (t *transaction) hinder() {
	r, st := &t.st.Attempt, t.st
	started := slices.Contains([]deployment.Phase{deployment.Overlap, deployment.Switch, deployment.TakeOver}, r.At)
	if !started || r.Blame == deployment.Candidate || r.Kind == kindRollback || r.Kind == kindSwitch || r.Door == deployment.DoorDpkg {
		return // no timer asks for these again, and a rollback or another try must find them
	}
	if st.Hindered.Digest != r.To.Digest {
		st.Hindered = hindered{Digest: r.To.Digest}
	}
	if st.Hindered.Times++; st.Hindered.Times >= mostHindered || t.swapped != 0 {
		st.Held, st.Hold, st.Hindered = r.To.Version, hold{At: t.u.Now()}, hindered{}
	}
}

// tellUnwell raises the alarm about a way back that is none to be glad of.
func (st *state) tellUnwell(err error, now time.Time) {
	if f := slot.Caused(err, slot.Unwell); f != nil {
		st.raise(deployment.ProblemOf(f, now))
	}
}

// waits leaves the way back to whoever finds systemd answering again: the link is
// back already.
func (t *transaction) waits(ctx context.Context, err error) error {
	t.res.Outcome, t.st.Step = deployment.RolledBack, rollingBack
	return errors.Join(err, t.u.save(t.st), t.u.watched(ctx))
}

// enterEnd notes the length of the last phase.
func (t *transaction) enterEnd() {
	t.st.Attempt.Phases = append(t.st.Attempt.Phases, deployment.PhaseTime{Phase: t.phase, Seconds: (t.u.Clock() - t.since).Seconds()})
}

// quarantine refuses the candidate from now on where it is to blame. What the
// package brought is dpkg's to take back: it is refused to the other doors.
func (t *transaction) quarantine(err error) {
	who, reason := t.blame(err)
	if who != deployment.Candidate || t.c == nil {
		return
	}
	to := t.st.Attempt.To
	q := deployment.Quarantine{Version: to.Version, Digest: to.Digest, Artefact: t.st.Artefact, Reason: reason, Says: clip(err.Error()), At: t.u.Now()}
	if q.Artefact == "" && t.c.offer != nil && t.staged == nil && reason != damagedArtefact {
		q.Artefact = t.c.offer.SHA256
	}
	if q.Digest == "" && q.Artefact == "" {
		return // what was damaged on its way is no release: another try brings it whole
	}
	t.st.ban(q)
}

func hasCode(err error, code string) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == code
}
