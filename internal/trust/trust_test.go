package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
)

// TestLife: a client that trusts for the first time, sees a new version, and
// follows its publisher through changes of all keys.
func TestLife(t *testing.T) {
	f, s := first(t)
	_, err := s.Trusted()
	wantCode(t, err, "nothing_trusted")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	refresh := func(want string) {
		t.Helper()
		x, err := s.Refresh(t.Context(), Directory(f.lay(t)))
		if err != nil || versions(x) != want || !x.Stale.IsZero() || x.Version != f.v.targets {
			t.Fatalf("%+v, %v; want %s", x, err, want)
		}
		wantOffers(t, s, want)
	}
	refresh("1.0.0")
	refresh("1.0.0") // nothing new

	f.offer("1.1.0", []byte("the second release"))
	f.offer("1.1.0-rc.1", []byte("what came before it"))
	f.publish()
	refresh("1.1.0 1.1.0-rc.1 1.0.0")

	f.keys["root"] = []string{"root-2", "root-3"}
	f.newRoot(1, "root-1", "root-3")
	refresh("1.1.0 1.1.0-rc.1 1.0.0")

	// Two roots at once, in the second of which no old key signs anything.
	f.keys["root"], f.keys["targets"] = []string{"root-3", "root-4"}, []string{"targets-2"}
	f.newRoot(1, "root-2", "root-4")
	f.keys["root"], f.keys["snapshot"], f.keys["timestamp"] = []string{"root-5", "root-6"}, []string{"online-2"}, []string{"online-2"}
	f.newRoot(1, "root-4", "root-5")
	f.publish()
	refresh("1.1.0 1.1.0-rc.1 1.0.0")
	if roots := kept(t, s).Roots; len(roots) != 3 || roots[2].Version != 4 {
		t.Errorf("kept are %d roots", len(roots))
	}

	delete(f.offers, release.TargetName("1.1.0", "amd64"))
	f.publish()
	refresh("1.1.0-rc.1 1.0.0")
}

// TestRootThreshold: where two keys have to sign, one is not enough.
func TestRootThreshold(t *testing.T) {
	f := newForge()
	f.newRoot(2, "root-1", "root-2")
	f.publish()
	s := &Store{Dir: t.TempDir(), Root: f.files["metadata/1.root.json"]}
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	f.keys["root"] = []string{"root-1", "root-3"}
	f.newRoot(2, "root-1", "root-3") // new keys suffice, of the old ones one is missing
	_, err := s.Refresh(t.Context(), f)
	wantCode(t, err, "bad_signature")
	f.root.Version--
	f.newRoot(2, "root-1", "root-2") // the other way round
	_, err = s.Refresh(t.Context(), f)
	wantCode(t, err, "bad_signature")
	f.root.Version--
	f.newRoot(2, "root-1", "root-2", "root-3")
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Error(err)
	}
}

