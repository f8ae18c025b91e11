//go:build e2e

package cut

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// job is the variable that makes this program a command to be cut.
const job = "CUT_TEST_JOB"

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(job); ok {
		if err := jobs(what, os.Getenv("CUT_TEST_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// jobs are what the command does in dir.
func jobs(what, dir string) error {
	name := func(n string) string { return filepath.Join(dir, n) }
	switch what {
	case "steps":
		return steps(dir)
	case "threads": // 8 at once, 100 calls each
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				for range 25 {
					own := name(strconv.Itoa(i))
					errs[i] = errors.Join(errs[i], os.WriteFile(own, []byte("x"), 0o644), os.Rename(own, own+".done"), os.Remove(own+".done"))
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	case "writes": // 2,000 after the first
		f, err := os.Create(name("f"))
		for i := 0; i < 2000 && err == nil; i++ {
			_, err = f.WriteString("a line\n")
		}
		return err
	case "elsewhere":
		return elsewhere(dir)
	}
	return errors.New("no such job")
}

// steps is ten calls.
func steps(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	if err := root.Mkdir("d", 0o755); err != nil {
		return err
	}
	f, err := root.Create("d/f")
	if err != nil {
		return err
	}
	if _, err := f.WriteString("text"); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Sync(), os.Symlink("d", filepath.Join(dir, "l")), os.Rename(filepath.Join(dir, "l", "f"), filepath.Join(dir, "g")),
		f.Truncate(2), d.Sync(), root.Remove("d"))
}

// elsewhere does what does not count.
func elsewhere(dir string) error {
	other, err := os.MkdirTemp("", "elsewhere")
	if err != nil {
		return err
	}
	defer os.RemoveAll(other)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	w.WriteString("x")      //nolint:errcheck
	r.Read(make([]byte, 1)) //nolint:errcheck
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	c.Write([]byte("x")) //nolint:errcheck
	_, err = os.ReadDir(dir)
	fmt.Println("said")
	return errors.Join(err, os.WriteFile(os.DevNull, []byte("x"), 0), os.WriteFile(filepath.Join(other, "f"), nil, 0o600),
		os.Symlink(dir, filepath.Join(other, "link")))
}

// do runs one of the jobs on dir.
func do(t *testing.T, what, dir string, at int, hook func()) Result {
	t.Helper()
	return run(t, Command{Args: []string{self(t)}, Env: []string{job + "=" + what, "CUT_TEST_DIR=" + dir, "TMPDIR=" + os.TempDir()},
		Watch: []string{dir}, At: at, Hook: hook})
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func run(t *testing.T, c Command) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := Run(ctx, c)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	return r
}

// tree is what lies in dir, and what of it.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if info.Mode().IsRegular() {
			name += fmt.Sprintf("=%d", info.Size())
		}
		list = append(list, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCounts: every mutating call is seen in its order, with its names resolved.
func TestCounts(t *testing.T) {
	dir := t.TempDir()
	r := do(t, "steps", dir, 0, func() { t.Error("the hook was called") })
	var got []string
	for _, line := range r.Log {
		got = append(got, strings.ReplaceAll(line, dir, "."))
	}
	want := []string{"mkdirat ./d", "openat ./d/f create truncate", "write ./d/f (4 bytes)", "fchmod ./d/f", "fsync ./d/f", "symlinkat ./l",
		"renameat ./d/f -> ./g", "ftruncate ./g (2 bytes)", "fsync .", "unlinkat ./d", "unlinkat ./d"}
	if !slices.Equal(got, want) || r.Calls != len(want) || r.Cut || r.ExitCode != 0 {
		t.Errorf("%+v\nlog  %q\nwant %q", r, got, want)
	}
}

// TestCutsAtEach: what lies there after a cut at call k is what k−1 calls have
// made, and the command is gone when the hook's work is done.
func TestCutsAtEach(t *testing.T) {
	after := [][]string{nil, {"d"}, {"d", "d/f=0"}, {"d", "d/f=4"}, {"d", "d/f=4"}, {"d", "d/f=4"}, {"d", "d/f=4", "l"}, {"d", "g=4", "l"}, {"d", "g=2", "l"}, {"d", "g=2", "l"}, {"d", "g=2", "l"}}
	for k, want := range after {
		dir, hooks := t.TempDir(), 0
		var seen []string
		r := do(t, "steps", dir, k+1, func() { hooks, seen = hooks+1, tree(t, dir) })
		if !r.Cut || r.Calls != k+1 || r.ExitCode != -1 || hooks != 1 {
			t.Errorf("call %d: %+v, the hook was called %d times", k+1, r, hooks)
		}
		if got := tree(t, dir); !slices.Equal(got, want) || !slices.Equal(seen, want) {
			t.Errorf("after a cut at call %d: %q, during it %q; want %q", k+1, got, seen, want)
		}
	}
}

// TestThreads: calls of many threads are counted once each, whatever signals
// Go's scheduler sends, and a cut stops them all.
func TestThreads(t *testing.T) {
	for range 3 {
		if r := do(t, "threads", t.TempDir(), 0, nil); r.Calls != 8*25*(2+1+1) || r.ExitCode != 0 {
			t.Errorf("%d calls, exit code %d, %s; want 800", r.Calls, r.ExitCode, r.Output)
		}
	}
	dir := t.TempDir()
	r := do(t, "threads", dir, 333, nil)
	if !r.Cut || r.Calls != 333 || len(r.Log) != 333 {
		t.Errorf("cut %v after %d calls, log %d", r.Cut, r.Calls, len(r.Log))
	}
}

// TestElsewhere: pipes, sockets, devices and other directories do not count.
func TestElsewhere(t *testing.T) {
	r := do(t, "elsewhere", t.TempDir(), 1, nil)
	if r.Calls != 0 || r.Cut || r.ExitCode != 0 || string(r.Output) != "said\n" {
		t.Errorf("%+v, said %q", r, r.Output)
	}
}

// TestThroughLinks: a directory is the same by another name.
func TestThroughLinks(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink(dir, link), os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), os.Symlink(filepath.Join(dir, "f"), link+"f")); err != nil {
		t.Fatal(err)
	}
	for _, watched := range []string{dir, link} {
		for script, want := range map[string]int{
			`echo x >"$1/new"`: 2, `: >"$2f"`: 1, `cd "$1" && echo x >>f && rm f`: 3, `cat "$2f"; true`: 0, `mkdir "$1/d" && mv "$1/d" "$2.moved"`: 2,
		} {
			r := run(t, Command{Args: []string{"sh", "-ec", script, "sh", link, link}, Watch: []string{watched}})
			if r.Calls != want || r.ExitCode != 0 {
				t.Errorf("%s: %d calls, want %d: %q %s", script, r.Calls, want, r.Log, r.Output)
			}
			os.WriteFile(filepath.Join(dir, "f"), nil, 0o600) //nolint:errcheck // as it was
			os.RemoveAll(link + ".moved")
		}
	}
}

// TestChildren: the calls of children count, and whoever is left when the
// command has ended or is cut is killed, also from a session of its own.
func TestChildren(t *testing.T) {
	const script = `cd "$1"; for i in 1 2 3; do sh -c 'echo $$ >>pids' ; done
		setsid sh -c 'echo $$ >>pids; while :; do echo >>more; done' & wait_for() { while [ ! -e more ]; do :; done; }; wait_for; exit 4`
	for _, at := range []int{0, 30} {
		dir := t.TempDir()
		r := run(t, Command{Args: []string{"sh", "-c", script, "sh", dir}, Watch: []string{dir}, At: at})
		if (at == 0 && (r.ExitCode != 4 || r.Calls < 10)) || r.Cut != (at > 0 && r.Calls == at) {
			t.Errorf("cut at %d: exit code %d, %d calls: %s", at, r.ExitCode, r.Calls, r.Output)
		}
		pids, err := os.ReadFile(filepath.Join(dir, "pids"))
		if err != nil || len(strings.Fields(string(pids))) != 4 {
			t.Fatalf("pids %q, %v", pids, err)
		}
		for _, pid := range strings.Fields(string(pids)) {
			gone(t, pid)
		}
	}
}

// gone waits until a process that was killed has ended.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, _ := strconv.Atoi(pid)
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if unix.Kill(n, 0) != nil || strings.HasPrefix(status(n, "State"), "Z") {
			return
		}
	}
	t.Errorf("process %s is left", pid)
}

