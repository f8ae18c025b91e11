package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

// glance is how often the status is looked at.
const glance = 250 * time.Millisecond

func statusCommand(a *app) *cobra.Command {
	watch := false
	c := &cobra.Command{
		Use: "status", Short: "Show what serves, what is on offer, and how an update or a trial goes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.open(false)
			if err != nil {
				return err
			}
			if watch {
				return a.watch(c.Context(), func(s deployment.Status) bool { return false })
			}
			s, err := u.Status()
			if err != nil {
				return err
			}
			return a.print(s, statusWords(s))
		},
	}
	c.Flags().BoolVar(&watch, "watch", false, "go on showing it as it changes, until Ctrl-C; with --json a line for each change")
	return c
}

func statusWords(s deployment.Status) string {
	var b strings.Builder
	line := func(key, format string, args ...any) { fmt.Fprintf(&b, "%-12s%s\n", key, fmt.Sprintf(format, args...)) }
	line("state", "%s", s.Message)
	if s.State != deployment.Idle && s.State != deployment.Attention {
		line("doing", "%s", doingWords(s))
	}
	line("serves", "%s", releaseWords(s.Current))
	if s.Stable.Slot != s.Current.Slot {
		line("way back", "%s", releaseWords(s.Stable))
	}
	line("package", "%s", releaseWords(s.Golden))
	if s.Trial != nil {
		trialWords(line, s.Trial)
	}
	if s.Queued != nil {
		line("queued", "version %s, for the end of the trial", s.Queued.Version)
	}
	if s.Available != nil {
		line("on offer", "%s", strings.Split(offerWords(s.Available), "\n")[0])
	}
	if !s.Checked.IsZero() {
		line("checked", "%s, %s", when(s.Checked), cmp.Or(s.Source, "no source"))
	}
	if s.CheckError != nil {
		line("check", "failed: %s", s.CheckError.Message)
	}
	if !s.Stale.IsZero() {
		line("source", "not renewed since %s", when(s.Stale))
	}
	if s.Pinned != "" {
		line("pinned", "version %s", s.Pinned)
	}
	if s.Held != "" {
		line("held", "version %s is not installed by itself: it was left by a rollback", s.Held)
	}
	if s.Last != nil {
		line("last", "%s", recordLine(*s.Last))
	}
	if s.Alarm != nil {
		line("ALARM", "%s", s.Alarm.Message)
		if s.Alarm.Hint != "" {
			line("", "try: %s", s.Alarm.Hint)
		}
	}
	return b.String()
}

func trialWords(line func(key, format string, args ...any), t *deployment.TrialStatus) {
	line("trial", "%s of %s healthy, %d requests, %d failed; %s", seconds(t.HealthySeconds), seconds(t.NeededSeconds), t.Requests, t.Failed, cmp.Or(t.Says, "no look yet"))
	for _, e := range t.Evidence {
		line("", "%s", e)
	}
}

func releaseWords(r deployment.Release) string {
	if r.Slot == "" {
		return "nothing"
	}
	return fmt.Sprintf("%s in slot %s", cmp.Or(r.Version, "no release"), r.Slot)
}

func doingWords(s deployment.Status) string {
	w := string(s.Phase)
	if p := s.Progress; p.Total > 0 {
		w += fmt.Sprintf(", %s of %s", fault.Bytes(p.Done), fault.Bytes(p.Total))
		if p.LeftSeconds >= 0 && p.Done < p.Total {
			w += fmt.Sprintf(", %s left", seconds(p.LeftSeconds))
		}
	}
	return cmp.Or(w, string(s.State))
}

func seconds(s float64) string {
	return (time.Duration(s * float64(time.Second))).Round(time.Second).String()
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func historyCommand(a *app) *cobra.Command {
	most, analysis := 20, false
	c := &cobra.Command{
		Use: "history", Short: "List the updates of this appliance and how each ended", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := paths.Find(paths.System())
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
		},
	}
	c.Flags().IntVarP(&most, "number", "n", most, "how many, the newest first; 0 is all")
	c.Flags().BoolVar(&analysis, "analysis", false, "what can be learned from them: success rate, failures, times, regressions")
	return c
}

func historyWords(records []deployment.Record) string {
	if len(records) == 0 {
		return "no update was tried yet"
	}
	return table("ENDED\tDOOR\tKIND\tFROM\tTO\tOUTCOME\tTOOK\tSAYS", func(row func(...string)) {
		for _, r := range records {
			row(when(r.Ended), string(r.Door), r.Kind, cmp.Or(r.From.Version, "-"), cmp.Or(r.To.Version, "-"), r.Outcome,
				r.Ended.Sub(r.Started).Round(time.Second).String(), firstOf(r.Says))
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

// following shows on a terminal how work goes.
func (a *app) following(ctx context.Context, work func(context.Context) error) error {
	f, isFile := a.errOut.(*os.File)
	if a.jsonOut || !isFile || !term.IsTerminal(int(f.Fd())) {
		return work(ctx)
	}
	show, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ticker(show)
	}()
	err := work(ctx)
	stop()
	<-done
	return err
}

// ticker keeps one line of a terminal up to date until ctx ends.
func (a *app) ticker(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	defer fmt.Fprint(a.errOut, "\r\033[K")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s, err := deployment.ReadStatus(a.machine.Paths.UpdaterRun); err == nil && s.PID != 0 {
			fmt.Fprintf(a.errOut, "\r\033[K%s: %s", doingWords(s), firstOf(s.Message))
		}
	}
}

// watch prints the status whenever it changes, until over says so or ctx ends.
func (a *app) watch(ctx context.Context, over func(deployment.Status) bool) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	last := ""
	for {
		s, err := deployment.ReadStatus(a.machine.Paths.UpdaterRun)
		if err != nil {
			return err
		}
		if now := doingWords(s) + ": " + firstOf(s.Message); now != last {
			last = now
			if err := a.printChange(s, now); err != nil {
				return err
			}
		}
		if over(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) printChange(s deployment.Status, words string) error {
	if a.jsonOut {
		return printLine(a.out, s)
	}
	_, err := fmt.Fprintln(a.out, time.Now().Format("15:04:05"), words)
	return err
}

// waitForTrial waits for the end of a transaction's trial and says how it ended.
func (a *app) waitForTrial(ctx context.Context, transaction string) error {
	if err := a.watch(ctx, func(s deployment.Status) bool { return s.Transaction != transaction }); err != nil {
		return err
	}
	records, err := deployment.Records(a.machine.Paths.Updater, 20)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Transaction != transaction {
			continue
		}
		if r.Outcome == deployment.Committed || r.Outcome == deployment.Kept {
			return a.print(r, recordLine(r))
		}
		return fault.New(fault.Unavailable, cmp.Or(r.Reason, r.Outcome), "version %s was taken back: %s", r.To.Version, r.Says).
			Try("%s", cmp.Or(r.Hint, "`whisper-appliance update history` has the evidence"))
	}
	if ctx.Err() != nil {
		return fault.New(fault.Canceled, "canceled", "not waited for; the trial goes on")
	}
	return errors.New("the trial has ended, and there is no record of it")
}