// TestAttacks: each is refused by its name, and what was trusted before stays
// what it was, byte for byte.
func TestAttacks(t *testing.T) {
	second := func(f *forge) {
		f.offer("2.0.0", []byte("the next release"))
		f.publish()
	}
	flip := func(name string) func(*forge) {
		return func(f *forge) {
			second(f)
			data := strings.Replace(string(f.files["metadata/"+name]), `"spec_version":"1`, `"spec_version":"7`, 1)
			f.files["metadata/"+name] = []byte(data)
		}
	}
	signedBy := func(role, key string) func(*forge) {
		return func(f *forge) { f.keys[role] = []string{key}; second(f) }
	}
	for name, attack := range map[string]struct {
		do   func(*forge)
		code string
	}{
		"timestamp by a wrong key": {signedBy("timestamp", "evil"), "bad_signature"},
		"snapshot by a wrong key":  {signedBy("snapshot", "evil"), "bad_signature"},
		"targets by a wrong key":   {signedBy("targets", "evil"), "bad_signature"},
		"targets by online's key":  {signedBy("targets", "online"), "bad_signature"},
		"root by a wrong key": {func(f *forge) {
			f.keys["root"] = []string{"evil"}
			f.newRoot(1, "evil")
		}, "bad_signature"},
		"root by targets' key":    {func(f *forge) { f.newRoot(1, "targets") }, "bad_signature"},
		"a byte of root changed":  {func(f *forge) { f.newRoot(1, "root-1"); flip("2.root.json")(f) }, "bad_signature"},
		"a byte of timestamp":     {flip("timestamp.json"), "bad_signature"},
		"a byte of snapshot":      {flip("2.snapshot.json"), "bad_signature"},
		"a byte of targets":       {flip("2.targets.json"), "bad_signature"},
		"root of another version": {func(f *forge) { f.files["metadata/2.root.json"] = f.files["metadata/1.root.json"] }, "metadata_rolled_back"},
		"a root is left out": {func(f *forge) {
			f.root.Version++
			f.newRoot(1, "root-1")
			f.files["metadata/2.root.json"] = f.files["metadata/3.root.json"]
		}, "metadata_rolled_back"},
		"timestamp is a snapshot":  {func(f *forge) { f.files["metadata/timestamp.json"] = f.files["metadata/1.snapshot.json"] }, "bad_metadata"},
		"timestamp is replayed":    {func(f *forge) { f.v.timestamp = -1; f.timestamp(1, f.files["metadata/1.snapshot.json"]) }, "metadata_rolled_back"},
		"timestamp of no snapshot": {func(f *forge) { f.timestamp(0, nil) }, "bad_metadata"},
		"snapshot is replayed": {func(f *forge) {
			second(f)
			f.files["metadata/2.snapshot.json"] = f.files["metadata/1.snapshot.json"]
		}, "mix_and_match"},
		"snapshot of no targets": {func(f *forge) { f.snapshot(0, nil) }, "bad_metadata"},
		"targets are replayed": {func(f *forge) {
			second(f)
			f.files["metadata/2.targets.json"] = f.files["metadata/1.targets.json"]
		}, "mix_and_match"},
		"targets of the same version": {func(f *forge) {
			f.offer("2.0.0", nil)
			f.v.targets--
			old := f.files["metadata/1.snapshot.json"]
			f.publish()
			f.files["metadata/2.snapshot.json"] = old
		}, "mix_and_match"},
		"a long timestamp": {func(f *forge) { f.files["metadata/timestamp.json"] = make([]byte, maxTimestamp+1) }, "bad_metadata"},
		"a long root":      {func(f *forge) { f.files["metadata/2.root.json"] = make([]byte, maxRoot+1) }, "bad_metadata"},
		"a long snapshot":  {func(f *forge) { second(f); f.files["metadata/2.snapshot.json"] = make([]byte, maxSnapshot+1) }, "bad_metadata"},
		"longer targets than listed": {func(f *forge) {
			second(f)
			f.files["metadata/2.targets.json"] = append(f.files["metadata/2.targets.json"], ' ')
		}, "bad_metadata"},
		"no timestamp": {func(f *forge) { delete(f.files, "metadata/timestamp.json") }, "no_metadata"},
		"no snapshot":  {func(f *forge) { second(f); delete(f.files, "metadata/2.snapshot.json") }, "no_metadata"},
		"no targets":   {func(f *forge) { second(f); delete(f.files, "metadata/2.targets.json") }, "no_metadata"},
		"endless roots": {func(f *forge) {
			for range mostNewRoots + 1 {
				f.newRoot(1, "root-1")
			}
		}, "bad_metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := trusting(t)
			before := kept(t, s)
			attack.do(f)
			x, err := s.Refresh(t.Context(), f)
			if x != nil {
				t.Errorf("it was believed: %s", versions(x))
			}
			wantCode(t, err, attack.code)
			if after := kept(t, s); after.set != before.set {
				t.Error("what is trusted has changed")
			}
			wantOffers(t, s, "1.0.0")
		})
	}
}

