package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/trust"
)

// Check asks the sources what there is, and gives the release that would be
// installed, nil where nothing newer is on offer. It changes no slot, and may
// run while a trial does.
func (u *Updater) Check(ctx context.Context) (*deployment.Offer, error) {
	unlock, err := u.lock("a look for releases")
	if err != nil {
		return nil, err
	}
	defer unlock()
	st, err := u.load()
	if err != nil {
		return nil, err
	}
	ctx, stop := u.yielding(ctx)
	defer stop()
	u.show(st, &doing{State: deployment.Checking, Message: "asking what releases there are"})
	_, err = u.ask(ctx, st)
	st.now = nil
	return st.Check.Offer, errors.Join(err, u.save(st))
}

// found is an index, and where its targets are.
type found struct {
	index *trust.Index
	src   trust.Source
	from  string // the source's address, with whatever lets the fetcher in: it is shown by fault.Address alone
}

// ask is one look at the sources. It notes in st what it has found.
func (u *Updater) ask(ctx context.Context, st *state) (found, error) {
	set, err := u.Settings()
	if err != nil {
		return found{}, err
	}
	index, src, from, err := u.index(ctx, set)
	st.Check = checked{At: u.Now(), Source: fault.Address(from), Error: deployment.ProblemOf(err, u.Now()), Offer: st.Check.Offer, Fetched: st.Check.Fetched}
	if err != nil {
		return found{}, err
	}
	st.Check.Stale = index.Stale
	st.Check.Offer = u.best(st, set, index)
	return found{index, src, from}, nil
}

