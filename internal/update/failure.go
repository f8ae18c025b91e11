package update

import (
	"context"
	"errors"
	"slices"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// damage are the codes of a release that is not what it should be: it is refused
// from now on, by its digest.
var damage = []string{"damaged_release", "bad_archive", "path_escape", "link", "special_file", "setuid", "duplicate", "bomb", "mislabelled",
	"artefact_damaged", "bad_bundle", "bad_manifest", "no_manifest"}

// behaviour are the codes of a release that was started and is no good.
var behaviour = []string{slot.CandidateFailed, slot.RolledBack, "rehearsal_failed"}

// settings are the codes of what an administrator has to decide otherwise.
var settings = []string{"no_source", "pinned", "bad_config", "bad_version", "wrong_arch", "wrong_contract", "old_updater", "wrong_schema",
	"downgrade", "held", "quarantined", "two_file_systems", "bad_link"}

// blame says who has to answer for err.
func blame(err error) (who, reason string) {
	var f *fault.Error
	switch {
	case !errors.As(err, &f):
		return deployment.Environment, "internal"
	case f.Kind == fault.Canceled:
		return deployment.Operator, f.Code
	case slices.Contains(damage, f.Code), slices.Contains(behaviour, f.Code):
		return deployment.Candidate, f.Code
	case slices.Contains(settings, f.Code):
		return deployment.Configuration, f.Code
	}
	return deployment.Environment, f.Code
}

// failed ends a transaction that did not get to its trial: what served before
// serves, or where not even that is so, somebody has to look. The words of err
// come back with what became of it.
func (t *transaction) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && t.st.Step == preparing && errors.Is(err, context.Canceled) {
		err = errors.Join(errCanceled, err)
	}
	if t.staged != nil {
		t.staged.Discard()
	}
	r := &t.st.Attempt
	t.enterEnd()
	r.At = t.phase
	r.Blame, r.Reason = blame(err)
	r.Says, r.Hint, r.Evidence = err.Error(), fault.Hint(err), t.notes
	outcome := deployment.Aborted
	switch {
	case hasCode(err, slot.NotServing):
		outcome = deployment.Failed
		t.st.Alarm = deployment.ProblemOf(err, t.u.Now())
	case hasCode(err, slot.RolledBack):
		outcome = deployment.RolledBack
	case r.Blame == deployment.Operator:
		outcome = deployment.Canceled
	}
	t.quarantine(err)
	t.res.Outcome = outcome
	return errors.Join(err, t.u.finish(t.st, outcome))
}

// enterEnd notes the length of the last phase.
func (t *transaction) enterEnd() {
	t.st.Attempt.Phases = append(t.st.Attempt.Phases, deployment.PhaseTime{Phase: t.phase, Seconds: (t.u.Clock() - t.since).Seconds()})
}

// quarantine refuses the candidate from now on where it is to blame. What the
// package brought is dpkg's to take back: it is refused to the other doors.
func (t *transaction) quarantine(err error) {
	who, reason := blame(err)
	if who != deployment.Candidate || t.c == nil {
		return
	}
	q := deployment.Quarantine{Version: t.st.Attempt.To.Version, Digest: t.st.Attempt.To.Digest, Artefact: t.st.Artefact, Reason: reason, Says: err.Error(), At: t.u.Now()}
	if q.Artefact == "" && t.c.offer != nil && t.staged == nil && reason != "artefact_damaged" {
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
