package publish

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

func epoch() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// tree makes a sealed release.
func tree(t *testing.T, version, arch, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(version, "+")
	for name, text := range map[string]string{"VERSION": base + "\n", "bin/server": content, "share/notes.txt": ""} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slot.Seal(t.Context(), dir, slot.Info{Version: version, Commit: "c0ffee", Arch: arch, Contract: slot.Contract}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// artefact makes a release of that version, and gives its file.
func artefact(t *testing.T, version string) string {
	t.Helper()
	a, err := Build(t.Context(), tree(t, version, "amd64", "server "+version), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a.File
}

func stable(file string) Release {
	return Release{File: file, Channel: release.Stable, Rollout: 100}
}

// repository is one that nothing was published in, with new keys.
func repository(t *testing.T, threshold int) *Repository {
	t.Helper()
	k, err := InitKeys(filepath.Join(t.TempDir(), "keys"), threshold, epoch())
	if err != nil {
		t.Fatal(err)
	}
	return &Repository{Dir: filepath.Join(t.TempDir(), "repository"), Keys: k, Now: epoch, Scratch: t.TempDir()}
}

// published is one with version 1.0.0.
func published(t *testing.T) *Repository {
	t.Helper()
	r := repository(t, 1)
	if _, err := r.Publish(t.Context(), stable(artefact(t, "1.0.0"))); err != nil {
		t.Fatal(err)
	}
	return r
}

// client trusts the root that the keys began with.
func client(t *testing.T, r *Repository) *trust.Store {
	t.Helper()
	return &trust.Store{Dir: t.TempDir(), Root: r.Keys.Root(), Now: epoch}
}

func versions(offers []trust.Offer) string {
	var all []string
	for _, o := range offers {
		all = append(all, o.Version)
	}
	return strings.Join(all, " ")
}

// sees fails where the client is not offered exactly these, newest first.
func sees(t *testing.T, c *trust.Store, r *Repository, want string) *trust.Index {
	t.Helper()
	x, err := c.Refresh(t.Context(), trust.Directory(r.Dir))
	if err != nil {
		t.Fatalf("a client is refused: %v", err)
	}
	if got := versions(x.Offers); got != want {
		t.Errorf("a client sees %q, want %q", got, want)
	}
	return x
}

// sound fails where the repository does not verify, artefacts included.
func sound(t *testing.T, r *Repository) *Verified {
	t.Helper()
	v, err := Verifier{Now: epoch, Scratch: r.Scratch}.Repository(t.Context(), trust.Directory(r.Dir))
	if err != nil {
		t.Fatalf("the repository does not verify: %v", err)
	}
	return v
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != code {
		t.Errorf("error %v, want a fault %q", err, code)
	} else if fault.Hint(err) == "" {
		t.Errorf("%v: no hint", err)
	}
}

var errCut = errors.New("cut off")

// cutAt lets the k-th write fail, before or after it was done, and all that
// follow. It tells whether it came to that.
func cutAt(r *Repository, k int, after bool) (came func() bool) {
	n := 0
	r.write = func(path string, content func(io.Writer) error) error {
		n++
		if n < k || n == k && after {
			if err := durable.Write(path, 0o644, content); err != nil {
				return err
			}
		}
		if n >= k {
			return errCut
		}
		return nil
	}
	return func() bool { r.write = nil; return n >= k }
}

// watch calls look before each write and after the last.
func watch(r *Repository, look func()) {
	r.write = func(path string, content func(io.Writer) error) error {
		look()
		if err := durable.Write(path, 0o644, content); err != nil {
			return err
		}
		look()
		return nil
	}
}
