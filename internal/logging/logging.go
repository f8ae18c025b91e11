// Package logging sets up the log of every program, in one of four ways:
// entries with fields of their own in systemd's journal, lines with a priority
// that the journal reads from a standard error, text for people and JSON for
// collectors. It also words errors for the log. It trusts its caller with what
// is logged and bounds its size; it writes to the journal and to the writer it
// is given.
package logging

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/term"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/systemd"
)

// Keys of attributes that mean the same everywhere. In the journal each is a
// field in capital letters: COMPONENT, JOB, …
const (
	Component   = "component"
	Job         = "job"
	Request     = "request"
	Slot        = "slot"
	Version     = "version"
	Environment = "environment"
	ContainerID = "container_id"
	Profile     = "profile"
	Stacks      = "stacks"     // of every goroutine, where a call hangs: as long as they are
	MessageID   = "message_id" // 32 hex digits that name a kind of entry
	Error       = "error"
	Code        = "code"
	Field       = "field"
	Hint        = "hint"
)

// The formats. Auto is Journal where systemd collects what W takes, else JSON
// in a container image unless W is a terminal, else Text.
const (
	Auto    = "auto"
	Journal = "journal"
	Text    = "text"
	JSON    = "json"
)

// Options says how to log.
type Options struct {
	W             io.Writer
	Format        string         // one of the formats; "" is Auto
	Level         *slog.LevelVar // may be set at any time; nil is info for good
	JournalStream string         // JOURNAL_STREAM, by which systemd says what it collects
	Container     bool           // this is a container image, whose log somebody collects

	// Attrs are put on every entry of the journal and of JSON. Text, which
	// people read where it is written, leaves them out.
	Attrs []slog.Attr

	// The journal's native socket; nil for the machine's own.
	Reachable func() bool
	Send      func(message string, priority int, fields map[string]string) error
}

// New is the logger that o describes. The error is a fault with the code
// "bad_config", for a format that is none.
func New(o Options) (*slog.Logger, error) {
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	options := &slog.HandlerOptions{Level: o.Level}
	switch o.format() {
	case Journal:
		return slog.New(o.journal(options)), nil
	case JSON:
		return slog.New(slog.NewJSONHandler(o.W, options).WithAttrs(o.Attrs)), nil
	case Text:
		return slog.New(slog.NewTextHandler(o.W, options)), nil
	}
	return nil, fault.New(fault.BadInput, "bad_config", "%q is no format of the log; it must be one of auto, journal, text, json", fault.Short(o.Format)).
		On("log.format").Try(`"auto" is right nearly everywhere`)
}

// format decides what Auto means here.
func (o Options) format() string {
	switch {
	case o.Format != Auto && o.Format != "":
		return o.Format
	case isJournal(o.W, o.JournalStream):
		return Journal
	case o.Container && !isTerminal(o.W):
		return JSON
	}
	return Text
}

// journal writes entries where the journal can be reached, and lines where it
// cannot, as in a sandbox that does not show its socket.
func (o Options) journal(options *slog.HandlerOptions) slog.Handler {
	lines := newLines(o.W, options)
	reachable, send := o.Reachable, o.Send
	if reachable == nil {
		reachable = systemd.JournalReachable
	}
	if send == nil {
		send = systemd.JournalSend
	}
	if !reachable() {
		return lines
	}
	return entries{level: o.Level, send: send, lines: lines}.WithAttrs(o.Attrs)
}

// ParseLevel reads "debug", "info", "warn" or "error".
func ParseLevel(text string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return level, fault.New(fault.BadInput, "bad_config", "%q is no level of the log; it must be one of debug, info, warn, error", fault.Short(text)).
			On("log.level").Because(err)
	}
	return level, nil
}

// Err words an error for the log: what happened, and from the fault in its
// chain the code, the field to blame and what to try. It stands among the
// attributes of one entry and may be nil.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	attrs := []slog.Attr{slog.String(Error, err.Error())}
	f := &fault.Error{}
	errors.As(err, &f)
	for _, a := range []slog.Attr{slog.String(Code, f.Code), slog.String(Field, f.Field), slog.String(Hint, fault.Hint(err))} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return slog.Attr{Value: slog.GroupValue(attrs...)} // without a key its members stand alone
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

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
