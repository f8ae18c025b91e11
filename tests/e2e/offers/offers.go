// Package offers makes releases of the real programs, sound ones and spoiled
// ones, and publishes them in a repository of its own, for end-to-end tests to
// offer to an appliance. It trusts build/slot, which the releases are made of,
// and signs with the keys in build/keys, whose root the package under test
// carries. It writes the directory that it is given.
package offers

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// The ways in which a server may be spoiled.
const (
	Crashes     = "start" // it ends as soon as it is started
	CrashesLate = "crash" // it ends a while after its trial has begun
	HangsLate   = "hang"  // it answers nothing any more a while after that
)

// Recipe says what a release is made of. Two that are equal are one release.
type Recipe struct {
	Version  string
	Says     string // version that its programs print; "" = Version
	Spoiled  string // how its server fails; "" = it does not
	Bare     bool   // without the engine's files, for one that never gets to transcribe
	Arch     string // "" = this machine's
	Contract int    // of its units; 0 = this one's
}

// Shop makes releases and publishes them. Its methods take turns.
type Shop struct {
	Dir string // holds repository/, artefacts/ and trees/

	root string // of the checkout
	repo publish.Repository
	mu   sync.Mutex
	made map[Recipe]string // artefacts
}

// Open begins an empty repository in dir, signed with the checkout's keys for
// development.
func Open(checkout, dir string) (*Shop, error) {
	keys, err := publish.LoadKeys(filepath.Join(checkout, "build", "keys"))
	if err != nil {
		return nil, err
	}
	s := &Shop{Dir: dir, root: checkout, made: map[Recipe]string{}}
	s.repo = publish.Repository{Dir: s.Repository(), Keys: keys, Scratch: dir}
	for _, name := range []string{"artefacts", "trees", "trust"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Repository is the directory that holds metadata/ and targets/.
func (s *Shop) Repository() string { return filepath.Join(s.Dir, "repository") }

// Offer makes the repository offer exactly these releases, each made where it
// was not yet.
func (s *Shop) Offer(ctx context.Context, list ...Recipe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	offered, err := s.offered(ctx)
	if err != nil {
		return err
	}
	var fresh []publish.Release
	for _, r := range list {
		file, err := s.artefact(ctx, r)
		if err != nil {
			return err
		}
		if name := filepath.Base(file); !slices.Contains(offered, name) {
			fresh = append(fresh, publish.Release{File: file, Channel: release.Stable, Rollout: 100, Notes: "What is new in " + r.Version + "."})
		}
		offered = slices.DeleteFunc(offered, func(name string) bool { return name == filepath.Base(file) })
	}
	if len(fresh) > 0 {
		if _, err := s.repo.Publish(ctx, fresh...); err != nil {
			return err
		}
	}
	for _, name := range offered {
		version, _, err := release.ParseTarget(name)
		if err != nil {
			return err
		}
		if _, err := s.repo.Withdraw(ctx, version); err != nil {
			return err
		}
	}
	return nil
}

// offered are the plain names of the targets on offer.
func (s *Shop) offered(ctx context.Context) (names []string, err error) {
	if _, err := os.Stat(s.Repository()); err != nil {
		return nil, nil //nolint:nilerr // nothing was published yet
	}
	index, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range index.Offers {
		names = append(names, o.Target)
	}
	return names, nil
}

// index is the repository as an appliance reads it.
func (s *Shop) index(ctx context.Context) (*trust.Index, error) {
	client := trust.Store{Dir: filepath.Join(s.Dir, "trust"), Root: s.repo.Keys.Root(), Now: time.Now}
	return client.Refresh(ctx, trust.Directory(s.Repository()))
}

// Bundle is one of the releases on offer in a file of its own.
func (s *Shop) Bundle(ctx context.Context, r Recipe) (file string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, _, err = publish.Bundle(ctx, s.Repository(), s.repo.Keys.Root(), r.Version, r.arch(), filepath.Join(s.Dir, "artefacts"))
	return file, err
}

// Artefact is the file of a release, made where it was not yet.
func (s *Shop) Artefact(ctx context.Context, r Recipe) (file string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.artefact(ctx, r)
}

func (s *Shop) artefact(ctx context.Context, r Recipe) (string, error) {
	if file := s.made[r]; file != "" {
		return file, nil
	}
	dir, err := os.MkdirTemp(filepath.Join(s.Dir, "trees"), r.Version+".")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the whole directory goes at the end
	tree, out := filepath.Join(dir, "slot"), filepath.Join(dir, "out")
	if err := s.Tree(ctx, r, tree); err != nil {
		return "", err
	}
	info := slot.Info{Version: r.Version, Commit: commit, Arch: r.arch(), Contract: r.contract()}
	if _, err := slot.Seal(ctx, tree, info); err != nil {
		return "", err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", err
	}
	made, err := publish.Build(ctx, tree, out)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.Dir, "artefacts", filepath.Base(made.File))
	if err := os.Rename(made.File, file); err != nil {
		return "", err
	}
	s.made[r] = file
	return file, nil
}

// commit is what the releases call theirs.
const commit = "e2e000000000"

func (r Recipe) arch() string {
	if r.Arch != "" {
		return r.Arch
	}
	return runtime.GOARCH
}

func (r Recipe) contract() int {
	if r.Contract != 0 {
		return r.Contract
	}
	return slot.Contract
}

func (r Recipe) says() string {
	if r.Says != "" {
		return r.Says
	}
	return r.Version
}

// Tree makes the tree of a release in dir, not sealed yet: what `make build`
// made, with the programs built anew under the version.
func (s *Shop) Tree(ctx context.Context, r Recipe, dir string) error {
	built := filepath.Join(s.root, "build", "slot")
	if err := s.run(ctx, nil, "cp", "-a", built, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, ".built")); err != nil {
		return err
	}
	if r.Bare {
		if err := os.RemoveAll(filepath.Join(dir, "lib")); err != nil {
			return err
		}
	}
	if err := s.programs(ctx, r, filepath.Join(dir, "bin")); err != nil {
		return err
	}
	plain, _, _ := strings.Cut(r.Version, "+")
	if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(plain+"\n"), 0o644); err != nil {
		return err
	}
	return s.run(ctx, nil, "chmod", "-R", "u=rwX,go=rX", dir)
}