// index refreshes what is trusted from the first source that can be believed.
func (u *Updater) index(ctx context.Context, set Settings) (*trust.Index, trust.Source, string, error) {
	sources := set.sources()
	if len(sources) == 0 {
		return nil, nil, "", fault.New(fault.Unavailable, "no_source", "no source of releases is configured").On("update.sources").
			Try("set [update] sources in config.toml to an address or a directory; or install a file: `whisper-appliance update install FILE.wa`")
	}
	var errs []error
	for _, from := range sources {
		src, err := u.open(ctx, set, from)
		var index *trust.Index
		if err == nil {
			index, err = u.Trust.Refresh(ctx, src)
		}
		if err == nil {
			return index, src, from, nil
		}
		if ctx.Err() != nil {
			return nil, nil, from, context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, nil, sources[0], errs[0]
	}
	return nil, nil, "", fault.New(fault.KindOf(errs[0]), "no_source_works", "none of the %d sources of releases can be used", len(errs)).
		Because(errors.Join(errs...)).Try("`journalctl -u whisper-appliance-fetch -b` says more")
}

func (s Settings) sources() []string {
	if len(s.Sources) > 0 {
		return s.Sources
	}
	if s.Source != "" {
		return []string{s.Source}
	}
	return nil
}

// open makes a source of an address or a directory. Addresses are the
// fetcher's.
func (u *Updater) open(ctx context.Context, set Settings, from string) (trust.Source, error) {
	if filepath.IsAbs(from) {
		return trust.Directory(from), nil
	}
	if u.Fetch == nil {
		return nil, noFetcher(from)
	}
	if err := u.Fetch(ctx, Order{Sources: []string{from}, Rate: int64(set.Rate)}, nil); err != nil {
		return nil, err
	}
	return trust.Directory(u.Fetched), nil
}

// best is the release to be installed of those on offer: the pinned one, or else
// the newest of the channel that is newer than what serves and that nothing
// stands against. Where something stands against all of them it is the newest,
// with that; nil where there is none.
func (u *Updater) best(st *state, set Settings, index *trust.Index) *deployment.Offer {
	serving, _ := u.links()
	current, pin := u.release(serving).Version, pinned(st, set)
	var newest *deployment.Offer
	for _, o := range index.Offers { // the newest first
		switch {
		case o.Arch != runtime.GOARCH, set.Channel == release.Stable && o.Channel != release.Stable:
			continue
		case pin != "" && o.Version != pin, release.Compare(o.Version, current) <= 0:
			continue
		}
		offer, err := u.describe(o, st), u.against(st, set, o)
		if err == nil {
			return offer
		}
		if _, code := blame(err); newest == nil {
			offer.Refused = code + ": " + err.Error()
			newest = offer
		}
	}
	return newest
}

func (u *Updater) describe(o trust.Offer, st *state) *deployment.Offer {
	return &deployment.Offer{Version: o.Version, Channel: o.Channel, Bytes: o.Length, Notes: o.Notes, Published: o.Published,
		Fetched: st.Check.Fetched == o.Target}
}

// pinned is the version that is held, "" for none: an administrator's setting
// counts before a pin.
func pinned(st *state, set Settings) string {
	if set.Pin != "" {
		return set.Pin
	}
	return st.Pinned
}

// unpinned refuses a version where another is pinned.
func unpinned(st *state, set Settings, version string) error {
	if pin := pinned(st, set); pin != "" && pin != version {
		return fault.New(fault.Conflict, "pinned", "version %s is pinned, and %s is another", pin, version).On("version").
			Try("`whisper-appliance update unpin`, or [update] pin in config.toml")
	}
	return nil
}

// against is why a release on offer is not installed by itself.
func (u *Updater) against(st *state, set Settings, o trust.Offer) error {
	if err := u.fits(st, o); err != nil {
		return err
	}
	if st.Held == o.Version {
		return fault.New(fault.Conflict, "held", "version %s was taken back, or kept from serving", o.Version).
			Try("`whisper-appliance update apply %s` installs it all the same; `update unpin` lets it come by itself", o.Version)
	}
	place := set.Rollout
	if place < 0 {
		place = release.Draw(u.MachineID, o.Version)
	}
	if place >= o.Rollout {
		return fault.New(fault.Unavailable, "rollout", "version %s is offered to %d %% of all machines so far, and this one's place is %d", o.Version, o.Rollout, place).
			Try("wait; or `whisper-appliance update apply %s`", o.Version)
	}
	return nil
}

// artefacts is where the updater keeps its own copies of what it installs.
func (u *Updater) artefacts() string { return filepath.Join(u.Dir, "artefact") }

// fetch brings the release on offer into the updater's own directory and holds
// it against what was signed. What is there already is not brought again. Where
// from, which the offer is known from, does not hold it whole, the other sources
// are asked.
func (u *Updater) fetch(ctx context.Context, set Settings, from string, src trust.Source, o trust.Offer, tell func(done, total int64)) (string, error) {
	own := filepath.Join(u.artefacts(), o.Target)
	if u.sound(own, o) {
		return own, nil
	}
	err := u.bring(ctx, set, from, src, o, own, tell)
	if from == "" {
		return own, err
	}
	for _, other := range set.sources() {
		if err == nil || ctx.Err() != nil {
			break
		}
		if other == from {
			continue
		}
		src := trust.Directory(other)
		if !filepath.IsAbs(other) {
			src = trust.Directory(u.Fetched)
		}
		if u.bring(ctx, set, other, src, o, own, tell) == nil {
			err = nil
		}
	}
	return own, err
}

// bring fetches from one source; "" is src alone.
func (u *Updater) bring(ctx context.Context, set Settings, from string, src trust.Source, o trust.Offer, own string, tell func(done, total int64)) error {
	if from != "" && !filepath.IsAbs(from) {
		if u.Fetch == nil {
			return noFetcher(from)
		}
		order := Order{Sources: []string{from}, Target: o.Target, File: o.Name, Rate: int64(set.Rate)}
		if err := u.Fetch(ctx, order, func(done int64) { tell(done, o.Length) }); err != nil {
			return err
		}
	}
	return u.take(ctx, src, o, own, tell)
}

func noFetcher(from string) error {
	return fault.New(fault.Unavailable, "no_fetcher", "nothing here can ask %s", fault.Short(fault.Address(from))).
		Try("run the appliance under systemd; or install a file: `whisper-appliance update install FILE.wa`")
}

// sound tells whether the file at path is the whole of o.
func (u *Updater) sound(path string, o trust.Offer) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return o.Verify(f) == nil
}

// take copies the artefact to a file of the updater's own: nobody changes it
// between its verification and its use.
func (u *Updater) take(ctx context.Context, src trust.Source, o trust.Offer, own string, tell func(done, total int64)) error {
	if err := u.clearArtefacts(o.Target); err != nil {
		return err
	}
	if err := enough(u.artefacts(), o.Length); err != nil {
		return err
	}
	in, err := src.Target(ctx, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Unavailable, "artefact_missing", "the source lists version %s and does not hold it", o.Version).Because(err).
			Try("try again later, or another source; its publisher has to put it there")
	}
	if err != nil {
		return err
	}
	defer in.Close()
	err = durable.Fill(own, 0o600, func(f *os.File) error {
		return o.Copy(ctx, f, in, func(done int64) { tell(done, o.Length) })
	})
	if err != nil {
		return cannotWrite(own, err)
	}
	return nil
}

