package site

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/trial"
)

// served runs a program from slot b, as a server that was started from there,
// and gives its process and the slot's manifest.
func served(t *testing.T, m *Machine) (int, slot.Manifest) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("there is no sleep here: ", err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(m.Paths.Slots, "b")
	at := filepath.Join(dir, slot.ServerPath)
	put(t, filepath.Join(dir, "VERSION"), "1.1.0\n")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, program, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	release, err := slot.Seal(t.Context(), dir, slot.Info{Version: "1.1.0", Commit: "c0ffee", Arch: runtime.GOARCH, Contract: slot.Contract})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(at, "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill() //nolint:errcheck // it may have ended
		c.Wait()         //nolint:errcheck // it was killed
	})
	return c.Process.Pid, release
}

// TestRehearsal: a candidate that runs what it should is asked whether it
// answers, and for what it calls itself.
func TestRehearsal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		readyz int
		state  component.State
	}{
		{"it does not come up", 503, component.State{Name: "engine", Status: component.Failed, Error: "no engine"}},
		{"it says another version", 200, component.State{Name: "engine", Status: component.OK}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			unit := systemd.Preflight("b")
			b := &fakeBus{units: map[string]systemd.Unit{}}
			m := newMachine(t, b)
			pid, release := served(t, m)
			b.units[unit] = systemd.Unit{Load: "loaded", Active: "active", MainPID: pid}
			if err := os.MkdirAll(m.Paths.Run, 0o755); err != nil {
				t.Fatal(err)
			}
			answersAt(t, m.Paths.PreflightSocket("b"), tt.readyz, tt.state)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := m.rehearse(ctx, "b", release)
			wantCode(t, tt.name, err, "rehearsal_failed")
			if !strings.HasSuffix(b.notes(), "stop "+unit+", stop "+systemd.PreflightSocket("b")+", reset "+unit) {
				t.Errorf("it did: %s", b.notes())
			}
		})
	}
}

// TestRehearsalBrokenOff is nobody's failure.
func TestRehearsalBrokenOff(t *testing.T) {
	unit := systemd.Preflight("b")
	b := &fakeBus{units: map[string]systemd.Unit{}}
	m := newMachine(t, b)
	pid, release := served(t, m)
	b.units[unit] = systemd.Unit{Load: "loaded", Active: "active", MainPID: pid}
	late := errors.New("there is no more time")
	ctx, cancel := context.WithCancelCause(t.Context())
	b.start = func(context.Context, string) error { cancel(late); return nil }
	if _, err := m.rehearse(ctx, "b", release); err != late {
		t.Errorf("error %v", err)
	}
}

