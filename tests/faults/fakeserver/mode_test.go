package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseModes(t *testing.T) {
	usual := func(m mode) mode { m.takes, m.grace = defaultTakes, defaultGrace; return m }
	for text, want := range map[string]mode{
		"":                             usual(mode{name: good}),
		"good\n":                       usual(mode{name: good}),
		"crash":                        usual(mode{name: crash}),
		"slow":                         usual(mode{name: slow, value: 3}),
		"slow 1.5":                     usual(mode{name: slow, value: 1.5}),
		"errors 12":                    usual(mode{name: failing, value: 12}),
		"leak 7":                       usual(mode{name: leak, value: 7}),
		"in next slow 2":               usual(mode{name: slow, value: 2, in: candidate}),
		"marked":                       usual(mode{name: marked}),
		"exit-on-stop-slow 2s":         usual(mode{name: slowStop, after: 2 * time.Second}),
		"crash-after 2s":               usual(mode{name: degradeAfter, after: 2 * time.Second, then: &mode{name: crash}}),
		"wedge-after 1m":               usual(mode{name: degradeAfter, after: time.Minute, then: &mode{name: noWatchdog}}),
		"degrade-after 3s slow 4":      usual(mode{name: degradeAfter, after: 3 * time.Second, then: &mode{name: slow, value: 4}}),
		"hang\ntakes 1s\ngrace 10ms\n": {name: hang, takes: time.Second, grace: 10 * time.Millisecond},
	} {
		if got, err := parseModes(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"bad", "crash now", "slow fast", "crash-after soon", "degrade-after 1s bad", "good\ntakes", "good\ntakes long", "good\nspeed 1s"} {
		if got, err := parseModes(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// TestHere: a mode for one role is good in all others, and what is marked is
// the server's alone.
func TestHere(t *testing.T) {
	run := t.TempDir()
	if err := os.WriteFile(filepath.Join(run, "mode"), []byte("crash-after 1s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	next := role("whisper-appliance.socket:whisper-appliance.socket:whisper-appliance-next@a.socket")
	for _, c := range []struct{ text, role, run, want string }{
		{"in next crash", next, run, crash}, {"in next crash", regular, run, good}, {"in preflight hang", role("whisper-appliance-preflight@b.socket"), run, hang},
		{"marked", role("whisper-appliance.socket"), run, degradeAfter}, {"marked", next, run, good}, {"marked", regular, t.TempDir(), good}, {"slow 2", next, run, slow},
	} {
		m, err := parseModes(c.text + "\ntakes 1s")
		if err == nil {
			m, err = m.here(c.role, c.run)
		}
		if err != nil || m.name != c.want || m.takes != time.Second {
			t.Errorf("%s as %s: %+v, %v; want %s", c.text, c.role, m, err, c.want)
		}
	}
}

// TestUnlucky: the failures are as many as the mode says, and evenly spread.
func TestUnlucky(t *testing.T) {
	for percent, want := range map[float64]int{0: 0, 1: 10, 33: 330, 100: 1000} {
		s := newServer(release{}, mode{name: failing, value: percent}, notifier{})
		failed := 0
		for range 1000 {
			if s.unlucky() {
				failed++
			}
		}
		if failed != want {
			t.Errorf("%v %%: %d of 1000 fail", percent, failed)
		}
	}
	if newServer(release{}, mode{name: good}, notifier{}).unlucky() {
		t.Error("a good server fails")
	}
}

// TestHear: the same bytes are the same words, and known recordings are known.
func TestHear(t *testing.T) {
	dir := t.TempDir()
	s := newServer(release{dir: dir}, mode{}, notifier{})
	a, b := s.hear([]byte("a")), s.hear([]byte("b"))
	if a == b || a != s.hear([]byte("a")) || len(strings.Fields(a)) != 8 {
		t.Errorf("%q, %q", a, b)
	}
	known := filepath.Join(dir, "share", "known", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
	if err := errors.Join(os.MkdirAll(filepath.Dir(known), 0o755), os.WriteFile(known, []byte("the letter a\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := s.hear([]byte("a")); got != "the letter a" {
		t.Errorf("%q", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{{nil, 0}, {errCrash, exitError}, {errUsage, exitUsage}, {errors.Join(errConfig, io.EOF), exitConfig}} {
		var b bytes.Buffer
		if got := exitCode(c.err, &b); got != c.want || (c.err != nil) != (b.Len() > 0) {
			t.Errorf("%v: %d, %q", c.err, got, b.String())
		}
	}
}
