// Package publish is the publisher's side of a repository of releases: keys,
// signed metadata after TUF, and artefacts, as files in a directory that any
// server can give out.
//
// It trusts the keys and the root beside them, and verifies a repository as a
// client would before it builds on it. Of a release it believes what is in the
// artefact itself. It writes into the repository and the directory of the keys,
// each file whole and durable, and in an order in which who reads along, or
// comes after a publish that was cut off, finds a state that verifies.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/trust"
)

// Repository is a repository and the keys that it is signed with.
type Repository struct {
	Dir     string           // holds metadata/ and targets/; made where it is missing
	Keys    *Keys            // those that are needed for what is done
	Now     func() time.Time // nil is time.Now
	Scratch string           // where artefacts are unpacked to be looked at; "" is the system's place for that

	write func(path string, content func(io.Writer) error) error // nil is a durable write; tests let it fail
}

// Release is an artefact to be published, and what is said of it that is not in
// it.
type Release struct {
	File       string         // the artefact
	Channel    string         // release.Stable or release.Beta
	Rollout    int            // percent of machines that take it by themselves
	Notes      string         // what is new
	MinUpdater string         // the oldest updater that can install it; "" is any
	Schema     release.Schema // of the database
	Replace    bool           // a development build, "1.0.0+dev", may take the place of another with the same version
}

// Done is what a change of the repository came to.
type Done struct {
	Version int64         `json:"version"`           // of the metadata targets
	Expires time.Time     `json:"expires"`           // when it has to be refreshed
	Offers  []trust.Offer `json:"offers"`            // all that is on offer now, the newest version first
	Notices []string      `json:"notices,omitempty"` // what the publisher should know
}

func (r *Repository) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// Publish adds releases, or says something new of releases whose artefact is
// there already: another channel, another share. A version that is there with
// other bytes is refused with the code "version_taken".
func (r *Repository) Publish(ctx context.Context, releases ...Release) (*Done, error) {
	return r.change(ctx, true, func(st *state, d *Done) error {
		for _, rel := range releases {
			if err := r.add(ctx, st, rel, d); err != nil {
				return err
			}
		}
		return nil
	})
}

// add brings one artefact into targets/ and into st.
func (r *Repository) add(ctx context.Context, st *state, rel Release, d *Done) error {
	a, err := Inspect(ctx, rel.File, r.Scratch)
	if err != nil {
		return err
	}
	c := a.custom()
	c.Channel, c.Rollout, c.Notes = rel.Channel, rel.Rollout, rel.Notes
	c.MinUpdater, c.Schema = rel.MinUpdater, rel.Schema
	c.Published, c.Index = r.now().UTC().Truncate(time.Second), st.targets.Signed.Version+1
	name := release.TargetName(c.Version, c.Arch)
	before, there := st.offer(name)
	if there && before.SHA256 != a.SHA256 && !(rel.Replace && strings.Contains(c.Version, "+")) {
		return fault.New(fault.Conflict, "version_taken", "version %s for %s is published already, with other bytes", c.Version, c.Arch).On("version").
			Try("give the new build a new version; whoever has the old one would never see the difference")
	}
	if there && before.SHA256 == a.SHA256 {
		c.Published = before.Published
	}
	if err := c.Check(); err != nil {
		return err
	}
	o := trust.Offer{Target: name, Name: a.SHA256 + "." + name, Length: a.Length, SHA256: a.SHA256, Custom: c}
	if err := r.store(ctx, rel.File, o); err != nil {
		return err
	}
	d.Notices = append(d.Notices, notices(st, c)...)
	return st.set(o)
}

