package publish

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/trust"
)

// TestBuild: the same tree is the same artefact, whatever else differs.
func TestBuild(t *testing.T) {
	var all [][]byte
	for range 2 {
		dir := tree(t, "1.0.0+dev", "amd64", "server")
		a, err := Build(t.Context(), dir, filepath.Join(t.TempDir(), "new", "out"))
		if err != nil || filepath.Base(a.File) != "whisper-appliance_1.0.0+dev_amd64.tar.zst" {
			t.Fatalf("%+v, %v", a, err)
		}
		data, err := os.ReadFile(a.File)
		if err != nil || int64(len(data)) != a.Length {
			t.Fatalf("%d bytes of %d, %v", len(data), a.Length, err)
		}
		all = append(all, data)
		seen, err := Inspect(t.Context(), a.File, t.TempDir())
		if err != nil || seen.SHA256 != a.SHA256 || seen.Files != 3 || !seen.Manifest.Same(a.Manifest) {
			t.Errorf("%+v, %v; built was %+v", seen, err, a)
		}
		if err := os.WriteFile(filepath.Join(dir, "bin/server"), []byte("Server"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = Build(t.Context(), dir, filepath.Dir(a.File))
		wantCode(t, err, "damaged_release")
		if left, _ := os.ReadDir(filepath.Dir(a.File)); len(left) != 1 {
			t.Errorf("left are %v", left)
		}
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("two builds differ")
	}
	_, err := Build(t.Context(), tree(t, "1.0", "amd64", "server"), t.TempDir())
	wantCode(t, err, "bad_version")
	_, err = Build(t.Context(), t.TempDir(), t.TempDir())
	wantCode(t, err, "no_manifest")
}

// TestBundle: a bundle has what a machine without a network needs, and nothing
// of when and where it was made.
func TestBundle(t *testing.T) {
	r := published(t)
	first := client(t, r)
	for _, role := range []string{Root, Targets} {
		if _, err := r.Rotate(t.Context(), role, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Publish(t.Context(), stable(artefact(t, "1.1.0"))); err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, out := range []string{t.TempDir(), filepath.Join(t.TempDir(), "x.wa")} {
		name, o, err := Bundle(t.Context(), r.Dir, nil, "1.1.0", "", out)
		if err != nil || o.Version != "1.1.0" {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
		v, err := Verifier{Now: epoch, Scratch: t.TempDir()}.Bundle(t.Context(), name)
		if err != nil || v.Checked != 1 || len(v.Offers) != 2 {
			t.Errorf("%+v, %v", v, err)
		}
		b, err := trust.OpenBundle(name)
		if err != nil {
			t.Fatal(err)
		}
		if x, err := first.Refresh(t.Context(), b); err != nil || versions(x.Offers) != "1.1.0 1.0.0" {
			t.Errorf("a client: %+v, %v", x, err)
		}
		b.Close()
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("two bundles differ")
	}
	_, _, err := Bundle(t.Context(), r.Dir, nil, "7.0.0", "", t.TempDir())
	wantCode(t, err, "unknown_version")
	_, _, err = Bundle(t.Context(), t.TempDir(), nil, "7.0.0", "", t.TempDir())
	wantCode(t, err, "no_repository")
	_, err = Verifier{Root: repository(t, 1).Keys.Root(), Scratch: t.TempDir()}.Bundle(t.Context(), bundleOf(t, r))
	wantCode(t, err, "bad_signature")
}

func bundleOf(t *testing.T, r *Repository) string {
	t.Helper()
	name, _, err := Bundle(t.Context(), r.Dir, nil, "1.1.0", "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestBundleOfDamaged: nothing is left where the artefact is not what is signed.
func TestBundleOfDamaged(t *testing.T) {
	r := published(t)
	o := sound(t, r).Offers[0]
	path := filepath.Join(r.Dir, trust.TargetsDir, o.Name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	_, _, err = Bundle(t.Context(), r.Dir, nil, "1.0.0", "", out)
	wantCode(t, err, "artefact_damaged")
	if left, _ := os.ReadDir(out); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestVerifyFinds(t *testing.T) {
	look := func(r *Repository, root []byte) error {
		_, err := Verifier{Root: root, Now: epoch, Scratch: r.Scratch}.Repository(t.Context(), trust.Directory(r.Dir))
		return err
	}
	target := func(r *Repository) string {
		return filepath.Join(r.Dir, trust.TargetsDir, sound(t, r).Offers[0].Name)
	}
	for name, c := range map[string]struct {
		do   func(*Repository) error
		code string
	}{
		"another artefact": {func(r *Repository) error { return os.WriteFile(target(r), []byte("x"), 0o644) }, "artefact_damaged"},
		"no artefact":      {func(r *Repository) error { return os.Remove(target(r)) }, "artefact_missing"},
		"other metadata": {func(r *Repository) error {
			_, err := r.change(t.Context(), true, func(st *state, _ *Done) error {
				o := st.offers[0]
				o.Commit = "another"
				return st.set(o)
			})
			return err
		}, "metadata_differ"},
		"a release that is more": {func(r *Repository) error {
			_, err := r.change(t.Context(), true, func(st *state, _ *Done) error {
				o := st.offers[0]
				o.Files = 1
				return st.set(o)
			})
			return err
		}, "bomb"},
	} {
		t.Run(name, func(t *testing.T) {
			r := published(t)
			if err := c.do(r); err != nil {
				t.Fatal(err)
			}
			wantCode(t, look(r, nil), c.code)
		})
	}
	wantCode(t, look(published(t), repository(t, 1).Keys.Root()), "bad_signature")
	// What was damaged is mended by publishing the same again.
	r := published(t)
	path := target(r)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(file, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Publish(t.Context(), stable(file)); err != nil {
		t.Fatal(err)
	}
	sound(t, r)
}
