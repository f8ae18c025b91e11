package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

func streamOf(t *testing.T, f *os.File) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func (u *standing) started() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.did, " ")
}

func TestDeployWithoutSystemd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if said := b.must("deploy"); !strings.Contains(said, "slot a will serve 9.0.0; no server runs: systemd does not run here") {
		t.Errorf("said %s", said)
	}
	if said := b.must("deploy"); !strings.Contains(said, "already") {
		t.Errorf("again: %s", said)
	}
	b.wants("9.0.0", "9.0.0")
	writeRelease(t, b.paths.Golden, "9.1.0")
	b.must("deploy --door dpkg")
	b.wants("9.1.0", "9.1.0")
	if last := b.last(); last.Door != deployment.DoorDpkg || last.Outcome != deployment.Committed {
		t.Errorf("record %+v", last)
	}
}

func TestDeployLive(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	writeRelease(t, b.paths.Golden, "9.1.0")
	if said := b.must("deploy"); !strings.Contains(said, "slot b serves 9.1.0, on trial") || b.sys.started() != "server next-b server" {
		t.Errorf("said %s; started %s", said, b.sys.started())
	}
	b.wants("9.1.0", "9.0.0")
	if said := b.must("commit"); !strings.Contains(said, "9.1.0 is committed") {
		t.Errorf("said %s", said)
	}
	b.wants("9.1.0", "9.1.0")
	if said := b.must("deploy"); !strings.Contains(said, "serves 9.1.0 already") || b.sys.started() != "server next-b server" {
		t.Errorf("again: %s; started %s", said, b.sys.started())
	}
	writeRelease(t, b.paths.Golden, "9.2.0")
	b.sys.set(func(u *standing) { u.fail = "next-a" })
	if code := b.run("deploy"); code != exitUnavailable || !strings.Contains(b.err.String(), "serves on") {
		t.Errorf("a release that does not start: %d, %s", code, &b.err)
	}
	b.wants("9.1.0", "9.1.0")
}

// TestNothingServes: nobody may take that for a release that was taken back.
func TestNothingServes(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	writeRelease(t, b.paths.Golden, "9.1.0")
	b.sys.set(func(u *standing) {
		u.meet = func(_ context.Context, unit string) {
			if unit == "server" {
				u.set(func(u *standing) { u.fail = unit })
			}
		}
	})
	if code := b.run("deploy"); code != exitError {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	if last := b.last(); last.Outcome != deployment.Failed {
		t.Errorf("record %+v", last)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must("deploy")
	release, err := slot.Lock(filepath.Join(b.paths.Updater, "lock"), "a test")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, line := range []string{"deploy", "check", "recover"} {
		began := time.Now()
		if code := b.run(strings.Fields(line)...); code != exitBusy || !strings.Contains(b.err.String(), "a test") || time.Since(began) > 3*time.Second {
			t.Errorf("%s: exit code %d after %v, %s", line, code, time.Since(began), &b.err)
		}
	}
}

// TestOutOfTime: a deployment has as long as it was given.
func TestOutOfTime(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	writeRelease(t, b.paths.Golden, "9.1.0")
	code := b.run("deploy", "--within", "1ns")
	if code != exitUnavailable || !strings.Contains(b.err.String(), "more than 1ns") || !strings.Contains(b.err.String(), "--within 10m") {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	if last := b.last(); last.Outcome != deployment.Aborted || last.Reason != "too_slow" {
		t.Errorf("record %+v", last)
	}
	b.wants("9.0.0", "9.0.0")

	late, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, tooSlow(time.Nanosecond))
	defer cancel()
	<-late.Done()
	if err := inTime(late, fmt.Errorf("ask: %w", context.DeadlineExceeded)); !strings.Contains(err.Error(), "more than 1ns") || fault.Hint(err) == "" {
		t.Errorf("what gave up with the context: %v", err)
	}
	full := fault.New(fault.NoSpace, "disk_full", "x").Because(context.DeadlineExceeded)
	if err := inTime(late, full); err != error(full) {
		t.Errorf("what says more: %v", err)
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	writeRelease(t, b.paths.Golden, "9.1.0")
	ctx, cancel := context.WithCancel(t.Context())
	b.sys.set(func(u *standing) { u.meet = func(context.Context, string) { cancel() } })
	if code := b.runIn(ctx, "deploy"); code != exitCanceled {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	b.wants("9.0.0", "9.0.0")
	if last := b.last(); last.Outcome != deployment.Canceled {
		t.Errorf("record %+v", last)
	}
}

// TestApplyAndBack goes through the verbs that people use.
func TestApplyAndBack(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "hears better")
	if said := b.must("check"); !strings.Contains(said, "version 9.1.0 (stable, ") || !strings.Contains(said, "hears better") {
		t.Errorf("check: %s", said)
	}
	if said := b.must("download"); !strings.Contains(said, "and fetched") {
		t.Errorf("download: %s", said)
	}
	b.must("apply --version 9.1.0")
	b.wants("9.1.0", "9.0.0")
	b.publish("9.2.0", "")
	if said := b.must("apply"); !strings.Contains(said, "9.2.0 is queued behind the trial of 9.1.0") {
		t.Errorf("apply during the trial: %s", said)
	}
	if code := b.run("switch", "a"); code != exitBusy {
		t.Errorf("switch during the trial: %d, %s", code, &b.err)
	}
	if said := b.must("cancel"); !strings.Contains(said, "cancelled") || b.status().Queued != nil {
		t.Errorf("cancel: %s, %+v", said, b.status().Queued)
	}
	if said := b.must("rollback"); !strings.Contains(said, "slot a serves 9.0.0 again") {
		t.Errorf("rollback: %s", said)
	}
	b.wants("9.0.0", "9.0.0")
	if said := b.must("status"); !strings.Contains(said, "held        version 9.1.0") {
		t.Errorf("status: %s", said)
	}
	if code := b.run("apply", "1.2.3"); code != exitNoInput {
		t.Errorf("a version that is not there: %d, %s", code, &b.err)
	}
	if code := b.run("cancel"); code != exitError {
		t.Errorf("nothing to cancel: %d, %s", code, &b.err)
	}
	if said := b.must("restart"); !strings.Contains(said, "restarted: invocation ") {
		t.Errorf("restart: %s", said)
	}
	if said := b.must("install " + b.bundle("9.2.0")); !strings.Contains(said, "serves 9.2.0, on trial") || b.status().Door != deployment.DoorFile {
		t.Errorf("install: %s, door %s", said, b.status().Door)
	}
}

// TestWait follows a trial to its end, however that is.
func TestWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, verb string
		code       int
		says       string
	}{
		{"well", "commit", exitOK, "update of 9.0.0 to 9.1.0 committed"},
		{"taken back", "rollback", exitUnavailable, "9.1.0 was taken back"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t).live()
			b.publish("9.1.0", "")
			other := &bench{t: t, paths: b.paths, slots: b.slots, sys: b.sys, repo: b.repo, trial: time.Hour}
			done := make(chan int, 1)
			go func() {
				eventually(t, "the trial", func() bool { return b.status().State == deployment.Trial })
				done <- other.run(tt.verb)
			}()
			if code := b.run("apply", "--wait"); code != tt.code || !strings.Contains(b.out.String()+b.err.String(), tt.says) {
				t.Errorf("exit code %d\n%s%s", code, &b.out, &b.err)
			}
			if tt.code == exitOK && !strings.Contains(b.out.String(), "trial: ") {
				t.Errorf("it does not follow:\n%s", &b.out)
			}
			if code := <-done; code != exitOK {
				t.Errorf("%s: %d, %s", tt.verb, code, &other.err)
			}
		})
	}
}

