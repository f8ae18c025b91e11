package update

import (
	"context"
	"fmt"
	"os"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
)

// unchanged tells of a package that is configured again, as dpkg-reconfigure and
// a reinstallation do: nobody wants another release then, where all is well. Where
// something is not, it is what people are told to try: what serves is damaged, or
// older than the package's own though nobody decided so, or there is an alarm.
// It looks without the lock: an update that is under way is not disturbed.
func (u *Updater) unchanged(ctx context.Context, w Want) (Result, bool) {
	m, ok := u.packaged(w)
	if !ok || release.Compare(m.Version, w.Was) != 0 {
		return Result{}, false
	}
	st, err := u.load()
	if err != nil || st.Alarm != nil && st.Alarm.Code != keptWithoutProof {
		return Result{}, false
	}
	serving, is := u.serves(ctx)
	switch {
	case serving == "", is.Version == m.Version && is.Digest() != m.Digest(): // the package's own release is not the one that it was
		return Result{}, false
	case release.Compare(is.Version, m.Version) < 0 && st.Held != m.Version && st.Pinned != is.Version:
		return Result{}, false
	case u.whole(ctx, serving, false) != nil:
		return Result{}, false
	}
	return Result{Outcome: Already, To: describe(is, serving),
		Left: fmt.Sprintf("slot %s serves %s; the package is as it was, and nothing is switched", serving, is.Version)}, true
}

// older tells of a newer package whose release is older than the one that serves,
// which an update has brought. That one is left.
func (u *Updater) older(ctx context.Context, w Want) (Result, bool) {
	m, ok := u.packaged(w)
	if !ok || release.Compare(m.Version, w.Was) <= 0 {
		return Result{}, false // who installs an older package wants that
	}
	serving, is := u.serves(ctx)
	if serving == "" || release.Compare(m.Version, is.Version) >= 0 || u.whole(ctx, serving, false) != nil {
		return Result{}, false
	}
	return Result{Outcome: Already, To: describe(is, serving),
		Left: fmt.Sprintf("slot %s serves %s, which is newer than the package's %s, and is left", serving, is.Version, m.Version)}, true
}

// packaged is the release of a package that takes another's place; not ok is
// everything else.
func (u *Updater) packaged(w Want) (m slot.Manifest, ok bool) {
	if !w.lenient() || w.Tree == "" || w.Was == "" {
		return m, false
	}
	m, err := slot.Read(w.Tree)
	return m, err == nil
}

// serves is the slot whose release serves, "" where there is none: the package's
// own tree serves only where nothing else can, and a server that crashes again and
// again does not.
func (u *Updater) serves(ctx context.Context) (string, slot.Manifest) {
	serving, _ := u.links()
	if serving == "" || serving == slot.Golden {
		return "", slot.Manifest{}
	}
	m, err := slot.Read(u.Slots.Path(serving))
	if err != nil {
		return "", m
	}
	if u.idle(ctx) == "" && !u.Site.Switch(func(string, string) {}).Serves(ctx, serving) {
		return "", slot.Manifest{}
	}
	return serving, m
}

// left is what becomes of a package whose release is not to serve; the lock is
// held, and no trial runs. What has waited for its turn does so no more, of which
// the record tells.
func (u *Updater) left(ctx context.Context, st *state, w Want) (res Result, left bool, err error) {
	if res, left = u.unchanged(ctx, w); !left {
		res, left = u.older(ctx, w)
	}
	if left {
		u.cleanLeft()
	}
	if was := st.Queued; left && w.queued && was != nil {
		st.Queued = nil
		st.Unrecorded = &deployment.Record{Transaction: u.newID(), Door: was.Door, Kind: w.kind(), From: res.To,
			To: deployment.Release{Version: was.Version}, Started: u.Now(), Ended: u.Now(), At: deployment.Plan, Outcome: deployment.Canceled,
			Reason: "left", Blame: deployment.Operator, Says: res.Left}
		if err = u.save(st); err == nil {
			err = u.record(st)
		}
	}
	return res, left, err
}

// ForgetSlots clears what the updater knows of slots that are about to be removed,
// and of releases that it has fetched. What was decided stays for the next
// installation: floor, pin, what is held and what is quarantined; and so does the
// record, which has what the removal has ended. Nothing is looked for in the slots.
func (u *Updater) ForgetSlots(_ context.Context) error {
	unlock, err := u.lockOver("the removal of the slots")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := u.load()
	if err != nil {
		return err
	}
	if err := u.record(st); err != nil {
		return err
	}
	if err := u.removed(st); err != nil { // where it cannot be written down the next save says so
		u.Log.Error("what went on has not ended as it should", "error", err)
	}
	st.end()
	if st.Hold.Door == deployment.DoorDpkg { // the package's removal has ended its trial, and decided nothing
		st.Held, st.Hold = "", hold{}
	}
	st.Queued, st.Alarm, st.Before = nil, nil, ""
	st.Check.Offer, st.Check.Fetched = nil, ""
	for range 2 { // the one before it would tell of them, too
		if err := u.save(st); err != nil {
			return err
		}
	}
	u.dropBallast()
	if err := os.RemoveAll(u.artefacts()); err != nil {
		return cannotWrite(u.artefacts(), err)
	}
	return nil
}

// removed ends, in the record, a transaction whose slots go away with the package.
// One whose end was decided, and not written down, ends so.
func (u *Updater) removed(st *state) error {
	serving, committed := u.links()
	to := st.Attempt.To.Slot
	switch {
	case st.Step == idle:
		return nil
	case st.Step == rollingBack:
		return u.finish(st, deployment.RolledBack)
	case st.Step != preparing && to != "" && serving == to && committed == to:
		return u.commit(st, deployment.Committed)
	}
	r := &st.Attempt
	r.Reason, r.Blame, r.Says = "removed", deployment.Operator, "the package was removed meanwhile"
	if r.At = deployment.Plan; st.Step == onTrial {
		r.At = deployment.OnTrial
	} else if st.Step == armed {
		r.At = deployment.TakeOver
	}
	return u.finish(st, deployment.Canceled)
}
