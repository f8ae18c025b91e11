package site

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/trial"
)

func TestOpen(t *testing.T) {
	_, err := Open(paths.Paths{Kind: paths.Development}, nil)
	wantCode(t, "a checkout", err, "not_installed")
	m, err := Open(newMachine(t, nil).Paths, nil)
	if err != nil || (m.bus != nil) != systemd.Booted("") {
		t.Fatalf("bus %v, %v", m.bus, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := newMachine(t, &fakeBus{answer: os.ErrClosed}).Close(); err != os.ErrClosed {
		t.Errorf("error %v", err)
	}
}

func TestUpdater(t *testing.T) {
	m := newMachine(t, nil)
	put(t, m.Paths.TrustRoot, "root")
	put(t, m.Paths.MachineID, "0123\n")
	u, err := m.Updater()
	if err != nil {
		t.Fatal(err)
	}
	if u.Fetch != nil || u.Site.Switch != nil || string(u.Trust.Root) != "root" || u.MachineID != "0123" || len(u.BootID) != 36 {
		t.Errorf("without systemd: %+v", u)
	}
	if !m.Down(t.Context()) {
		t.Error("without systemd a server runs")
	}
	if before := u.Clock(); before <= 0 || u.Clock() < before {
		t.Error("the clock goes back")
	}
	m = newMachine(t, &fakeBus{})
	if u, err = m.Updater(); err != nil || u.Fetch == nil || u.Site.Switch == nil || u.Site.Look == nil || u.Trust.Root != nil {
		t.Errorf("with systemd: %+v, %v", u, err)
	}
	if err := os.Mkdir(m.Paths.TrustRoot, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Updater(); err == nil || !strings.Contains(err.Error(), "root of trust") {
		t.Errorf("a root that cannot be read: %v", err)
	}
}

// TestSettings: /etc wins over the policy of the page, and the package says
// where releases come from where nobody else does.
func TestSettings(t *testing.T) {
	m := newMachine(t, nil)
	put(t, m.Paths.Source, "https://releases.example/stable\nmore\n")
	put(t, m.Paths.Config, "[update]\nchannel = \"stable\"\n")
	put(t, filepath.Join(m.Paths.ConfigDir, "10.toml"), "[update]\nrollout = 3\n")
	put(t, filepath.Join(m.Paths.Updater, "policy.json"), `{"channel": "beta", "automatic": "install", "window": "01:00-02:00", "days": ["sat"]}`)
	s, err := m.settings()
	if err != nil {
		t.Fatal(err)
	}
	if s.Channel != "stable" || !slices.Equal(s.Locked, []string{"channel"}) || s.Automatic != "install" || s.Window != "01:00-02:00" || !slices.Equal(s.Days, []string{"sat"}) || s.Rollout != 3 {
		t.Errorf("settings %+v", s)
	}
	if s.Source != "https://releases.example/stable" {
		t.Errorf("source %q", s.Source)
	}
	put(t, m.Paths.Config, "[update]\nchannel = 7\n")
	_, err = m.settings()
	wantCode(t, "wrong settings", err, "bad_config")
}

func TestFirstLine(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/two", " a \nb\n")
	put(t, dir+"/none", "")
	for path, want := range map[string]string{dir + "/two": "a", dir + "/none": "", dir + "/missing": "", dir: ""} {
		if got := firstLine(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestWhyIdle(t *testing.T) {
	for _, tt := range []struct {
		load, service, socket, word string
		down                        bool
	}{
		{"loaded", "active", "active", "", false}, {"loaded", "activating", "inactive", "", false}, {"loaded", "inactive", "active", "", true},
		{"loaded", "failed", "active", "", true}, {"loaded", "inactive", "inactive", "stopped", true},
		{"masked", "inactive", "active", "masked", true}, {"not-found", "inactive", "inactive", "not-found", true}, {"masked", "active", "active", "", false},
	} {
		m := newMachine(t, &fakeBus{units: map[string]systemd.Unit{
			systemd.Service: {Load: tt.load, Active: tt.service}, systemd.Socket: {Load: "loaded", Active: tt.socket}}})
		got, err := m.idle(t.Context())
		if err != nil || (got == "") != (tt.word == "") || !strings.Contains(got, tt.word) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
		if got := m.Down(t.Context()); got != tt.down {
			t.Errorf("%+v: down %v", tt, got)
		}
	}
	silent := newMachine(t, &fakeBus{answer: errors.New("no answer")})
	if _, err := silent.idle(t.Context()); err == nil {
		t.Error("a systemd that does not answer knows why")
	}
	if silent.Down(t.Context()) {
		t.Error("a server of which nothing is known is called down")
	}
}

// TestStopped: who stops a server has a reason; one that failed has none.
func TestStopped(t *testing.T) {
	for _, tt := range []struct {
		unit    systemd.Unit
		stopped bool
	}{
		{systemd.Unit{Active: "active", Result: "success", MainPID: 7, Restarts: 2, Invocation: "i"}, false},
		{systemd.Unit{Active: "inactive", Result: "success"}, true},
		{systemd.Unit{Active: "failed", Result: "exit-code", Exit: 3}, false},
		{systemd.Unit{Active: "inactive", Result: "exit-code", Exit: 3}, false},
		{systemd.Unit{Active: "activating", Result: "success"}, false},
	} {
		m := newMachine(t, &fakeBus{units: map[string]systemd.Unit{"u": tt.unit}})
		got, err := m.unit("u")(t.Context())
		if err != nil || got.Stopped != tt.stopped || got.PID != tt.unit.MainPID || got.Restarts != tt.unit.Restarts || got.Exit != tt.unit.Exit || got.Result != tt.unit.Result || got.Invocation != tt.unit.Invocation {
			t.Errorf("%+v: %+v, %v", tt.unit, got, err)
		}
	}
}

// TestHindered: what systemd could not do is not held against a release.
func TestHindered(t *testing.T) {
	for _, tt := range []struct {
		unit systemd.Unit
		env  bool
	}{
		{systemd.Unit{Load: "not-found"}, true},
		{systemd.Unit{Load: "masked", Result: "success"}, true},
		{systemd.Unit{Load: "loaded", Result: "success"}, true}, // what it needs did not come up
		{systemd.Unit{Load: "loaded", Result: "resources"}, true},
		{systemd.Unit{Load: "loaded", Result: "oom-kill", Exit: 9}, true},
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 226}, true}, // its name spaces
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 217}, true}, // its user
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 203}, false},
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 1}, false},
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 78}, false},
		{systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 255}, false},
		{systemd.Unit{Load: "loaded", Result: "signal", Exit: 11}, false},
		{systemd.Unit{Load: "loaded", Result: "timeout", Exit: 15}, false},
		{systemd.Unit{Load: "loaded", Result: "protocol"}, false}, // it ended before it was ready
	} {
		if got := hindered(tt.unit); (got != "") != tt.env {
			t.Errorf("%+v: %q", tt.unit, got)
		}
	}
}

