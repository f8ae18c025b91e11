package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// sent is what reached the journal.
type sent struct {
	message  string
	priority int
	fields   map[string]string
}

// journaled is a logger to a journal of the test's.
func journaled(t *testing.T, w *bytes.Buffer, broken *bool, attrs ...slog.Attr) (*slog.Logger, *[]sent) {
	t.Helper()
	var list []sent
	log, err := New(Options{W: w, Format: Journal, Level: at(slog.LevelDebug), Attrs: attrs,
		Reachable: func() bool { return true },
		Send: func(message string, priority int, fields map[string]string) error {
			if broken != nil && *broken {
				return errors.New("no journal")
			}
			list = append(list, sent{message, priority, maps.Clone(fields)})
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return log, &list
}

func TestEntries(t *testing.T) {
	context := []slog.Attr{slog.String(Slot, "a"), slog.String(Version, "1.2"), slog.String(Environment, "lxc"), slog.String(Component, "server")}
	log, list := journaled(t, &bytes.Buffer{}, nil, context...)
	ours := map[string]string{"SLOT": "a", "VERSION": "1.2", "ENVIRONMENT": "lxc", "COMPONENT": "server"}
	missing := fault.New(fault.NotFound, "no_ffmpeg", "not in PATH").On("decode.ffmpeg").Try("apt install ffmpeg")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		do       func()
		message  string
		priority int
		fields   map[string]string
	}{
		{func() { log.Info("stopped") }, "stopped", 6, nil},
		{func() { log.Debug("d", "n", 1.5, "at", at, "took", time.Second) }, "d n=1.5 at=2026-01-02T03:04:05Z took=1s", 7,
			map[string]string{"N": "1.5", "AT": "2026-01-02T03:04:05Z", "TOOK": "1s"}},
		{func() {
			log.Warn("component failed", Component, "ffmpeg", Err(missing), "path", "a b", MessageID, "ab12")
		},
			`component failed: ffmpeg: not in PATH field=decode.ffmpeg path="a b" (try: apt install ffmpeg)`, 4,
			map[string]string{"COMPONENT": "ffmpeg", "ERROR": "not in PATH", "CODE": "no_ffmpeg", "FIELD": "decode.ffmpeg",
				"HINT": "apt install ffmpeg", "PATH": "a b", "MESSAGE_ID": "ab12"}},
		{func() {
			log.With(Job, 7, "door", "x").WithGroup("tls").With("v", 3).Info("open", "n", 1, slog.Group("g", "y", true))
		},
			"open door=x tls_v=3 tls_n=1 tls_g_y=true", 6,
			map[string]string{"JOB": "7", "DOOR": "x", "TLS_V": "3", "TLS_N": "1", "TLS_G_Y": "true"}},
		{func() {
			log.Info("m", "message", "x", "priority", 0, "_pid", 1, "4th", 4, "ü-key", "u", "", "lost", "e", error(nil))
		},
			`m message=x priority=0 _pid=1 4th=4 "ü-key"=u e=<nil>`, 6,
			map[string]string{"ATTR_MESSAGE": "x", "ATTR_PRIORITY": "0", "PID": "1", "ATTR_4TH": "4", "KEY": "u", "E": "<nil>"}},
	} {
		*list = nil
		c.do()
		if len(*list) != 1 {
			t.Fatalf("%s: %d entries", c.message, len(*list))
		}
		got, want := (*list)[0], maps.Clone(ours)
		maps.Copy(want, c.fields)
		if strings.ReplaceAll(got.message, "ü-key", `"ü-key"`) != c.message || got.priority != c.priority || !maps.Equal(got.fields, want) {
			t.Errorf("%d %s\n%v\nwant %d %s\n%v", got.priority, got.message, got.fields, c.priority, c.message, want)
		}
	}
}

// TestErrorsNameTheirCode: only errors say where they were written.
func TestErrorsNameTheirCode(t *testing.T) {
	log, list := journaled(t, &bytes.Buffer{}, nil)
	log.Warn("w")
	log.Error("e")
	w, e := (*list)[0].fields, (*list)[1].fields
	if len(w) != 0 || !strings.Contains(e["CODE_FUNC"], "TestErrorsNameTheirCode") || !strings.HasSuffix(e["CODE_FILE"], "entries_test.go") || e["CODE_LINE"] == "" {
		t.Errorf("%v, %v", w, e)
	}
}

func TestEntriesAreBounded(t *testing.T) {
	log, list := journaled(t, &bytes.Buffer{}, nil)
	long := strings.Repeat("x", 1<<20) + "\xff"
	var many []any
	for i := range 200 {
		many = append(many, fmt.Sprintf("k%d", i), long)
	}
	log.Info(long, many...)
	log.Info("n", strings.Repeat("name", 100), 1, "bad", "a\xffb")
	for _, s := range *list {
		size := len(s.message)
		for name, value := range s.fields {
			if len(name) > mostName || name[0] == '_' {
				t.Errorf("a field called %s", name)
			}
			size += len(name) + len(value)
		}
		if size > 160<<10 || len(s.fields) > mostFields {
			t.Errorf("%d bytes in %d fields", size, len(s.fields))
		}
	}
	if bad := (*list)[1].fields["BAD"]; bad != "a\uFFFDb" {
		t.Errorf("%q", bad)
	}
}

// TestFallsBackToLines: what the journal does not take is not lost, and its
// attributes with it.
func TestFallsBackToLines(t *testing.T) {
	var b bytes.Buffer
	broken := false
	log, list := journaled(t, &b, &broken)
	log = log.With("x", 1)
	log.Info("one")
	broken = true
	log.WithGroup("g").Error("two", "y", 2)
	broken = false
	log.Info("three")
	if len(*list) != 2 || b.String() != "<3>level=ERROR msg=two x=1 g.y=2\n" {
		t.Errorf("%v, %q", *list, b.String())
	}
}

// TestWithKeepsApart: loggers made from one do not share fields.
func TestWithKeepsApart(t *testing.T) {
	log, list := journaled(t, &bytes.Buffer{}, nil)
	one, two := log.With("a", 1), log.With("b", 2)
	one.Info("1")
	two.Info("2")
	log.Info("0")
	var names [][]string
	for _, s := range *list {
		names = append(names, slices.Sorted(maps.Keys(s.fields)))
	}
	if !slices.Equal(names[0], []string{"A"}) || !slices.Equal(names[1], []string{"B"}) || len(names[2]) != 0 {
		t.Errorf("%v", names)
	}
}

// TestStacksAreWhole: where a call hangs, the goroutine that does is in the
// entry, however many others there are.
func TestStacksAreWhole(t *testing.T) {
	log, list := journaled(t, &bytes.Buffer{}, nil)
	stacks := strings.Repeat("goroutine of nobody\n", 2000) + "the one that hangs"
	log.Error("a call does not return", "call", "x", Stacks, stacks, "other", strings.Repeat("x", 50_000))
	got := (*list)[0]
	if got.fields["STACKS"] != stacks || len(got.fields["OTHER"]) > mostValue+10 || strings.Contains(got.message, "goroutine") {
		t.Errorf("stacks of %d bytes, other of %d, message %.200q", len(got.fields["STACKS"]), len(got.fields["OTHER"]), got.message)
	}
}
