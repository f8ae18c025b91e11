package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

// TestAudit: each thing that is wrong is told, and nothing else.
func TestAudit(t *testing.T) {
	const window = `INSERT INTO windows VALUES `
	for name, c := range map[string]struct{ change, says string }{
		"all is well":      {"", ""},
		"a window less":    {`UPDATE jobs SET windows_done = 3`, "counts: a"},
		"one is missing":   {`UPDATE windows SET idx = 5 WHERE idx = 1`, "missing: a"},
		"twice":            {`UPDATE windows SET start_ns = 9 WHERE idx = 1`, "two windows: a"},
		"nobody's windows": {window + `('b', 0, 0, 10)`, "nowhere: windows"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.db")
			db, err := sql.Open("sqlite", file)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, statement := range []string{
				`CREATE TABLE jobs (id TEXT PRIMARY KEY, windows_done INT)`,
				`CREATE TABLE windows (job_id TEXT REFERENCES jobs (id), idx INT, start_ns INT, end_ns INT)`,
				`INSERT INTO jobs VALUES ('a', 2)`, window + `('a', 0, 0, 10), ('a', 1, 10, 20)`, c.change,
			} {
				if _, err := db.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
			sums, err := audit(t.Context(), file)
			if c.says == "" && (err != nil || sums != "1 jobs, 2 windows") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q, %v; want %q", sums, err, c.says)
			}
		})
	}
	if _, err := audit(t.Context(), filepath.Join(t.TempDir(), "none.db")); err == nil {
		t.Error("a file that is not there is whole")
	}
}
