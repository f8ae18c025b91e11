package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/measure"
	"whisper-appliance/internal/trial"
)

// benchOrder is what the command line asks for.
type benchOrder struct {
	socket  string
	files   []string
	runs    int
	cold    bool
	save    bool
	against string
	wait    time.Duration
}

func benchCommand(a *app) *cobra.Command {
	var o benchOrder
	c := &cobra.Command{
		Use:   "bench [FILE…]",
		Short: "Measure this machine's server: speed, memory, latency",
		Long: `Measure the server that runs on this machine, without being in anybody's way: a
known sentence is transcribed a few times while nobody else uses the engine, and
each FILE once. The real-time factor is seconds of work for a second of sound:
below 1 is faster than it was spoken. It tells the time that the server took to
start; it starts and stops nothing.

With --save (root) the figures are kept for the version that serves, and trials
of later versions can be held against them.`,
		Example: `  whisper-appliance bench
  sudo whisper-appliance bench --cold --save
  whisper-appliance bench --against 1.4.2 talk.mp3`,
		RunE: func(c *cobra.Command, files []string) error {
			o.files = files
			if o.socket == "" {
				o.socket = a.paths.APISocket
			}
			return a.bench(c.Context(), o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.runs, "runs", 10, "how often the sentence is transcribed")
	f.BoolVar(&o.cold, "cold", false, "have the engine give its model back first, for the time of a first transcription; takes root or an admin's key")
	f.BoolVar(&o.save, "save", false, "keep the figures for the version that serves (root)")
	f.StringVar(&o.against, "against", "", "`version` to compare with, and to warn where it was better")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait for others who use the engine")
	f.StringVar(&o.socket, "socket", "", "Unix `socket` of the server; else this machine's")
	a.jsonFlag(c)
	return c
}

// benchReport is what was measured.
type benchReport struct {
	measure.About
	Figures deployment.Figures `json:"figures"`
	Health  float64            `json:"health_median_seconds,omitempty"`
	Runs    []timed            `json:"runs"`
	Files   []timed            `json:"files,omitempty"`
	Against *comparison        `json:"against,omitempty"`
	Saved   bool               `json:"saved"`
	Notes   []string           `json:"notes"` // why something is missing
}

// timed is one transcription.
type timed struct {
	File     string  `json:"file,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	Waited   float64 `json:"waited_seconds,omitempty"` // of these, in which some work waited for a processor
	Sound    float64 `json:"sound_seconds,omitempty"`
	RealTime float64 `json:"real_time,omitempty"`
	Idle     bool    `json:"idle"` // nobody else used the engine meanwhile
	Cold     bool    `json:"cold"` // the engine's start, or its model's loading, is in it
	Problem  string  `json:"problem,omitempty"`
	Says     string  `json:"says,omitempty"`
}

// comparison is the figures of another version, and in what it was better.
type comparison struct {
	Version     string                  `json:"version"`
	Figures     deployment.Figures      `json:"figures"`
	Regressions []deployment.Regression `json:"regressions"`
}

func timedOf(file string, r trial.Run) timed {
	t := timed{File: file, Seconds: r.Seconds, Waited: r.Waited, Sound: r.Sound, Idle: r.Idle, Cold: r.Cold, Problem: r.Problem, Says: r.Says}
	if r.Problem == "" && r.Sound > 0 {
		t.RealTime = r.Seconds / r.Sound
	}
	return t
}

// bench measures, compares, keeps and prints, in that order: what cannot be kept
// or compared is refused before anything is measured.
func (a *app) bench(ctx context.Context, o benchOrder) error {
	if err := a.benchable(o); err != nil {
		return err
	}
	s := measure.Server{Socket: o.socket, Key: a.orVariable("", keyVariable), Wait: o.wait, Proc: a.paths.Proc}
	about, err := s.About(ctx)
	if err != nil {
		return err
	}
	r := benchReport{About: about, Runs: []timed{}, Notes: []string{}}
	if err := r.compareWith(o.against, a.paths.Updater); err != nil {
		return err
	}
	if err := a.measured(ctx, &r, s, o); err != nil {
		return err
	}
	if r.Against != nil {
		r.Against.Regressions = append([]deployment.Regression{}, deployment.Worse(r.Version, r.Against.Version, r.Against.Figures, r.Figures)...)
	}
	if o.save {
		if err := r.save(a.paths.Updater); err != nil {
			return err
		}
	}
	if a.jsonOut {
		return a.printJSON(r)
	}
	return a.printBench(r)
}

// benchable refuses an order that could not be carried out.
func (a *app) benchable(o benchOrder) error {
	if o.runs < 1 || o.runs > 1000 {
		return usageError{fmt.Errorf("--runs is %d: it has to be from 1 to 1000", o.runs)}
	}
	if o.save {
		if err := rootOnly(os.Geteuid(), "bench --save"); err != nil {
			return err
		}
	}
	if (o.save || o.against != "") && a.paths.Updater == "" {
		return fault.New(fault.NotFound, "not_installed", "this %s was not installed: no figures are kept", program).
			Try("install the package; its `%s` knows where they are", program)
	}
	for _, file := range o.files {
		if st, err := os.Stat(file); err != nil {
			return err
		} else if !st.Mode().IsRegular() {
			return fault.New(fault.BadInput, "not_a_file", "%s is no file", file).On("FILE").Try("name recordings")
		}
	}
	return nil
}

// compareWith finds the figures of the version to compare with.
func (r *benchReport) compareWith(version, state string) error {
	if version == "" {
		return nil
	}
	figures, ok, err := deployment.FiguresOf(state, version, r.Model)
	if err != nil {
		return err
	}
	if !ok {
		f := fault.New(fault.NotFound, "no_figures", "no figures of version %s with the model %s are kept", fault.Short(version), r.Model).On("--against")
		if known := deployment.MeasuredVersions(state); len(known) > 0 {
			return f.Try("there are some of %s", strings.Join(known, ", "))
		}
		return f.Try("`sudo %s bench --save` keeps those of the version that serves", program)
	}
	r.Against = &comparison{Version: version, Figures: figures}
	return nil
}

// measured fills in what is measured, with progress on a terminal.
func (a *app) measured(ctx context.Context, r *benchReport, s measure.Server, o benchOrder) error {
	m := a.meter(a.jsonOut)
	defer m.clear()
	if o.cold {
		m.show("the engine gives its model back")
		if err := s.Unload(ctx); err != nil {
			return err
		}
	}
	p50, _, err := s.Health(ctx, 100)
	if err != nil {
		return err
	}
	r.Health = p50.Seconds()
	m.show("run 1 of %d", o.runs)
	r.Figures, _, err = s.Measure(ctx, o.runs, func(run trial.Run) {
		r.Runs = append(r.Runs, timedOf("", run))
		m.show("run %d of %d  %.2f s", len(r.Runs), o.runs, run.Seconds)
	})
	if err != nil {
		return err
	}
	r.explain(o.runs)
	s.Limit = fileLimit
	for i, file := range o.files {
		m.show("%s  %d of %d", filepath.Base(file), i+1, len(o.files))
		run := s.Time(ctx, measure.Recording{Path: file})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.Files = append(r.Files, timedOf(file, run))
	}
	return nil
}

// fileLimit is what the transcription of one FILE may take.
const fileLimit = 6 * time.Hour

// muchWaiting is the share of the time above which people are told; an engine
// alone on its machine makes some tenth of it.
const muchWaiting = 0.3

// explain notes why figures are missing.
func (r *benchReport) explain(wanted int) {
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if n := len(r.Runs); n > 0 && r.Runs[n-1].Problem != "" {
		note("%s: %s", r.Runs[n-1].Problem, r.Runs[n-1].Says)
	}
	shared, took, waited := 0, 0.0, 0.0
	for _, t := range r.Runs {
		took, waited = took+t.Seconds, waited+t.Waited
		if t.Problem == "" && !t.Idle {
			shared++
		}
	}
	if shared > 0 {
		note("%d of %d runs do not count: somebody else used the engine meanwhile", shared, wanted)
	}
	if waited > muchWaiting*took {
		note("other programs used the processors: in %.0f %% of the time some work waited for one, so that the machine is faster than this", 100*min(1, waited/took))
	}
	if r.Figures.FirstSeconds == 0 && r.Figures.RealTime > 0 {
		note("the time of a first transcription is not known: the model was loaded already; --cold has it given back first")
	}
	if r.Figures.MemoryBytes == 0 {
		note("memory is not known: it takes root, and systemd to run the server")
	}
}

// save keeps the figures, of which the speed at least has to be known.
func (r *benchReport) save(state string) error {
	if r.Figures.RealTime == 0 {
		return fault.New(fault.Unavailable, "nothing_measured", "the speed could not be measured, so that nothing was kept: %s", strings.Join(r.Notes, "; ")).
			Try("try again when nobody uses the appliance; a single run may be the one that loads the model: --runs 3")
	}
	r.Saved = true
	return deployment.SaveBench(state, deployment.Bench{Version: r.Version, Commit: r.Commit, Model: r.Model, At: time.Now().UTC(), Figures: r.Figures})
}

// benchLine is one figure of the table.
type benchLine struct {
	name    string
	is, was float64
	form    func(float64) string
}

func secondsOf(v float64) string { return fmt.Sprintf("%.2f s", v) }
func factorOf(v float64) string  { return fmt.Sprintf("%.3f", v) }
func bytesOf(v float64) string   { return fault.Bytes(int64(v)) }
func millisOf(v float64) string  { return fmt.Sprintf("%.1f ms", 1000*v) }

func (r benchReport) lines() []benchLine {
	var was deployment.Figures
	if r.Against != nil {
		was = r.Against.Figures
	}
	is := r.Figures
	return []benchLine{
		{"start", is.StartSeconds, was.StartSeconds, secondsOf},
		{"first transcription", is.FirstSeconds, was.FirstSeconds, secondsOf},
		{"real-time factor", is.RealTime, was.RealTime, factorOf},
		{"memory", float64(is.MemoryBytes), float64(was.MemoryBytes), bytesOf},
		{"health, median", r.Health, 0, millisOf},
		{"health, 99 of 100", is.HealthSeconds, was.HealthSeconds, millisOf},
	}
}

// cell is a figure of the table; 0 is not measured.
func (l benchLine) cell(v float64) string {
	if v == 0 {
		return "–"
	}
	return l.form(v)
}

func (a *app) printBench(r benchReport) error {
	fmt.Fprintf(a.out, "version %s, model %s", r.Version, r.Model)
	if r.Slot != "" {
		fmt.Fprintf(a.out, ", slot %s", r.Slot)
	}
	fmt.Fprintf(a.out, ", runs that count: %d\n", r.Figures.Runs)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if r.Against != nil {
		fmt.Fprintf(w, "FIGURE\tNOW\t%s\tTIMES\n", r.Against.Version)
	} else {
		fmt.Fprintln(w, "FIGURE\tNOW")
	}
	for _, l := range r.lines() {
		fmt.Fprintf(w, "%s\t%s", l.name, l.cell(l.is))
		if r.Against != nil {
			times := "–"
			if l.is > 0 && l.was > 0 {
				times = fmt.Sprintf("%.2f", l.is/l.was)
			}
			fmt.Fprintf(w, "\t%s\t%s", l.cell(l.was), times)
		}
		fmt.Fprintln(w)
	}
	for _, f := range r.Files {
		fmt.Fprintf(w, "%s\t%s\n", filepath.Base(f.File), f.words())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return a.printRemarks(r)
}

// words is one file's line.
func (t timed) words() string {
	if t.Problem != "" {
		return t.Problem + ": " + t.Says
	}
	s := fmt.Sprintf("%s (%.1f s of sound in %.1f s)", factorOf(t.RealTime), t.Sound, t.Seconds)
	if !t.Idle {
		s += ", not alone"
	}
	if t.Cold {
		s += ", the engine's start included"
	}
	return s
}

func (a *app) printRemarks(r benchReport) error {
	var err error
	say := func(format string, args ...any) {
		_, e := fmt.Fprintf(a.out, format+"\n", args...)
		err = errors.Join(err, e)
	}
	for _, n := range r.Notes {
		say("note: %s", n)
	}
	if r.Against != nil {
		for _, w := range r.Against.Regressions {
			say("worse: %s", w.Says)
		}
		if len(r.Against.Regressions) == 0 {
			say("nothing that both know is clearly worse than %s", r.Against.Version)
		}
	}
	if r.Saved {
		say("kept for version %s", r.Version)
	}
	return err
}
