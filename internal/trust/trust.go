// Package trust is the client of a repository of releases: it says which
// releases the publisher offers, after TUF (The Update Framework, version 1.0).
//
// It trusts one thing, the root of trust that its caller hands it, which the
// package carries. Where metadata lie, who served them and what was kept from
// an earlier run proves nothing: kept metadata are verified again each time. It
// reads from a Source and writes one file, in Store.Dir.
//
// Expiry is told and never blocks, because a machine that cannot tell the time,
// or whose publisher is gone, must go on; what keeps an attacker from offering
// yesterday's releases are the version counters of what was trusted before.
package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"whisper-appliance/internal/fault"
)

// Store is a client's memory of what it trusted last. One Store at a time may
// use a directory; its caller holds the lock for that.
type Store struct {
	Dir  string           // holds the file trusted.json, made where it is missing; "" keeps nothing and remembers nothing
	Root []byte           // the root of trust: metadata of the role root, of any version
	Now  func() time.Time // decides about Index.Stale alone; nil is time.Now

	write func(path string, data []byte) error // nil is a durable write; tests let it fail
}

// Refresh brings what is trusted up to what src holds and gives what is on
// offer now. Nothing is kept unless all of it was verified, but for new roots:
// they count from then on, because a key that they withdraw must not come back.
//
// The errors are faults: "no_trust_root", "bad_trust_root", "bad_signature",
// "metadata_rolled_back", "mix_and_match", "bad_metadata", "no_metadata",
// "source_unreachable", "trust_unreadable", "disk_full", and what src gives as a fault itself.
func (s *Store) Refresh(ctx context.Context, src Source) (*Index, error) {
	kept, c, err := s.begin()
	if err != nil {
		return nil, err
	}
	next := kept
	rootErr := c.newerRoots(ctx, src)
	next.Roots = mergeRoots(kept.Roots, c.roots)
	if rootErr != nil {
		return nil, errors.Join(rootErr, s.keep(kept, next))
	}
	next.set, err = c.follow(ctx, src, kept.set)
	if err != nil {
		next.set = kept.set
		return nil, errors.Join(err, s.keep(kept, next))
	}
	if err := s.keep(kept, next); err != nil {
		return nil, err
	}
	return c.index(s.now()), nil
}

// Trusted is what the last Refresh gave, verified again from the root on and
// without a source. Where there is nothing that can be trusted the error is a
// fault, "nothing_trusted", and fs.ErrNotExist.
func (s *Store) Trusted() (*Index, error) {
	kept, c, err := s.begin()
	if err != nil {
		return nil, err
	}
	if err := c.recall(kept.set); err != nil {
		return nil, fault.New(fault.NotFound, "nothing_trusted", "nothing is known of any release yet").
			Because(fmt.Errorf("%w: %w", fs.ErrNotExist, err)).
			Try("look for updates once: `whisper-appliance update check`")
	}
	return c.index(s.now()), nil
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// begin trusts the package's root, and of the roots that were kept those that
// follow from it, one by one.
func (s *Store) begin() (stored, *client, error) {
	if len(s.Root) == 0 {
		return stored{}, nil, fault.New(fault.Conflict, "no_trust_root", "there is no root of trust: no release can be verified").
			Try("install a package that carries one; see packaging/release.env")
	}
	c, err := newClient(s.Root)
	if err != nil {
		return stored{}, nil, fault.New(fault.Internal, "bad_trust_root", "the package's root of trust cannot be relied on").
			Because(err).Try("install the package again: `apt reinstall whisper-appliance`")
	}
	kept, err := s.read()
	for _, root := range kept.Roots {
		// What does not follow is of another line, or older than the package's.
		if root.Version == c.version()+1 && c.root(root.name(), []byte(root.Bytes)) != nil {
			break
		}
	}
	return kept, c, err
}

// TooLong is the fault that a Source gives for metadata of more than most bytes.
func TooLong(name string, most int64) error {
	return refused("bad_metadata", name, "is longer than "+fault.Bytes(most), nil)
}

// refused is the fault for metadata that were not believed.
func refused(code, name, what string, err error) error {
	hint := map[string]string{
		"bad_signature":        "install nothing from this source; where its publisher lost or changed all keys, a newer package brings the new ones",
		"metadata_rolled_back": "the source gives an old state: use another one, or wait until it is up to date",
		"mix_and_match":        "the source may be in the middle of a change: try again; where it stays so, it has to be copied or published anew",
		"bad_metadata":         "the source is damaged or no repository of releases: use another one",
	}[code]
	return fault.New(fault.BadInput, code, "%s %s", name, what).Because(err).Try("%s", hint)
}
