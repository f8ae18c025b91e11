package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	rows := parse("# x\n| id | what | shown |\n| A1 | a thing | open: all of it |\n| B2c | other | test d TestX; make y |\n")
	want := []row{{3, "A1", "open: all of it"}, {4, "B2c", "test d TestX; make y"}}
	if fmt.Sprint(rows) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", rows, want)
	}
}

func TestCheck(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	for claim, holds := range map[string]bool{
		"test tests/acceptance TestCheck":  true,
		"test tests/acceptance TestChec":   false,
		"test tests/nowhere TestCheck":     false,
		"make acceptance":                  true,
		"make nothing-like-this":           false,
		"file VERSION":                     true,
		"file docs/none.md":                false,
		"somebody says so":                 false,
		"test tests/acceptance TestA more": false,
	} {
		if err := check(claim); (err == nil) != holds {
			t.Errorf("%q: %v, want it to hold: %t", claim, err, holds)
		}
	}
}

func TestComplete(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list.md")
	if err := os.WriteFile(list, []byte("| A1 | x | - |\n| A2 | x | - |\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ids  string
		want []string
	}{
		{"A1 A2", nil},
		{"A1", []string{"A2 stands here 0 times"}},
		{"A1 A2 A2", []string{"A2 stands here 2 times"}},
		{"A1 A2 B7", []string{"B7 was never asked for"}},
	} {
		var rows []row
		for id := range strings.FieldsSeq(c.ids) {
			rows = append(rows, row{id: id})
		}
		got := complete(rows, list)
		if len(got) != len(c.want) || len(got) > 0 && !strings.Contains(got[0].Error(), c.want[0]) {
			t.Errorf("%s: %v, want %v", c.ids, got, c.want)
		}
	}
	if got := complete(nil, list+".none"); got != nil {
		t.Errorf("without the list: %v", got)
	}
}

// repository is a checkout of its own with two commits; it gives the first.
func repository(t *testing.T) (root, first string) {
	t.Helper()
	root = t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", root, "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "one")
	first = git("rev-parse", "--short=12", "HEAD")
	git("commit", "-q", "--allow-empty", "-m", "two")
	return root, first
}

func TestAges(t *testing.T) {
	root, first := repository(t)
	results := filepath.Join(root, "docs", "results")
	if err := os.MkdirAll(results, 0o755); err != nil {
		t.Fatal(err)
	}
	date := time.Now().Add(-50 * time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct{ name, text, want, problem string }{
		{"clean", "Speed\n\ndate       " + date + "\ncommit     " + first + "\n", "2 days old, 1 commits behind\n", ""},
		{"changed", "date " + date + "\ncommit " + first + "-dirty (built so)\ncommit x\n", "2 days old, 1 commits behind, of a tree that differed from its commit\n", ""},
		{"other", "date " + date + "\ncommit 0123456789ab\n", "2 days old, of 0123456789ab, which is no commit here\n", ""},
		{"no date", "commit " + first + "\n", "", "no row date or"},
		{"no commit", "date " + date + "\n", "", "no row commit"},
		{"bad date", "date yesterday\ncommit " + first + "\n", "", "its date"},
	} {
		file := filepath.Join(results, "x.txt")
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		problems := ages(&out, root)
		if !strings.HasSuffix(out.String(), c.want) || (out.Len() == 0) != (c.want == "") {
			t.Errorf("%s: %q, want %q", c.name, out.String(), c.want)
		}
		if fmt.Sprint(len(problems) > 0) != fmt.Sprint(c.problem != "") || c.problem != "" && !strings.Contains(problems[0].Error(), c.problem) {
			t.Errorf("%s: problems %v, want %q", c.name, problems, c.problem)
		}
	}
}