// TestRehearsalHangs: one that had its time to start is no good, though it was
// the caller's that was over first.
func TestRehearsalHangs(t *testing.T) {
	unit := systemd.Preflight("b")
	late := errors.New("there is no more time")
	for _, tt := range []struct {
		name   string
		lasted time.Duration
		is     systemd.Unit
		ends   bool // the caller's time; else it is told to stop
		bad    bool
	}{
		{"long enough", enoughStart, systemd.Unit{Active: "activating", MainPID: 7}, true, true},
		{"not long enough", time.Second, systemd.Unit{Active: "activating", MainPID: 7}, true, false},
		{"before its program", enoughStart, systemd.Unit{Active: "activating"}, true, false},
		{"its unit's own limit", time.Second, systemd.Unit{Active: "deactivating", Result: "timeout"}, true, true},
		{"canceled", enoughStart, systemd.Unit{Active: "activating", MainPID: 7}, false, false},
	} {
		m := newMachine(t, &fakeBus{units: map[string]systemd.Unit{unit: tt.is}})
		ctx, cancel := context.WithTimeoutCause(t.Context(), 0, late)
		if !tt.ends {
			var stop context.CancelCauseFunc
			ctx, stop = context.WithCancelCause(t.Context())
			stop(late)
		}
		_, err := m.notStarted(ctx, unit, tt.lasted, errors.New("systemd was still at it"))
		cancel()
		if tt.bad {
			wantCode(t, tt.name, err, "rehearsal_failed")
		} else if err != late {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestRehearsalStopped: who stops the appliance ends its rehearsal, too, which
// says nothing of the release.
func TestRehearsalStopped(t *testing.T) {
	unit := systemd.Preflight("b")
	for _, after := range []string{"inactive", "deactivating", "active"} {
		b := &fakeBus{units: map[string]systemd.Unit{systemd.Service: {Load: "loaded", Active: "active"}}}
		m := newMachine(t, b)
		_, release := served(t, m)
		b.start = func(context.Context, string) error {
			b.units[systemd.Service] = systemd.Unit{Load: "loaded", Active: after}
			b.units[unit] = systemd.Unit{Load: "loaded", Active: "inactive", Result: "success"}
			return nil
		}
		finding, err := m.rehearse(t.Context(), "b", release)
		if after == "active" {
			wantCode(t, "one that ends by itself", err, "rehearsal_failed")
		} else if err != nil || finding.Reason != "no_rehearsal" {
			t.Errorf("%s: %+v, %v", after, finding, err)
		}
	}
}

// TestRehearsalOfTheWrongSlot: two slots may hold the same program.
func TestRehearsalOfTheWrongSlot(t *testing.T) {
	unit := systemd.Preflight("a")
	b := &fakeBus{units: map[string]systemd.Unit{}}
	m := newMachine(t, b)
	pid, release := served(t, m)
	b.units[unit] = systemd.Unit{Load: "loaded", Active: "active", MainPID: pid}
	_, err := m.rehearse(t.Context(), "a", release)
	wantCode(t, "the program of slot b", err, "rehearsal_failed")
	if err == nil || !strings.Contains(err.Error(), `slot "b"`) {
		t.Errorf("error %v", err)
	}
	b.answer = io.ErrUnexpectedEOF
	if _, err := m.rehearse(t.Context(), "a", release); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a systemd that breaks off: %v", err)
	}
}

// TestLook: a server that nobody started is seen as such, and one that answers
// as it does.
func TestLook(t *testing.T) {
	b := &fakeBus{units: map[string]systemd.Unit{systemd.Service: {Load: "loaded", Active: "inactive", Result: "success"}}}
	m := newMachine(t, b)
	s, err := m.look(t.Context(), false)
	if err != nil || s.Up || !s.Stopped || s.At <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	b.units[systemd.Service] = systemd.Unit{Load: "loaded", Active: "active", MainPID: 7, Restarts: 2}
	if s, err = m.look(t.Context(), false); err != nil || s.Up || s.Smoke == nil || s.Restarts != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestLookAtEnds: how the release that serves has ended, as the gate noted it.
func TestLookAtEnds(t *testing.T) {
	m := newMachine(t, &fakeBus{units: map[string]systemd.Unit{systemd.Service: {Load: "loaded", Active: "active", MainPID: 7, Restarts: 3, Result: "success"}}})
	m.Paths.GateRun = t.TempDir()
	if err := os.Symlink(filepath.Join("slots", "b"), m.Paths.Current); err != nil {
		t.Fatal(err)
	}
	if s, err := m.look(t.Context(), false); err != nil || s.Watchdog != 0 || s.Ends != nil {
		t.Errorf("where nothing is noted: %+v, %v", s, err)
	}
	put(t, m.endsFile(), "slots/a oom-kill killed KILL one\nslots/b watchdog killed ABRT two\nnonsense\n\n"+
		filepath.Join(m.Paths.Slots, "b")+" exit-code exited 226 three 1700000000\nslots/b watchdog - - -\nslots/b half")
	want := []trial.End{{Result: "watchdog", Code: "killed", Status: "ABRT", Invocation: "two"}, {Result: "exit-code", Code: "exited", Status: "226", Invocation: "three", At: 1700000000}, {Result: "watchdog"}}
	s, err := m.look(t.Context(), false)
	if err != nil || s.Watchdog != 2 || !slices.Equal(s.Ends, want) {
		t.Errorf("%d kills, %+v, %v", s.Watchdog, s.Ends, err)
	}
	if of := m.ends("a"); len(of) != 1 || of[0].Result != "oom-kill" {
		t.Errorf("of slot a %+v", of)
	}
	u, err := m.Updater()
	if err != nil || !slices.Equal(u.Site.Ends("b"), want) {
		t.Errorf("the updater knows %v, %v", u, err)
	}
	put(t, m.endsFile(), strings.Repeat("slots/b watchdog killed ABRT two\n", 10000))
	if of := m.ends("b"); of != nil {
		t.Errorf("%d ends of a file that the gate did not write", len(of))
	}
}

// TestEvidence is what can be had: nobody is without it for a part that cannot.
func TestEvidence(t *testing.T) {
	b := &fakeBus{units: map[string]systemd.Unit{systemd.Service: {Load: "loaded", Active: "failed", Result: "watchdog"}}}
	m := newMachine(t, b)
	if err := os.MkdirAll(m.Paths.Run, 0o755); err != nil {
		t.Fatal(err)
	}
	answersAt(t, m.Paths.APISocket, 503)
	m.Paths.GateRun = t.TempDir()
	put(t, m.endsFile(), "slots/b watchdog killed ABRT two\n")
	dir := t.TempDir()
	if err := m.evidence(t.Context(), dir, time.Now()); err == nil {
		t.Error("a journal that is not there is no loss")
	}
	if _, err := os.Stat(filepath.Join(dir, "health.json")); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "ends.txt")); err != nil || string(data) != "slots/b watchdog killed ABRT two\n" {
		t.Errorf("ends %s, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "units.json")); err != nil || !strings.Contains(string(data), "watchdog") {
		t.Errorf("units %s, %v", data, err)
	}
}
