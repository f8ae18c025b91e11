//go:build e2e

package programs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReleaseRefusesAnotherTag: what is signed for others carries the version of
// its commit's tag; a build for development needs none.
func TestReleaseRefusesAnotherTag(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, `git init -q && git -c user.name=x -c user.email=x commit -q --allow-empty -m x && git tag v1.0.0`, "")
	script := filepath.Join(root(t), "packaging", "release.sh")
	for version, refused := range map[string]bool{"1.0.0": false, "1.0.1": true, "1.0.1+dev": false} {
		cmd := exec.CommandContext(t.Context(), script, "no-slot", "out", "keys", "root", version, "stable", "c0ffee")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Contains(string(out), "is no tag of this commit") != refused {
			t.Errorf("%s: %v, %s", version, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "out")); refused && err == nil {
			t.Errorf("%s: something was written", version)
		}
		os.RemoveAll(filepath.Join(dir, "out"))
	}
}