// programs builds those of a release into bin.
func (s *Shop) programs(ctx context.Context, r Recipe, bin string) error {
	stamp := "whisper-appliance/internal/version."
	flags := fmt.Sprintf("-s -w -X %snumber=%s -X %scommit=%s", stamp, r.says(), stamp, commit)
	into := bin + string(filepath.Separator)
	pure := []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", into}
	if err := s.run(ctx, []string{"CGO_ENABLED=0"}, append(pure, "./cmd/whisper-appliance", "./cmd/whisper-appliance-decode")...); err != nil {
		return err
	}
	if err := s.server(ctx, r, flags, into); err != nil {
		return err
	}
	if r.Bare {
		return os.Remove(filepath.Join(bin, "whisper-appliance-engine"))
	}
	return s.run(ctx, []string{"CGO_ENABLED=1"}, "go", "build", "-trimpath", "-buildvcs=false", "-buildmode=pie", "-tags", "whisper,netgo,osusergo",
		"-ldflags", flags, "-o", into, "./cmd/whisper-appliance-engine")
}

// spoiled is a source file that is laid over the server's.
//
//go:embed spoiled.go.txt
var spoiled []byte

// server builds the release's server, spoiled where the recipe says so.
func (s *Shop) server(ctx context.Context, r Recipe, flags, into string) error {
	if r.Spoiled == "" {
		return s.run(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", into, "./cmd/whisper-appliance-server")
	}
	source, overlay := filepath.Join(s.Dir, "spoiled.go"), filepath.Join(s.Dir, "overlay.json")
	if err := os.WriteFile(source, spoiled, 0o644); err != nil {
		return err
	}
	laid := filepath.Join(s.root, "cmd", "whisper-appliance-server", "spoiled.go")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {laid: source}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		return err
	}
	flags += " -X main.spoiled=" + r.Spoiled
	return s.run(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-overlay", overlay, "-ldflags", flags, "-o", into, "./cmd/whisper-appliance-server")
}

func (s *Shop) run(ctx context.Context, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Target is the path of a release's artefact below the repository.
func (s *Shop) Target(ctx context.Context, r Recipe) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, err := s.index(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range index.Offers {
		if o.Version == r.Version && o.Arch == r.arch() {
			return filepath.Join(trust.TargetsDir, o.Name), nil
		}
	}
	return "", fmt.Errorf("version %s is not on offer", r.Version)
}
