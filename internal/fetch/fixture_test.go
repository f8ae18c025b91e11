package fetch

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise is an artefact: what is in it is of no matter here.
func noise(n int) []byte {
	r, b := rand.NewChaCha8([32]byte{7}), make([]byte, n)
	r.Read(b) //nolint:errcheck // it always fills
	return b
}

const artefactBytes = 400_000

// repository is a publisher's, with one key for everything, in a directory.
type repository struct {
	t    *testing.T
	dir  string
	root []byte // what the package would carry: the first root
	key  signature.Signer
	own  ed25519.PrivateKey

	version  int64
	targets  map[string]*metadata.TargetFiles
	artefact map[string][]byte // by name in targets/
}

func newRepository(t *testing.T) *repository { return repositoryOf(t, "publisher") }

// repositoryOf is the repository of whoever has the key of that name.
func repositoryOf(t *testing.T, who string) *repository {
	t.Helper()
	seed := sha256.Sum256([]byte(who))
	r := &repository{t: t, dir: t.TempDir(), own: ed25519.NewKeyFromSeed(seed[:]), targets: map[string]*metadata.TargetFiles{}, artefact: map[string][]byte{}}
	r.key = must(signature.LoadED25519Signer(r.own))
	r.root = r.newRoot(1)
	return r
}

func (r *repository) newRoot(version int64) []byte {
	root := metadata.Root(time.Now().AddDate(1, 0, 0))
	root.Signed.Version = version
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		check(r.t, root.Signed.AddKey(must(metadata.KeyFromPublicKey(r.own.Public())), role))
	}
	return sign(r, fmt.Sprintf("%d.root.json", version), root)
}

// sign writes metadata to the repository.
func sign[T metadata.Roles](r *repository, name string, m *metadata.Metadata[T]) []byte {
	r.t.Helper()
	must(m.Sign(r.key))
	data := must(m.ToBytes(false))
	r.write("metadata/"+name, data)
	return data
}

func (r *repository) write(name string, data []byte) {
	r.t.Helper()
	check(r.t, os.MkdirAll(filepath.Dir(filepath.Join(r.dir, name)), 0o755))
	check(r.t, os.WriteFile(filepath.Join(r.dir, name), data, 0o644))
}

// publish adds a release and gives its plain name.
func (r *repository) publish(version string, data []byte) string {
	r.t.Helper()
	r.version++
	name, sum := release.TargetName(version, "amd64"), sha256.Sum256(data)
	custom := json.RawMessage(must(json.Marshal(release.Custom{
		Version: version, Channel: release.Stable, Arch: "amd64", Commit: "c0ffee", UnitContract: 1,
		Unpacked: 1, Files: 1, Rollout: 100, Published: time.Unix(1, 0).UTC(), Index: r.version,
	})))
	r.targets[name] = &metadata.TargetFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}, Custom: &custom}
	hashed := hex.EncodeToString(sum[:]) + "." + name
	r.artefact[hashed] = data
	r.write("targets/"+hashed, data)

	expires := time.Now().AddDate(0, 1, 0)
	targets := metadata.Targets(expires)
	targets.Signed.Version, targets.Signed.Targets = r.version, r.targets
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = r.version
	snapshot.Signed.Meta["targets.json"] = listing(r.version, sign(r, fmt.Sprintf("%d.targets.json", r.version), targets))
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version = r.version
	timestamp.Signed.Meta["snapshot.json"] = listing(r.version, sign(r, fmt.Sprintf("%d.snapshot.json", r.version), snapshot))
	sign(r, "timestamp.json", timestamp)
	return name
}

func listing(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// copyTo makes a mirror, as the repository is now.
func (r *repository) copyTo(dir string) string {
	r.t.Helper()
	check(r.t, os.CopyFS(dir, os.DirFS(r.dir)))
	return dir
}

// hashed is the file in targets/ of the artefact with that plain name.
func (r *repository) hashed(name string) string {
	for hashed := range r.artefact {
		if strings.HasSuffix(hashed, "."+name) {
			return hashed
		}
	}
	r.t.Fatalf("no artefact %s", name)
	return ""
}

// site serves a repository and can be made to behave badly.
type site struct {
	*httptest.Server
	files http.Handler

	mu   sync.Mutex
	seen []*http.Request
	bad  func(w http.ResponseWriter, r *http.Request, nth int) bool // of requests for artefacts; true = it was answered
}

func newSite(t *testing.T, dir string) *site {
	t.Helper()
	s := &site{files: http.FileServer(http.Dir(dir))}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP stands at http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Clone(r.Context()))
	nth := len(s.asked())
	bad := s.bad
	s.mu.Unlock()
	if bad != nil && strings.Contains(r.URL.Path, "/targets/") && bad(w, r, nth) {
		return
	}
	s.files.ServeHTTP(w, r)
}

// asked are the requests for artefacts.
func (s *site) asked() []*http.Request {
	return slices.DeleteFunc(slices.Clone(s.seen), func(r *http.Request) bool { return !strings.Contains(r.URL.Path, "/targets/") })
}

// ranges are the ranges that were asked for.
func (s *site) ranges() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked() {
		list = append(list, r.Header.Get("Range"))
	}
	return list
}

// fetcher is one with a directory of its own and little patience.
func fetcher(t *testing.T, r *repository) *Fetcher {
	t.Helper()
	return &Fetcher{Dir: t.TempDir(), Root: r.root, Agent: "whisper-appliance-fetch/9.8.7", Pause: time.Millisecond, Stall: 5 * time.Second}
}

// resultOf reads what a fetcher left.
func resultOf(t *testing.T, f *Fetcher) Result {
	t.Helper()
	var r Result
	check(t, json.Unmarshal(must(os.ReadFile(filepath.Join(f.Dir, resultName))), &r))
	if r.At.IsZero() {
		t.Error("the result says not when")
	}
	return r
}

// brought fails where f does not hold the artefact and the metadata for it, and
// nothing else.
func brought(t *testing.T, f *Fetcher, r *repository, target string) {
	t.Helper()
	name := r.hashed(target)
	if data, err := os.ReadFile(filepath.Join(f.targets(), name)); err != nil || !bytes.Equal(data, r.artefact[name]) {
		t.Errorf("the artefact has %d bytes, %v", len(data), err)
	}
	if left := names(t, f.targets()); !slices.Equal(left, []string{name}) {
		t.Errorf("targets/ holds %v", left)
	}
	index, err := (&trust.Store{Root: r.root}).Refresh(t.Context(), trust.Directory(filepath.Join(f.Dir, "repository")))
	if err != nil || index.Version != r.version {
		t.Errorf("what was mirrored gives %+v, %v", index, err)
	}
	if res := resultOf(t, f); res.Error != nil || res.Bytes != int64(len(r.artefact[name])) || res.Index != r.version || res.Target != target || res.Source == "" {
		t.Errorf("the result is %+v", res)
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// wantCode fails where err is no fault with the code and a hint, or the result
// says something else.
func wantCode(t *testing.T, f *Fetcher, err error, code string) {
	t.Helper()
	var is *fault.Error
	if !errors.As(err, &is) || is.Code != code || fault.Hint(err) == "" {
		t.Errorf("%v, want a fault %q with a hint", err, code)
	}
	if res := resultOf(t, f); res.Error == nil || res.Error.Code != code || res.Error.Hint == "" || res.Error.Message == "" || res.Source != "" || res.Bytes != 0 {
		t.Errorf("the result is %+v, want %q", res, code)
	}
}
