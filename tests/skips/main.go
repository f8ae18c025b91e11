// Command skips reads what go test -json prints and makes it fit for people:
// a line for each package, all the words of tests that fail, and each skipped
// test with its reason and how many there were, so that none is skipped in
// silence. Other lines pass through. It trusts its input.
//
//	go test -json ./... | go run ./tests/skips
//
// WA_SKIPS names a file to which the skipped tests are added. WA_NO_SKIP holds
// words separated by commas: to skip a test for a reason that has one of them
// is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	f := filter{out: os.Stdout, never: words(os.Getenv("WA_NO_SKIP")), said: map[key][]string{}}
	err := f.read(os.Stdin)
	if err == nil {
		err = f.finish(os.Getenv("WA_SKIPS"))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "skips: %v\n", err)
		os.Exit(1)
	}
}

// event is a line of go test -json. The output of a failed build belongs to an
// ImportPath, all else to a package and perhaps a test in it.
type event struct {
	Action, Package, Test, Output string
}

// key is a test, or with an empty test its package.
type key struct{ pkg, test string }

// filter is one run of go test on its way to a person.
type filter struct {
	out     io.Writer
	never   []string         // words of reasons that are none
	said    map[key][]string // output of what has not ended yet
	failing bool             // a test or package has failed
	skipped []string         // "package Test: reason"
	refused []string         // those of skipped that must not be
}

func words(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(w string) bool { return strings.TrimSpace(w) == "" })
}

// read takes every line to its end.
func (f *filter) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			f.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tests' output: %w", err)
		}
	}
}

func (f *filter) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(f.out, line)
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(f.out, e.Output)
	case "output":
		f.said[k] = append(f.said[k], e.Output)
	case "fail":
		f.failing = true
		f.print(k)
	case "skip":
		if k.test != "" {
			f.skip(k)
		}
		delete(f.said, k)
	case "pass":
		if k.test == "" {
			f.print(k)
		}
		delete(f.said, k)
	}
}

// print gives the words of a test or package. What frames them says nothing:
// the names of tests that begin, and the single PASS before a package's line.
func (f *filter) print(k key) {
	for _, line := range f.said[k] {
		if strings.HasPrefix(line, "=== ") || line == "PASS\n" {
			continue
		}
		fmt.Fprint(f.out, line)
	}
	delete(f.said, k)
}

// skip notes a skipped test with its reason: the last line that the test said.
func (f *filter) skip(k key) {
	reason := "no reason given"
	for _, line := range f.said[k] {
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		if _, rest, ok := strings.Cut(text, ".go:"); ok {
			if _, words, ok := strings.Cut(rest, ": "); ok {
				text = words
			}
		}
		reason = text
	}
	entry := fmt.Sprintf("%s %s: %s", strings.TrimPrefix(k.pkg, "whisper-appliance/"), k.test, reason)
	f.skipped = append(f.skipped, entry)
	if slices.ContainsFunc(f.never, func(word string) bool { return strings.Contains(reason, strings.TrimSpace(word)) }) {
		f.refused = append(f.refused, entry)
	}
}

// finish prints the skipped tests, adds them to the file unless its name is
// empty, and judges the run. A crash ends the output between a test's words.
func (f *filter) finish(file string) error {
	for k := range f.said {
		if f.failing && k.test != "" {
			f.print(k)
		}
	}
	if len(f.skipped) > 0 {
		fmt.Fprintf(f.out, "skipped: %d\n  %s\n", len(f.skipped), strings.Join(f.skipped, "\n  "))
		if err := add(file, f.skipped); err != nil {
			return err
		}
	}
	if len(f.refused) > 0 {
		return fmt.Errorf("these must not be skipped here (WA_NO_SKIP=%s):\n  %s", strings.Join(f.never, ","), strings.Join(f.refused, "\n  "))
	}
	if f.failing {
		return errors.New("there are failures")
	}
	return nil
}

// add appends lines to file.
func add(file string, lines []string) error {
	if file == "" {
		return nil
	}
	w, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("note what was skipped: %w", err)
	}
	_, err = fmt.Fprintln(w, strings.Join(lines, "\n"))
	return errors.Join(err, w.Close())
}
