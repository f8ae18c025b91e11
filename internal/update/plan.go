package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// Want is what is asked for: exactly one of a version on offer, a bundle, a
// tree and a slot; all of them empty is the newest on offer.
type Want struct {
	Door    deployment.Door
	Version string // on offer
	Bundle  string // path of a file *.wa
	Tree    string // directory with a release, as the package brings one
	Slot    string // what lies in the slot a or b
	Trial   bool   // it has to prove itself before it is committed
	Auto    bool   // nobody asked for this very one: what is held, pinned or not rolled out yet stays out

	// Was is the version of the package that was configured before the one which
	// brings Tree: where that is the same, or what serves is newer than a newer one's,
	// nothing is switched. "" = none was, or Tree is wanted in any case. It counts at
	// the door of dpkg alone.
	Was string

	back   bool  // it is the way back to what served before
	queued bool  // it is what waited
	held   *held // the lock, to be set aside while a source is waited for; nil = it is kept

	// Begun is called once the release is found and nothing stands against it: what
	// is refused before is the error of the call. nil = nobody wants to know.
	Begun func(transaction string)
}

// Kinds of transactions, as the record has them.
const (
	kindUpdate   = "update"
	kindDeploy   = "deploy"
	kindSwitch   = "switch"
	kindRollback = "rollback"
)

func (w Want) kind() string {
	switch {
	case w.back:
		return kindRollback
	case w.Tree != "":
		return kindDeploy
	case w.Slot != "":
		return kindSwitch
	}
	return kindUpdate
}

// String is the want for whoever finds the lock held.
func (w Want) String() string {
	switch {
	case w.Tree != "":
		return "deploy of " + w.Tree
	case w.Slot != "":
		return "switch to slot " + w.Slot
	case w.Bundle != "":
		return "installation of " + filepath.Base(w.Bundle)
	case w.Version != "":
		return "update to " + w.Version
	}
	return "update"
}

// lenient tells that the release is the package's: dpkg knows what its
// administrator wants, and may go back.
func (w Want) lenient() bool { return w.Door == deployment.DoorDpkg }

// candidate is the release that a transaction is about, as far as it is known.
type candidate struct {
	want  Want
	offer *trust.Offer // of a repository or bundle
	src   trust.Source
	from  string        // where src is: a directory's path or an address; "" = in a bundle
	m     slot.Manifest // known at once of a tree and a slot, else from its stage on
	file  string        // the artefact, verified, in a directory of the updater's own
	slot  string        // where it lies or will lie
	there bool          // it lies there already
	close func() error
}

// errNothingNewer ends a transaction that has nothing to do.
var errNothingNewer = errors.New("nothing newer is on offer")

// find looks up what is wanted, and where it is.
func (u *Updater) find(ctx context.Context, st *state, w Want) (*candidate, error) {
	c := &candidate{want: w, close: func() error { return nil }}
	switch {
	case w.Tree != "":
		c.from = w.Tree
		var err error
		c.m, err = slot.Read(w.Tree)
		return c, err
	case w.Slot != "":
		if w.Slot != slot.A && w.Slot != slot.B && w.Slot != slot.Golden {
			return c, fault.New(fault.BadInput, "unknown_slot", "there is no slot %q; the slots are a, b and golden", fault.Short(w.Slot)).On("slot").
				Try("`whisper-appliance slot list` shows what they hold")
		}
		c.slot, c.there = w.Slot, true
		var err error
		c.m, err = slot.Read(u.Slots.Path(w.Slot))
		return c, err
	case w.Bundle != "":
		if err := u.findInBundle(ctx, c); err != nil {
			return c, err
		}
		return c, u.notServing(ctx, *c.offer)
	}
	return c, u.findOnOffer(ctx, st, c)
}

// notServing is errNothingNewer where the release on offer serves already, whole.
func (u *Updater) notServing(ctx context.Context, o trust.Offer) error {
	serving, _ := u.links()
	if is := u.release(serving); is.Version != o.Version || is.Commit != o.Commit || u.whole(ctx, serving, false) != nil {
		return nil
	}
	return errNothingNewer
}

func (u *Updater) findOnOffer(ctx context.Context, st *state, c *candidate) error {
	set, err := u.Settings()
	if err != nil {
		return err
	}
	f, err := u.ask(ctx, st)
	kept := false
	if err != nil && ctx.Err() == nil {
		f, kept = u.kept(st, set)
	}
	if err != nil && !kept {
		return err
	}
	o, cerr := u.choose(st, set, f.index, c.want.Version)
	switch {
	case kept && (hasCode(cerr, "no_such_release") || o != nil && o.Target != st.Check.Fetched):
		return err // it would have to be brought
	case cerr != nil:
		return cerr
	case o == nil:
		return errNothingNewer
	}
	if c.want.Auto || c.want.Version == "" {
		if err := u.against(st, set, *o); err != nil {
			return err
		}
	}
	c.offer, c.src, c.from = o, f.src, f.from
	return u.notServing(ctx, *o)
}

