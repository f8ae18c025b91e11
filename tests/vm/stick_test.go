//go:build e2e

package vm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"whisper-appliance/internal/smoke"
	"whisper-appliance/tests/appliance"
)

// The releases on the stick, beside the one that the package under test brings.
const (
	packaged = "98.1.0" // in a newer package
	signed   = "99.1.0" // in the repository
	devMark  = "+dev"   // of versions that are signed by keys for development
	arch     = "amd64"
)

// stick is what the machines are given: the package, a newer one, a repository
// with a release, a model, sound, the agent, and what looks at a database. It is made once; WA_VM_STICK=keep
// takes the one of the last run.
type stick struct {
	Dir     string
	Version string // of the package
}

var theStick = sync.OnceValues(func() (stick, error) {
	root, err := appliance.Root()
	if err != nil {
		return stick{}, err
	}
	pkg, err := deb(root)
	if err != nil {
		return stick{}, err
	}
	b := builder{root: root, ctx: context.Background(), work: filepath.Join(root, "build", "vm", "releases")}
	dir := filepath.Join(root, "build", "vm", "stick")
	if os.Getenv("WA_VM_STICK") != "keep" {
		b.stick(pkg, dir)
	}
	return stick{Dir: dir, Version: b.run("", "dpkg-deb", "-f", filepath.Join(dir, "appliance.deb"), "Version")}, b.err
})

// deb is the package under test: WA_DEB, or the newest that was built.
func deb(root string) (string, error) {
	if named := os.Getenv("WA_DEB"); named != "" {
		_, err := os.Stat(named)
		return named, err
	}
	found, err := filepath.Glob(filepath.Join(root, "build", "deb", "whisper-appliance_*_"+arch+".deb"))
	if err != nil || len(found) == 0 {
		return "", errors.New("there is no package in build/deb: make deb")
	}
	return slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(modified(a), modified(b)) }), nil
}

func modified(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// builder makes the stick and stops at the first thing that fails.
type builder struct {
	root string
	work string // directory
	ctx  context.Context
	err  error
}

func (b *builder) stick(pkg, dir string) {
	b.run("", "rm", "-rf", dir, b.work)
	b.run("", "mkdir", "-p", dir, b.work)
	b.goBuild("", filepath.Join(dir, "agent"), "./tests/vm/agent")
	b.goBuild("", filepath.Join(dir, "audit"), "./tests/vm/audit")

	// The package as it was built, but for the engine. Without compression: an
	// emulated processor would be busy with that for most of the time.
	tree := filepath.Join(b.work, "package")
	golden := filepath.Join(tree, "usr", "lib", "whisper-appliance", "golden")
	b.run("", "dpkg-deb", "-R", pkg, tree)
	version := b.run("", "dpkg-deb", "-f", pkg, "Version")
	b.become(golden, version)
	b.pack(tree, filepath.Join(dir, "appliance.deb"))

	b.rebuild(golden, packaged+devMark)
	b.become(golden, packaged+devMark)
	b.run("", "sed", "-i", "s/^Version: .*/Version: "+packaged+devMark+"/", filepath.Join(tree, "DEBIAN", "control"))
	b.pack(tree, filepath.Join(dir, "newer.deb"))

	b.rebuild(golden, signed+devMark)
	b.become(golden, signed+devMark)
	b.publish(golden, signed+devMark, filepath.Join(dir, "repository"))

	model := appliance.ModelFile(b.root, "tiny")
	b.copy(model, filepath.Join(dir, "models", filepath.Base(model)))
	b.copy(model+".json", filepath.Join(dir, "models", filepath.Base(model)+".json"))
	b.clip(filepath.Join(dir, "clip.wav"))
	b.run("", "ffmpeg", "-v", "error", "-y", "-i", filepath.Join(b.root, "tests", "testdata", "reference.wav"), filepath.Join(dir, "other.flac"))
	b.run("", "rm", "-rf", b.work)
}

// run runs a command in the checkout and gives the last line that it prints.
func (b *builder) run(env string, args ...string) string {
	if b.err != nil {
		return ""
	}
	cmd := exec.CommandContext(b.ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), env)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.err = fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, &stderr)
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