// store copies the artefact to its place, unless it is there.
func (r *Repository) store(ctx context.Context, from string, o trust.Offer) error {
	if in, err := trust.Directory(r.Dir).Target(ctx, o.Name); err == nil {
		defer in.Close()
		if o.Verify(in) == nil {
			return nil
		}
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return r.fill(filepath.Join(r.Dir, trust.TargetsDir, o.Name), func(w io.Writer) error { return o.Copy(ctx, w, in, nil) })
}

// notices are what a publisher may not have meant.
func notices(st *state, c release.Custom) (all []string) {
	for _, o := range st.offers {
		if o.Arch == c.Arch && o.Channel == c.Channel && release.Compare(o.Version, c.Version) > 0 {
			all = append(all, fmt.Sprintf("version %s is older than %s, which channel %s offers for %s as well: machines take the newest that they may", c.Version, o.Version, c.Channel, c.Arch))
			break
		}
	}
	if c.Rollout == 0 {
		all = append(all, fmt.Sprintf("version %s is rolled out to 0 percent: nobody takes it by himself yet", c.Version))
	}
	return all
}

// Rollout says anew how many percent of machines take a version by themselves.
func (r *Repository) Rollout(ctx context.Context, version string, percent int) (*Done, error) {
	return r.change(ctx, true, func(st *state, _ *Done) error {
		offers, err := st.of(version)
		if err != nil {
			return err
		}
		for _, o := range offers {
			o.Rollout, o.Index = percent, st.targets.Signed.Version+1
			if err := o.Check(); err != nil {
				return err
			}
			if err := st.set(o); err != nil {
				return err
			}
		}
		return nil
	})
}

// Withdraw takes a version off the offer. Its artefact stays in targets/, for
// those who have read the metadata before; machines that run it go on running.
func (r *Repository) Withdraw(ctx context.Context, version string) (*Done, error) {
	return r.change(ctx, true, func(st *state, _ *Done) error {
		offers, err := st.of(version)
		for _, o := range offers {
			delete(st.targets.Signed.Targets, o.Target)
		}
		return err
	})
}

// Refresh signs snapshot and timestamp anew, for 90 days, and where told the
// targets for a year.
func (r *Repository) Refresh(ctx context.Context, withTargets bool) (*Done, error) {
	return r.change(ctx, withTargets, func(st *state, _ *Done) error {
		if st.timestamp.Signed.Version == 0 {
			return fault.New(fault.NotFound, "no_repository", "there is no repository in %s", r.Dir).On("repository").
				Try("publish something, or name another directory")
		}
		return nil
	})
}

// change does one thing to the repository, as the only one with these keys.
func (r *Repository) change(ctx context.Context, withTargets bool, what func(*state, *Done) error) (*Done, error) {
	release, err := r.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	st, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	roles := []string{metadata.SNAPSHOT, metadata.TIMESTAMP}
	if withTargets {
		roles = append(roles, metadata.TARGETS)
	}
	s, err := r.signers(st.root.Signed, roles...)
	if err != nil {
		return nil, err
	}
	d := &Done{}
	if err := what(st, d); err != nil {
		return nil, err
	}
	files, err := r.renew(st, s, withTargets)
	if err != nil {
		return nil, err
	}
	if err := r.put(files...); err != nil {
		return nil, err
	}
	return r.done(ctx, st, d)
}

// done reads what clients will read.
func (r *Repository) done(ctx context.Context, st *state, d *Done) (*Done, error) {
	index, err := (&trust.Store{Root: r.Keys.root, Now: r.Now}).Refresh(ctx, trust.Directory(r.Dir))
	if err != nil {
		return nil, fmt.Errorf("what was published does not verify: %w", err)
	}
	d.Version, d.Offers, d.Expires = index.Version, index.Offers, index.Expires
	soon := r.now().AddDate(0, 0, shortLife)
	if st.targets.Signed.Expires.Before(soon) {
		d.Notices = append(d.Notices, "the targets expire on "+day(st.targets.Signed.Expires)+": `refresh --targets` renews them, with their key")
	}
	if st.root.Signed.Expires.Before(soon) {
		d.Notices = append(d.Notices, "the root expires on "+day(st.root.Signed.Expires)+": `keys rotate root` renews it")
	}
	return d, nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// lock is held by whoever works with these keys.
func (r *Repository) lock() (release func(), err error) {
	l := flock.New(filepath.Join(r.Keys.Dir, ".lock"), flock.SetPermissions(0o600))
	held, err := l.TryLock()
	if err != nil {
		return nil, cannotWrite(l.Path(), err)
	}
	if !held {
		return nil, fault.New(fault.Busy, "repository_busy", "another process works with the keys in %s", r.Keys.Dir).
			Try("wait until it has ended, and try again")
	}
	return func() { l.Close() }, nil
}

// offer is the one of that plain name.
func (st *state) offer(name string) (trust.Offer, bool) {
	i := slices.IndexFunc(st.offers, func(o trust.Offer) bool { return o.Target == name })
	if i < 0 {
		return trust.Offer{}, false
	}
	return st.offers[i], true
}

// of are the offers of a version, for every processor.
func (st *state) of(version string) (found []trust.Offer, err error) {
	known := map[string]bool{}
	for _, o := range st.offers {
		known[o.Version] = true
		if o.Version == version {
			found = append(found, o)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	f := fault.New(fault.NotFound, "unknown_version", "version %q is not published", fault.Short(version)).On("version")
	if len(known) == 0 {
		return nil, f.Try("nothing is published yet: `whisper-appliance-release publish FILE`")
	}
	all := slices.SortedFunc(maps.Keys(known), func(a, b string) int { return release.Compare(b, a) })
	return nil, f.Try("published are %s", fault.Short(strings.Join(all, ", ")))
}

// set puts an offer into the targets.
func (st *state) set(o trust.Offer) error {
	custom, err := json.Marshal(o.Custom)
	if err != nil {
		return err
	}
	sum, err := digestBytes(o.SHA256)
	if err != nil {
		return err
	}
	raw := json.RawMessage(custom)
	st.targets.Signed.Targets[o.Target] = &metadata.TargetFiles{Length: o.Length, Hashes: metadata.Hashes{"sha256": sum}, Custom: &raw}
	st.offers = slices.DeleteFunc(st.offers, func(old trust.Offer) bool { return old.Target == o.Target })
	st.offers = append(st.offers, o)
	return nil
}

// List is what is on offer in a repository, as its own first root has it or the
// one that is given.
func List(ctx context.Context, dir string, root []byte, now func() time.Time) (*trust.Index, error) {
	root, err := firstRoot(ctx, trust.Directory(dir), root)
	if err != nil {
		return nil, err
	}
	return (&trust.Store{Root: root, Now: now}).Refresh(ctx, trust.Directory(dir))
}

// firstRoot is root, or where none is given the source's own, of version 1.
func firstRoot(ctx context.Context, src trust.Source, root []byte) ([]byte, error) {
	if len(root) > 0 {
		return root, nil
	}
	data, err := src.Metadata(ctx, "1."+metadata.ROOT+".json", maxRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no_repository", "there is no repository: it has no first root").Because(err).On("repository").
			Try("name the directory that metadata/ and targets/ are in")
	}
	return data, err
}
