// Command acceptance checks docs/acceptance.md: that every row says what shows
// it or what is missing, that the tests, targets and files it names exist, and
// how old the kept results of the long suites are, in days and in commits.
//
//	go run ./tests/acceptance [-list FILE]
//
// A row's last cell is "open: what is missing", or a list separated by "; " of
//
//	test DIR TestName    a test function in that directory
//	make TARGET          a target of the Makefile
//	file PATH            a file
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	list := flag.String("list", filepath.Join("..", "shared", "ACCEPTANCE.md"), "the list of what was asked for; `file` may be absent")
	flag.Parse()
	if err := run(os.Stdout, *list); err != nil {
		fmt.Fprintf(os.Stderr, "acceptance: %v\n", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row struct {
	line      int
	id, shown string
}

func run(out io.Writer, list string) error {
	data, err := os.ReadFile(filepath.Join("docs", "acceptance.md"))
	if err != nil {
		return err
	}
	rows := parse(string(data))
	var problems []error
	open := 0
	for _, r := range rows {
		if missing, ok := strings.CutPrefix(r.shown, "open"); ok {
			open++
			if strings.Trim(missing, ": ") == "" {
				problems = append(problems, fmt.Errorf("line %d, %s: open, but not what is missing", r.line, r.id))
			}
			continue
		}
		for claim := range strings.SplitSeq(r.shown, "; ") {
			if err := check(claim); err != nil {
				problems = append(problems, fmt.Errorf("line %d, %s: %w", r.line, r.id, err))
			}
		}
	}
	problems = append(problems, complete(rows, list)...)
	fmt.Fprintf(out, "acceptance: %d rows, %d shown, %d open\n", len(rows), len(rows)-open, open)
	problems = append(problems, ages(out, ".")...)
	return errors.Join(problems...)
}

var rowPattern = regexp.MustCompile(`^\| ([A-C][0-9]+[a-z]?) \|.*\| (.*) \|$`)

func parse(text string) []row {
	var rows []row
	for i, line := range strings.Split(text, "\n") {
		if m := rowPattern.FindStringSubmatch(line); m != nil {
			rows = append(rows, row{i + 1, m[1], m[2]})
		}
	}
	return rows
}

// check holds one claim against the tree.
func check(claim string) error {
	words := strings.Fields(claim)
	switch {
	case len(words) == 3 && words[0] == "test":
		return hasTest(words[1], words[2])
	case len(words) == 2 && words[0] == "make":
		return contains("Makefile", "(?m)^"+regexp.QuoteMeta(words[1])+":")
	case len(words) == 2 && words[0] == "file":
		_, err := os.Stat(words[1])
		return err
	}
	return fmt.Errorf("%q is no claim: test DIR TestName, make TARGET or file PATH", claim)
}

func hasTest(dir, name string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if contains(f, `(?m)^func `+regexp.QuoteMeta(name)+`\(`) == nil {
			return nil
		}
	}
	return fmt.Errorf("there is no %s in %s", name, dir)
}

func contains(file, pattern string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !regexp.MustCompile(pattern).Match(data) {
		return fmt.Errorf("%s has no %s", file, pattern)
	}
	return nil
}

// complete compares the ids with the list of what was asked for, where that is at hand.
func complete(rows []row, list string) []error {
	data, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{err}
	}
	have := map[string]int{}
	for _, r := range rows {
		have[r.id]++
	}
	var problems []error
	for _, want := range parse(string(data)) {
		if have[want.id] != 1 {
			problems = append(problems, fmt.Errorf("%s stands here %d times, not once", want.id, have[want.id]))
		}
		delete(have, want.id)
	}
	for id := range have {
		problems = append(problems, fmt.Errorf("%s was never asked for", id))
	}
	return problems
}
