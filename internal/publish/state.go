package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trust"
)

// How long metadata are good without being renewed, in days.
const (
	rootLife    = 2 * 365
	targetsLife = 365
	shortLife   = 90
)

// maxRoot is the longest root that is read, in bytes.
const maxRoot = 1 << 20

const (
	timestampName = "timestamp.json"
	snapshotEntry = "snapshot.json"
	targetsEntry  = "targets.json"
)

func until(now time.Time, days int) time.Time {
	return now.UTC().AddDate(0, 0, days).Truncate(time.Second)
}

// state is what a repository says at one time.
type state struct {
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	offers    []trust.Offer
}

// load reads the repository as a client would that trusts the root beside the
// keys; what does not verify is not built on. A repository that is yet to be
// made is empty, with versions of 0.
func (r *Repository) load(ctx context.Context) (*state, error) {
	own, err := r.Keys.trusted()
	if err != nil {
		return nil, err
	}
	fresh, err := r.fresh()
	if err != nil {
		return nil, err
	}
	if fresh {
		return r.begin(own)
	}
	if _, err := os.Stat(r.metadataPath(own.Signed.Version, metadata.ROOT)); err != nil {
		return nil, fault.New(fault.Conflict, "repository_behind", "%s is older than the keys: it has no root of version %d", r.Dir, own.Signed.Version).
			Because(err).Try("work on the newest copy of the repository")
	}
	index, err := (&trust.Store{Root: r.Keys.root, Now: r.Now}).Refresh(ctx, trust.Directory(r.Dir))
	if err != nil {
		return nil, err
	}
	st, err := r.parse(own.Signed.Version)
	if err != nil {
		return nil, err
	}
	st.offers = index.Offers
	if st.root.Signed.Version > own.Signed.Version { // from another machine, or a rotation that was cut off
		err = r.Keys.keepRoot(st.root)
	}
	return st, err
}

// fresh tells a repository that nothing was published in, a publish that was cut
// off included. One whose newest file was lost is none: its counters must go on.
func (r *Repository) fresh() (bool, error) {
	entries, err := os.ReadDir(filepath.Join(r.Dir, trust.MetadataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	later := func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), "1.") && !strings.HasPrefix(e.Name(), ".")
	}
	return !slices.ContainsFunc(entries, later), nil
}

func (r *Repository) begin(root *metadata.Metadata[metadata.RootType]) (*state, error) {
	if root.Signed.Version != 1 {
		return nil, fault.New(fault.Conflict, "repository_behind", "there is no repository in %s, and the keys belong to one whose root is at version %d",
			r.Dir, root.Signed.Version).On("repository").Try("name the repository that these keys signed; a new one needs new keys")
	}
	st := &state{root: root, targets: metadata.Targets(), snapshot: metadata.Snapshot(), timestamp: metadata.Timestamp()}
	st.targets.Signed.Version, st.snapshot.Signed.Version, st.timestamp.Signed.Version = 0, 0, 0
	return st, nil
}

// parse reads what was verified before.
func (r *Repository) parse(oldest int64) (*state, error) {
	st := &state{}
	newest := oldest
	for {
		if _, err := os.Stat(r.metadataPath(newest+1, metadata.ROOT)); err != nil {
			break
		}
		newest++
	}
	var err error
	if st.root, err = new(metadata.Metadata[metadata.RootType]).FromFile(r.metadataPath(newest, metadata.ROOT)); err != nil {
		return nil, err
	}
	if st.timestamp, err = metadata.Timestamp().FromFile(filepath.Join(r.Dir, trust.MetadataDir, timestampName)); err != nil {
		return nil, err
	}
	version := st.timestamp.Signed.Meta[snapshotEntry].Version
	if st.snapshot, err = metadata.Snapshot().FromFile(r.metadataPath(version, metadata.SNAPSHOT)); err != nil {
		return nil, err
	}
	version = st.snapshot.Signed.Meta[targetsEntry].Version
	st.targets, err = metadata.Targets().FromFile(r.metadataPath(version, metadata.TARGETS))
	return st, err
}

func (r *Repository) metadataPath(version int64, role string) string {
	return filepath.Join(r.Dir, trust.MetadataDir, strconv.FormatInt(version, 10)+"."+role+".json")
}

// file is one that is to be written.
type file struct {
	path string
	data []byte
}

// signers are, for each role of TUF, the keys that sign it.
type signers map[string][]key

