package diagnose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
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

// entry keeps the known fields of one, nil of what is none.
func entry(line []byte) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return nil
	}
	known := journalFields()
	for name := range fields {
		if !slices.Contains(known, name) {
			delete(fields, name)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	kept, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	return kept
}
