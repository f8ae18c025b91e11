package main

import (
	"bufio"
	"bytes"
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

	"whisper-appliance/internal/config"
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

func TestLogFormats(t *testing.T) {
	const journal, text, json = `^<4>level=WARN msg=disk a=1\n$`, `^time=\S+ level=WARN msg=disk a=1\n$`, `^\{"time":.*"a":1\}\n$`
	for _, c := range []struct{ name, format, stream, want string }{
		{"journal", "auto", "itself", journal},
		{"no systemd", "auto", "", text},
		{"inherited, led elsewhere", "auto", "1:2", text},
		{"nonsense", "auto", "journal", text},
		{"text by setting", "text", "itself", text},
		{"json by setting", "json", "itself", json},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, own := logFile(t)
			stream := strings.ReplaceAll(c.stream, "itself", own)
			log, err := newLogger(f, config.Log{Level: "warn", Format: c.format}, stream)
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
	if _, err := newLogger(io.Discard, config.Log{Level: "loud"}, ""); err == nil {
		t.Error("a level that is none was taken")
	}
}

func TestJournalPriorities(t *testing.T) {
	f, own := logFile(t)
	log, err := newLogger(f, config.Log{Level: "debug", Format: "auto"}, own)
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

// TestJournalAtOnce: each line keeps its own priority.
func TestJournalAtOnce(t *testing.T) {
	f, own := logFile(t)
	log, err := newLogger(f, config.Log{Level: "debug", Format: "auto"}, own)
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
		var level slog.Level
		if err := level.UnmarshalText([]byte(word)); err != nil || !strings.HasPrefix(lines.Text(), levels[level]) {
			t.Fatalf("%q, %v", lines.Text(), err)
		}
	}
	if n != 400 {
		t.Errorf("%d lines", n)
	}
}
