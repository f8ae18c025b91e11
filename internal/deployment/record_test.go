package deployment

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRecordIsReadable by the server's user, whatever root's umask is.
func TestRecordIsReadable(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	state := t.TempDir()
	for _, id := range []string{"one", "two"} {
		if err := Append(state, Record{Transaction: id}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(state, RecordFile))
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if err := os.Chmod(filepath.Join(state, RecordFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := Records(state, 0); err != nil || len(all) != 2 || all[0].Transaction != "two" {
		t.Errorf("%+v, %v", all, err)
	}
}