// TestRollback: an older state of the same repository, whole and well signed,
// is refused by whom it was newer for.
func TestRollback(t *testing.T) {
	f, s := trusting(t)
	old := maps.Clone(f.files)
	f.offer("2.0.0", []byte("the next release"))
	f.publish()
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	_, err := s.Refresh(t.Context(), &forge{files: old})
	wantCode(t, err, "metadata_rolled_back")
	wantOffers(t, s, "2.0.0 1.0.0")

	// A new snapshot, by the key that is online, with the targets of before.
	f.snapshot(1, f.files["metadata/1.targets.json"])
	_, err = s.Refresh(t.Context(), f)
	wantCode(t, err, "metadata_rolled_back")
	// A new timestamp with the snapshot of before.
	f.timestamp(1, f.files["metadata/1.snapshot.json"])
	_, err = s.Refresh(t.Context(), f)
	wantCode(t, err, "metadata_rolled_back")
	wantOffers(t, s, "2.0.0 1.0.0")
	if _, err := (&Store{Root: s.Root}).Refresh(t.Context(), f); err != nil {
		t.Errorf("who knows of nothing newer: %v", err)
	}
}

// TestClock: whatever the clock says, the same is on offer.
func TestClock(t *testing.T) {
	f, s := first(t)
	for years, stale := range map[int]bool{-60: false, -10: false, 0: false, 10: true, 900: true} {
		s.Now = fixed(epoch().AddDate(years, 0, 0))
		s.Dir = t.TempDir()
		x, err := s.Refresh(t.Context(), f)
		if err != nil || versions(x) != "1.0.0" || x.Stale.IsZero() == stale || !x.Expires.Equal(f.expiry) {
			t.Errorf("%d years off: %+v, %v", years, x, err)
		}
		if stale && !x.Stale.Equal(f.expiry) {
			t.Errorf("stale since %v, want %v", x.Stale, f.expiry)
		}
		wantOffers(t, s, "1.0.0")
	}
}

// TestPowerCut: after a cut before or after any write the client trusts what it
// did, or what is new, and goes on.
func TestPowerCut(t *testing.T) {
	cut := errors.New("the power is gone")
	for _, written := range []bool{false, true} {
		f, s := trusting(t)
		f.keys["root"], f.keys["snapshot"], f.keys["timestamp"] = []string{"root-2", "root-3"}, []string{"online-2"}, []string{"online-2"}
		f.newRoot(1, "root-1", "root-3")
		f.offer("2.0.0", []byte("the next release"))
		f.publish()
		s.write = func(path string, data []byte) error {
			if written {
				if err := durable.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			return cut
		}
		if _, err := s.Refresh(t.Context(), f); !errors.Is(err, cut) {
			t.Fatalf("error %v", err)
		}
		wantOffers(t, s, map[bool]string{false: "1.0.0", true: "2.0.0 1.0.0"}[written])
		s.write = nil
		if _, err := s.Refresh(t.Context(), f); err != nil {
			t.Error(err)
		}
		wantOffers(t, s, "2.0.0 1.0.0")
	}
}

// TestWithdrawnKey: a key that a new root withdraws does not come back, though
// the rest of what came with that root was bad.
func TestWithdrawnKey(t *testing.T) {
	f, s := trusting(t)
	stolen := maps.Clone(f.files)
	f.keys["timestamp"], f.keys["snapshot"] = []string{"online-2"}, []string{"online-2"}
	f.newRoot(1, "root-1")
	_, err := s.Refresh(t.Context(), f) // the timestamp is still by the old key
	wantCode(t, err, "bad_signature")
	_, err = s.Refresh(t.Context(), &forge{files: stolen})
	wantCode(t, err, "bad_signature")
	_, err = s.Trusted()
	wantCode(t, err, "nothing_trusted")
	f.publish()
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Error(err)
	}
	wantOffers(t, s, "1.0.0")
}