// signers are the keys at hand for the roles, of each as many as the root asks
// for.
func (r *Repository) signers(root metadata.RootType, roles ...string) (signers, error) {
	s := signers{}
	for _, role := range roles {
		s[role] = r.Keys.of(root, role)
		if want := root.Roles[role].Threshold; len(s[role]) < want {
			return nil, fault.New(fault.NotFound, "key_missing", "%d keys have to sign %s, and %d of them are in %s", want, role, len(s[role]), r.Keys.Dir).
				On("keys").Try("put the key's file there; `whisper-appliance-release keys list` shows which there are. A lost one is replaced by `keys rotate`")
		}
	}
	return s, nil
}

// renewTargets gives the targets a new version.
func (st *state) renewTargets(now time.Time, s signers) (data []byte, err error) {
	st.targets.Signed.Version++
	st.targets.Signed.Expires = until(now, targetsLife)
	if err := signAll(st.targets, s[metadata.TARGETS]); err != nil {
		return nil, err
	}
	data, err = encode(st.targets)
	if err == nil {
		st.snapshot.Signed.Meta[targetsEntry] = listed(st.targets.Signed.Version, data)
	}
	return data, err
}

// renewSnapshot gives snapshot and timestamp a new version.
func (st *state) renewSnapshot(now time.Time, s signers) (snapshot, timestamp []byte, err error) {
	st.snapshot.Signed.Version++
	st.snapshot.Signed.Expires = until(now, shortLife)
	if err := signAll(st.snapshot, s[metadata.SNAPSHOT]); err != nil {
		return nil, nil, err
	}
	if snapshot, err = encode(st.snapshot); err != nil {
		return nil, nil, err
	}
	st.timestamp.Signed.Version++
	st.timestamp.Signed.Expires = until(now, shortLife)
	st.timestamp.Signed.Meta[snapshotEntry] = listed(st.snapshot.Signed.Version, snapshot)
	if err := signAll(st.timestamp, s[metadata.TIMESTAMP]); err != nil {
		return nil, nil, err
	}
	timestamp, err = encode(st.timestamp)
	return snapshot, timestamp, err
}

// renew signs everything anew, the targets only where told, and gives the files
// in the order in which they have to be written: nothing names what is not
// there yet, and who reads along meanwhile sees the old state or the new one.
func (r *Repository) renew(st *state, s signers, withTargets bool) ([]file, error) {
	now := r.now()
	var files []file
	if st.timestamp.Signed.Version == 0 {
		files = append(files, file{r.metadataPath(1, metadata.ROOT), r.Keys.root})
	}
	if withTargets {
		data, err := st.renewTargets(now, s)
		if err != nil {
			return nil, err
		}
		files = append(files, file{r.metadataPath(st.targets.Signed.Version, metadata.TARGETS), data})
	}
	snapshot, timestamp, err := st.renewSnapshot(now, s)
	if err != nil {
		return nil, err
	}
	return append(files, file{r.metadataPath(st.snapshot.Signed.Version, metadata.SNAPSHOT), snapshot},
		file{filepath.Join(r.Dir, trust.MetadataDir, timestampName), timestamp}), nil
}

// put writes files one after the other.
func (r *Repository) put(files ...file) error {
	for _, f := range files {
		err := r.fill(f.path, func(w io.Writer) error {
			_, err := w.Write(f.data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fill is the one way in which a file of the repository comes to be.
func (r *Repository) fill(path string, content func(io.Writer) error) error {
	write := r.write
	if write == nil {
		write = func(path string, content func(io.Writer) error) error { return durable.Write(path, 0o644, content) }
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return cannotWrite(path, err)
	}
	if err := write(path, content); err != nil {
		return cannotWrite(path, err)
	}
	return nil
}

// makeDir makes a directory that is still there after a power cut.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// A publisher's umask is strict, and a repository is for everybody.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

func cannotWrite(path string, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.New(fault.Forbidden, "not_writable", "%s cannot be written", path).Because(err).Try("see who owns its directory")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.NoSpace, "disk_full", "the disk of %s is full", path).Because(err).Try("free some disk space")
	}
	return fmt.Errorf("write %s: %w", path, err)
}

// listed is how metadata are listed in others.
func listed(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// signAll signs anew, with each key once.
func signAll[T metadata.Roles](m *metadata.Metadata[T], keys []key) error {
	m.ClearSignatures()
	done := map[string]bool{}
	for _, k := range keys {
		if done[k.id] {
			continue
		}
		done[k.id] = true
		if _, err := m.Sign(k.signer); err != nil {
			return fmt.Errorf("sign with %s: %w", k.file, err)
		}
	}
	return nil
}

// encode is for people, too, who look at a repository.
func encode[T metadata.Roles](m *metadata.Metadata[T]) ([]byte, error) {
	data, err := m.ToBytes(true)
	return append(data, '\n'), err
}