// TestRehearsalThatDoesNotStart is judged by what systemd knows of it, and
// leaves nothing behind.
func TestRehearsalThatDoesNotStart(t *testing.T) {
	boom := errors.New("boom")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	unit := systemd.Preflight("b")
	for _, tt := range []struct {
		name   string
		unit   systemd.Unit
		answer error
		ctx    context.Context
		code   string
		word   string
	}{
		{name: "its program ends", unit: systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 1}, code: "rehearsal_failed"},
		{name: "systemd cannot", unit: systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 226}, word: deployment.Inconclusive},
		{name: "systemd is away", answer: errors.New("away"), word: deployment.Inconclusive},
		{name: "nobody wants it any more", unit: systemd.Unit{Load: "loaded", Result: "exit-code", Exit: 1}, ctx: ended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &fakeBus{units: map[string]systemd.Unit{unit: tt.unit}, answer: tt.answer, start: func(context.Context, string) error { return boom }}
			ctx := tt.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			f, err := newMachine(t, b).rehearse(ctx, "b", slot.Manifest{})
			if tt.ctx != nil {
				if err != boom {
					t.Errorf("error %v", err)
				}
			} else {
				wantCode(t, tt.name, err, tt.code)
			}
			if f.Word != tt.word || tt.word != "" && (f.Blame != deployment.Environment || len(f.Evidence) != 1) {
				t.Errorf("finding %+v", f)
			}
			dark := "stop " + unit + ", stop " + systemd.PreflightSocket("b")
			if got := b.notes(); got != dark+", reset "+unit+", start "+unit+", "+dark+", reset "+unit {
				t.Errorf("it did: %s", got)
			}
		})
	}
}