// clearArtefacts makes the directory of artefacts and leaves there none but the
// one named.
func (u *Updater) clearArtefacts(but string) error {
	if err := os.MkdirAll(u.artefacts(), 0o700); err != nil {
		return cannotWrite(u.artefacts(), err)
	}
	entries, err := os.ReadDir(u.artefacts())
	if err != nil {
		return fmt.Errorf("clear artefacts: %w", err)
	}
	for _, e := range entries {
		if e.Name() == but {
			continue
		}
		if err := os.RemoveAll(filepath.Join(u.artefacts(), e.Name())); err != nil {
			return fmt.Errorf("clear artefacts: %w", err)
		}
	}
	return nil
}

// enough refuses what would fill the disk of dir.
func enough(dir string, need int64) error {
	free, err := durable.Free(dir)
	if err != nil {
		return nil //nolint:nilerr // the write itself will tell
	}
	const room = 16 << 20
	if missing := need + room - free; missing > 0 {
		return fault.New(fault.NoSpace, "disk_full", "%d bytes (%s) are missing on the disk of %s: it takes %s, and %s must stay free",
			missing, fault.Bytes(missing), dir, fault.Bytes(need), fault.Bytes(room)).Try("free some disk space; `df -h` shows the disks")
	}
	return nil
}

// remains refuses to go on where hardly anything is left on the disk of dir.
func remains(dir string) error {
	const least = 1 << 20
	if free, err := durable.Free(dir); err != nil || free >= least {
		return nil //nolint:nilerr // the write itself will tell
	}
	return cannotWrite(dir, unix.ENOSPC)
}

// Download brings a release and verifies it, so that it can be installed
// without a source. version "" is the newest.
func (u *Updater) Download(ctx context.Context, version string) (*deployment.Offer, error) {
	held := &held{u: u, what: "a download"}
	var err error
	if held.release, err = u.lock(held.what); err != nil {
		return nil, err
	}
	defer held.drop()
	st, err := u.load()
	if err != nil {
		return nil, err
	}
	ctx, stop := u.yielding(ctx)
	defer stop()
	lent, ctx, end := held.lend(ctx, st)
	defer end()
	offer, err := lent.download(ctx, st, version)
	if st.now = nil; err != nil && st.Check.Error == nil { // who asked over D-Bus sees no other word of it
		st.Check.Error = deployment.ProblemOf(err, u.Now())
	}
	return offer, errors.Join(err, u.save(st))
}

func (u *Updater) download(ctx context.Context, st *state, version string) (*deployment.Offer, error) {
	u.show(st, &doing{State: deployment.Checking, Message: "asking what releases there are"})
	f, err := u.ask(ctx, st)
	if err != nil {
		return nil, err
	}
	set, err := u.Settings()
	if err != nil {
		return nil, err
	}
	o, err := u.choose(st, set, f.index, version)
	if err != nil || o == nil {
		return nil, err
	}
	refused := u.fits
	if version == "" {
		refused = func(st *state, o trust.Offer) error { return u.against(st, set, o) }
	}
	if err := refused(st, *o); err != nil {
		return nil, err
	}
	meter := u.meter(st, deployment.Downloading, deployment.Fetch, "downloading version "+o.Version)
	if _, err := u.fetch(ctx, set, f.from, f.src, *o, meter); err != nil {
		return nil, err
	}
	st.Check.Fetched = o.Target
	if st.Check.Offer != nil && st.Check.Offer.Version == o.Version {
		st.Check.Offer.Fetched = true
	}
	return u.describe(*o, st), nil
}

// choose finds the release of a version on offer; "" is the newest that is to
// be installed, nil where that is none.
func (u *Updater) choose(st *state, set Settings, index *trust.Index, version string) (*trust.Offer, error) {
	if version == "" {
		if st.Check.Offer == nil {
			return nil, nil
		}
		version = st.Check.Offer.Version
	}
	version = strings.TrimPrefix(version, "v")
	if err := release.ValidVersion(version); err != nil {
		return nil, err
	}
	if err := unpinned(st, set, version); err != nil {
		return nil, err
	}
	for i, o := range index.Offers {
		if o.Version == version && o.Arch == runtime.GOARCH {
			return &index.Offers[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "no_such_release", "version %s for %s is not on offer", version, runtime.GOARCH).On("version").
		Try("`whisper-appliance update check` shows what is")
}
