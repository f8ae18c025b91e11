package update

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Scrubbed is what a scrub found in a slot.
type Scrubbed struct {
	Slot        string            `json:"slot"`
	Version     string            `json:"version,omitempty"`
	Empty       bool              `json:"empty,omitempty"`
	Differences []slot.Difference `json:"differences,omitempty"`
	Problem     string            `json:"problem,omitempty"`
	Healed      string            `json:"healed,omitempty"` // from where it was staged anew
}

// Scrub reads every byte of every slot. A damaged idle slot is staged anew from
// the package's release where that is the same, or from an artefact that is
// still here; or else removed, so that nobody goes back to it. A damaged slot
// that serves, or that a trial goes back to, is an alarm. progress may be nil.
func (u *Updater) Scrub(ctx context.Context, progress func(done, total int64)) ([]Scrubbed, error) {
	unlock, err := u.lock("a scrub of the slots")
	if err != nil {
		return nil, err
	}
	defer unlock()
	st, err := u.settled(ctx)
	if err != nil {
		return nil, err
	}
	ctx, stop := u.yielding(ctx)
	defer stop()
	var list []Scrubbed
	var errs []error
	for _, name := range []string{slot.A, slot.B, slot.Golden} {
		found, err := u.scrub(ctx, st, name, progress)
		if ctx.Err() != nil {
			return list, context.Cause(ctx)
		}
		list, errs = append(list, found), append(errs, err)
	}
	damaged := slices.ContainsFunc(list, func(s Scrubbed) bool { return s.Problem != "" && s.Healed == "" })
	if !damaged && st.Alarm != nil && st.Alarm.Code == "slot_damaged" {
		st.Alarm = nil
	}
	return list, errors.Join(append(errs, u.save(st))...)
}

func (u *Updater) scrub(ctx context.Context, st *state, name string, progress func(done, total int64)) (Scrubbed, error) {
	s := Scrubbed{Slot: name}
	diffs, m, err := slot.Verify(ctx, u.Slots.Path(name), slot.Check{Owned: u.Slots.Owned, Progress: progress})
	s.Version, s.Differences = m.Version, diffs
	switch {
	case fault.KindOf(err) == fault.NotFound && name != slot.Golden:
		s.Empty = true
		return s, nil
	case err != nil:
		s.Problem = err.Error()
	case len(diffs) == 0:
		return s, nil
	default:
		s.Problem = diffs[0].String()
	}
	u.Log.Error("a slot is damaged", "slot", name, "version", m.Version, "problem", s.Problem)
	serving, committed := u.links()
	if name == serving || name == committed || name == slot.Golden {
		st.raise(&deployment.Problem{Code: "slot_damaged", At: u.Now(), Message: fmt.Sprintf("slot %s is damaged: %s", name, s.Problem),
			Hint: "apt reinstall whisper-appliance; and see that disk and memory are well"})
		return s, nil
	}
	return s, u.heal(ctx, &s, m)
}

// heal stages the whole release anew: a disk that has lost one byte of a file
// may have lost more.
func (u *Updater) heal(ctx context.Context, s *Scrubbed, m slot.Manifest) error {
	for _, from := range []string{u.Slots.Golden, u.Slots.GoldenBefore} {
		if from == "" {
			continue
		}
		if same, err := slot.Read(from); err != nil || !same.Same(m) {
			continue
		}
		if u.systemd() {
			if err := u.Site.Switch(func(string, string) {}).Vacate(ctx, s.Slot); err != nil {
				return err
			}
		}
		if _, err := u.Slots.Place(ctx, from, s.Slot, nil); err != nil {
			return fmt.Errorf("stage slot %s anew: %w", s.Slot, err)
		}
		s.Healed = "the package's release"
		return nil
	}
	set, err := u.Settings()
	if err != nil {
		return err
	}
	if err := u.restage(ctx, set, s, m); err != nil {
		s.Problem += fmt.Sprintf("; it could not be brought anew: %v", err)
		return u.Slots.Drop(s.Slot)
	}
	s.Healed = "its source"
	return nil
}

// restage brings the release that m was from its source.
func (u *Updater) restage(ctx context.Context, set Settings, s *Scrubbed, m slot.Manifest) error {
	index, src, from, err := u.index(ctx, set)
	if err != nil {
		return err
	}
	for _, o := range index.Offers {
		if o.Version != m.Version || fitsArch(o) != nil {
			continue
		}
		file, err := u.fetch(ctx, set, from, src, o, func(int64, int64) {})
		if err != nil {
			return err
		}
		c := &candidate{offer: &o, file: file, slot: s.Slot}
		return u.restore(ctx, c)
	}
	return fault.New(fault.NotFound, "no_such_release", "version %s is not on offer any more", m.Version)
}

func (u *Updater) restore(ctx context.Context, c *candidate) error {
	t := &transaction{u: u, st: &state{}, c: c}
	if err := t.vacate(ctx); err != nil {
		return err
	}
	if err := u.admit(c.slot, *c.offer); err != nil {
		return err
	}
	staged, err := u.Slots.Stage(ctx, c.slot, func(ctx context.Context, dir string) (slot.Manifest, error) {
		return t.unpack(ctx, dir, func(int64, int64) {})
	})
	if err != nil {
		return err
	}
	defer staged.Discard()
	return staged.Publish(ctx, nil)
}
