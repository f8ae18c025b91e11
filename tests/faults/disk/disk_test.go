//go:build e2e

package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// leftovers are mounts, loop devices and directories of this process.
func leftovers(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	found := string(mounts)
	for _, pattern := range []string{"/sys/block/loop*/loop/backing_file"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, f := range files {
			data, _ := os.ReadFile(f) //nolint:errcheck // it may go meanwhile
			found += string(data)
		}
	}
	for _, root := range []string{"/dev/shm", os.TempDir()} {
		dirs, err := filepath.Glob(filepath.Join(root, prefix+"*"))
		must(t, err)
		found += strings.Join(dirs, "\n")
	}
	return found
}

// TestPowerCut: what was synced is there after a cut, what was not is not, and
// the usual swap without a sync leaves a link to an empty file.
func TestPowerCut(t *testing.T) {
	d := New(t, 32<<20)
	name := func(n string) string { return filepath.Join(d.Dir, n) }
	synced, err := os.Create(name("synced"))
	must(t, err)
	_, err = synced.WriteString("text")
	must(t, err, synced.Sync(), synced.Close())
	dir, err := os.Open(d.Dir)
	must(t, err, dir.Sync(), dir.Close())
	must(t, os.WriteFile(name("unsynced"), []byte("text"), 0o644))
	must(t, d.Cut())
	if err := os.WriteFile(name("later"), nil, 0o644); !errors.Is(err, unix.EIO) {
		t.Errorf("a write after the cut: %v", err)
	}
	must(t, d.Revive())
	if data, err := os.ReadFile(name("synced")); string(data) != "text" {
		t.Errorf("what was synced: %q, %v", data, err)
	}
	if _, err := os.Stat(name("unsynced")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was never synced is there: %v", err)
	}
	must(t, d.Check())
	// Something later syncs the names, and not the bytes: fsync of a directory
	// writes the journal out, and delayed allocation holds the data back.
	must(t, os.WriteFile(name("program"), bytes.Repeat([]byte("x"), 100_000), 0o755), os.Symlink("program", name("current")))
	dir, err = os.Open(d.Dir)
	must(t, err, dir.Sync(), dir.Close(), d.Cut(), d.Revive(), d.Check())
	info, err := os.Stat(name("current"))
	must(t, err)
	if info.Size() != 0 {
		t.Errorf("the program has %d bytes: this disk forgives what others do not", info.Size())
	}
}

// TestReviveWhileOpen: somebody who still has a file open holds nothing up, and
// what he does afterwards reaches nobody.
func TestReviveWhileOpen(t *testing.T) {
	d := New(t, 16<<20)
	name := filepath.Join(d.Dir, "f")
	held, err := os.Create(name)
	must(t, err)
	defer held.Close()
	_, err = held.WriteString("before")
	must(t, err, held.Sync(), d.Cut())
	began := time.Now()
	must(t, d.Revive())
	if took := time.Since(began); took > busyLimit+2*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := held.WriteString("after"); err == nil {
		t.Error("the old file takes writes")
	}
	must(t, os.WriteFile(filepath.Join(d.Dir, "g"), []byte("new"), 0o644), held.Close(), d.Check())
	if data, err := os.ReadFile(name); string(data) != "before" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestFull(t *testing.T) {
	d := New(t, 32<<20)
	all, _, err := d.Free()
	must(t, err)
	for _, leaving := range []int64{5 << 20, 64 << 10, 0, 1 << 20} {
		must(t, d.Fill(leaving))
		free, _, err := d.Free()
		must(t, err)
		if free > leaving || free < leaving-2*block {
			t.Errorf("%d bytes are free, want %d", free, leaving)
		}
		err = os.WriteFile(filepath.Join(d.Dir, "f"), make([]byte, leaving+64<<10), 0o644)
		if err == nil { // delayed allocation tells the truth at the sync
			f, e := os.OpenFile(filepath.Join(d.Dir, "f"), os.O_RDWR, 0)
			must(t, e)
			err = f.Sync()
			f.Close()
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("more than %d bytes were taken: %v", leaving, err)
		}
		must(t, os.Remove(filepath.Join(d.Dir, "f")))
	}
	must(t, d.Unfill())
	if free, _, err := d.Free(); err != nil || free != all {
		t.Errorf("%d bytes are free, %v; at first %d", free, err, all)
	}
}

func TestNoInodes(t *testing.T) {
	d := New(t, 16<<20)
	must(t, d.FillInodes(2))
	var err error
	made := 0
	for ; err == nil; made++ {
		err = os.WriteFile(filepath.Join(d.Dir, strings.Repeat("f", made+1)), nil, 0o644)
	}
	if made != 3 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%d files were made: %v", made-1, err)
	}
	must(t, d.Unfill(), os.WriteFile(filepath.Join(d.Dir, "g"), nil, 0o644))
}

