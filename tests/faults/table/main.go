// Command table puts together what the tests of tests/faults/matrix have noted:
// the design's table with what each cell came to, the cuts, the rows beside it.
// It prints that, with -save keeps it as docs/results/faults.txt, and fails where
// a cell is missing or differs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/tests/faults/matrix"
	"whisper-appliance/tests/report"
)

func main() {
	os.Exit(report.ExitCode("table", run(os.Args[1:], os.Stdout), os.Stderr))
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("table", flag.ContinueOnError)
	commit := flags.String("commit", "unknown", "that the tests were made of")
	took := flags.String("took", "", "how long they took")
	save := flags.String("save", "", "keep the table in docs/results of this `checkout`")
	if err := flags.Parse(args); err != nil {
		return errors.Join(report.ErrUsage, err)
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%w: table [flags] NOTES", report.ErrUsage)
	}
	data, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return err
	}
	n := read(string(data))
	r := report.New("Fault matrix: what an update comes to when something goes wrong in one of its steps", *commit)
	r.Printf("load       %s when it ended\n", report.Load())
	if *took != "" {
		r.Printf("took       %s\n", *took)
	}
	wrong := n.write(r)
	fmt.Fprint(stdout, r)
	if *save != "" {
		root, err := filepath.Abs(*save)
		if err != nil {
			return err
		}
		if err := r.Save(root, "faults.txt"); err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d cells are not as the design has them: %s", len(wrong), strings.Join(wrong, "; "))
	}
	return nil
}

// notes are what the tests have noted.
type notes struct {
	cells map[string]string // by step and column; the last word counts
	cuts  [][]string        // name, made, that matter, calls
	extra []string
	back  []time.Duration // of automatic rollbacks
	rest  []string
}

func read(text string) notes {
	n := notes{cells: map[string]string{}}
	for line := range strings.Lines(text) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case words[0] == "cell" && len(words) == 4:
			n.cells[words[1]+"/"+words[2]] = words[3]
		case words[0] == "cuts" && len(words) == 5:
			n.cuts = append(n.cuts, words[1:])
		case words[0] == "back" && len(words) == 2:
			if took, err := time.ParseDuration(words[1] + "s"); err == nil {
				n.back = append(n.back, took)
			}
		case words[0] == "extra" && len(words) == 2:
			n.extra = append(n.extra, words[1])
		default:
			n.rest = append(n.rest, strings.Join(words, " "))
		}
	}
	return n
}

// write is the table and what stands below it. It gives the cells that differ.
func (n notes) write(r *report.Report) (wrong []string) {
	r.Printf("\n")
	table := matrix.Wants()
	r.Table(func(row func(cells ...any)) {
		head := []any{"step"}
		for _, c := range matrix.Columns() {
			head = append(head, c)
		}
		row(head...)
		for _, step := range matrix.Steps() {
			cells := []any{step}
			for _, column := range matrix.Columns() {
				want, got := table[step][column], n.cells[step+"/"+column]
				switch {
				case want[0] == matrix.None:
					got = matrix.None
				case got == "" || !matrix.Fits(got, want):
					wrong = append(wrong, fmt.Sprintf("%s, %s: %q, want %s", step, column, got, strings.Join(want, " or ")))
					got = "!" + got
				}
				cells = append(cells, got)
			}
			row(cells...)
		}
	})
	r.Printf("\n%s refused by digest or signature: bytes that nobody has signed are gone, and the release whose name they bore is not kept out\n", matrix.Unsigned)
	r.Printf("O old serves, aborted · OQ quarantined as well · C done once more · F goes forward · B automatic rollback · BP by the gate · D over the private socket · L turned away with 75 · M no effect · N cannot occur\n")
	r.Printf("bus down: the system bus alone; D is made once more without the private socket. crash, hang, smoke: releases that fail in that step alone\n\n")
	for _, c := range n.cuts {
		r.Printf("power cuts, %s: %s, of %s calls at which one can make a difference, of %s changes of the disks\n", c[0], c[1], c[2], c[3])
	}
	if len(n.cuts) == 0 {
		wrong = append(wrong, "no power cuts")
	}
	r.Printf("rollbacks: %d, median %v, slowest %v\n", len(n.back), report.Median(n.back), report.Percentile(n.back, 100))
	r.Printf("beside the table, as they should be: %s\n", strings.Join(n.extra, ", "))
	r.Printf("GPU gone: does not apply, no release uses one\n")
	for _, line := range n.rest {
		r.Printf("%s\n", line)
	}
	return wrong
}
