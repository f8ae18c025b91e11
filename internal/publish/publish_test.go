package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/release"
	"whisper-appliance/internal/trust"
)

// TestLife: what a publisher does in the life of a product, and what a client
// sees of it.
func TestLife(t *testing.T) {
	r := repository(t, 1)
	c := client(t, r)
	now := epoch()
	r.Now = func() time.Time { return now }
	first := stable(artefact(t, "1.0.0"))
	d, err := r.Publish(t.Context(), first)
	if err != nil || d.Version != 1 || len(d.Notices) != 0 || !d.Expires.Equal(epoch().AddDate(0, 0, 90)) {
		t.Fatalf("%+v, %v", d, err)
	}
	sees(t, c, r, "1.0.0")

	now = now.AddDate(0, 0, 10)
	beta := Release{File: artefact(t, "1.1.0-rc.1"), Channel: release.Beta, Rollout: 10, Notes: "ärger\nless", MinUpdater: "1.0.0", Schema: release.Schema{Min: 1, Max: 2}}
	if _, err := r.Publish(t.Context(), beta, stable(artefact(t, "1.1.0"))); err != nil {
		t.Fatal(err)
	}
	x := sees(t, c, r, "1.1.0 1.1.0-rc.1 1.0.0")
	want := release.Custom{
		Version: "1.1.0-rc.1", Channel: release.Beta, Arch: "amd64", Commit: "c0ffee", MinUpdater: "1.0.0", UnitContract: 1, Schema: release.Schema{Min: 1, Max: 2},
		Unpacked: x.Offers[1].Unpacked, Files: 3, Rollout: 10, Notes: "ärger\nless", Published: now, Index: 2,
	}
	if x.Offers[1].Custom != want || want.Unpacked < 10 {
		t.Errorf("published\n%+v, want\n%+v", x.Offers[1].Custom, want)
	}

	// The candidate becomes the release of the stable channel, an older one follows.
	beta.Channel, beta.Rollout = release.Stable, 0
	d, err = r.Publish(t.Context(), beta)
	if err != nil || len(d.Notices) != 2 || !strings.Contains(d.Notices[0], "older than 1.1.0") || !strings.Contains(d.Notices[1], "0 percent") {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = r.Rollout(t.Context(), "1.1.0-rc.1", 50); err != nil || d.Offers[1].Rollout != 50 || d.Offers[1].Index != 4 || !d.Offers[1].Published.Equal(now) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := r.Withdraw(t.Context(), "1.1.0"); err != nil {
		t.Error(err)
	}
	sees(t, c, r, "1.1.0-rc.1 1.0.0")
	if v := sound(t, r); v.Checked != 2 || v.Version != 5 {
		t.Errorf("%+v", v)
	}

	// A year later, with the key that is online alone.
	now = epoch().AddDate(0, 11, 0)
	if err := errors.Join(os.Remove(filepath.Join(r.Keys.Dir, "targets.pem")), os.Remove(filepath.Join(r.Keys.Dir, "root-1.pem"))); err != nil {
		t.Fatal(err)
	}
	if r.Keys, err = LoadKeys(r.Keys.Dir); err != nil {
		t.Fatal(err)
	}
	d, err = r.Refresh(t.Context(), false)
	if err != nil || d.Version != 5 || len(d.Notices) != 1 || !strings.Contains(d.Notices[0], "targets expire") {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = r.Refresh(t.Context(), true)
	wantCode(t, err, "key_missing")
	_, err = r.Publish(t.Context(), first)
	wantCode(t, err, "key_missing")
}

// TestReadAlong: whoever asks while something is published sees a state that
// verifies, and never an older one than before.
func TestReadAlong(t *testing.T) {
	r := published(t)
	c, looks := client(t, r), 0
	watch(r, func() {
		looks++
		if _, err := c.Refresh(t.Context(), trust.Directory(r.Dir)); err != nil {
			t.Errorf("look %d: %v", looks, err)
		}
		sound(t, r)
	})
	_, err := r.Publish(t.Context(), stable(artefact(t, "1.1.0")), stable(artefact(t, "1.2.0")))
	if err != nil {
		t.Error(err)
	}
	for _, role := range []string{Root, Targets, Online} {
		if _, err := r.Rotate(t.Context(), role, ""); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	if _, err := r.Refresh(t.Context(), true); err != nil {
		t.Error(err)
	}
	if looks < 2*16 {
		t.Errorf("%d looks", looks)
	}
	r.write = nil
	sees(t, c, r, "1.2.0 1.1.0 1.0.0")
}

// TestCutOff: whatever is being done is cut off before and after every file
// that it writes. The repository verifies, and the same done again is done.
func TestCutOff(t *testing.T) {
	base, file := artefact(t, "1.0.0"), artefact(t, "1.1.0")
	cuts := 0
	for name, do := range map[string]func(*Repository) error{
		"publish":  func(r *Repository) error { _, err := r.Publish(t.Context(), stable(file)); return err },
		"rollout":  func(r *Repository) error { _, err := r.Rollout(t.Context(), "1.0.0", 7); return err },
		"withdraw": func(r *Repository) error { _, err := r.Withdraw(t.Context(), "1.0.0"); return err },
		"refresh":  func(r *Repository) error { _, err := r.Refresh(t.Context(), false); return err },
		"root":     func(r *Repository) error { _, err := r.Rotate(t.Context(), Root, ""); return err },
		"targets":  func(r *Repository) error { _, err := r.Rotate(t.Context(), Targets, ""); return err },
		"online":   func(r *Repository) error { _, err := r.Rotate(t.Context(), Online, ""); return err },
	} {
		for k, came := 1, true; came; k++ {
			for _, after := range []bool{false, true} {
				r := repository(t, 1)
				if _, err := r.Publish(t.Context(), stable(base)); err != nil {
					t.Fatal(err)
				}
				c := client(t, r)
				reached := cutAt(r, k, after)
				err := do(r)
				came = reached()
				if !came {
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					break
				}
				cuts++
				if !errors.Is(err, errCut) {
					t.Errorf("%s, write %d: %v", name, k, err)
				}
				sound(t, r)
				if _, err := c.Refresh(t.Context(), trust.Directory(r.Dir)); err != nil {
					t.Errorf("%s, write %d: a client is refused: %v", name, k, err)
				}
				if r.Keys, err = LoadKeys(r.Keys.Dir); err != nil {
					t.Fatal(err)
				}
				if err := do(r); err != nil && name != "withdraw" { // which may be done already
					t.Errorf("%s once more, after write %d: %v", name, k, err)
				}
				if on := newestRoot(t, r); string(on) != string(r.Keys.Root()) {
					t.Errorf("%s once more, after write %d: the root beside the keys is not the repository's", name, k)
				}
				if _, err := c.Refresh(t.Context(), trust.Directory(r.Dir)); err != nil {
					t.Errorf("%s once more, after write %d: a client is refused: %v", name, k, err)
				}
			}
		}
	}
	if cuts < 40 {
		t.Errorf("%d cuts", cuts)
	}
	t.Logf("%d cuts", cuts)
}

// newestRoot is that of the repository.
func newestRoot(t *testing.T, r *Repository) (data []byte) {
	t.Helper()
	for version := int64(1); ; version++ {
		next, err := os.ReadFile(r.metadataPath(version, "root"))
		if errors.Is(err, fs.ErrNotExist) {
			return data
		}
		if err != nil {
			t.Fatal(err)
		}
		data = next
	}
}

// TestFirstPublishCutOff: a repository is begun anew where its first publish did
// not come to its end.
func TestFirstPublishCutOff(t *testing.T) {
	file := artefact(t, "1.0.0")
	for k := 1; k <= 5; k++ {
		r := repository(t, 1)
		c := client(t, r)
		came := cutAt(r, k, true)
		if _, err := r.Publish(t.Context(), stable(file)); !errors.Is(err, errCut) || !came() {
			t.Fatalf("write %d: %v", k, err)
		}
		if k < 5 {
			_, err := c.Refresh(t.Context(), trust.Directory(r.Dir))
			wantCode(t, err, "no_metadata")
		}
		if _, err := r.Publish(t.Context(), stable(file)); err != nil {
			t.Error(err)
		}
		sees(t, c, r, "1.0.0")
	}
}

func TestRefused(t *testing.T) {
	r := published(t)
	other, err := Build(t.Context(), tree(t, "1.0.0", "amd64", "another build"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	good := artefact(t, "2.0.0")
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	damaged, pipe := filepath.Join(t.TempDir(), "damaged"), filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(os.WriteFile(damaged, data[:len(data)-9], 0o644), syscall.Mkfifo(pipe, 0o644)); err != nil {
		t.Fatal(err)
	}
	publish := func(rel Release) func() error {
		return func() error { _, err := r.Publish(t.Context(), rel); return err }
	}
	for name, c := range map[string]struct {
		do   func() error
		code string
	}{
		"other bytes":       {publish(stable(other.File)), "version_taken"},
		"damaged":           {publish(stable(damaged)), "bad_archive"},
		"no file":           {publish(stable(damaged + "x")), "no_file"},
		"a pipe":            {publish(stable(pipe)), "not_regular"},
		"unknown channel":   {publish(Release{File: good, Channel: "nightly"}), "bad_release_data"},
		"too many percent":  {publish(Release{File: good, Channel: release.Beta, Rollout: 101}), "bad_release_data"},
		"long notes":        {publish(Release{File: good, Channel: release.Beta, Notes: strings.Repeat("x", 5000)}), "bad_release_data"},
		"bad minimum":       {publish(Release{File: good, Channel: release.Beta, MinUpdater: "new"}), "bad_release_data"},
		"rollout of none":   {func() error { _, err := r.Rollout(t.Context(), "9.9.9", 1); return err }, "unknown_version"},
		"rollout of 101":    {func() error { _, err := r.Rollout(t.Context(), "1.0.0", 101); return err }, "bad_release_data"},
		"withdraw none":     {func() error { _, err := r.Withdraw(t.Context(), ""); return err }, "unknown_version"},
		"unknown role":      {func() error { _, err := r.Rotate(t.Context(), "timestamp", ""); return err }, "unknown_role"},
		"unknown key":       {func() error { _, err := r.Rotate(t.Context(), Root, "targets"); return err }, "unknown_key"},
		"keys over keys":    {func() error { _, err := InitKeys(r.Keys.Dir, 1, epoch()); return err }, "keys_exist"},
		"three keys of two": {func() error { _, err := InitKeys(t.TempDir(), 3, epoch()); return err }, "bad_threshold"},
		"two at once": {func() error {
			release, err := r.lock()
			if err != nil {
				return err
			}
			defer release()
			_, err = r.Refresh(t.Context(), false)
			return err
		}, "repository_busy"},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, c.do(), c.code) })
	}
	if x := sees(t, client(t, r), r, "1.0.0"); x.Version != 1 {
		t.Errorf("the repository is at version %d", x.Version)
	}
	left, err := os.ReadDir(r.Scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("left in scratch: %v, %v", left, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Publish(ctx, stable(good)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNotBuiltOn: a repository that does not verify, or is not the newest, is not
// made worse.
func TestNotBuiltOn(t *testing.T) {
	r := published(t)
	timestamp := filepath.Join(r.Dir, trust.MetadataDir, timestampName)
	old, err := os.ReadFile(timestamp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Refresh(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(timestamp, []byte(strings.Replace(string(old), "2030", "2031", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = r.Refresh(t.Context(), false)
	wantCode(t, err, "bad_signature")
	if err := os.Remove(timestamp); err != nil {
		t.Fatal(err)
	}
	_, err = r.Publish(t.Context(), stable(artefact(t, "1.1.0")))
	wantCode(t, err, "no_metadata")

	r = published(t)
	if _, err := r.Rotate(t.Context(), Root, ""); err != nil {
		t.Fatal(err)
	}
	empty := *r
	empty.Dir = t.TempDir()
	_, err = empty.Publish(t.Context(), stable(artefact(t, "1.1.0")))
	wantCode(t, err, "repository_behind")
	if err := os.Remove(r.metadataPath(2, "root")); err != nil {
		t.Fatal(err)
	}
	_, err = r.Refresh(t.Context(), false)
	wantCode(t, err, "repository_behind")
	fresh := repository(t, 1)
	_, err = fresh.Refresh(t.Context(), false)
	wantCode(t, err, "no_repository")
	_, err = fresh.Rotate(t.Context(), Root, "")
	wantCode(t, err, "no_repository")
	_, err = fresh.Withdraw(t.Context(), "1.0.0")
	wantCode(t, err, "unknown_version")
}

// TestReplace: only builds of development come again under the same version.
func TestReplace(t *testing.T) {
	r := repository(t, 1)
	for version, code := range map[string]string{"1.0.0+dev": "", "1.0.0": "version_taken"} {
		for i, content := range []string{"one", "two"} {
			a, err := Build(t.Context(), tree(t, version, "amd64", content), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			rel := stable(a.File)
			rel.Replace = true
			d, err := r.Publish(t.Context(), rel)
			switch {
			case i == 1 && code != "":
				wantCode(t, err, code)
			case err != nil:
				t.Error(err)
			case !strings.Contains(fmt.Sprint(d.Offers), a.SHA256):
				t.Errorf("%s is not on offer: %+v", a.SHA256, d.Offers)
			}
		}
	}
	sound(t, r)
}

// TestArchitectures: one version for two processors is two artefacts.
func TestArchitectures(t *testing.T) {
	r := published(t)
	arm, err := Build(t.Context(), tree(t, "1.0.0", "arm64", "server"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Publish(t.Context(), stable(arm.File))
	if err != nil || fmt.Sprint(d.Offers[0].Arch, d.Offers[1].Arch) != "amd64arm64" && len(d.Offers) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if d, err = r.Rollout(t.Context(), "1.0.0", 3); err != nil || d.Offers[0].Rollout != 3 || d.Offers[1].Rollout != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	_, _, err = Bundle(t.Context(), r.Dir, nil, "1.0.0", "", t.TempDir())
	wantCode(t, err, "which_arch")
	if name, _, err := Bundle(t.Context(), r.Dir, nil, "1.0.0", "arm64", t.TempDir()); err != nil || filepath.Base(name) != "whisper-appliance_1.0.0_arm64.wa" {
		t.Errorf("%s, %v", name, err)
	}
}