// kept is what the metadata that were trusted last offer, for who has fetched of
// it and finds the line down. What holds of an offer holds then, too.
func (u *Updater) kept(st *state, set Settings) (f found, there bool) {
	index, err := u.Trust.Trusted()
	if err != nil || st.Check.Fetched == "" {
		return found{}, false
	}
	st.Check.Offer = u.best(st, set, index)
	return found{index, trust.Directory(u.artefacts()), u.artefacts()}, true
}

func (u *Updater) findInBundle(ctx context.Context, c *candidate) error {
	bundle, err := trust.OpenBundle(c.want.Bundle)
	if err != nil {
		return err
	}
	c.close, c.src = bundle.Close, bundle
	index, err := u.Trust.Refresh(ctx, bundle)
	if hasCode(err, "metadata_rolled_back") {
		// A file from before the last look at a source: what is trusted by now says
		// whether its release may still be installed.
		index, err = u.Trust.Trusted()
	}
	if err != nil {
		return err
	}
	other := ""
	for i, o := range index.Offers {
		in, err := bundle.Target(ctx, o.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		in.Close() //nolint:errcheck // nothing was written
		if other = o.Arch; fitsArch(o) == nil {
			c.offer = &index.Offers[i]
			return nil
		}
	}
	if other != "" {
		return fault.New(fault.Unsupported, "wrong_arch", "%s holds a release for %s", filepath.Base(c.want.Bundle), other).
			Try("take the file for this machine's architecture")
	}
	return fault.New(fault.BadInput, "empty_bundle", "%s holds no release that its metadata list", filepath.Base(c.want.Bundle)).
		Try("get the file again; `whisper-appliance-release bundle` makes such files")
}

// plan refuses what need not be tried, and chooses the slot.
func (u *Updater) plan(ctx context.Context, st *state, c *candidate) error {
	if err := u.allowed(st, c); err != nil {
		return err
	}
	if c.there {
		return nil
	}
	serving, _ := u.links()
	if c.m.Version != "" && u.holds(ctx, serving, c.m) {
		c.slot, c.there = serving, true
		return nil
	}
	var err error
	if c.slot, err = u.Slots.Idle(); err != nil {
		return err
	}
	c.there = c.m.Version != "" && u.holds(ctx, c.slot, c.m)
	return nil
}

// allowed holds what is known of a candidate against what may be installed.
func (u *Updater) allowed(st *state, c *candidate) error {
	if c.offer != nil {
		return u.fits(st, *c.offer)
	}
	if err := c.m.Fits(); err != nil {
		return aptUpgrade(err)
	}
	if c.want.lenient() || c.want.Tree == u.Slots.Golden { // by hand it is what people are told to try again
		return nil
	}
	return st.banned(c.m.Digest(), "")
}

// fits is why a release on offer cannot be installed here.
func (u *Updater) fits(st *state, o trust.Offer) error {
	if err := st.banned("", o.SHA256); err != nil {
		return err
	}
	if err := fitsArch(o); err != nil {
		return err
	}
	if st.Floor != "" && release.Compare(o.Version, st.Floor) < 0 {
		return fault.New(fault.Conflict, "downgrade", "version %s is older than %s, which was committed here", o.Version, st.Floor).On("version").
			Try("`whisper-appliance update rollback` goes back to the release before; apt installs an older package")
	}
	if err := (slot.Manifest{Info: slot.Info{Version: o.Version, Arch: o.Arch, Contract: o.UnitContract}}).Fits(); err != nil {
		return aptUpgrade(err)
	}
	if o.MinUpdater != "" && release.Compare(u.Version, o.MinUpdater) < 0 {
		return fault.New(fault.Unsupported, "old_updater", "version %s needs an updater of version %s, and this one is %s: apt upgrade needed", o.Version, o.MinUpdater, u.Version).
			Try("apt update && apt install whisper-appliance")
	}
	return u.fitsSchema(o)
}

func (u *Updater) fitsSchema(o trust.Offer) error {
	if u.Site.Schema == nil {
		return nil
	}
	have, err := u.Site.Schema()
	if err != nil {
		return fmt.Errorf("the database's schema: %w", err)
	}
	if have != 0 && (have < o.Schema.Min || have > o.Schema.Max) {
		return fault.New(fault.Unsupported, "wrong_schema", "version %s works on databases of schema %d to %d, and this one's is %d", o.Version, o.Schema.Min, o.Schema.Max, have).
			Try("install a version in between first")
	}
	return nil
}

func fitsArch(o trust.Offer) error {
	return (slot.Manifest{Info: slot.Info{Version: o.Version, Arch: o.Arch, Contract: slot.Contract}}).Fits()
}

// aptUpgrade says what to do where it is the units that do not fit.
func aptUpgrade(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Code == "wrong_contract" {
		return fault.New(f.Kind, f.Code, "%s: apt upgrade needed", f.Message).Try("apt update && apt install whisper-appliance")
	}
	return err
}

// holds tells whether the slot a or b holds exactly m.
func (u *Updater) holds(ctx context.Context, name string, m slot.Manifest) bool {
	if name != slot.A && name != slot.B {
		return false
	}
	diffs, got, err := slot.Verify(ctx, u.Slots.Path(name), slot.Check{Owned: u.Slots.Owned})
	return err == nil && len(diffs) == 0 && got.Same(m)
}
