package appliance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// FakeEngine makes of the directory dir a checkout to start appliances from, see
// Options.Root: what was built in the checkout root, with tests/vm/fakeengine in
// the place of the engine, which is built for it. It has the model tiny, and
// further ones of the names given, by which the fake engine goes.
func FakeEngine(ctx context.Context, root, dir string, models ...string) error {
	if err := Built(root, "tiny"); err != nil {
		return err
	}
	built, slot := filepath.Join(root, "build", "slot"), filepath.Join(dir, "build", "slot")
	for _, d := range []string{
		filepath.Join(slot, "bin"), filepath.Join(slot, "lib", "engine", "backends"), filepath.Dir(ModelFile(dir, "tiny")),
	} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin/whisper-appliance", "bin/whisper-appliance-server", "bin/whisper-appliance-decode", "lib/engine/ld.so"} {
		if err := copyProgram(filepath.Join(built, name), filepath.Join(slot, name)); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Join(built, "share"), filepath.Join(slot, "share")); err != nil {
		return err
	}
	for _, name := range append(models, "tiny") {
		if err := os.Symlink(ModelFile(root, "tiny"), ModelFile(dir, name)); err != nil {
			return err
		}
	}
	return buildFake(ctx, root, filepath.Join(slot, "bin", engineProgram))
}

// buildFake builds the fake engine so that the slot's loader can start it, which
// wants it to be independent of its place.
func buildFake(ctx context.Context, root, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=pie", "-o", to, "./tests/vm/fakeengine")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the fake engine: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// copyProgram copies a program. A link would not do: it runs where it really is.
func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return fmt.Errorf("copy %s: %w", filepath.Base(from), err)
	}
	return out.Close()
}
