package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"whisper-appliance/internal/fault"
)

// The longest metadata that are read, in bytes.
const (
	maxRoot      = 1 << 20
	maxTimestamp = 64 << 10
	maxSnapshot  = 1 << 20
	maxTargets   = 8 << 20
)

// mostNewRoots are followed in one Refresh; the next goes on after them.
const mostNewRoots = 100

const timestampName = "timestamp.json"

// client goes through TUF's workflow once. Roots come first, then timestamp,
// snapshot and targets, and there is no way back.
type client struct {
	tm    *trustedmetadata.TrustedMetadata
	roots []keptRoot // those that were verified after the first
}

// newClient starts from a root that is trusted as it is.
func newClient(root []byte) (*client, error) {
	if _, err := parseRoot("root.json", root); err != nil {
		return nil, err
	}
	tm, err := trustedmetadata.New(root)
	if err != nil {
		return nil, err
	}
	tm.RefTime = time.Time{} // before every expiry: see the package's comment
	return &client{tm: tm}, nil
}

func (c *client) version() int64 { return c.tm.Root.Signed.Version }

// root verifies the root that follows, which both it and its predecessor sign.
func (c *client) root(name string, data []byte) error {
	next, err := parseRoot(name, data)
	if err != nil {
		return err
	}
	for _, signer := range []*metadata.Metadata[metadata.RootType]{c.tm.Root, next} {
		if err := signer.VerifyDelegate(metadata.ROOT, next); err != nil {
			return unsigned(name, err)
		}
	}
	if next.Signed.Version != c.version()+1 {
		return refused("metadata_rolled_back", name, fmt.Sprintf("is version %d inside", next.Signed.Version), nil)
	}
	if _, err := c.tm.UpdateRoot(data); err != nil {
		return refused("bad_metadata", name, "is not accepted", err)
	}
	c.roots = append(c.roots, keptRoot{next.Signed.Version, string(data)})
	return nil
}

// timestamp verifies data as the newest timestamp. fresh is false where that is
// the one that is trusted already.
func (c *client) timestamp(data []byte) (fresh bool, err error) {
	next, err := parse[metadata.TimestampType](timestampName, data)
	if err != nil {
		return false, err
	}
	if err := c.tm.Root.VerifyDelegate(metadata.TIMESTAMP, next); err != nil {
		return false, unsigned(timestampName, err)
	}
	if !lists(next.Signed.Meta, "snapshot.json") {
		return false, refused("bad_metadata", timestampName, "lists no snapshot", nil)
	}
	_, err = c.tm.UpdateTimestamp(data)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return false, nil
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return false, refused("metadata_rolled_back", timestampName, "is older than what was trusted before", err)
	}
	return false, refused("bad_metadata", timestampName, "is not accepted", err)
}

// wantSnapshot is what the timestamp lists.
func (c *client) wantSnapshot() *metadata.MetaFiles {
	return c.tm.Timestamp.Signed.Meta["snapshot.json"]
}

// wantTargets is what the snapshot lists.
func (c *client) wantTargets() *metadata.MetaFiles { return c.tm.Snapshot.Signed.Meta["targets.json"] }

// snapshot verifies data as the snapshot that the timestamp lists. One that was
// trusted before may be an older one: it counts for the versions in it.
func (c *client) snapshot(name string, data []byte, before bool) error {
	next, err := parse[metadata.SnapshotType](name, data)
	if err != nil {
		return err
	}
	if err := c.tm.Root.VerifyDelegate(metadata.SNAPSHOT, next); err != nil {
		return unsigned(name, err)
	}
	if !lists(next.Signed.Meta, "targets.json") {
		return refused("bad_metadata", name, "lists no targets", nil)
	}
	listed := isListed(c.wantSnapshot(), next.Signed.Version, data)
	if !listed && !before {
		return refused("mix_and_match", name, "is not the one that the timestamp lists", nil)
	}
	_, err = c.tm.UpdateSnapshot(data, before)
	if err == nil || before && c.tm.Snapshot != nil {
		return nil
	}
	return refused("metadata_rolled_back", name, "lists older metadata than were trusted before", err)
}

