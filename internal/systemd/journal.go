package systemd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/journal"
)

// JournalReachable reports whether the journal of this machine takes entries
// over its native socket.
func JournalReachable() bool { return journal.Enabled() }

// JournalSend writes one entry with fields of its own. priority is syslog's, 0
// to 7. Names are capital letters, digits and underscores and begin with a
// letter; the caller sees to that, and to their size. The entry is this
// program's by its full name, of which the kernel keeps 15 bytes.
func JournalSend(message string, priority int, fields map[string]string) error {
	all := map[string]string{"SYSLOG_IDENTIFIER": filepath.Base(os.Args[0])}
	maps.Copy(all, fields)
	if err := journal.Send(message, journal.Priority(priority), all); err != nil {
		return fmt.Errorf("write to the journal: %w", err)
	}
	return nil
}