func (b *builder) copy(from, to string) {
	b.run("", "install", "-D", "-m", "644", from, to)
}

// clip is the reference clip, whose text the fake engine knows.
func (b *builder) clip(to string) {
	recording, _ := smoke.Clip()
	data, err := io.ReadAll(recording)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	b.err = cmp.Or(b.err, err)
}

// goBuild builds programs, stamped with a version where there is one.
func (b *builder) goBuild(version, to string, programs ...string) {
	flags := "-s -w"
	if version != "" {
		flags += " -X whisper-appliance/internal/version.number=" + version
	}
	b.run("CGO_ENABLED=0", append([]string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", to}, programs...)...)
}

// rebuild puts programs of another version into a release.
func (b *builder) rebuild(tree, version string) {
	b.goBuild(version, filepath.Join(tree, "bin")+string(filepath.Separator),
		"./cmd/whisper-appliance", "./cmd/whisper-appliance-server", "./cmd/whisper-appliance-decode")
	number, _, _ := strings.Cut(version, "+")
	b.run("", "sh", "-euc", `echo "$2" >"$1/VERSION"`, "sh", tree, number)
}

// become gives a release the fake engine, takes the real one's libraries away
// where they are there, and seals it. The unit starts the engine through the
// slot's own loader, which stays.
func (b *builder) become(tree, version string) {
	b.run("", "sh", "-euc", `cd "$1"; rm -rf share; cd lib/engine; mv ld.so ..; rm -rf ./*; mv ../ld.so .
		mkdir backends; echo "the fake engine needs none" >backends/README`, "sh", tree)
	// Server and engine have to be of one build.
	const stamp = " -X whisper-appliance/internal/version."
	commit := b.run("", "sh", "-euc", `"$1/bin/whisper-appliance" version --json | sed -n 's/.*"commit": *"\([^"]*\)".*/\1/p'`, "sh", tree)
	b.run("CGO_ENABLED=0", "go", "build", "-trimpath", "-buildvcs=false", "-buildmode=pie",
		"-ldflags", "-s -w"+stamp+"number="+version+stamp+"commit="+commit,
		"-o", filepath.Join(tree, "bin", "whisper-appliance-engine"), "./tests/vm/fakeengine")
	b.run("", "chmod", "-R", "u=rwX,go=rX", tree)
	b.run("", filepath.Join(tree, "bin", "whisper-appliance"), "slot", "seal", tree)
}

// pack makes a package of a tree that one was unpacked to.
func (b *builder) pack(tree, to string) {
	b.run("", "sh", "-euc", `cd "$1"; find . -type f ! -path "./DEBIAN/*" -printf "%P\0" | sort -z | xargs -0 md5sum >DEBIAN/md5sums`, "sh", tree)
	b.run("", "dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, to)
}

// publish offers a release in a repository that is signed with the keys that
// the package trusts.
func (b *builder) publish(tree, version, repository string) {
	program := filepath.Join(b.work, "whisper-appliance-release")
	b.goBuild("", program, "./cmd/whisper-appliance-release")
	b.run("", program, "build", tree, "--version", version, "--commit", "none", "--out", b.work)
	b.run("", program, "publish", filepath.Join(b.work, "whisper-appliance_"+version+"_"+arch+".tar.zst"),
		"--repository", repository, "--keys", filepath.Join("build", "keys"))
	b.run("", "chmod", "-R", "u=rwX,go=rX", repository)
}

// TestStick: what the machines are given can be made.
func TestStick(t *testing.T) {
	needVM(t)
	s, err := theStick()
	if err != nil {
		t.Fatal(err)
	}
	figure(t, "the package under test is %s", s.Version)
}
