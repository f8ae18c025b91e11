package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/config"
)

// newLogger is the log as the settings want it. stream is JOURNAL_STREAM, by
// which systemd says what it collects.
func newLogger(w io.Writer, c config.Log, stream string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	switch {
	case c.Format == "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case c.Format == "auto" && isJournal(w, stream):
		lines := &journalLines{w: w}
		return slog.New(journalHandler{slog.NewTextHandler(lines, options), lines}), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// isJournal reports whether w is what stream names by its device and inode. The
// variable alone proves nothing: children inherit it, and their output may go
// elsewhere.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journalHandler writes lines as the journal reads them from a standard error:
// the priority in front, see sd-daemon(3), and no time, which it adds itself.
type journalHandler struct {
	slog.Handler // writes to lines
	lines        *journalLines
}

// Handle is slog.Handler's.
func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.lines.mu.Lock()
	defer h.lines.mu.Unlock()
	h.lines.level = r.Level
	r.Time = time.Time{} // the handler leaves it out
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journalHandler{h.Handler.WithAttrs(attrs), h.lines}
}

// WithGroup is slog.Handler's.
func (h journalHandler) WithGroup(name string) slog.Handler {
	return journalHandler{h.Handler.WithGroup(name), h.lines}
}

// journalLines puts the priority of level before each line. The handlers that
// share one hold mu from setting level to the line's only Write.
type journalLines struct {
	w     io.Writer
	mu    sync.Mutex
	level slog.Level
}

// Write is io.Writer's.
func (l *journalLines) Write(line []byte) (int, error) {
	prefix := fmt.Sprintf("<%d>", priority(l.level))
	n, err := l.w.Write(append([]byte(prefix), line...))
	return max(0, n-len(prefix)), err
}

// priority is a level as syslog numbers it.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}