// TestRehearsalOfAnotherProgram: what runs is looked at, not what was asked for.
func TestRehearsalOfAnotherProgram(t *testing.T) {
	unit := systemd.Preflight("b")
	b := &fakeBus{units: map[string]systemd.Unit{unit: {Load: "loaded", Active: "active", MainPID: os.Getpid()}}}
	_, err := newMachine(t, b).rehearse(t.Context(), "b", slot.Manifest{Info: slot.Info{Version: "1.1.0"}})
	wantCode(t, "another program", err, "rehearsal_failed")
	if err == nil || !strings.Contains(err.Error(), "1.1.0") {
		t.Errorf("error %v", err)
	}
}

func TestJudged(t *testing.T) {
	for word, code := range map[string]string{deployment.Good: "", deployment.Inconclusive: "", deployment.Bad: "rehearsal_failed"} {
		f, err := judged(trial.Finding{Verdict: trial.Verdict{Word: word, Says: "why"}})
		wantCode(t, word, err, code)
		if f.Word != word || err != nil && !strings.Contains(err.Error(), "why") {
			t.Errorf("%+v, %v", f, err)
		}
	}
}

// TestHalf: what is only wanted leaves time for what is needed.
func TestHalf(t *testing.T) {
	until := func(ctx context.Context, most time.Duration) time.Duration {
		ctx, cancel := half(ctx, most)
		defer cancel()
		deadline, _ := ctx.Deadline()
		return time.Until(deadline).Round(time.Minute)
	}
	whole, end := context.WithTimeout(t.Context(), time.Hour)
	defer end()
	if a, b, c := until(t.Context(), 10*time.Minute), until(whole, 10*time.Minute), until(whole, 2*time.Hour); a != 10*time.Minute || b != a || c != 30*time.Minute {
		t.Errorf("until %v, %v, %v", a, b, c)
	}
}

// TestWatch: a trial gets its judge, though whoever began it has no time left.
func TestWatch(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	b := &fakeBus{start: func(ctx context.Context, unit string) error {
		if deadline, set := ctx.Deadline(); !set || time.Until(deadline) > time.Minute {
			return errors.New("it may wait for long")
		}
		return ctx.Err()
	}}
	m := newMachine(t, b)
	if err := m.watch(ended); err != nil || b.notes() != "start "+systemd.Updater {
		t.Errorf("%v, it did: %s", err, b.notes())
	}
	b.start = func(context.Context, string) error { return fault.New(fault.Unavailable, "job_failed", "x") }
	wantCode(t, "a unit that does not start", m.watch(t.Context()), "nobody_watches")
	m.Watching = true
	if err := m.watch(t.Context()); err != nil {
		t.Errorf("who watches itself: %v", err)
	}
}

// TestUnits: a switch sees systemd's units as they are.
func TestUnits(t *testing.T) {
	b := &fakeBus{units: map[string]systemd.Unit{"u": {Active: "active", MainPID: 7, Invocation: "i", Result: "exit-code", Exit: 3}}}
	u := newMachine(t, b).swap(nil).Units
	st, err := u.State(t.Context(), "u")
	if err != nil || st != (slot.State{Active: "active", PID: 7, Invocation: "i", Result: "exit-code", Exit: 3}) {
		t.Errorf("%+v, %v", st, err)
	}
	if err := errors.Join(u.Start(t.Context(), "a"), u.Restart(t.Context(), "b"), u.Stop(t.Context(), "c"), u.ResetFailed(t.Context(), "d")); err != nil {
		t.Error(err)
	}
	if got := b.notes(); got != "start a, restart b, stop c, reset d" {
		t.Errorf("it did: %s", got)
	}
	b.answer = errors.New("away")
	if _, err := u.State(t.Context(), "u"); err == nil {
		t.Error("a systemd that is away knows")
	}
}
