package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// lineHandler writes lines as the journal reads them from a standard error:
// the priority in front, see sd-daemon(3), and no time, which it adds itself.
type lineHandler struct {
	slog.Handler // writes to out
	out          *lines
}

func newLines(w io.Writer, options *slog.HandlerOptions) lineHandler {
	out := &lines{w: w}
	return lineHandler{slog.NewTextHandler(out, options), out}
}

// Handle is slog.Handler's.
func (h lineHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.level = r.Level
	r.Time = time.Time{} // the handler leaves it out
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (h lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lineHandler{h.Handler.WithAttrs(attrs), h.out}
}

// WithGroup is slog.Handler's.
func (h lineHandler) WithGroup(name string) slog.Handler {
	return lineHandler{h.Handler.WithGroup(name), h.out}
}

// lines puts the priority of level before each line. The handlers that share
// one hold mu from setting level to the line's only Write.
type lines struct {
	w     io.Writer
	mu    sync.Mutex
	level slog.Level
}

// Write is io.Writer's.
func (l *lines) Write(line []byte) (int, error) {
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