// TestFileProvesNothing: what lies in the directory is verified, and what is
// bad there stands in nobody's way.
func TestFileProvesNothing(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"another release": func(s string) string { return strings.ReplaceAll(s, "1.0.0", "9.0.0") },
		"no JSON":         func(s string) string { return s[:len(s)/2] },
		"nothing":         func(string) string { return "" },
		"nulls":           func(string) string { return `{"format":1,"roots":null,"timestamp":"{\"signed\":null}"}` },
		"another format":  func(s string) string { return strings.Replace(s, `"format":1`, `"format":2`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			f, s := trusting(t)
			path := filepath.Join(s.Dir, stateName)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(change(string(data))), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = s.Trusted()
			wantCode(t, err, "nothing_trusted")
			if _, err := s.Refresh(t.Context(), f); err != nil {
				t.Error(err)
			}
			wantOffers(t, s, "1.0.0")
		})
	}
}

// TestUnreadable: what was trusted is not forgotten because it cannot be read.
func TestUnreadable(t *testing.T) {
	f, s := trusting(t)
	path := filepath.Join(s.Dir, stateName)
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Refresh(t.Context(), f)
	wantCode(t, err, "trust_unreadable")
	_, err = s.Trusted()
	wantCode(t, err, "trust_unreadable")
}

func TestFullDisk(t *testing.T) {
	f, s := first(t)
	s.write = func(string, []byte) error { return syscall.ENOSPC }
	_, err := s.Refresh(t.Context(), f)
	wantCode(t, err, "disk_full")
	s.Dir = filepath.Join(s.Dir, "file")
	if err := errors.Join(os.MkdirAll(filepath.Dir(s.Dir), 0o755), os.WriteFile(s.Dir, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if x, err := s.Refresh(t.Context(), f); err == nil {
		t.Errorf("a file for a directory: %+v", x)
	}
}

// TestPackageRoot: the package's root counts as soon as it is the newer one, and
// an older package goes on with the roots that were verified since.
func TestPackageRoot(t *testing.T) {
	f, s := trusting(t)
	for range 3 {
		f.newRoot(1, "root-1")
	}
	if _, err := s.Refresh(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{3, 4, 1} {
		s.Root = f.files[fmt.Sprintf("metadata/%d.root.json", version)]
		wantOffers(t, s, "1.0.0")
		if _, err := s.Refresh(t.Context(), f); err != nil {
			t.Errorf("root %d: %v", version, err)
		}
		_, c, err := s.begin()
		if err != nil || c.version() != 4 {
			t.Errorf("root %d leads to %d (%v), want 4", version, c.version(), err)
		}
	}
	other := newForge()
	other.keys["root"], other.keys["targets"], other.keys["snapshot"], other.keys["timestamp"] = []string{"o"}, []string{"o"}, []string{"o"}, []string{"o"}
	other.root.Version = 0
	other.newRoot(1, "o")
	other.publish()
	s.Root = other.files["metadata/1.root.json"] // another publisher's package
	_, err := s.Trusted()
	wantCode(t, err, "nothing_trusted")
	if x, err := s.Refresh(t.Context(), other); err != nil || len(x.Offers) != 0 {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestNoRoot(t *testing.T) {
	f, s := first(t)
	good := string(s.Root)
	for root, code := range map[string]string{
		"": "no_trust_root", "{}": "bad_trust_root", "null": "bad_trust_root",
		strings.Replace(good, `"version":1`, `"version":2`, 1):                                "bad_trust_root",
		strings.Replace(good, `"consistent_snapshot":true`, `"consistent_snapshot":false`, 1): "bad_trust_root",
	} {
		s.Root = []byte(root)
		_, err := s.Refresh(t.Context(), f)
		wantCode(t, err, code)
		_, err = s.Trusted()
		wantCode(t, err, code)
	}
}

// failing is a source that is away.
type failing struct {
	Source
	err error
}

func (f failing) Metadata(context.Context, string, int64) ([]byte, error) { return nil, f.err }

func TestSourceAway(t *testing.T) {
	_, s := trusting(t)
	_, err := s.Refresh(t.Context(), failing{err: errors.New("no route")})
	wantCode(t, err, "source_unreachable")
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("kind of %v", err)
	}
	own := fault.New(fault.Unavailable, "source_refused", "403").Try("ask")
	_, err = s.Refresh(t.Context(), failing{err: own})
	wantCode(t, err, "source_refused")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = s.Refresh(ctx, failing{err: errors.New("cut off")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wantOffers(t, s, "1.0.0")
}
