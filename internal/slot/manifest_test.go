package slot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSealAndVerify(t *testing.T) {
	dir := t.TempDir()
	m := release(t, dir, "9.1.0+dev")
	var paths []string
	for _, f := range m.Files {
		paths = append(paths, f.Path)
	}
	want := "VERSION bin/whisper-appliance-engine bin/whisper-appliance-server lib/engine/ld.so share/doc/x y ü.txt"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("files %s, want %s", got, want)
	}
	read, err := Read(dir)
	if err != nil || !read.Same(m) {
		t.Errorf("read back %+v, %v", read, err)
	}
	var done, total int64
	diffs, _, err := Verify(t.Context(), dir, Check{Progress: func(d, n int64) { done, total = d, n }})
	if err != nil || len(diffs) > 0 || done != total || total != m.Size() {
		t.Errorf("verify: %v, %v, %d of %d", diffs, err, done, total)
	}
	again, err := Seal(t.Context(), dir, info("9.1.0+dev"))
	if err != nil || !again.Same(m) {
		t.Errorf("sealed again: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		word  string
	}{
		{"link", func(t *testing.T, dir string) { must(t, os.Symlink("VERSION", filepath.Join(dir, "link"))) }, "link is a link"},
		{"pipe", func(t *testing.T, dir string) { must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644)) }, "special file"},
		{"setuid", func(t *testing.T, dir string) {
			must(t, os.Chmod(filepath.Join(dir, ServerPath), 0o755|os.ModeSetuid))
		}, "setuid"},
		{"written by others", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "VERSION"), 0o664)) }, "others may write"},
		{"private", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "VERSION"), 0o600)) }, "not everybody may read"},
		{"open directory", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "bin"), 0o777)) }, "bin has mode 0777"},
		{"empty directory", func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, "void"), 0o755)) }, "void is an empty directory"},
		{"other version", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "VERSION"), "8.0.0\n", 0o644) }, `says "8.0.0"`},
		{"no version", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "VERSION"))) }, "VERSION"},
		{"control character", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a\nb"), "", 0o644) }, "no name for a file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree(t, dir, "9.1.0")
			tt.spoil(t, dir)
			_, err := Seal(t.Context(), dir, info("9.1.0"))
			wantCode(t, err, "not_a_release")
			if err == nil || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v, want %q in it", err, tt.word)
			}
			if _, err := os.Stat(filepath.Join(dir, ManifestName)); err == nil {
				t.Error("a manifest was written")
			}
		})
	}
	if _, err := Seal(t.Context(), filepath.Join(t.TempDir(), "none"), info("9")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFindsEveryDifference(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string // differences, as Path:What
	}{
		{"missing", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, EnginePath))) }, EnginePath + ":missing"},
		{"missing directory", func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "lib"))) }, "lib/engine/ld.so:missing"},
		{"extra", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "bin/x"), "", 0o755) }, "bin/x:extra"},
		{"extra tree", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "new/deep/x"), "", 0o755) }, "new:extra"},
		{"longer", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "lib/engine/ld.so"), "loader2", 0o755) }, "lib/engine/ld.so:size"},
		{"emptied", func(t *testing.T, dir string) { write(t, filepath.Join(dir, ServerPath), "", 0o755) }, ServerPath + ":size"},
		{"a bit", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "lib/engine/ld.so"), "loadeR", 0o755) }, "lib/engine/ld.so:digest"},
		{"mode", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, ServerPath), 0o644)) }, ServerPath + ":mode"},
		{"setuid", func(t *testing.T, dir string) {
			must(t, os.Chmod(filepath.Join(dir, ServerPath), 0o755|os.ModeSetuid))
		}, ServerPath + ":mode"},
		{"directory's mode", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "bin"), 0o775)) }, "bin:mode"},
		{"manifest's mode", func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, ManifestName), 0o666)) }, "manifest.json:mode"},
		{"link in its place", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "VERSION")))
			must(t, os.Symlink("/dev/null", filepath.Join(dir, "VERSION")))
		}, "VERSION:kind"},
		{"directory in its place", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "VERSION")))
			must(t, os.Mkdir(filepath.Join(dir, "VERSION"), 0o755))
		}, "VERSION:kind"},
		{"file for a directory", func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, "lib")))
			write(t, filepath.Join(dir, "lib"), "", 0o644)
		}, "lib:kind lib/engine/ld.so:missing"},
		{"two at once", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "VERSION"), "9.9.9\n", 0o600)
		}, "VERSION:digest VERSION:mode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			release(t, dir, "9.1.0")
			tt.spoil(t, dir)
			diffs, m, err := Verify(t.Context(), dir, Check{})
			if err != nil || m.Version != "9.1.0" {
				t.Fatalf("verify: %v", err)
			}
			var got []string
			for _, d := range diffs {
				got = append(got, d.Path+":"+d.What)
				if !strings.Contains(d.String(), d.Path) {
					t.Errorf("%q does not name the file", d)
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("differences %v, want %s", diffs, tt.want)
			}
		})
	}
}

func TestVerifyOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another owner needs root to give")
	}
	dir := t.TempDir()
	release(t, dir, "9.1.0")
	must(t, os.Chown(filepath.Join(dir, "VERSION"), 4711, 0))
	if diffs, _, err := Verify(t.Context(), dir, Check{}); err != nil || len(diffs) > 0 {
		t.Errorf("not asked for: %v, %v", diffs, err)
	}
	diffs, _, err := Verify(t.Context(), dir, Check{Owned: true, Shallow: true})
	if err != nil || len(diffs) != 1 || diffs[0] != (Difference{"VERSION", Owner, "root", "uid 4711"}) {
		t.Errorf("differences %v, %v", diffs, err)
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	release(t, dir, "9.1.0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Verify(ctx, dir, Check{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	release(t, dir, "9.1.0")
	good, err := os.ReadFile(filepath.Join(dir, ManifestName))
	must(t, err)
	with := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	digest := strings.Repeat("a", 64)
	entry := func(path, mode, size, sum string) string {
		return with(`"files": [`, `"files": [
  {
   "path": "`+path+`",
   "size": `+size+`,
   "mode": "`+mode+`",
   "sha256": "`+sum+`"
  },`)
	}
	tests := []struct{ name, text, word string }{
		{"empty", "", "EOF"},
		{"half", string(good[:len(good)/2]), "EOF"},
		{"another format", with(`"format": 1`, `"format": 2`), "format 2"},
		{"unknown key", with(`"format": 1,`, `"format": 1, "more": 2,`), "more"},
		{"doubled key", with(`"format": 1,`, `"format": 1, "format": 1,`), "not written as"},
		{"key in capitals", with(`"format"`, `"FORMAT"`), "not written as"},
		{"something after it", string(good) + "{}", "not written as"},
		{"no version", with(`"9.1.0"`, `""`), "missing"},
		{"no contract", with(`"contract": 1`, `"contract": 0`), "missing"},
		{"no files", `{"format":1,"version":"1","commit":"c","arch":"x","contract":1,"files":[]}`, "0 files"},
		{"out of the tree", entry("../x", "0644", "1", digest), "leads out"},
		{"from the root", entry("/x", "0644", "1", digest), "leads out"},
		{"roundabout", entry("A/../B", "0644", "1", digest), "leads out"},
		{"itself", entry("manifest.json", "0644", "1", digest), "itself"},
		{"not in order", entry("zzz", "0644", "1", digest), "not in order"},
		{"twice", entry("VERSION", "0644", "1", digest), "not in order, or there twice"},
		{"setuid", entry("A", "4755", "1", digest), "octal"},
		{"no octal mode", entry("A", "rw", "1", digest), "octal"},
		{"open mode", entry("A", "0666", "1", digest), "others may write"},
		{"negative size", entry("A", "0644", "-1", digest), "size -1"},
		{"enormous", entry("A", "0644", "99999999999999", digest), "size"},
		{"half a digest", entry("A", "0644", "1", digest[:63]), "64 digits"},
		{"digest in capitals", entry("A", "0644", "1", strings.ToUpper(digest)), "64 digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, filepath.Join(dir, ManifestName), tt.text, 0o644)
			_, err := Read(dir)
			wantCode(t, err, "bad_manifest")
			if err == nil || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("error %v, want %q in it", err, tt.word)
			}
		})
	}
	must(t, os.Remove(filepath.Join(dir, ManifestName)))
	_, err = Read(dir)
	wantCode(t, err, "no_manifest")
	must(t, os.Symlink("/dev/zero", filepath.Join(dir, ManifestName)))
	_, err = Read(dir)
	wantCode(t, err, "no_manifest")
}

func TestFits(t *testing.T) {
	for _, tt := range []struct {
		arch     string
		contract int
		code     string
	}{
		{"z80", Contract, "wrong_arch"}, {info("").Arch, Contract + 1, "wrong_contract"}, {info("").Arch, Contract - 2, "wrong_contract"},
	} {
		wantCode(t, Manifest{Info: Info{Arch: tt.arch, Contract: tt.contract}}.Fits(), tt.code)
	}
	if err := (Manifest{Info: info("9")}).Fits(); err != nil {
		t.Error(err)
	}
}
