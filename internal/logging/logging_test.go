package logging

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
)

// logFile is a file and the name that JOURNAL_STREAM would have for it.
func logFile(t *testing.T) (*os.File, string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return f, fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func at(level slog.Level) *slog.LevelVar {
	v := new(slog.LevelVar)
	v.Set(level)
	return v
}

func never() bool { return false }

func TestFormats(t *testing.T) {
	const journal, text, json = `^<4>level=WARN msg=disk a=1\n$`, `^time=\S+ level=WARN msg=disk a=1\n$`, `^\{"time":.*"slot":"b","a":1\}\n$`
	for _, c := range []struct {
		name, format, stream string
		container            bool
		want                 string
	}{
		{"journal", "auto", "itself", false, journal},
		{"journal in a container", "", "itself", true, journal},
		{"journal by setting", "journal", "", false, journal},
		{"no systemd", "auto", "", false, text},
		{"a container without", "auto", "", true, json},
		{"inherited, led elsewhere", "auto", "1:2", false, text},
		{"nonsense", "auto", "journal", false, text},
		{"text by setting", "text", "itself", true, text},
		{"json by setting", "json", "itself", false, json},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, own := logFile(t)
			log, err := New(Options{W: f, Format: c.format, Level: at(slog.LevelWarn), Container: c.container, Reachable: never,
				JournalStream: strings.ReplaceAll(c.stream, "itself", own), Attrs: []slog.Attr{slog.String(Slot, "b")}})
			if err != nil {
				t.Fatal(err)
			}
			log.Info("too little")
			log.Warn("disk", "a", 1)
			got, err := os.ReadFile(f.Name())
			if err != nil || !regexp.MustCompile(c.want).Match(got) {
				t.Errorf("%q, %v; want %s", got, err, c.want)
			}
		})
	}
	if isJournal(&bytes.Buffer{}, "1:2") {
		t.Error("a buffer is no journal")
	}
	if _, err := New(Options{W: io.Discard, Format: "xml"}); err == nil || fault.Hint(err) == "" {
		t.Errorf("a format that is none: %v", err)
	}
	if _, err := ParseLevel("loud"); fault.KindOf(err) != fault.BadInput || !strings.Contains(err.Error(), "loud") {
		t.Errorf("a level that is none: %v", err)
	}
}

// TestLevelWhileRunning: loggers made before follow.
func TestLevelWhileRunning(t *testing.T) {
	for _, format := range []string{Text, JSON, Journal} {
		var b bytes.Buffer
		level := new(slog.LevelVar)
		log, err := New(Options{W: &b, Format: format, Level: level, Reachable: never})
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("x", 1)
		log.Debug("before")
		wanted, err := ParseLevel("debug")
		if err != nil {
			t.Fatal(err)
		}
		level.Set(wanted)
		log.Debug("after")
		if s := b.String(); strings.Contains(s, "before") || !strings.Contains(s, "after") {
			t.Errorf("%s: %q", format, s)
		}
	}
}

func TestLinePriorities(t *testing.T) {
	f, own := logFile(t)
	log, err := New(Options{W: f, Level: at(slog.LevelDebug), JournalStream: own, Reachable: never})
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("d")
	log.Info("i", "text", "two\nlines")
	log.With("job", 7).WithGroup("g").Warn("w", "b", 2)
	log.Error("e")
	got, err := os.ReadFile(f.Name())
	want := "<7>level=DEBUG msg=d\n<6>level=INFO msg=i text=\"two\\nlines\"\n<4>level=WARN msg=w job=7 g.b=2\n<3>level=ERROR msg=e\n"
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
}

// TestLinesAtOnce: each line keeps its own priority.
func TestLinesAtOnce(t *testing.T) {
	f, own := logFile(t)
	log, err := New(Options{W: f, Level: at(slog.LevelDebug), JournalStream: own, Reachable: never})
	if err != nil {
		t.Fatal(err)
	}
	levels := map[slog.Level]string{slog.LevelDebug: "<7>", slog.LevelInfo: "<6>", slog.LevelWarn: "<4>", slog.LevelError: "<3>"}
	var wg sync.WaitGroup
	for level := range levels {
		wg.Go(func() {
			for range 100 {
				log.With("x", 1).Log(t.Context(), level, "m")
			}
		})
	}
	wg.Wait()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		_, word, _ := strings.Cut(lines.Text(), "level=")
		word, _, _ = strings.Cut(word, " ")
		level, err := ParseLevel(word)
		if err != nil || !strings.HasPrefix(lines.Text(), levels[level]) {
			t.Fatalf("%q, %v", lines.Text(), err)
		}
	}
	if n != 400 {
		t.Errorf("%d lines", n)
	}
}

func TestErr(t *testing.T) {
	var b bytes.Buffer
	log, err := New(Options{W: &b, Format: Text})
	if err != nil {
		t.Fatal(err)
	}
	cause := fault.New(fault.NotFound, "no_ffmpeg", "no ffmpeg").On("decode.ffmpeg").Try("apt install ffmpeg")
	log.Info("a", Err(fmt.Errorf("start: %w", cause)))
	log.Info("b", Err(errors.New("plain")))
	log.Info("c", Err(nil))
	for _, want := range []string{`msg=a error="start: no ffmpeg" code=no_ffmpeg field=decode.ffmpeg hint="apt install ffmpeg"` + "\n", "msg=b error=plain\n", "msg=c\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s lacks %s", b.String(), want)
		}
	}
}
