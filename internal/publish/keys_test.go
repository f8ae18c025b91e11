package publish

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/trust"
)

// TestKeyFiles: keys are their owner's alone, and read back as what they were.
func TestKeyFiles(t *testing.T) {
	r := repository(t, 2)
	dir := r.Keys.Dir
	for _, name := range []string{"root-1.pem", "root-2.pem", "targets.pem", "online.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	k, err := LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := k.List()
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, one := range list {
		want := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(one.File, ".pem"), "-1"), "-2")
		if strings.Join(one.Roles, " ") != want || len(one.ID) != 64 {
			t.Errorf("%+v", one)
		}
	}
	if err := os.Remove(filepath.Join(dir, "root-2.pem")); err != nil {
		t.Fatal(err)
	}
	if k, err = LoadKeys(dir); err != nil {
		t.Fatal(err)
	}
	if list, err = k.List(); err != nil || len(list) != 4 || list[3].File != "" || list[3].Roles[0] != Root {
		t.Errorf("one that is elsewhere: %+v, %v", list, err)
	}
	r.Keys = k
	if _, err := r.Publish(t.Context(), stable(artefact(t, "1.0.0"))); err != nil {
		t.Errorf("the root keys are not needed here: %v", err)
	}
	_, err = r.Rotate(t.Context(), Online, "")
	wantCode(t, err, "key_missing")
	if _, err := os.Stat(filepath.Join(dir, "online-2.pem")); err == nil {
		t.Error("a key was made though nothing can appoint it")
	}
}

func TestLoadKeysRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(dir string) error
		code string
	}{
		"readable by the group": {func(d string) error { return os.Chmod(filepath.Join(d, "online.pem"), 0o640) }, "key_readable"},
		"writable by others":    {func(d string) error { return os.Chmod(filepath.Join(d, "root-1.pem"), 0o602) }, "key_readable"},
		"no root":               {func(d string) error { return os.Remove(filepath.Join(d, RootName)) }, "no_keys"},
		"a changed root": {func(d string) error {
			path := filepath.Join(d, RootName)
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(data), `"version": 1`, `"version": 7`, 1)), 0o644))
		}, "bad_root"},
		"no PEM": {func(d string) error { return os.WriteFile(filepath.Join(d, "x.pem"), []byte("key"), 0o600) }, "bad_key"},
		"no key in it": {func(d string) error {
			return os.WriteFile(filepath.Join(d, "x.pem"), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600)
		}, "bad_key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := repository(t, 1).Keys.Dir
			if err := c.do(dir); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKeys(dir)
			wantCode(t, err, c.code)
		})
	}
}

// TestRotate: each key is replaced, twice, and what the old ones sign counts no
// longer; a client that looks only now and then goes along.
func TestRotate(t *testing.T) {
	r := published(t)
	often, seldom := client(t, r), client(t, r)
	sees(t, seldom, r, "1.0.0")
	for range 2 {
		for _, role := range []string{Targets, Root, Online} {
			done, err := r.Rotate(t.Context(), role, "")
			if err != nil {
				t.Fatalf("%s: %v", role, err)
			}
			if _, err := os.Stat(done.File); err != nil || done.Old == done.New {
				t.Errorf("%+v, %v", done, err)
			}
			sees(t, often, r, "1.0.0")
		}
	}
	for _, old := range []string{"root-1", "root-2", "targets", "targets-2", "online", "online-2"} {
		if err := os.Remove(filepath.Join(r.Keys.Dir, old+".pem")); err != nil {
			t.Error(err)
		}
	}
	var err error
	if r.Keys, err = LoadKeys(r.Keys.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Publish(t.Context(), stable(artefact(t, "1.1.0"))); err != nil {
		t.Fatal(err)
	}
	sees(t, seldom, r, "1.1.0 1.0.0")
	sees(t, often, r, "1.1.0 1.0.0")
	if _, err := LoadKeys(r.Keys.Dir); err != nil {
		t.Error(err)
	}
	if v := sound(t, r); v.Checked != 2 {
		t.Errorf("%+v", v)
	}
}

// TestRotateLost: a key whose private half is gone is replaced as well, as long
// as enough root keys are left.
func TestRotateLost(t *testing.T) {
	for role, lost := range map[string]string{Root: "root-1", Targets: "targets", Online: "online"} {
		t.Run(role, func(t *testing.T) {
			r := published(t)
			c := client(t, r)
			sees(t, c, r, "1.0.0")
			if err := os.Remove(filepath.Join(r.Keys.Dir, lost+".pem")); err != nil {
				t.Fatal(err)
			}
			var err error
			if r.Keys, err = LoadKeys(r.Keys.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Rotate(t.Context(), role, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Publish(t.Context(), stable(artefact(t, "1.1.0"))); err != nil {
				t.Fatal(err)
			}
			sees(t, c, r, "1.1.0 1.0.0")
			sound(t, r)
		})
	}
}

// TestRotateThreshold: where two keys have to sign, both old ones have to.
func TestRotateThreshold(t *testing.T) {
	r := repository(t, 2)
	if _, err := r.Publish(t.Context(), stable(artefact(t, "1.0.0"))); err != nil {
		t.Fatal(err)
	}
	c := client(t, r)
	done, err := r.Rotate(t.Context(), Root, "root-2")
	if err != nil || filepath.Base(done.File) != "root-3.pem" {
		t.Fatalf("%+v, %v", done, err)
	}
	sees(t, c, r, "1.0.0")
	if _, err := r.Rotate(t.Context(), Root, done.New[:10]); err != nil {
		t.Error(err)
	}
	sees(t, c, r, "1.0.0")
	if err := os.Remove(filepath.Join(r.Keys.Dir, "root-1.pem")); err != nil {
		t.Fatal(err)
	}
	if r.Keys, err = LoadKeys(r.Keys.Dir); err != nil {
		t.Fatal(err)
	}
	_, err = r.Rotate(t.Context(), Targets, "")
	wantCode(t, err, "key_missing")
	if err := trust.CheckRoot(r.Keys.Root()); err != nil {
		t.Error(err)
	}
}