func TestFast(t *testing.T) {
	r := do(t, "writes", t.TempDir(), 0, nil)
	t.Logf("%d calls in %v", r.Calls, r.Took)
	if r.Calls != 2001 || r.Took > 2*time.Second {
		t.Errorf("%d calls in %v, want 2001 in 2s", r.Calls, r.Took)
	}
}

func TestUnhappyRuns(t *testing.T) {
	dir := t.TempDir()
	if r := run(t, Command{Args: []string{filepath.Join(dir, "none")}, Watch: []string{dir}}); r.ExitCode != 127 {
		t.Errorf("a command that is not there ends with %d", r.ExitCode)
	}
	for _, c := range []Command{{}, {Args: []string{"true"}, Watch: []string{filepath.Join(dir, "none")}}, {Args: []string{"true"}, Dir: filepath.Join(dir, "none")}} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v is no error", c)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Run(ctx, Command{Args: []string{"sh", "-c", "sleep 60 & sleep 60"}})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// TestManyRuns: neither descriptors nor threads pile up.
func TestManyRuns(t *testing.T) {
	dir := t.TempDir()
	count := func() (fds, threads int) {
		list, _ := os.ReadDir("/proc/self/fd")
		threads, _ = strconv.Atoi(status(os.Getpid(), "Threads"))
		return len(list), threads
	}
	run(t, Command{Args: []string{"true"}, Watch: []string{dir}})
	fds, threads := count()
	for range 30 {
		run(t, Command{Args: []string{"sh", "-c", ": >$1/f", "sh", dir}, Watch: []string{dir}, At: 1})
	}
	if f, th := count(); f > fds+1 || th > threads+6 {
		t.Errorf("%d descriptors and %d threads, before %d and %d", f, th, fds, threads)
	}
}