// targets verifies data as the targets that the snapshot lists.
func (c *client) targets(name string, data []byte) error {
	next, err := parse[metadata.TargetsType](name, data)
	if err != nil {
		return err
	}
	if err := c.tm.Root.VerifyDelegate(metadata.TARGETS, next); err != nil {
		return unsigned(name, err)
	}
	if !isListed(c.wantTargets(), next.Signed.Version, data) {
		return refused("mix_and_match", name, "is not the one that the snapshot lists", nil)
	}
	if _, err := c.tm.UpdateTargets(data); err != nil {
		return refused("bad_metadata", name, "is not accepted", err)
	}
	return nil
}

// recall goes through a set that was kept, which must hold together.
func (c *client) recall(kept set) error {
	if kept == (set{}) {
		return errors.New("no metadata are kept")
	}
	if _, err := c.timestamp([]byte(kept.Timestamp)); err != nil {
		return err
	}
	if err := c.snapshot("snapshot.json", []byte(kept.Snapshot), false); err != nil {
		return err
	}
	return c.targets("targets.json", []byte(kept.Targets))
}

// newerRoots follows the source's roots as far as they go.
func (c *client) newerRoots(ctx context.Context, src Source) error {
	for range mostNewRoots {
		name := rootName(c.version() + 1)
		data, err := get(ctx, src, name, maxRoot)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.root(name, data); err != nil {
			return err
		}
	}
	return refused("bad_metadata", "the chain of roots", fmt.Sprintf("has more than %d new ones", mostNewRoots), nil)
}

// follow brings timestamp, snapshot and targets up to what the source has, and
// asks it only for what is not the same as before. What was kept and does not
// verify under the newest root is forgotten, which is how TUF recovers from a
// stolen key that signed a high version.
func (c *client) follow(ctx context.Context, src Source, kept set) (next set, err error) {
	if next.Timestamp, err = c.followTimestamp(ctx, src, kept.Timestamp); err != nil {
		return set{}, err
	}
	want := c.wantSnapshot()
	name := strconv.FormatInt(want.Version, 10) + ".snapshot.json"
	next.Snapshot = kept.Snapshot
	if c.snapshot(name, []byte(kept.Snapshot), true) != nil || !isListed(want, c.tm.Snapshot.Signed.Version, []byte(kept.Snapshot)) {
		data, err := get(ctx, src, name, most(want, maxSnapshot))
		if err == nil {
			err = c.snapshot(name, data, false)
		}
		if err != nil {
			return set{}, err
		}
		next.Snapshot = string(data)
	}
	want = c.wantTargets()
	name = strconv.FormatInt(want.Version, 10) + ".targets.json"
	next.Targets = kept.Targets
	if c.targets(name, []byte(kept.Targets)) != nil {
		data, err := get(ctx, src, name, most(want, maxTargets))
		if err == nil {
			err = c.targets(name, data)
		}
		if err != nil {
			return set{}, err
		}
		next.Targets = string(data)
	}
	return next, nil
}

func (c *client) followTimestamp(ctx context.Context, src Source, kept string) (string, error) {
	before, _ := c.timestamp([]byte(kept)) // of an older root, or none: as if there were none
	data, err := get(ctx, src, timestampName, maxTimestamp)
	if err != nil {
		return "", err
	}
	fresh, err := c.timestamp(data)
	if err != nil {
		return "", err
	}
	if before && !fresh {
		return kept, nil
	}
	return string(data), nil
}

// most is how long metadata may be that are listed with their length.
func most(listed *metadata.MetaFiles, limit int64) int64 {
	if listed.Length > 0 && listed.Length < limit {
		return listed.Length
	}
	return limit
}

// get reads metadata and says in a fault why it could not.
func get(ctx context.Context, src Source, name string, most int64) ([]byte, error) {
	data, err := src.Metadata(ctx, name, most)
	var f *fault.Error
	switch {
	case err == nil && int64(len(data)) > most:
		return nil, TooLong(name, most)
	case err == nil, errors.As(err, &f):
		return data, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "no_metadata", "the source has no %s", name).Because(err).
			Try("a source is the directory or address in which metadata/ and targets/ are")
	}
	return nil, fault.New(fault.Unavailable, "source_unreachable", "%s cannot be read from the source", name).Because(err).
		Try("see that the source is there and can be read, or name another")
}
