package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// Verifier looks at a repository as a client does that has never seen it.
type Verifier struct {
	Root    []byte           // what the client trusts; nil is the repository's own first root, which proves that it holds together and not whose it is
	Now     func() time.Time // nil is time.Now
	Scratch string           // see Repository
}

// Verified is what a look at a repository came to.
type Verified struct {
	*trust.Index
	Checked int `json:"checked"` // artefacts that were unpacked and are what is said of them
}

// Repository verifies the chain of roots, all metadata and every artefact:
// digest, form, and that its manifest says what the metadata say. The error is
// the first fault that was found.
func (v Verifier) Repository(ctx context.Context, src trust.Source) (*Verified, error) {
	seen, err := v.metadata(ctx, src)
	if err != nil {
		return nil, err
	}
	for _, o := range seen.Offers {
		if err := v.artefact(ctx, src, o); err != nil {
			return nil, fmt.Errorf("verify %s: %w", o.Target, err)
		}
		seen.Checked++
	}
	return seen, nil
}

// Bundle verifies a bundle: the same, with the one artefact that is in it.
func (v Verifier) Bundle(ctx context.Context, name string) (*Verified, error) {
	b, err := trust.OpenBundle(name)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	seen, err := v.metadata(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, o := range seen.Offers {
		if o.Name != b.Artefact() {
			continue
		}
		if err := v.artefact(ctx, b, o); err != nil {
			return nil, fmt.Errorf("verify %s: %w", o.Target, err)
		}
		seen.Checked++
	}
	if seen.Checked == 0 {
		return nil, fault.New(fault.BadInput, "artefact_unknown", "the release in the bundle is not on offer: %s", b.Artefact()).
			Try("make the bundle again")
	}
	return seen, nil
}

func (v Verifier) metadata(ctx context.Context, src trust.Source) (*Verified, error) {
	root, err := firstRoot(ctx, src, v.Root)
	if err != nil {
		return nil, err
	}
	index, err := (&trust.Store{Root: root, Now: v.Now}).Refresh(ctx, src)
	return &Verified{Index: index}, err
}

// artefact unpacks nothing before the digest was found right.
func (v Verifier) artefact(ctx context.Context, src trust.Source, o trust.Offer) error {
	if err := withTarget(ctx, src, o, o.Verify); err != nil {
		return err
	}
	return withTarget(ctx, src, o, func(r io.Reader) error {
		m, err := tryUnpack(ctx, r, v.Scratch, release.Limits{Bytes: o.Unpacked, Files: o.Files})
		if err != nil {
			return err
		}
		return says(o, m)
	})
}

func withTarget(ctx context.Context, src trust.Source, o trust.Offer, do func(io.Reader) error) error {
	r, err := src.Target(ctx, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "artefact_missing", "the artefact %s is missing", o.Name).Because(err).
			Try("copy it to targets/, or publish it again")
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

// says holds what is said of a release against what it is.
func says(o trust.Offer, m slot.Manifest) error {
	is := Artefact{Info: m.Info, Unpacked: m.Size(), Files: len(m.Files)}.custom()
	if is.Version == o.Version && is.Arch == o.Arch && is.Commit == o.Commit && is.UnitContract == o.UnitContract && is.Unpacked == o.Unpacked && is.Files == o.Files {
		return nil
	}
	return fault.New(fault.BadInput, "metadata_differ", "%s is not what the metadata say of it: version %s for %s, commit %s, %d files", o.Target, m.Version, m.Arch, m.Commit, len(m.Files)).
		Try("publish it again")
}
