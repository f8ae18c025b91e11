package update

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
)

// commit makes what serves the release to go back to, and ends the transaction.
// The link comes first: recovery that finds it moved writes the rest.
func (u *Updater) commit(st *state, outcome string) error {
	to := st.Attempt.To
	faultpoint.Here("update.committing")
	if err := u.withRoom(func() error { return u.Slots.Commit(to.Slot) }); err != nil {
		return fmt.Errorf("commit version %s: %w", to.Version, err)
	}
	faultpoint.Here("update.link_committed")
	back := st.Attempt.Kind == kindRollback
	if st.Attempt.Door == deployment.DoorDpkg || !back && release.Compare(to.Version, st.Floor) > 0 {
		st.Floor = to.Version
	}
	if st.Held == to.Version {
		st.Held, st.Hold = "", hold{}
	}
	st.Hindered = hindered{}
	st.noteBefore()
	if back {
		st.Held, st.Before = st.Attempt.From.Version, ""
		st.Hold = hold{st.Attempt.Door, u.Now()}
	}
	if outcome == deployment.Committed {
		st.Alarm = nil
	}
	st.pardon(to.Digest)
	return u.finish(st, outcome)
}

// noteBefore keeps what a rollback would go back to. The other slot may hold
// anything: what failed there, or what a rollback has left.
func (st *state) noteBefore() {
	if from := st.Attempt.From.Digest; from != "" && from != st.Attempt.To.Digest {
		st.Before = from
	}
}

// finish writes the record of the transaction and cleans up after it.
func (u *Updater) finish(st *state, outcome string) error {
	r := st.Attempt
	r.Outcome, r.Ended = outcome, u.Now()
	if seen := st.Credit.Observed; seen > 0 {
		r.Phases = append(r.Phases, deployment.PhaseTime{Phase: deployment.OnTrial, Seconds: seen.Seconds()})
	}
	bound(&r)
	u.keepEvidence(&r)
	if p := u.dpkgAlarm(r); p != nil && !st.unwell(r.Started) {
		st.raise(p)
	}
	st.end()
	st.Unrecorded = &r
	if err := u.save(st); err != nil {
		return err
	}
	faultpoint.Here("update.ended")
	err := u.record(st)
	if serving, committed := u.links(); serving == committed && serving != "" {
		err = errors.Join(err, u.clean(st))
	}
	return err
}

// packageNotServing is the alarm's code, until a package's release serves.
const packageNotServing = "package_not_serving"

// dpkgAlarm tells of a package whose release does not serve: to apt the upgrade
// went well. It is nil where there is nothing to tell.
func (u *Updater) dpkgAlarm(r deployment.Record) *deployment.Problem {
	if r.Door != deployment.DoorDpkg || r.Blame == deployment.Operator || r.Outcome != deployment.RolledBack && r.Outcome != deployment.Aborted {
		return nil
	}
	return &deployment.Problem{Code: packageNotServing, At: u.Now(),
		Message: fmt.Sprintf("version %s came with the package and does not serve: version %s does", r.To.Version, r.From.Version),
		Hint:    "`whisper-appliance update history` says why; a later package, or the one before, makes it right"}
}

// unwell tells whether there is an alarm since then about what serves: that the
// package's release does not is the lesser trouble.
func (st *state) unwell(since time.Time) bool {
	return st.Alarm != nil && st.Alarm.Code == slot.Unwell && !st.Alarm.At.Before(since)
}

// Words in a record are for people, and what a release says of itself may be of
// any length.
const (
	mostWords    = 4 << 10 // bytes
	mostEvidence = 100     // lines
)

// bound cuts the words of a record, and makes them plain.
func bound(r *deployment.Record) {
	r.Says, r.Hint = clip(r.Says), clip(r.Hint)
	r.Evidence = r.Evidence[:min(len(r.Evidence), mostEvidence)]
	for i, line := range r.Evidence {
		r.Evidence[i] = clip(line)
	}
}

// clip makes plain what a server, a candidate or a source may have said.
func clip(words string) string { return fault.Plain(words, mostWords) }

// record appends what was not recorded yet: once, however often it was begun.
func (u *Updater) record(st *state) error {
	if st.Unrecorded == nil {
		return nil
	}
	last, err := deployment.Records(u.Dir, 1)
	if err != nil {
		return err
	}
	if len(last) == 0 || last[0].Transaction != st.Unrecorded.Transaction {
		if err := u.withRoom(func() error { return deployment.Append(u.Dir, *st.Unrecorded) }); err != nil {
			return cannotWrite(u.Dir, err)
		}
		faultpoint.Here("update.recorded")
		if err := u.trim(); err != nil {
			u.Log.Warn("old deployments stay in the record", "error", err)
		}
	}
	st.Last, st.Unrecorded = st.Unrecorded, nil
	return u.save(st)
}

// trim keeps as many deployments in the record as the settings say, and now and
// then a few more.
func (u *Updater) trim() error {
	set, err := u.Settings()
	if err != nil || set.Keep <= 0 {
		return err
	}
	path := filepath.Join(u.Dir, deployment.RecordFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:len(lines)-1] // what follows the last end of a line is nothing
	if len(lines) <= set.Keep+set.Keep/10 {
		return nil
	}
	return durable.WriteFile(path, bytes.Join(lines[len(lines)-set.Keep:], nil), 0o644)
}

