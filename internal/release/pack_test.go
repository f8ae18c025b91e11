package release

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/slot"
)

func TestPackIsReproducible(t *testing.T) {
	dir, _ := sealed(t)
	first := pack(t, dir)
	other := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(other, os.DirFS(dir)))
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Chmod(filepath.Join(other, rel), info.Mode().Perm()))
		return os.Chtimes(filepath.Join(other, rel), time.Unix(1, 0), time.Unix(2, 0))
	}))
	if !bytes.Equal(first, pack(t, other)) {
		t.Error("two artefacts of one tree differ")
	}
	if !bytes.Equal(first, pack(t, dir)) {
		t.Error("the same tree packed again differs")
	}
}

func TestPackOrder(t *testing.T) {
	dir, m := sealed(t)
	list := members(t, pack(t, dir))
	if len(list) != len(m.Files)+1 || list[0].Name != slot.ManifestName {
		t.Fatalf("%d members, first %s", len(list), list[0].Name)
	}
	for i, got := range list[1:] {
		if f := m.Files[i]; got.Name != f.Path || got.Size != f.Size || got.Uid+got.Gid != 0 || got.Uname+got.Gname != "" || got.ModTime.Unix() != 0 {
			t.Errorf("member %d is %+v, want %+v", i, got.Header, f)
		}
	}
}

// TestOthersReadIt: the format is not ours.
func TestOthersReadIt(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	dir, _ := sealed(t)
	path, to := filepath.Join(t.TempDir(), "a.tar.zst"), t.TempDir()
	must(t, os.WriteFile(path, pack(t, dir), 0o600))
	if out, err := exec.Command("tar", "--zstd", "-xpf", path, "-C", to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, filepath.WalkDir(to, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(path, 0o755) // whatever the umask
		}
		return err
	}))
	if diffs, _, err := slot.Verify(t.Context(), to, slot.Check{}); err != nil || len(diffs) > 0 {
		t.Errorf("%v, %v", diffs, err)
	}
}

func TestPackRefuses(t *testing.T) {
	for what, test := range map[string]struct {
		code  string
		spoil func(dir string) error
	}{
		"no manifest": {"no_manifest", func(dir string) error { return os.Remove(filepath.Join(dir, slot.ManifestName)) }},
		"extra file":  {"damaged_release", func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) }},
		"other bytes": {"damaged_release", func(dir string) error { return os.WriteFile(filepath.Join(dir, "VERSION"), []byte("1.4.1\n"), 0o644) }},
		"other size":  {"damaged_release", func(dir string) error { return os.WriteFile(filepath.Join(dir, "VERSION"), []byte("1.40.1\n"), 0o644) }},
	} {
		t.Run(what, func(t *testing.T) {
			dir, _ := sealed(t)
			must(t, test.spoil(dir))
			_, err := Pack(t.Context(), dir, io.Discard)
			wantCode(t, err, test.code)
		})
	}
}

type fullDisk struct{ room int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.room -= len(p); d.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestPackFails(t *testing.T) {
	dir, _ := sealed(t)
	if _, err := Pack(t.Context(), dir, &fullDisk{1000}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pack(ctx, dir, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
