package logging

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of one entry, in bytes; a datagram of the journal's must hold it.
const (
	mostMessage = 16 << 10
	mostValue   = 4 << 10
	mostStacks  = 64 << 10
	mostFields  = 32
	mostName    = 64 // journald refuses longer names
)

// entries writes to the journal with a field for each attribute. It never
// changes: With makes another.
type entries struct {
	level slog.Leveler
	send  func(message string, priority int, fields map[string]string) error
	lines slog.Handler // for what the journal does not take

	prefix string            // of the groups that are open, "DOOR_"
	fields map[string]string // of With
	shown  string            // of With, as the message ends
}

// Enabled is slog.Handler's.
func (h entries) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// WithAttrs is slog.Handler's.
func (h entries) WithAttrs(attrs []slog.Attr) slog.Handler {
	e := h.entry("")
	for _, a := range attrs {
		e.add(h.prefix, a)
	}
	h.lines, h.fields = h.lines.WithAttrs(attrs), e.fields
	h.shown += e.shown.String()
	return h
}

// WithGroup is slog.Handler's.
func (h entries) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	h.lines = h.lines.WithGroup(name)
	h.prefix += name + "_"
	return h
}

// Handle is slog.Handler's.
func (h entries) Handle(ctx context.Context, r slog.Record) error {
	e := h.entry(r.Message)
	e.own = true
	r.Attrs(func(a slog.Attr) bool { e.add(h.prefix, a); return true })
	if r.Level >= slog.LevelError {
		e.addSource(r.PC)
	}
	if err := h.send(e.text(h.shown), priority(r.Level), e.fields); err != nil {
		return h.lines.Handle(ctx, r)
	}
	return nil
}

func (h entries) entry(message string) *entry {
	fields := maps.Clone(h.fields)
	if fields == nil {
		fields = map[string]string{}
	}
	return &entry{message: message, fields: fields}
}

// entry is one entry in the making.
type entry struct {
	message string
	own     bool // the attributes are the entry's, not those of With
	fields  map[string]string
	// Said in the message after its first words, in this order.
	component, failure, hint string
	shown                    strings.Builder
}

// add puts an attribute among the fields and, unless it only says where the
// entry comes from, into the message.
func (e *entry) add(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, member := range v.Group() {
			e.add(prefix, member)
		}
		return
	}
	if a.Key == "" {
		return
	}
	most := mostValue
	if a.Key == Stacks {
		most = mostStacks
	}
	key, text := prefix+a.Key, bounded(plain(v), most)
	if name := fieldName(key); len(e.fields) < mostFields || e.fields[name] != "" {
		e.fields[name] = text
	}
	switch {
	case isContext(key) || key == Component && !e.own:
	case key == Component:
		e.component = text
	case key == Error && e.own:
		e.failure = text
	case key == Hint && e.own:
		e.hint = text
	default:
		fmt.Fprintf(&e.shown, " %s=%s", key, quoted(text))
	}
}

// addSource says which code wrote an error.
func (e *entry) addSource(pc uintptr) {
	if pc == 0 {
		return
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	e.fields["CODE_FUNC"], e.fields["CODE_FILE"], e.fields["CODE_LINE"] = frame.Function, frame.File, strconv.Itoa(frame.Line)
}

// text is the message that people read: "component failed: ffmpeg: not found
// path=… (try: install it)". shown is what With adds.
func (e *entry) text(shown string) string {
	var b strings.Builder
	b.WriteString(e.message)
	for _, s := range []string{e.component, e.failure} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	b.WriteString(shown + e.shown.String())
	if e.hint != "" {
		b.WriteString(" (try: " + e.hint + ")")
	}
	return bounded(b.String(), mostMessage)
}

// isContext tells the keys whose values are the same from entry to entry, or
// mean something to programs alone.
func isContext(key string) bool {
	return slices.Contains([]string{Job, Request, Slot, Version, Environment, ContainerID, Profile, MessageID, Code,
		"search_paths", "working_directory", "executable", "user", "uid", "search_path", Stacks, "unit", "critical", "without", "stops"}, key)
}

// fieldName makes a key into a name that the journal takes: capital letters,
// digits and underscores, a letter first. MESSAGE and PRIORITY are its own.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	name = strings.TrimLeft(name, "_")
	if name == "" || name == "MESSAGE" || name == "PRIORITY" || name[0] >= '0' && name[0] <= '9' {
		name = "ATTR_" + name
	}
	return name[:min(len(name), mostName)]
}

// plain is a value in words.
func plain(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339Nano)
	}
	return v.String()
}

// bounded cuts s to at most n bytes and makes it valid UTF-8.
func bounded(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// quoted is s so that its end can be seen.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=\t\r\n") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}
