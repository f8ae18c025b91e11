package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// result is what a kept result says of itself.
type result struct {
	date   time.Time
	commit string // of the program that was measured
	dirty  bool   // its tree differed from the commit
}

// ages tells of each kept result in the checkout at root how many days ago it
// was measured, and how many commits have come since. A result that does not
// say when or of what is a problem.
func ages(out io.Writer, root string) []error {
	files, err := filepath.Glob(filepath.Join(root, "docs", "results", "*.txt"))
	if err != nil {
		return []error{err}
	}
	var problems []error
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r, err := parseResult(string(data))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", f, err))
			continue
		}
		name, _ := filepath.Rel(root, f)
		days := int(time.Since(r.date).Hours() / 24)
		fmt.Fprintf(out, "  %s: %d days old, %s\n", name, days, behind(root, r))
	}
	return problems
}

// parseResult reads the rows date and commit at the head of a result.
func parseResult(text string) (r result, err error) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch {
		case words[0] == "date" && r.date.IsZero():
			if r.date, err = time.Parse(time.RFC3339, words[1]); err != nil {
				return r, fmt.Errorf("its date: %w", err)
			}
		case words[0] == "commit" && r.commit == "":
			r.commit, r.dirty = strings.CutSuffix(words[1], "-dirty")
		}
	}
	if r.date.IsZero() || r.commit == "" {
		return r, errors.New("it has no row date or no row commit")
	}
	return r, nil
}

// behind is the distance from the result's commit to the present one.
func behind(root string, r result) string {
	out, err := exec.Command("git", "-C", root, "rev-list", "--count", r.commit+"..HEAD").Output()
	text := strings.TrimSpace(string(out)) + " commits behind"
	if err != nil {
		text = "of " + r.commit + ", which is no commit here"
	}
	if r.dirty {
		text += ", of a tree that differed from its commit"
	}
	return text
}
