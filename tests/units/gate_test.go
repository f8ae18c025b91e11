package units

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// box is what the gate sees: two slots with their links, and its counts.
type box struct{ home, run string }

func newBox(t *testing.T) box {
	t.Helper()
	b := box{t.TempDir(), filepath.Join(t.TempDir(), "gate")}
	for _, slot := range []string{"a", "b", "golden"} {
		b.serves(t, filepath.Join("slots", slot), "server")
	}
	b.link(t, "current", "slots/a")
	b.link(t, "stable", "slots/a")
	return b
}

// serves puts a server into a release of the box.
func (b box) serves(t *testing.T, release, program string) {
	t.Helper()
	bin := filepath.Join(b.home, release, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "whisper-appliance-server"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
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
// result is systemd's, and may have more words: $EXIT_CODE, $EXIT_STATUS and
// $INVOCATION_ID.
func (b box) gate(t *testing.T, result string, args ...string) (out string, slept string) {
	t.Helper()
	words := strings.Fields(result)
	tools := t.TempDir()
	note := filepath.Join(tools, "slept")
	if err := os.WriteFile(filepath.Join(tools, "sleep"), []byte("#!/bin/sh\necho \"$1\" >"+note+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join("..", "..", "units", "gate"), args...)
	cmd.Env = []string{"PATH=" + tools + ":" + os.Getenv("PATH"), "GATE_HOME=" + b.home, "GATE_RUN=" + b.run,
		"GATE_PACKAGE=" + filepath.Join(b.home, "package")}
	for i, name := range []string{"SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "INVOCATION_ID"} {
		if i < len(words) {
			cmd.Env = append(cmd.Env, name+"="+words[i])
		}
	}
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

// count is what the gate keeps of a unit: how many failures, and whose.
func (b box) count(unit string) string {
	to, _ := os.Readlink(filepath.Join(b.run, unit)) //nolint:errcheck // "" where it counts nothing
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

// TestGateStoppedInItsPause: that somebody stops a unit while the gate has it
// wait is no failure of what was to be started.
func TestGateStoppedInItsPause(t *testing.T) {
	b := newBox(t)
	b.gate(t, "", "start", server)
	for range 3 {
		b.gate(t, "exit-code exited 1", "ended", server)
	}
	b.gate(t, "signal", "ended", server)
	if _, slept := b.gate(t, "", "start", server); slept != "" || len(b.ends(t, server)) != 3 {
		t.Errorf("it sleeps %q; noted is %q", slept, b.ends(t, server))
	}
	b.gate(t, "signal killed SEGV", "ended", server)
	if got := b.ends(t, server); len(got) != 4 {
		t.Errorf("noted is %q", got)
	}
}

// TestGateForgets: after a minute of readiness earlier failures no longer count.
func TestGateForgets(t *testing.T) {
	b := newBox(t)
	for range 5 {
		b.gate(t, "signal killed SEGV", "ended", server)
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
		b.gate(t, "signal killed SEGV", "ended", server)
		if got := b.count(server); got != c.want+" slots/a" {
			t.Errorf("ready for %v: count %q, want %s", c.ready, got, c.want)
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
		old := unix.NsecToTimeval(time.Now().Add(-10 * time.Minute).UnixNano())
		if err := unix.Lutimes(filepath.Join(b.run, server), []unix.Timeval{old, old}); err != nil {
			t.Fatal(err)
		}
	}
	b.gate(t, "", "start", server)
	if got := b.current(t); got != "slots/a" {
		t.Errorf("current is %s", got)
	}
}

// TestGateNeedsAWayBack: a `stable` that holds no server is none; golden is the
// next, then the golden of before, and without any the link stays.
func TestGateNeedsAWayBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		lacks   []string // slots without a server
		empty   bool     // the file is there, and has lost its bytes
		old     bool     // the package keeps the release before
		current string
		golden  string // where slots/golden leads, "" where it is no link
	}{
		{name: "stable is gone", lacks: []string{"a"}, current: "slots/golden"},
		{name: "stable has lost its bytes", lacks: []string{"a"}, empty: true, current: "slots/golden"},
		{name: "stable is enough", lacks: []string{"golden"}, old: true, current: "slots/a"},
		{name: "golden too", lacks: []string{"a", "golden"}, current: "slots/b"},
		{name: "golden too, but for the one before", lacks: []string{"a", "golden"}, old: true, current: "slots/golden", golden: "package/golden.old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			b.link(t, "current", "slots/b")
			if c.old {
				b.serves(t, "package/golden.old", "server")
				if err := os.WriteFile(filepath.Join(b.home, "package/golden.old/manifest.json"), []byte("{}"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, slot := range c.lacks {
				if c.empty {
					b.serves(t, filepath.Join("slots", slot), "")
				} else if err := os.RemoveAll(filepath.Join(b.home, "slots", slot)); err != nil {
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
			golden, _ := os.Readlink(filepath.Join(b.home, "slots", "golden")) //nolint:errcheck // "" where it is none
			if strings.TrimPrefix(golden, b.home+"/") != c.golden {
				t.Errorf("slots/golden leads to %q, want %q", golden, c.golden)
			}
		})
	}
}

// TestGateCountsByRelease: a crash loop is no reason to refuse the release that
// ends it, and an end of the old server while the link has moved already is not
// the new one's failure.
func TestGateCountsByRelease(t *testing.T) {
	b := newBox(t)
	for range 5 {
		b.gate(t, "", "start", server)
		b.gate(t, "exit-code", "ended", server)
	}
	b.link(t, "current", "slots/b")
	b.gate(t, "timeout", "ended", server) // of the old one, which was started
	for failures, pause := range []string{"", "", "1"} {
		if said, slept := b.gate(t, "", "start", server); b.current(t) != "slots/b" || slept != pause {
			t.Errorf("after %d failures of its own it sleeps %q: %s", failures, slept, said)
		}
		b.gate(t, "exit-code", "ended", server)
	}
	b.gate(t, "", "start", server)
	if got := b.current(t); got != "slots/a" {
		t.Errorf("after three failures of its own current is %s", got)
	}
}

// TestGateInATransaction walks the links through an update: the gate heeds them
// and nothing else, and leaves alone what is committed.
func TestGateInATransaction(t *testing.T) {
	fail := func(b box, times int) {
		for range times {
			b.gate(t, "", "start", server)
			b.gate(t, "exit-code", "ended", server)
		}
		b.gate(t, "", "start", server)
	}
	b := newBox(t)
	fail(b, 3) // armed: the link has not moved
	if got := b.current(t); got != "slots/a" {
		t.Fatalf("armed: current is %s", got)
	}
	b.gate(t, "success", "ended", server) // the take-over restarts it
	b.link(t, "current", "slots/b")
	fail(b, 2)
	b.link(t, "stable", "slots/b") // committed
	fail(b, 5)
	if got := b.current(t); got != "slots/b" {
		t.Fatalf("committed: current is %s", got)
	}
	b.gate(t, "success", "ended", server)
	b.link(t, "current", "slots/a") // the next one, into the other slot
	fail(b, 3)
	if got := b.current(t); got != "slots/b" {
		t.Errorf("the next trial: current is %s", got)
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
			if left := b.count(c.unit); (left != "") == (c.current != c.want) {
				t.Errorf("the count: %q", left)
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

// TestGateNeverRefuses: whatever it is told or finds, the start goes on, and what
// it finds moves nothing.
func TestGateNeverRefuses(t *testing.T) {
	for name, litter := range map[string]func(b box) error{
		"nonsense":         func(b box) error { return os.Symlink("nonsense", filepath.Join(b.run, server)) },
		"no number":        func(b box) error { return os.Symlink("x slots/b", filepath.Join(b.run, server)) },
		"octal":            func(b box) error { return os.Symlink("08 slots/b", filepath.Join(b.run, server)) },
		"a long number":    func(b box) error { return os.Symlink("99999999999999999999 slots/b", filepath.Join(b.run, server)) },
		"a negative one":   func(b box) error { return os.Symlink("-4 slots/b", filepath.Join(b.run, server)) },
		"a file":           func(b box) error { return os.WriteFile(filepath.Join(b.run, server), []byte("7 slots/b\n"), 0o644) },
		"a directory":      func(b box) error { return os.Mkdir(filepath.Join(b.run, server), 0o755) },
		"of is empty":      func(b box) error { return os.WriteFile(filepath.Join(b.run, server+".of"), nil, 0o644) },
		"run is a file":    func(b box) error { return errors.Join(os.Remove(b.run), os.WriteFile(b.run, nil, 0o644)) },
		"ready in the way": func(b box) error { return os.Mkdir(filepath.Join(b.run, server+".ready"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.link(t, "current", "slots/b")
			if err := errors.Join(os.MkdirAll(b.run, 0o755), litter(b)); err != nil {
				t.Fatal(err)
			}
			for _, verb := range []string{"start", "ready", "dance", "ended", "start"} {
				b.gate(t, "exit-code exited 1", verb, server)
			}
			if got := b.current(t); got != "slots/b" {
				t.Errorf("after one failure current is %s", got)
			}
		})
	}
	b := newBox(t)
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

// TestGateCountsWithoutABlock: where a file can be made and nothing written into
// it, as on a file system that is full, a trial is taken back all the same.
func TestGateCountsWithoutABlock(t *testing.T) {
	b := newBox(t)
	b.link(t, "current", "slots/b")
	for range 3 {
		b.full(t, "", "start")
		b.full(t, "exit-code exited 1", "ended")
	}
	if got := b.count(server); got != "3 slots/b" {
		t.Errorf("count %q", got)
	}
	b.full(t, "", "start")
	if got := b.current(t); got != "slots/a" {
		t.Errorf("current is %s", got)
	}
}

// full runs the gate for the server where no byte can be written to a file.
func (b box) full(t *testing.T, result, verb string) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "..", "units", "gate"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -f 0; trap '' XFSZ; exec "$@"`, "sh", script, verb, server)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GATE_HOME=" + b.home, "GATE_RUN=" + b.run, "GATE_PACKAGE=" + filepath.Join(b.home, "package")}
	if words := strings.Fields(result); len(words) == 3 {
		cmd.Env = append(cmd.Env, "SERVICE_RESULT="+words[0], "EXIT_CODE="+words[1], "EXIT_STATUS="+words[2])
	}
	var said strings.Builder
	cmd.Stdout = &said // a pipe has no such limit
	if err := cmd.Run(); err != nil {
		t.Fatalf("gate %s: %v", verb, err)
	}
}

// ends is what the gate has noted of a unit's ends, a line each, without the time,
// which has to be right.
func (b box) ends(t *testing.T, unit string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.run, unit+".ends"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i, line := range lines {
		if words := strings.Fields(line); len(words) == 6 {
			at, err := strconv.ParseInt(words[5], 10, 64)
			if since := time.Since(time.Unix(at, 0)); err != nil || since < 0 || since > time.Minute {
				t.Errorf("%q was %v ago, %v", line, since, err)
			}
			lines[i] = strings.Join(words[:5], " ")
		}
	}
	return lines
}

// TestGateNotesEnds: what systemd says of an end stays for whoever judges the
// release, and an end that somebody wanted is none.
func TestGateNotesEnds(t *testing.T) {
	b := newBox(t)
	b.link(t, "current", "slots/b")
	b.gate(t, "", "start", server)
	for _, end := range []string{"watchdog killed ABRT beef", "success exited 0 beef", "resources", "core-dump dumped SEGV"} {
		b.gate(t, end, "ended", server)
	}
	want := "slots/b watchdog killed ABRT beef, slots/b resources - - -, slots/b core-dump dumped SEGV -"
	if got := strings.Join(b.ends(t, server), ", "); got != want {
		t.Errorf("noted is %q, want %q", got, want)
	}
	b.gate(t, "oom-kill killed KILL", "ended", engine)
	if got := b.ends(t, engine); len(got) != 1 || got[0] != engine+" oom-kill killed KILL -" {
		t.Errorf("of the engine %q", got)
	}
}

// TestGateNotesEndsOfOneRelease: the note outlives the way back, and is
// forgotten when something else has taken the slot.
func TestGateNotesEndsOfOneRelease(t *testing.T) {
	b := newBox(t)
	b.link(t, "current", "slots/b")
	for range 3 {
		b.gate(t, "", "start", server)
		b.gate(t, "timeout killed TERM", "ended", server)
	}
	b.gate(t, "", "start", server)
	if got := b.ends(t, server); b.current(t) != "slots/a" || len(got) != 3 || !strings.HasPrefix(got[0], "slots/b timeout") {
		t.Fatalf("%s serves after %q", b.current(t), got)
	}
	b.gate(t, "exit-code exited 1", "ended", server)
	b.gate(t, "", "start", server) // the same one again
	if got := b.ends(t, server); len(got) != 4 || !strings.HasPrefix(got[3], "slots/a exit-code") {
		t.Errorf("noted is %q", got)
	}
	b.link(t, "current", "slots/b") // the next release, into the same slot
	b.gate(t, "", "start", server)
	if got := b.ends(t, server); len(got) != 1 || !strings.HasPrefix(got[0], "slots/a ") {
		t.Errorf("of another release in that slot: %q", got)
	}
}

// TestGateNotesSoMany and no more, and what cannot be noted keeps nothing from
// ending.
func TestGateNotesSoMany(t *testing.T) {
	b := newBox(t)
	if err := os.MkdirAll(b.run, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.run, server+".ends")
	if err := os.WriteFile(path, []byte(strings.Repeat("slots/a signal killed SEGV old\n", 500)), 0o644); err != nil {
		t.Fatal(err)
	}
	b.gate(t, "watchdog killed ABRT new", "ended", server)
	if got := b.ends(t, server); len(got) != 20 || got[19] != "slots/a watchdog killed ABRT new" || got[0] != "slots/a signal killed SEGV old" {
		t.Errorf("%d are noted: %q", len(got), got)
	}
	// mv would move a file into a directory of that name
	if err := os.Mkdir(path+".new", 0o755); err != nil {
		t.Fatal(err)
	}
	b.gate(t, "watchdog", "ended", server)
	if got := b.count(server); got != "2 slots/a" {
		t.Errorf("count %q", got)
	}
	left, err := filepath.Glob(filepath.Join(b.run, "*.new", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left is %v, %v", left, err)
	}
}

// TestGateLeavesGolden: the package's release that serves because nothing else
// does gives way to the one of the package before, once, where that is whole.
func TestGateLeavesGolden(t *testing.T) {
	whole := []string{"manifest.json", "bin/whisper-appliance-server"}
	for _, c := range []struct {
		name     string
		old      []string // files of the release before
		led      string   // where slots/golden leads before
		failures int
		golden   string // where it leads after
		how      string // it fails, where it does not exit
	}{
		{"third failure", whole, "package/golden", 3, "package/golden.old", ""},
		{"second failure", whole, "package/golden", 2, "package/golden", ""},
		{"the one before fails, too", whole, "package/golden.old", 5, "package/golden.old", ""},
		{"there is none", nil, "package/golden", 3, "package/golden", ""},
		{"it was being removed", []string{"bin/whisper-appliance-server"}, "package/golden", 3, "package/golden", ""},
		{"it has no server", []string{"manifest.json"}, "package/golden", 3, "package/golden", ""},
		{"it hangs", whole, "package/golden", 3, "package/golden.old", "watchdog killed ABRT"},
		{"it cannot be executed", whole, "package/golden", 3, "package/golden.old", "exit-code exited 203"},
		{"its own status", whole, "package/golden", 3, "package/golden.old", "exit-code exited 246"},
		{"the settings are wrong", whole, "package/golden", 5, "package/golden", "exit-code exited 78"},
		{"its unit cannot be set up", whole, "package/golden", 3, "package/golden", "exit-code exited 200"},
		{"its sandbox cannot be made", whole, "package/golden", 3, "package/golden", "exit-code exited 226"},
		{"the last of systemd's statuses", whole, "package/golden", 3, "package/golden", "exit-code exited 245"},
		{"there is no memory", whole, "package/golden", 3, "package/golden", "oom-kill killed KILL"},
		{"there are no resources", whole, "package/golden", 3, "package/golden", "resources"},
		{"it was never begun", whole, "package/golden", 3, "package/golden", "exit-code"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			if err := os.RemoveAll(filepath.Join(b.home, "slots", "golden")); err != nil {
				t.Fatal(err)
			}
			b.serves(t, "package/golden", "server")
			for _, file := range c.old {
				path := filepath.Join(b.home, "package/golden.old", file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("some"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			b.link(t, "slots/golden", filepath.Join(b.home, c.led))
			b.link(t, "current", "slots/golden")
			b.link(t, "stable", "slots/golden")
			for range c.failures {
				b.gate(t, "", "start", server)
				b.gate(t, cmp.Or(c.how, "exit-code exited 1"), "ended", server)
			}
			said, _ := b.gate(t, "", "start", server)
			golden, err := os.Readlink(filepath.Join(b.home, "slots/golden"))
			if err != nil || golden != filepath.Join(b.home, c.golden) || b.current(t) != "slots/golden" {
				t.Errorf("slots/golden leads to %s, %v, want %s; current to %s", golden, err, c.golden, b.current(t))
			}
			moved := c.led != c.golden
			if strings.Contains(said, "the one before serves again") != moved {
				t.Errorf("it says %q", said)
			}
			if left := b.count(server); (left != "") == moved {
				t.Errorf("the count: %q", left)
			}
		})
	}
}