// TestWaitPrintsOneDocument, and is no longer waited for when it is cancelled.
func TestWaitPrintsOneDocument(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopped := context.AfterFunc(t.Context(), cancel)
	defer stopped()
	go func() {
		eventually(t, "the trial", func() bool { return b.status().State == deployment.Trial })
		cancel()
	}()
	if code := b.runIn(ctx, "apply", "--wait", "--json"); code != exitCanceled || b.out.Len() > 0 {
		t.Errorf("exit code %d, %s", code, &b.out)
	}
	if said, _ := document(t, b.err.Bytes()).(map[string]any)["error"].(string); !strings.Contains(said, "the trial goes on") { //nolint:errcheck // "" then
		t.Errorf("said %s", said)
	}
	b.wants("9.1.0", "9.0.0")
	transaction := b.status().Transaction
	b.must("commit")
	a := b.app()
	a.paths, a.jsonOut = b.paths, true
	b.out.Reset()
	if err := a.waitForTrial(t.Context(), transaction); err != nil {
		t.Fatal(err)
	}
	if r, _ := document(t, b.out.Bytes()).(map[string]any); r["transaction"] != transaction || r["outcome"] != deployment.Committed { //nolint:errcheck // nil then
		t.Errorf("document %v", r)
	}
}

// TestWatchFollows: a line for each change until somebody has seen enough.
func TestWatchFollows(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.app()
	a.paths = b.paths
	if err := os.MkdirAll(b.paths.UpdaterRun, 0o755); err != nil {
		t.Fatal(err)
	}
	shows := []string{"looking", "downloading", "unpacking"}
	write := func(n int) {
		s := deployment.Status{State: deployment.Updating, Phase: deployment.Fetch, Message: shows[n], Progress: deployment.Progress{Done: int64(n) << 20, Total: 4 << 20, LeftSeconds: 7}}
		if err := deployment.WriteStatus(b.paths.UpdaterRun, s); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	n := 0
	err := a.watch(t.Context(), a.printChange, func(deployment.Status) bool {
		if n++; n < len(shows) {
			write(n)
		}
		return n > len(shows)
	})
	lines := strings.Split(strings.TrimSpace(b.out.String()), "\n")
	if err != nil || len(lines) != len(shows) || !strings.Contains(lines[1], "fetch, 1 MiB of 4 MiB, 7s left: downloading") {
		t.Errorf("%v\n%s", err, &b.out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := b.runIn(ctx, "status", "--watch", "--json"); code != exitOK || document(t, b.out.Bytes()) == nil {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	if err := os.Remove(filepath.Join(b.paths.UpdaterRun, deployment.StatusFile)); err != nil {
		t.Fatal(err)
	}
	if code := b.run("status", "--watch"); code != exitNoInput {
		t.Errorf("without a status: %d, %s", code, &b.err)
	}
}

// TestScrub: damage that cannot be mended is a failure.
func TestScrub(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	if said := b.must("scrub"); !strings.Contains(said, "a       9.0.0    whole") {
		t.Errorf("said %s", said)
	}
	rotten := strings.Replace("server 9.0.0", "s", "S", 1) // as long as it was
	if err := os.WriteFile(filepath.Join(b.slots.Path("a"), slot.ServerPath), []byte(rotten), 0o755); err != nil {
		t.Fatal(err)
	}
	if code := b.run("scrub"); code != exitError || !strings.Contains(b.err.String(), "1 of 3 slots are damaged") {
		t.Errorf("exit code %d, %s%s", code, &b.out, &b.err)
	}
	if said := b.must("status"); !strings.Contains(said, "ALARM ") {
		t.Errorf("status: %s", said)
	}
}

// TestTicker keeps one line of a terminal up to date, of work that goes on.
func TestTicker(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.app()
	a.paths = b.paths
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan string, 100)
	a.errOut = writes(func(p []byte) { said <- string(p) })
	if err := os.MkdirAll(b.paths.UpdaterRun, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := deployment.WriteStatus(b.paths.UpdaterRun, deployment.Status{State: deployment.Updating, Phase: deployment.Stage, Message: "unpacking\nmore", PID: 7}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); a.ticker(ctx) }()
	if got := <-said; got != "\r\033[Kstage: unpacking" {
		t.Errorf("said %q", got)
	}
	cancel()
	<-done
	for len(said) > 1 {
		<-said
	}
	if got := <-said; got != "\r\033[K" {
		t.Errorf("it leaves %q", got)
	}
}

type writes func(p []byte)

func (w writes) Write(p []byte) (int, error) { w(p); return len(p), nil }

// hungUp sends a hang-up to its own process with each thing that is written.
type hungUp struct{ *os.File }

func (w hungUp) Write(p []byte) (int, error) {
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		return 0, err
	}
	return w.File.Write(p)
}

// TestNobodyIsThere: a change goes on without its terminal, and though nobody
// reads what it writes; its exit code is the outcome's.
func TestNobodyIsThere(t *testing.T) {
	if how := os.Getenv("UPDATER_TEST_NOBODY"); how != "" {
		os.Exit(nobodyIsThere(t, how))
	}
	for how, want := range map[string]int{"deploy": exitOK, "deploy --json": exitOK, "rollback": exitNoInput} {
		for _, closed := range []string{"pipe", "all"} {
			c := exec.Command(os.Args[0], "-test.run=^TestNobodyIsThere$")
			c.Env = append(os.Environ(), "UPDATER_TEST_NOBODY="+how, "UPDATER_TEST_CLOSED="+closed, "TMPDIR="+t.TempDir()) // it cleans up nothing
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			c.Stdout, c.Stderr = w, w
			err = c.Run()
			w.Close()
			code := c.ProcessState.ExitCode()
			if code != want {
				t.Errorf("%s with a closed %s ended with %d, %v; want %d", how, closed, code, err, want)
			}
		}
	}
}

// nobodyIsThere is the child's part of it.
func nobodyIsThere(t *testing.T, line string) int {
	b := newBench(t)
	a := b.app()
	a.out, a.errOut = hungUp{os.Stdout}, hungUp{os.Stderr}
	if os.Getenv("UPDATER_TEST_CLOSED") == "all" {
		if err := errors.Join(os.Stdout.Close(), os.Stderr.Close()); err != nil {
			return 99
		}
	}
	code := a.run(t.Context(), strings.Fields(line))
	if m, err := slot.Read(b.paths.Current); strings.HasPrefix(line, "deploy") && (err != nil || m.Version != "9.0.0") {
		return 98
	}
	return code
}

// TestGoldenThatServes stays what it was when its package brings another: while
// something else is under way, too.
func TestGoldenThatServes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old, link := b.paths.Golden+".old", b.slots.Path(slot.Golden)
	if err := errors.Join(b.slots.Activate(slot.Golden), b.slots.Commit(slot.Golden), os.Rename(b.paths.Golden, old), os.Remove(link), os.Symlink(old, link)); err != nil {
		t.Fatal(err)
	}
	writeRelease(t, b.paths.Golden, "9.1.0")
	unlock, err := slot.Lock(filepath.Join(b.paths.Updater, "lock"), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	if code := b.run("deploy", "--door", "dpkg", "--was", "9.0.0"); code != exitBusy {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	b.wants("9.0.0", "9.0.0")
	unlock()
	b.must("deploy --door dpkg --was 9.0.0")
	b.wants("9.1.0", "9.1.0")
	if serving, err := b.slots.Serving(); err != nil || serving != slot.A {
		t.Errorf("slot %s serves, %v", serving, err)
	}
}
