package database

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What a migration may say. A release that is older by one runs on what it makes.
var (
	createTable = regexp.MustCompile(`(?i)^CREATE TABLE (\w+) \(`)
	createIndex = regexp.MustCompile(`(?i)^CREATE (UNIQUE )?INDEX \w+ ON (\w+) \(`)
	addColumn   = regexp.MustCompile(`(?i)^ALTER TABLE \w+ ADD COLUMN \w+ (TEXT|BIGINT)(.*)$`)
	notNull     = regexp.MustCompile(`(?i)NOT NULL`)
	withDefault = regexp.MustCompile(`(?i)DEFAULT ('[^']*'|-?\d+)`)
	restricting = regexp.MustCompile(`(?i)UNIQUE|CHECK|PRIMARY|REFERENCES|GENERATED`)
)

// onlyAdds tells what of a migration does more than add.
func onlyAdds(script string) error {
	var sql strings.Builder
	for line := range strings.Lines(script) {
		if line, _, _ = strings.Cut(line, "--"); strings.TrimSpace(line) != "" {
			sql.WriteString(strings.TrimSpace(line) + " ")
		}
	}
	var made []string
	for statement := range strings.SplitSeq(sql.String(), ";") {
		statement = strings.TrimSpace(statement)
		if m := createTable.FindStringSubmatch(statement); m != nil {
			made = append(made, m[1])
			continue
		}
		if m := createIndex.FindStringSubmatch(statement); m != nil {
			if m[1] != "" && !slices.Contains(made, m[2]) {
				return fmt.Errorf("a unique index on a table that older releases write: %s", statement)
			}
			continue
		}
		if m := addColumn.FindStringSubmatch(statement); m != nil {
			if notNull.MatchString(m[2]) && !withDefault.MatchString(m[2]) || restricting.MatchString(m[2]) {
				return fmt.Errorf("a column that older releases cannot leave out: %s", statement)
			}
			continue
		}
		if statement != "" {
			return fmt.Errorf("more than an addition: %s", statement)
		}
	}
	return nil
}

func TestMigrationsOnlyAdd(t *testing.T) {
	entries, err := migrations.ReadDir("migrations")
	if err != nil || len(entries) != Known() {
		t.Fatalf("%d migrations, the last is %d (%v)", len(entries), Known(), err)
	}
	for i, e := range entries {
		if !strings.HasPrefix(e.Name(), fmt.Sprintf("%05d_", i+1)) {
			t.Errorf("%s is not number %d", e.Name(), i+1)
		}
		script, err := migrations.ReadFile("migrations/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := onlyAdds(string(script)); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		if strings.Contains(string(script), "NO TRANSACTION") {
			t.Errorf("%s is in no transaction", e.Name())
		}
	}
}

// TestMigrationsStay: databases have been made by them, which an edit would not
// reach. What is to be otherwise is a further migration.
func TestMigrationsStay(t *testing.T) {
	known := map[string]string{
		"00001_jobs.sql":       "35b020c1edd57bc9c61e22bb333ce16208c73d0c69845efcb5a2e3648b0b0fd7",
		"00002_deliveries.sql": "1c634847b039b12cad40e21d60443422fc242aca3e4553ee139e86374a88874f",
	}
	entries, err := migrations.ReadDir("migrations")
	if err != nil || len(entries) != len(known) {
		t.Errorf("%d migrations, %d are known here (%v)", len(entries), len(known), err)
	}
	for _, e := range entries {
		script, err := migrations.ReadFile("migrations/" + e.Name())
		if sum := fmt.Sprintf("%x", sha256.Sum256(script)); err != nil || sum != known[e.Name()] {
			t.Errorf("%s has the sum %s, not %q (%v)", e.Name(), sum, known[e.Name()], err)
		}
	}
}

func TestWhatIsNoAddition(t *testing.T) {
	for _, bad := range []string{
		"DROP TABLE jobs;", "ALTER TABLE jobs DROP COLUMN name;", "ALTER TABLE jobs RENAME TO tasks;",
		"ALTER TABLE jobs RENAME COLUMN name TO title;", "ALTER TABLE jobs ALTER COLUMN bytes TYPE TEXT;",
		"ALTER TABLE jobs ADD COLUMN a TEXT NOT NULL;", "ALTER TABLE jobs ADD COLUMN a TEXT UNIQUE;",
		"ALTER TABLE jobs ADD COLUMN a BIGINT CHECK (a > 0);", "CREATE UNIQUE INDEX i ON jobs (name);",
		"DELETE FROM jobs;", "CREATE INDEX i ON jobs (name);\nDROP\nINDEX jobs_key;", "/* */ DROP TABLE jobs;",
		"CREATE TRIGGER t AFTER INSERT ON jobs BEGIN SELECT 1; END;",
	} {
		if onlyAdds(bad) == nil {
			t.Errorf("%s passes", bad)
		}
	}
	for _, good := range []string{
		"ALTER TABLE jobs ADD COLUMN a TEXT;", "ALTER TABLE jobs ADD COLUMN a BIGINT NOT NULL DEFAULT 0;",
		"ALTER TABLE jobs ADD COLUMN a TEXT NOT NULL DEFAULT 'x'; -- not null, DROP\n",
		"CREATE TABLE t (a TEXT); CREATE UNIQUE INDEX i ON t (a);", "CREATE INDEX i ON jobs (name) WHERE name <> '';",
	} {
		if err := onlyAdds(good); err != nil {
			t.Error(err)
		}
	}
}
