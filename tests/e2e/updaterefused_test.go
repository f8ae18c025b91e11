//go:build e2e

package e2e

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/e2e/offers"
)

// Releases that no appliance of these tests may install.
var (
	older     = offers.Recipe{Version: "0.0.9", Bare: true}
	elsewhere = offers.Recipe{Version: "1.7.0", Bare: true, Arch: elsewhereArch()}
	needsMore = offers.Recipe{Version: "1.8.0", Bare: true, Contract: slot.Contract + 1}
)

func elsewhereArch() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// untouched gives what an update that is refused must leave as it is.
func (b *box) untouched() string {
	b.t.Helper()
	return b.must(`cd /opt/whisper-appliance
		readlink current stable
		sha256sum slots/*/manifest.json 2>/dev/null || true
		ls -A .staging 2>/dev/null || true
		ls -A ` + stateDir + `/artefact 2>/dev/null || true
		systemctl show --value -p MainPID whisper-appliance.service`)
}

// TestUpdateRefused: what is not what its publisher has signed, or not for this
// appliance, is refused with its reason before anything is unpacked.
func TestUpdateRefused(t *testing.T) {
	b := updated(t, sound, older, elsewhere, needsMore)
	b.must(`rm -rf ` + stateDir + `/artefact`)
	for _, c := range []struct {
		name   string
		spoil  string // the repository, below $1; $2 is the path of the sound release's artefact
		args   []string
		code   int
		reason string
	}{
		{"a changed byte", `printf X | dd of="$1/$2" bs=1 seek=5000000 conv=notrunc status=none`, []string{"apply", sound.Version}, 65, "artefact_damaged"},
		{"a byte too few", `truncate -s -1 "$1/$2"`, []string{"apply", sound.Version}, 65, "artefact_damaged"},
		{"no artefact", `rm "$1/$2"`, []string{"apply", sound.Version}, 69, "artefact_missing"},
		{"changed metadata", forgetful + `sed -i s/stable/staple/ "$1"/metadata/*.targets.json`, []string{"check"}, 65, "bad_signature"},
		{"metadata that nobody signed", `sed -i 's/"version": *\([0-9]\)/"version":9\1/' "$1"/metadata/timestamp.json`, []string{"check"}, 65, "bad_signature"},
		{"no metadata", `rm "$1"/metadata/timestamp.json`, []string{"check"}, 66, "no_metadata"},
		{"an older version", "", []string{"apply", older.Version}, 1, "downgrade"},
		{"another processor's", "", []string{"apply", elsewhere.Version}, 66, "no_such_release"},
		{"other units", "", []string{"apply", needsMore.Version}, 65, "wrong_contract"},
		{"a version that nobody offers", "", []string{"apply", "7.7.7"}, 66, "no_such_release"},
		{"no version", "", []string{"apply", "seven"}, 65, "bad_version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &box{b.Machine, t, b.client}
			b.spoiled(c.spoil)
			before := b.untouched()
			b.refused(c.code, c.reason, c.args...)
			if after := b.untouched(); after != before {
				t.Errorf("it was\n%s\nand is\n%s", before, after)
			}
		})
	}
	t.Run("apt upgrade needed", func(t *testing.T) {
		b := &box{b.Machine, t, b.client}
		b.spoiled("")
		if r := b.update("apply", needsMore.Version); !strings.Contains(r.Err, "apt upgrade needed") || !strings.Contains(r.Err, "apt ") {
			t.Errorf("people are told %v", r)
		}
	})
	t.Run("another's keys", func(t *testing.T) { (&box{b.Machine, t, b.client}).anothersKeys() })
	t.Run("a replay", func(t *testing.T) { (&box{b.Machine, t, b.client}).replays() })
	t.Run("files", func(t *testing.T) { (&box{b.Machine, t, b.client}).badFiles() })
}

// forgetful begins a script after which nothing is known of the repository: what is
// known already is not read anew.
const forgetful = `rm -rf ` + stateDir + `/trust; `

// spoiledIn is the repository that is spoiled, a copy.
const spoiledIn = "/srv/e2e/spoiled"

// spoiled makes a script's copy of the repository the source.
func (b *box) spoiled(script string) {
	b.t.Helper()
	name, err := shop(b.t).Target(b.t.Context(), sound)
	if err != nil {
		b.t.Fatal(err)
	}
	b.must(`rm -rf ` + spoiledIn + `; cp -r ` + offersIn + ` ` + spoiledIn)
	if script != "" {
		b.must(script, spoiledIn, name)
	}
	b.configure(strings.Replace(settingsOf, offersIn, spoiledIn, 1))
}

// anothersKeys has a repository that is in order, and signed by somebody else.
func (b *box) anothersKeys() {
	dir := b.t.TempDir()
	keys, err := publish.InitKeys(filepath.Join(dir, "keys"), 1, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	file, err := shop(b.t).Artefact(b.t.Context(), sound)
	if err != nil {
		b.t.Fatal(err)
	}
	repo := publish.Repository{Dir: filepath.Join(dir, "repository"), Keys: keys, Scratch: dir}
	if _, err := repo.Publish(b.t.Context(), publish.Release{File: file, Channel: release.Stable, Rollout: 100}); err != nil {
		b.t.Fatal(err)
	}
	b.bring(repo.Dir, spoiledIn)
	b.configure(strings.Replace(settingsOf, offersIn, spoiledIn, 1))
	before := b.untouched()
	b.refused(65, "bad_signature", "check")
	b.refused(65, "bad_signature", "apply", sound.Version)
	if after := b.untouched(); after != before {
		b.t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}

// replays offers metadata that were good once.
func (b *box) replays() {
	b.spoiled("")
	b.offer(sound, older)
	b.configure(settingsOf)
	b.does(nil, "check")
	b.configure(strings.Replace(settingsOf, offersIn, spoiledIn, 1))
	b.refused(65, "metadata_rolled_back", "check")
}

// badFiles installs files that are none, or not for this machine.
func (b *box) badFiles() {
	s := shop(b.t)
	b.offer(sound, elsewhere)
	good, err := s.Bundle(b.t.Context(), sound)
	if err != nil {
		b.t.Fatal(err)
	}
	other, err := s.Bundle(b.t.Context(), elsewhere)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, file := range map[string]string{"good": good, "other": other} {
		if err := b.CopyIn(b.t.Context(), file, "/srv/e2e/"+name+".wa", 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	b.must(`cd /srv/e2e
		head -c 3000000 good.wa >half.wa
		echo nothing >none.wa
		cp good.wa bit.wa; printf X | dd of=bit.wa bs=1 seek=12000000 conv=notrunc status=none`)
	before := b.untouched()
	for name, want := range map[string]struct {
		code   int
		reason string
	}{"half": {65, "bad_bundle"}, "none": {65, "bad_bundle"}, "bit": {65, "artefact_damaged"}, "other": {65, "wrong_arch"}, "missing": {66, "no_bundle"}} {
		b.refused(want.code, want.reason, "install", "/srv/e2e/"+name+".wa")
	}
	if after := b.untouched(); after != before {
		b.t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}
