package units

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// box is what the gate sees: two slots with their links, and its counts.
type box struct{ home, run string }

func newBox(t *testing.T) box {
	t.Helper()
	b := box{t.TempDir(), filepath.Join(t.TempDir(), "gate")}
	for _, slot := range []string{"a", "b", "golden"} {
		bin := filepath.Join(b.home, "slots", slot, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "whisper-appliance-server"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.link(t, "current", "slots/a")
	b.link(t, "stable", "slots/a")
	return b
}

func (b box) link(t *testing.T, name, target string) {
	t.Helper()
	path := filepath.Join(b.home, name)
	os.Remove(path) //nolint:errcheck // Symlink says what is wrong
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// gate runs the script, with a sleep that only writes down how long it would be.
func (b box) gate(t *testing.T, result string, args ...string) (out string, slept string) {
	t.Helper()
	tools := t.TempDir()
	note := filepath.Join(tools, "slept")
	if err := os.WriteFile(filepath.Join(tools, "sleep"), []byte("#!/bin/sh\necho \"$1\" >"+note+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join("..", "..", "units", "gate"), args...)
	cmd.Env = []string{"PATH=" + tools + ":" + os.Getenv("PATH"), "GATE_HOME=" + b.home, "GATE_RUN=" + b.run, "SERVICE_RESULT=" + result}
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("gate %v: %v\n%s", args, err, said)
	}
	data, _ := os.ReadFile(note) //nolint:errcheck // it need not have slept
	return string(said), strings.TrimSpace(string(data))
}

func (b box) current(t *testing.T) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join(b.home, "current"))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

const server, engine = "whisper-appliance", "whisper-appliance-engine@a"

// TestGateSlowsACrashLoop: each failure makes the next start wait longer, up to
// a limit, and a deliberate stop forgets them.
func TestGateSlowsACrashLoop(t *testing.T) {
	b := newBox(t)
	for i, want := range []string{"", "", "1", "2", "4", "8", "20", "20"} {
		if _, slept := b.gate(t, "", "start", engine); slept != want {
			t.Errorf("after %d failures it sleeps %q, want %q", i, slept, want)
		}
		b.gate(t, "exit-code", "ended", engine)
	}
	b.gate(t, "success", "ended", engine)
	if _, slept := b.gate(t, "", "start", engine); slept != "" {
		t.Errorf("after a stop it sleeps %q", slept)
	}
}

// TestGateForgets: after a minute of readiness earlier failures no longer count.
func TestGateForgets(t *testing.T) {
	b := newBox(t)
	for range 5 {
		b.gate(t, "signal", "ended", server)
	}
	for _, c := range []struct {
		ready time.Duration // how long it was, before it failed
		want  string
	}{{2 * time.Minute, "1"}, {30 * time.Second, "2"}, {0, "3"}} {
		b.gate(t, "", "start", server)
		if c.ready > 0 {
			b.gate(t, "", "ready", server)
			since := time.Now().Add(-c.ready)
			if err := os.Chtimes(filepath.Join(b.run, server+".ready"), since, since); err != nil {
				t.Fatal(err)
			}
		}
		b.gate(t, "signal", "ended", server)
		if data, err := os.ReadFile(filepath.Join(b.run, server)); err != nil || strings.TrimSpace(string(data)) != c.want {
			t.Errorf("ready for %v: count %q, %v; want %s", c.ready, data, err, c.want)
		}
	}
}

// TestGateCountsHangs: a start that takes its whole time and fails is a failure
// like any other, however long ago the last one was.
func TestGateCountsHangs(t *testing.T) {
	b := newBox(t)
	b.link(t, "current", "slots/b")
	for range 3 {
		b.gate(t, "", "start", server)
		b.gate(t, "timeout", "ended", server)
		old := time.Now().Add(-10 * time.Minute)
		if err := os.Chtimes(filepath.Join(b.run, server), old, old); err != nil {
			t.Fatal(err)
		}
	}
	b.gate(t, "", "start", server)
	if got := b.current(t); got != "slots/a" {
		t.Errorf("current is %s", got)
	}
}

// TestGateNeedsAWayBack: a `stable` that holds no server is none; golden is the
// next, and without either the link stays.
func TestGateNeedsAWayBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		remove  []string
		current string
	}{{"stable is gone", []string{"a"}, "slots/golden"}, {"golden too", []string{"a", "golden"}, "slots/b"}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			b.link(t, "current", "slots/b")
			for _, slot := range c.remove {
				if err := os.RemoveAll(filepath.Join(b.home, "slots", slot)); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				b.gate(t, "exit-code", "ended", server)
			}
			b.gate(t, "", "start", server)
			if got := b.current(t); got != c.current {
				t.Errorf("current is %s, want %s", got, c.current)
			}
		})
	}
}

// TestGateTakesATrialBack: at the third failure of the server in a trial, and
// of nothing else, the version before serves again.
func TestGateTakesATrialBack(t *testing.T) {
	for _, c := range []struct {
		name, unit string
		failures   int
		current    string
		want       string
	}{
		{"third failure", server, 3, "slots/b", "slots/a"},
		{"second failure", server, 2, "slots/b", "slots/b"},
		{"the engine", engine, 5, "slots/b", "slots/b"},
		{"no trial", server, 5, "slots/a", "slots/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			b.link(t, "current", c.current)
			for range c.failures {
				b.gate(t, "watchdog", "ended", c.unit)
			}
			said, _ := b.gate(t, "", "start", c.unit)
			if got := b.current(t); got != c.want {
				t.Errorf("current is %s, want %s:\n%s", got, c.want, said)
			}
			if back := strings.Contains(said, "serves again"); back != (c.current != c.want) {
				t.Errorf("it says %q", said)
			}
			if _, err := os.Stat(filepath.Join(b.run, c.unit)); (err == nil) == (c.current != c.want) {
				t.Errorf("the count: %v", err)
			}
		})
	}
}

// TestGateNeedsNoByte: where no link can be made, the rename of the other one
// is the way back.
func TestGateNeedsNoByte(t *testing.T) {
	b := newBox(t)
	b.link(t, "current", "slots/b")
	for range 3 {
		b.gate(t, "exit-code", "ended", server)
	}
	// A disk without a free byte: no link can be made.
	fake := t.TempDir()
	if err := os.WriteFile(filepath.Join(fake, "ln"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", fake+":"+os.Getenv("PATH"))
	b.gate(t, "", "start", server)
	if got := b.current(t); got != "slots/a" {
		t.Errorf("current is %s", got)
	}
}

// TestGateNeverRefuses: whatever it is told, the start goes on.
func TestGateNeverRefuses(t *testing.T) {
	b := newBox(t)
	if err := os.MkdirAll(b.run, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.run, server), []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.gate(t, "", "start", server)
	b.gate(t, "exit-code", "ended", server)
	b.gate(t, "", "dance", server)
	if err := os.Remove(filepath.Join(b.home, "stable")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		b.gate(t, "exit-code", "ended", server)
	}
	b.gate(t, "", "start", server)
	if got := b.current(t); got != "slots/a" {
		t.Errorf("without `stable`, current became %s", got)
	}
}
