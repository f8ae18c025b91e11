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
// a reinstallation do: nobody wants another release then, unless what serves is
// damaged, or nothing does; or the package's own could not serve the last time.
// It looks without the lock: an update that is under way is not disturbed.
func (u *Updater) unchanged(ctx context.Context, w Want) (Result, bool) {
	m, ok := u.packaged(w)
	if !ok || release.Compare(m.Version, w.Was) != 0 {
		return Result{}, false
	}
	if st, err := u.load(); err != nil || st.Alarm != nil && st.Alarm.Code == packageNotServing {
		return Result{}, false // it is tried again
	}
	serving, is := u.serves(ctx)
	if serving == "" || is.Version == m.Version && is.Digest() != m.Digest() {
		return Result{}, false // the package's own release is not the one that it was
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
	if serving == "" || release.Compare(m.Version, is.Version) >= 0 {
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

// serves is the slot whose whole release serves, "" where there is none: the
// package's own tree serves only where nothing else can.
func (u *Updater) serves(ctx context.Context) (string, slot.Manifest) {
	serving, _ := u.links()
	if serving == "" || serving == slot.Golden || u.whole(ctx, serving, false) != nil {
		return "", slot.Manifest{}
	}
	m, err := slot.Read(u.Slots.Path(serving))
	if err != nil {
		return "", m
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
// record.
func (u *Updater) ForgetSlots(ctx context.Context) error {
	unlock, err := u.lockOver("the removal of the slots")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := u.settle(ctx, true)
	if err != nil {
		return err
	}
	st.end()
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
