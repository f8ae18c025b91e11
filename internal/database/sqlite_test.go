package database

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

// filled is a closed database of some pages, and its content.
func filled(t *testing.T) (file string, content []byte) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "appliance.db")
	d := open(t, Options{File: file})
	if err := d.Write(ctx, func(tx *sql.Tx) error {
		for i := range 300 {
			if _, err := tx.ExecContext(ctx, addJob, strings.Repeat(string(rune('a'+i%26)), 200+i), 1); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, content
}

func TestADamagedFileIsToldAndKept(t *testing.T) {
	_, whole := filled(t)
	zeroed := bytes.Clone(whole)
	copy(zeroed[20<<10:], make([]byte, 8<<10))
	for name, bad := range map[string][]byte{
		"another file":    []byte(strings.Repeat("this is no database. ", 1000)),
		"zeroed pages":    zeroed,
		"half of it":      whole[:len(whole)/2/4096*4096],
		"a few bytes":     whole[:50],
		"zeroes":          make([]byte, 64<<10),
		"the header gone": append(make([]byte, 100), whole[100:]...),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "appliance.db")
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(ctx, Options{File: file})
			if err == nil {
				d.Close()
			}
			if code(err) != "database_damaged" || !strings.Contains(err.Error(), file) || !strings.Contains(fault.Hint(err), "keep a copy") {
				t.Errorf("%v (%s)", err, fault.Hint(err))
			}
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, bad) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

// TestAnEmptiedFileIsDamaged: SQLite alone would begin anew.
func TestAnEmptiedFileIsDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, Options{File: file}).Close() // one that was never filled is new
	if err := errors.Join(os.Truncate(file, 0), os.WriteFile(before(file, 1), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{File: file}); code(err) != "database_damaged" {
		t.Errorf("%v", err)
	}
}

func TestWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	for name, file := range map[string]string{"no directory": filepath.Join(dir, "none", "a.db"), "a directory": dir} {
		if _, err := Open(ctx, Options{File: file}); code(err) != "database_not_writable" || fault.Hint(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFullDisk(t *testing.T) {
	d := open(t, Options{File: filepath.Join(t.TempDir(), "appliance.db")})
	if _, err := d.write.ExecContext(ctx, "PRAGMA max_page_count=20"); err != nil {
		t.Fatal(err)
	}
	err := add(d, strings.Repeat("x", 200<<10))
	if code(err) != "database_full" || fault.KindOf(err) != fault.NoSpace {
		t.Errorf("%v", err)
	}
	if err := add(d, "small"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestACopyBeforeAMigration: what the file was is kept beside it, once.
func TestACopyBeforeAMigration(t *testing.T) {
	file, _ := filled(t)
	d := open(t, Options{File: file})
	if err := os.WriteFile(before(file, 1), []byte("of an earlier one"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := file + ".before-my-change"
	if err := os.WriteFile(other, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.migrateTo(ctx, grown()); err != nil {
		t.Fatal(err)
	}
	copied := before(file, Known()+1)
	st, err := os.Stat(copied)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	if found, err := copies(file); err != nil || len(found) != 1 || found[0] != copied {
		t.Errorf("copies %v, %v", found, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("somebody else's file: %v", err)
	}
	was := open(t, Options{File: copied})
	if was.Schema() != Known() || count(t, was, "jobs") != 300 {
		t.Errorf("the copy has schema %d and %d jobs", was.Schema(), count(t, was, "jobs"))
	}
}

func TestBackup(t *testing.T) {
	file, _ := filled(t)
	d := open(t, Options{File: file})
	to := filepath.Join(t.TempDir(), "copy.db")
	for range 2 { // the second replaces the first
		if err := d.Backup(ctx, to); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, open(t, Options{File: to}), "jobs"); n != 300 {
		t.Errorf("%d jobs in the copy", n)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Backup(ctx, filepath.Join(dir, "taken")); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestCompactGivesRoomBack(t *testing.T) {
	file, content := filled(t)
	d := open(t, Options{File: file})
	if err := d.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM jobs")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(file)
	if err != nil || st.Size() > int64(len(content))/2 {
		t.Errorf("%d bytes of %d, %v", st.Size(), len(content), err)
	}
	if log, err := os.Stat(file + "-wal"); err != nil || log.Size() != 0 {
		t.Errorf("the log: %v", err)
	}
}
