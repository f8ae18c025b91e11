package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

func historyCommand(a *app) *cobra.Command {
	most, analysis := 20, false
	c := &cobra.Command{
		Use: "history", Short: "List the updates of this appliance and how each ended", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case most < 0:
				return wrongUsage(c, fmt.Errorf("--number is %d: it has to be 0 or more", most))
			case analysis && !c.Flags().Changed("number"):
				most = 0
			}
			return a.history(most, analysis)
		},
	}
	c.Flags().IntVarP(&most, "number", "n", most, "`how many`, the newest first; 0 is all, as it is for --analysis")
	c.Flags().BoolVar(&analysis, "analysis", false, "what can be learned from them: success rate, failures, times, regressions")
	return c
}

// history asks no updater: the record can be read while anything goes on.
func (a *app) history(most int, analysis bool) error {
	p, err := a.find()
	if err != nil {
		return err
	}
	if p.Updater == "" {
		return fault.New(fault.NotFound, "not_installed", "this appliance was not installed: there is no record").Try("install the package")
	}
	records, err := deployment.Records(p.Updater, most)
	if err != nil {
		return err
	}
	if analysis {
		sum := deployment.Analyze(records)
		return a.print(sum, analysisWords(sum))
	}
	if records == nil {
		records = []deployment.Record{}
	}
	return a.print(records, historyWords(records))
}

func historyWords(records []deployment.Record) string {
	if len(records) == 0 {
		return "no update was tried yet"
	}
	return table("ENDED\tDOOR\tKIND\tFROM\tTO\tOUTCOME\tTOOK\tSAYS", func(row func(...string)) {
		for _, r := range records {
			row(when(r.Ended), string(r.Door), r.Kind, cmp.Or(r.From.Version, "-"), cmp.Or(r.To.Version, "-"), r.Outcome,
				max(0, r.Ended.Sub(r.Started)).Round(time.Second).String(), firstOf(r.Says)) // the clock may have been set meanwhile
		}
	})
}

func firstOf(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 100 {
		line = strings.ToValidUTF8(line[:100], "") + "…"
	}
	return line
}

func recordLine(r deployment.Record) string {
	w := fmt.Sprintf("%s: %s of %s to %s %s", when(r.Ended), r.Kind, cmp.Or(r.From.Version, "nothing"), cmp.Or(r.To.Version, "?"), strings.ReplaceAll(r.Outcome, "_", " "))
	if r.Says != "" && r.Outcome != deployment.Committed {
		w += ": " + firstOf(r.Says)
	}
	return w
}

// analysisWords is what the record teaches.
func analysisWords(a deployment.Analysis) string {
	words := a.Says + "\n"
	for _, f := range a.Failures {
		words += "failed   " + f.Says + "\n"
	}
	for _, p := range a.Phases {
		words += fmt.Sprintf("%-12s median %.1f s, p95 %.1f s\n", p.Phase, p.Median, p.P95)
	}
	for _, r := range a.Regressions {
		words += "regression: " + r.Says + "\n"
	}
	return words
}
