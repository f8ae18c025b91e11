package diagnose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// journalFields are what is taken of an entry: what happened, when and where.
// Names of recordings, callers' addresses and the like have fields of their
// own, which stay behind.
func journalFields() []string {
	return []string{
		"__REALTIME_TIMESTAMP", "PRIORITY", "MESSAGE", "MESSAGE_ID", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT", "UNIT", "_PID",
		"_SYSTEMD_INVOCATION_ID", "COMPONENT", "SLOT", "VERSION", "ENVIRONMENT", "ERROR", "CODE", "CAUSE", "HINT", "JOB", "REQUEST",
		"STATUS", "RESULT", "JOB_RESULT", "EXIT_CODE", "EXIT_STATUS", "UNIT_RESULT", "N_RESTARTS", "EXECUTABLE", "CWD", "SEARCH_PATHS",
	}
}

// maxLine is the longest entry taken.
const maxLine = 1 << 20

// Journal is a part's Make: it reads entries, a JSON object in each line, from
// whoever listens on the socket, until that is done.
func Journal(socket string) func(ctx context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // it ends the reading
		defer stop()
		var out bytes.Buffer
		lines := bufio.NewScanner(conn)
		lines.Buffer(nil, maxLine)
		for lines.Scan() && out.Len() < partBytes {
			if kept := entry(lines.Bytes()); kept != nil {
				out.Write(kept)
				out.WriteByte('\n')
			}
		}
		if err := lines.Err(); err != nil {
			return out.Bytes(), fmt.Errorf("read the journal: %w", err)
		}
		return out.Bytes(), ctx.Err()
	}
}

// entry keeps the known fields of one, nil of what is none. Values become
// text: one with bytes that cannot be printed comes as a list of numbers, in
// which nothing could be found that should not be told.
func entry(line []byte) []byte {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return nil
	}
	known := journalFields()
	kept := map[string]any{}
	for name, value := range fields {
		if slices.Contains(known, name) {
			kept[name] = text(value)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(kept) != nil {
		return nil
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// text is a journal's value: a string; a list of bytes; a list of values,
// where a field stands more than once; or nil, where it was too long.
func text(value any) any {
	switch v := value.(type) {
	case string:
		return plain(v)
	case []any:
		if raw, ok := octets(v); ok {
			return plain(raw)
		}
		list := make([]any, len(v))
		for i, one := range v {
			list[i] = text(one)
		}
		return list
	case nil:
		return nil
	}
	return removed
}

// octets puts bytes together that came as numbers, false where they are none.
func octets(list []any) (string, bool) {
	raw := make([]byte, 0, len(list))
	for _, one := range list {
		n, ok := one.(float64)
		if !ok || n != float64(byte(n)) {
			return "", false
		}
		raw = append(raw, byte(n))
	}
	return string(raw), true
}

// colours are a terminal's.
var colours = regexp.MustCompile(`\x1b\[[0-9;:?]*[A-Za-z]`)

// plain is text without a terminal's colours, which would stand between a word
// and what is around it, and without bytes that are no text.
func plain(given string) string {
	given = colours.ReplaceAllString(strings.ToValidUTF8(given, "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, given)
}
