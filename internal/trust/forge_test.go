package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
)

// epoch is when the repositories of these tests are made.
func epoch() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// must ends the test for what only a mistake in it can cause.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// key is a deterministic key of that name.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// forge is a publisher that can be made to lie: a repository in memory, whose
// files a test may swap.
type forge struct {
	root   metadata.RootType
	keys   map[string][]string // role to names of keys
	files  map[string][]byte   // "metadata/…" and "targets/…"
	offers map[string]*metadata.TargetFiles
	v      struct{ targets, snapshot, timestamp int64 }
	expiry time.Time
}

func newForge() *forge {
	f := &forge{
		keys: map[string][]string{
			metadata.ROOT: {"root-1", "root-2"}, metadata.TARGETS: {"targets"},
			metadata.SNAPSHOT: {"online"}, metadata.TIMESTAMP: {"online"},
		},
		files: map[string][]byte{}, offers: map[string]*metadata.TargetFiles{}, expiry: epoch().AddDate(0, 3, 0),
	}
	f.newRoot(1, "root-1")
	return f
}

// newRoot writes the next root with the keys of f, signed by signers.
func (f *forge) newRoot(threshold int, signers ...string) {
	version := f.root.Version + 1
	r := metadata.Root(f.expiry)
	r.Signed.Version = version
	for role, names := range f.keys {
		for _, name := range names {
			k := must(metadata.KeyFromPublicKey(key(name).Public()))
			if err := r.Signed.AddKey(k, role); err != nil {
				panic(err)
			}
		}
	}
	r.Signed.Roles[metadata.ROOT].Threshold = threshold
	f.root = r.Signed
	f.files[MetadataDir+"/"+rootName(version)] = sign(r, signers...)
}

func sign[T metadata.Roles](m *metadata.Metadata[T], names ...string) []byte {
	for _, name := range names {
		s := must(signature.LoadED25519Signer(key(name)))
		must(m.Sign(s))
	}
	return must(m.ToBytes(false))
}

// offer adds an artefact; publish makes it known.
func (f *forge) offer(version string, data []byte) string {
	name := release.TargetName(version, "amd64")
	custom := json.RawMessage(must(json.Marshal(release.Custom{
		Version: version, Channel: release.Stable, Arch: "amd64", Commit: "c0ffee", UnitContract: 1,
		Unpacked: 1, Files: 1, Rollout: 100, Published: epoch(), Index: 1,
	})))
	sum := sha256.Sum256(data)
	f.offers[name] = &metadata.TargetFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: &custom}
	f.files[TargetsDir+"/"+hex.EncodeToString(sum[:])+"."+name] = data
	return name
}

// publish writes targets, snapshot and timestamp anew, with the keys of f.
func (f *forge) publish() {
	f.v.targets++
	t := metadata.Targets(f.expiry)
	t.Signed.Version = f.v.targets
	for name, file := range f.offers {
		t.Signed.Targets[name] = file
	}
	data := sign(t, f.keys[metadata.TARGETS]...)
	f.files[fmt.Sprintf("metadata/%d.targets.json", f.v.targets)] = data
	f.snapshot(f.v.targets, data)
}

func listing(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// snapshot lists those targets, and writes a timestamp for it.
func (f *forge) snapshot(targets int64, data []byte) {
	f.v.snapshot++
	s := metadata.Snapshot(f.expiry)
	s.Signed.Version = f.v.snapshot
	s.Signed.Meta["targets.json"] = listing(targets, data)
	data = sign(s, f.keys[metadata.SNAPSHOT]...)
	f.files[fmt.Sprintf("metadata/%d.snapshot.json", f.v.snapshot)] = data
	f.timestamp(f.v.snapshot, data)
}

func (f *forge) timestamp(snapshot int64, data []byte) {
	f.v.timestamp++
	t := metadata.Timestamp(f.expiry)
	t.Signed.Version = f.v.timestamp
	t.Signed.Meta["snapshot.json"] = listing(snapshot, data)
	f.files["metadata/timestamp.json"] = sign(t, f.keys[metadata.TIMESTAMP]...)
}

// Metadata stands at Source.
func (f *forge) Metadata(_ context.Context, name string, most int64) ([]byte, error) {
	data, there := f.files[MetadataDir+"/"+name]
	if !there {
		return nil, fs.ErrNotExist
	}
	return data, nil // of any length: the client has to look itself
}

// Target stands at Source.
func (f *forge) Target(_ context.Context, name string) (io.ReadCloser, error) {
	data, there := f.files[TargetsDir+"/"+name]
	if !there {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// lay writes the repository into a new directory.
func (f *forge) lay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{MetadataDir, TargetsDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range f.files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// first is a repository with one release, and a client of it that has not asked
// yet.
func first(t *testing.T) (*forge, *Store) {
	t.Helper()
	f := newForge()
	f.offer("1.0.0", []byte("the first release"))
	f.publish()
	return f, &Store{Dir: filepath.Join(t.TempDir(), "trust"), Root: f.files["metadata/1.root.json"], Now: epoch}
}

// trusting is first, after the client asked.
func trusting(t *testing.T) (*forge, *Store) {
	t.Helper()
	f, s := first(t)
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	return f, s
}

// kept is what the client remembers.
func kept(t *testing.T, s *Store) stored {
	t.Helper()
	k, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// versions are those on offer.
func versions(x *Index) string {
	if x == nil {
		return "nothing"
	}
	var all []string
	for _, o := range x.Offers {
		all = append(all, o.Version)
	}
	return strings.Join(all, " ")
}

// wantOffers fails where the client does not trust exactly these, newest first.
func wantOffers(t *testing.T, s *Store, want string) {
	t.Helper()
	x, err := s.Trusted()
	if err != nil || versions(x) != want {
		t.Errorf("trusted are %q, %v; want %q", versions(x), err, want)
	}
}

// wantCode fails where err is no fault with that code and a hint.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code {
		t.Errorf("error %v, want a fault %q", err, code)
	} else if fault.Hint(err) == "" {
		t.Errorf("%v: no hint", err)
	}
}