func TestReadOnly(t *testing.T) {
	d := New(t, 16<<20)
	name := filepath.Join(d.Dir, "f")
	f, err := os.Create(name)
	must(t, err)
	if err := d.ReadOnly(true); !errors.Is(err, unix.EBUSY) {
		t.Errorf("with a file open for writing: %v", err)
	}
	must(t, f.Close(), d.ReadOnly(true))
	if err := os.WriteFile(name, nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("a write: %v", err)
	}
	must(t, d.ReadOnly(false), os.WriteFile(name, nil, 0o644))
}

func TestSaveAndBack(t *testing.T) {
	d := New(t, 64<<20)
	name := filepath.Join(d.Dir, "f")
	if err := d.Back(); err == nil {
		t.Error("there is nothing to go back to")
	}
	must(t, os.WriteFile(name, []byte("one"), 0o644), d.Save())
	began := time.Now()
	const rounds = 5
	for range rounds {
		must(t, os.WriteFile(name, []byte("two"), 0o644), d.Cut(), d.Back())
		if data, err := os.ReadFile(name); string(data) != "one" {
			t.Fatalf("%q, %v", data, err)
		}
	}
	t.Logf("a cut and the way back take %v", time.Since(began)/rounds)
	must(t, d.Check())
}

// TestNothingIsLeft: of tests that fail, that hold files open, and of a process
// that was killed.
func TestNothingIsLeft(t *testing.T) {
	var d *Disk
	t.Run("cut", func(t *testing.T) {
		d = New(t, 16<<20)
		must(t, d.Cut())
	})
	if found := leftovers(t); strings.Contains(found, d.base) {
		t.Errorf("of %s there is left:\n%s", d.base, found)
	}
	var held *os.File
	t.Run("held", func(t *testing.T) {
		d = New(t, 16<<20)
		var err error
		held, err = os.Create(filepath.Join(d.Dir, "f"))
		must(t, err)
	})
	must(t, held.Close())
	for limit := time.Now().Add(5 * time.Second); strings.Contains(leftovers(t), d.base) && time.Now().Before(limit); time.Sleep(time.Millisecond) {
	}
	if found := leftovers(t); strings.Contains(found, d.base) {
		t.Errorf("of %s there is left:\n%s", d.base, found)
	}
}

// TestNextRunClearsUp runs this program again, which is killed with a disk.
func TestNextRunClearsUp(t *testing.T) {
	const child = "DISK_TEST_CHILD"
	if os.Getenv(child) != "" {
		New(t, 16<<20)
		unix.Kill(os.Getpid(), unix.SIGKILL) //nolint:errcheck // of ourselves
		select {}
	}
	if os.Geteuid() != 0 {
		t.Skip("a file system needs root to mount")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNextRunClearsUp$")
	cmd.Env = append(os.Environ(), child+"=1")
	if err := cmd.Run(); err == nil {
		t.Skip("no disk can be made here")
	}
	left := prefix + strconv.Itoa(cmd.Process.Pid) + "-"
	if !strings.Contains(leftovers(t), left) {
		t.Fatal("the child left nothing: this proves nothing")
	}
	New(t, 16<<20)
	if found := leftovers(t); strings.Contains(found, left) {
		t.Errorf("there is left:\n%s", found)
	}
}
