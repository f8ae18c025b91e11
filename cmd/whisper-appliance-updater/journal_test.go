package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

// TestJournal: what root does at a terminal stands in the journal, too; what
// somebody only reads does not.
func TestJournal(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.set(func() { b.journal = nil })
	b.must("status")
	b.must("history")
	if len(b.journal) > 0 {
		t.Errorf("to read is written down: %q", b.journal)
	}
	writeRelease(t, b.paths.Golden, "9.1.0")
	b.must("deploy")
	told := func(what string) bool {
		return slices.ContainsFunc(b.journal, func(entry string) bool { return strings.HasPrefix(entry, "updater: "+what) })
	}
	if !told("switch") {
		t.Errorf("the switch is not in %q", b.journal)
	}
	b.must("commit")
	if code := b.run("commit"); code == exitOK || !strings.Contains(b.err.String(), "no release is on trial") || !told("not done: no release is on trial") {
		t.Errorf("%d, said %q, journal %q", code, &b.err, b.journal)
	}
	b.euid = 1000
	b.set(func() { b.journal = nil })
	if code := b.run("commit"); code != exitNoPerm || len(b.journal) > 0 {
		t.Errorf("%d, journal %q", code, b.journal)
	}
}

// TestRestartIsSeen by whoever looks for the last one.
func TestRestartIsSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.must("restart")
	first, err := deployment.ReadRestart(b.paths.UpdaterRun)
	if err != nil || first.Invocation == "" || first.Error != nil || first.Ended.Before(first.Asked) || !strings.Contains(b.out.String(), first.Invocation) {
		t.Errorf("%+v, %v; said %s", first, err, &b.out)
	}
	b.sys.set(func(u *standing) { u.fail = "server" })
	if code := b.run("restart"); code == exitOK {
		t.Error("a server that does not start is a success")
	}
	if r, err := deployment.ReadRestart(b.paths.UpdaterRun); err != nil || r.Error == nil || r.Error.Code == "" || r.Invocation != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestDeployAgain is what the package's script asks for.
func TestDeployAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	writeRelease(t, b.paths.Golden, "9.1.0")
	b.must("deploy --trial=false")
	writeRelease(t, b.paths.Golden, "9.0.0")
	if said := b.must("deploy --door dpkg --was 9.0.0"); !strings.Contains(said, "slot b serves 9.1.0; the package is as it was") {
		t.Errorf("said %s", said)
	}
	writeRelease(t, b.paths.Golden, "9.0.5")
	if said := b.must("deploy --door dpkg --was 9.0.0"); !strings.Contains(said, "newer than the package's 9.0.5, and is left") {
		t.Errorf("said %s", said)
	}
	b.wants("9.1.0", "9.1.0")
	b.must("pin 9.1.0")
	b.must("forget-slots")
	if s := b.must("status"); !strings.Contains(s, "pinned      version 9.1.0") {
		t.Errorf("the pin is gone:\n%s", s)
	}
	b.must("deploy --door dpkg --was 9.0.7") // an older package is wanted
	b.wants("9.0.5", "9.1.0")
}

// TestFrozenJournal keeps nobody: one entry waits for it, those after it do not,
// and once it is well it is written to again.
func TestFrozenJournal(t *testing.T) {
	t.Parallel()
	thaw, got := make(chan struct{}), make(chan string, 10)
	j := &impatient{limit: 20 * time.Millisecond, send: func(message string, _ int, _ map[string]string) error {
		<-thaw
		got <- message
		return nil
	}}
	if err := j.Send("one", 6, nil); !errors.Is(err, errJournalHangs) {
		t.Errorf("%v", err)
	}
	j.limit = time.Hour // nobody waits for it any more
	for range 100 {
		if err := j.Send("two", 6, nil); !errors.Is(err, errJournalHangs) {
			t.Errorf("%v", err)
		}
	}
	close(thaw)
	eventually(t, "the journal", func() bool { return j.Send("three", 6, nil) == nil })
	if one, three := <-got, <-got; one != "one" || three != "three" {
		t.Errorf("%s, %s", one, three)
	}
}

// TestFrozenJournalOfAChange: root's verb ends though journald does not.
func TestFrozenJournalOfAChange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	frozen := make(chan struct{})
	defer close(frozen)
	a := b.app()
	a.entries.Send = func(string, int, map[string]string) error { <-frozen; return nil }
	if began, code := time.Now(), a.run(t.Context(), []string{"deploy"}); code != exitOK || time.Since(began) > 10*time.Second {
		t.Errorf("%d after %v: %s", code, time.Since(began), &b.err)
	}
	b.wants("9.0.0", "9.0.0")
}
