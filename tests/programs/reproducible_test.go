//go:build e2e

package programs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReproducible: a release and its package that are built in two places are
// the same, byte for byte: who doubts a published one can make it anew.
func TestReproducible(t *testing.T) {
	from := root(t)
	if _, err := os.Stat(filepath.Join(from, ".git")); err != nil {
		t.Skip("the tree has no history, and its commit and date are not known")
	}
	keys := filepath.Join(t.TempDir(), "keys")
	made := make([]map[string]string, 2)
	for i, name := range []string{"one", "the-other/and/further-down"} {
		dir := filepath.Join(t.TempDir(), name)
		checkout(t, from, dir)
		shell(t, dir, `make release deb KEYS="$0"`, keys)
		made[i] = digests(t, dir, "build/slot", "build/package", "build/release/repository/targets", "build/deb/*.deb")
	}
	if len(made[0]) < 40 {
		t.Fatalf("%d files were made: what is compared?", len(made[0]))
	}
	for name, digest := range made[0] {
		if made[1][name] != digest {
			t.Errorf("%s differs", name)
		}
	}
	if len(made[1]) != len(made[0]) {
		t.Errorf("one place made %d files, the other %d", len(made[0]), len(made[1]))
	}
}

// checkout puts the tree as it stands, and the engine's runtime, into dir.
func checkout(t *testing.T, from, dir string) {
	t.Helper()
	shell(t, from, `git clone -q . "$0" && git ls-files -coz --exclude-standard --deduplicate |
		xargs -0 sh -c 'for f; do [ ! -e "$f" ] || cp -a --parents "$f" "$0"; done' "$0" &&
		mkdir "$0/build" && cp -a build/engine-runtime "$0/build/"`, dir)
}

// shell runs script in dir, with arg as its $0.
func shell(t *testing.T, dir, script, arg string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", script, arg)
	cmd.Dir = dir
	// A make above this test hands its own variables down, and its goals' names.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "MFLAGS=")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, errOut.Bytes())
	}
	return string(out)
}

// digests are those of the files below what, by their paths.
func digests(t *testing.T, dir string, what ...string) map[string]string {
	t.Helper()
	list := shell(t, dir, "find "+strings.Join(what, " ")+" -type f -exec sha256sum {} +", "")
	found := map[string]string{}
	for line := range strings.Lines(list) {
		digest, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		found[name] = digest
	}
	return found
}