// clean removes what no committed release needs: what was staged or replaced,
// the artefact that now lies in a slot, and the release of the package before
// where the package's own has proved itself. The ballast comes back.
func (u *Updater) clean(st *state) error {
	faultpoint.Here("update.cleaning")
	err := u.Slots.Sweep()
	if last := st.Last; last != nil && (last.Outcome == deployment.Committed || last.Outcome == deployment.Kept) {
		err = errors.Join(err, u.cleanOffers(st, last.To.Version), u.cleanGolden(*last), u.save(st))
	}
	if berr := u.takeBallast(); berr != nil {
		u.Log.Warn("there is no room for the ballast", "error", berr)
	}
	return err
}

// cleanOffers forgets what was offered and fetched, up to the version that is
// committed now. What waits in the queue stays.
func (u *Updater) cleanOffers(st *state, version string) error {
	if o := st.Check.Offer; o != nil && release.Compare(o.Version, version) <= 0 {
		st.Check.Offer = nil
	}
	fetched, _, err := release.ParseTarget(st.Check.Fetched)
	if err == nil && (release.Compare(fetched, version) > 0 || st.Queued != nil && st.Queued.Version == fetched) {
		return nil
	}
	st.Check.Fetched = ""
	return os.RemoveAll(u.artefacts())
}

// cleanGolden removes the release of the package before, once the package's own
// has proved itself.
func (u *Updater) cleanGolden(last deployment.Record) error {
	if last.Outcome != deployment.Committed {
		return nil
	}
	if m, err := slot.Read(u.Slots.Golden); err != nil || m.Digest() != last.To.Digest {
		return nil //nolint:nilerr // then it has proved nothing
	}
	return u.dropGoldenBefore()
}

// cleanLeft is cleanGolden for a package whose release is not to serve, and so
// never proves itself: what serves is whole and committed, and golden the way back
// from it. The lock must be held. That nothing could be removed stops nobody.
func (u *Updater) cleanLeft() {
	serving, committed := u.links()
	if serving != committed || serving == slot.Golden {
		return
	}
	if _, err := slot.Read(u.Slots.Golden); err != nil {
		return // then the one before may be all that can serve
	}
	if err := u.dropGoldenBefore(); err != nil {
		u.Log.Warn("the release of the package before stays", "error", err)
	}
}

// dropGoldenBefore removes the release of the package before, unless it serves or
// is a way back.
func (u *Updater) dropGoldenBefore() error {
	before := u.Slots.GoldenBefore
	if before == "" {
		return nil
	}
	if serving, committed := u.links(); serving != slot.Golden && committed != slot.Golden {
		if err := u.Slots.Prepare(); err != nil { // an upgrade may have kept the one before where it served
			return err
		}
	}
	if link, err := os.Readlink(u.Slots.Path(slot.Golden)); err != nil || link != u.Slots.Golden {
		return nil //nolint:nilerr // the one before may be all that can serve
	}
	os.Remove(filepath.Join(before, slot.ManifestName)) //nolint:errcheck // half a tree is no release; RemoveAll meets the same trouble
	return os.RemoveAll(before)
}

// cameBack makes what serves after a way back the committed release, and raises
// an alarm where that is not the one before, or one that is quarantined: nothing
// else came up, and it is refused no more.
func (u *Updater) cameBack(st *state) error {
	serving, committed := u.links()
	if from := st.Attempt.From.Slot; serving != from && from != "" && serving != "" {
		st.raise(&deployment.Problem{Code: "rolled_back_elsewhere", At: u.Now(),
			Message: fmt.Sprintf("slot %s did not come up or was damaged: slot %s serves instead", from, serving),
			Hint:    "`whisper-appliance verify` lists what is damaged; `apt reinstall whisper-appliance` brings a whole release"})
	}
	if digest := u.release(serving).Digest; digest != "" && st.banned(digest, "") != nil {
		st.pardon(digest)
		st.raise(&deployment.Problem{Code: "refused_serves", At: u.Now(),
			Message: fmt.Sprintf("slot %s serves, whose release was quarantined: no other came up", serving),
			Hint:    "see that it transcribes; `whisper-appliance slot deploy` installs the package's release, `whisper-appliance update apply` the newest"})
	}
	if serving == "" || serving == committed {
		return nil
	}
	return u.withRoom(func() error { return u.Slots.Commit(serving) })
}

// sweep removes what writes that were killed have left of their temporary files.
// The lock must be held.
func (u *Updater) sweep() {
	patterns := []string{filepath.Join(u.artefacts(), ".*"), filepath.Join(u.Run, "."+yieldPrefix+"*"), filepath.Join(u.Run, "."+haltPrefix+"*")}
	if u.Trust.Dir != "" {
		patterns = append(patterns, filepath.Join(u.Trust.Dir, ".*"))
	}
	for _, made := range append(u.ballasts(), filepath.Join(u.Dir, stateFile), filepath.Join(u.Dir, policyFile), filepath.Join(u.Dir, deployment.RecordFile)) {
		patterns = append(patterns, filepath.Join(filepath.Dir(made), "."+filepath.Base(made)+".*"))
	}
	for _, pattern := range patterns {
		left, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, path := range left {
			os.Remove(path) //nolint:errcheck // the next run meets it again
		}
	}
}
