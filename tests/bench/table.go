package main

import (
	"fmt"
	"time"

	"whisper-appliance/internal/score"
	"whisper-appliance/tests/report"
)

// The goals, each at most.
const (
	shortRatio = share(0.5)    // of whisper-server's time, up to 11 s
	longRatio  = share(0.6)    // of its time beyond, greedy or with beam search
	anyRatio   = share(1.03)   // whatever else is missed
	memoryPart = share(1. / 3) // of beam search's memory, on long recordings
	pointsMore = 0.005         // error rate above whisper-server's
	longErrors = 0.06          // error rate on long recordings
)

// long is from which length a recording is a long one, where beam search is
// what ours is held against.
const long = 2 * time.Minute

// share is ours by theirs; below 1 ours is better. 0 = there is nothing to
// compare with.
type share float64

func ratio[T time.Duration | int64](ours, theirs T) share {
	if theirs == 0 {
		return 0
	}
	return share(float64(ours) / float64(theirs))
}

// String is the share with two digits.
func (s share) String() string {
	if s == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(s))
}

// goals counts what was held against a goal, and keeps what was missed.
type goals struct {
	met, all int
	missed   []string
}

// judge says how a goal was met, for a cell of a table.
func (g *goals) judge(met bool, what string, args ...any) string {
	g.all++
	if met {
		g.met++
		return "met"
	}
	g.missed = append(g.missed, fmt.Sprintf(what, args...))
	return "missed"
}

// most judges a share that is to be limit at most.
func (g *goals) most(s, limit share, what string) string {
	if s == 0 {
		return ""
	}
	return "≤ " + limit.String() + " " + g.judge(s <= limit, "%s: %v, goal %v", what, s, limit)
}

// write puts the tables of all parts, and the sum of the goals.
func (m *measurement) write(out *report.Report) {
	g := &goals{}
	m.writeTimes(out, g)
	m.writeErrors(out, g)
	m.writeMemory(out, g)
	out.Printf("\ngoals: %d of %d met\n", g.met, g.all)
	for _, missed := range g.missed {
		out.Printf("missed: %s\n", missed)
	}
	out.Printf("ratios are ours by theirs, greedy beside greedy; below 1 ours is better.\n")
}

// eachPart gives a row's first cells for each part.
func (m *measurement) eachPart(do func(f figures, name string)) {
	for _, f := range m.figures {
		do(f, f.part.model+", "+f.sample.name)
	}
}

func (m *measurement) writeTimes(out *report.Report, g *goals) {
	out.Printf("\ntime from a request to its answer, and processor time, one request at a time, in turn\n")
	out.Table(func(row func(...any)) {
		row("recording", "lasts", "", "ours", "theirs", "ratio", "goal", "beam", "ratio", "goal")
		m.eachPart(func(f figures, name string) {
			lasts := f.sample.duration.Round(time.Second).String()
			row(append([]any{name, lasts}, f.times(fmt.Sprintf("median of %d", f.part.runs), report.Median, g)...)...)
			if f.part.runs > 1 {
				p95 := func(list []time.Duration) time.Duration { return report.Percentile(list, 95) }
				row(append([]any{"", ""}, f.times("p95", p95, g)...)...)
			}
			o, t, b := report.Median(f.cpu(ours)), report.Median(f.cpu(greedy)), report.Median(f.cpu(beam))
			row("", "", "processor", seconds(o), seconds(t), ratio(o, t).String(), "", secondsOrNone(b), ratio(o, b).String(), "")
		})
	})
}

// times is the cells of a line about one measure of the times.
func (f figures) times(measure string, of func([]time.Duration) time.Duration, g *goals) []any {
	what := fmt.Sprintf("%s, %s, %s", f.part.model, f.sample.name, measure)
	o, t, b := of(f.took(ours)), of(f.took(greedy)), of(f.took(beam))
	goal := longRatio
	if f.sample.duration <= short {
		goal = shortRatio
	}
	cells := []any{measure, seconds(o), seconds(t), ratio(o, t).String(), g.most(ratio(o, t), goal, what)}
	if ratio(o, t) > anyRatio {
		g.judge(false, "%s: %v, never to be above %v", what, ratio(o, t), anyRatio)
	}
	return append(cells, f.besideBeam(o, b, g, what)...)
}

// besideBeam is the cells that compare a time with beam search's.
func (f figures) besideBeam(o, b time.Duration, g *goals, what string) []any {
	goal := ""
	if f.sample.duration >= long {
		goal = g.most(ratio(o, b), longRatio, what+", of beam search")
	}
	return []any{secondsOrNone(b), ratio(o, b).String(), goal}
}

func (m *measurement) writeErrors(out *report.Report, g *goals) {
	out.Printf("\nword errors by words said, over all runs; points: ours minus theirs in percent\n")
	out.Table(func(row func(...any)) {
		row("recording", "ours", "theirs", "points", "goal", "beam", "points", "text")
		m.eachPart(func(f figures, name string) {
			text := "differs"
			if f.sameText(ours, greedy) {
				text = "same"
			}
			if f.sample.text == "" {
				row(name, "not known", "not known", "", "", "", "", text)
				return
			}
			o, t, b := f.errors(ours), f.errors(greedy), f.errors(beam)
			more := o.Rate() - t.Rate()
			goal := "≤ +0.50 " + g.judge(more <= pointsMore, "%s: %+.2f points more errors, goal +0.50", name, 100*more)
			if f.sample.duration >= long {
				goal += ", ≤ 6 % " + g.judge(o.Rate() <= longErrors, "%s: %.1f %% errors, goal 6 %%", name, 100*o.Rate())
			}
			row(name, fraction(o), fraction(t), fmt.Sprintf("%+.2f", 100*more), goal, fraction(b), points(o, b), text)
		})
	})
	if len(m.samples) > 0 && m.samples[len(m.samples)-1].text == "" {
		out.Printf("no error rates are known: the samples are the reference clip again and again, as ../shared/speech is not there\n")
	}
}

func (m *measurement) writeMemory(out *report.Report, g *goals) {
	out.Printf("\nmost resident memory in a run, ours of server and engine together\n")
	out.Table(func(row func(...any)) {
		row("recording", "ours", "theirs", "ratio", "beam", "ratio", "goal")
		m.eachPart(func(f figures, name string) {
			o, t, b := f.peak(ours), f.peak(greedy), f.peak(beam)
			goal := ""
			if f.sample.duration >= long {
				goal = g.most(ratio(o, b), memoryPart, name+", memory of beam search")
			}
			row(name, mib(o), mib(t), ratio(o, t).String(), mibOrNone(b), ratio(o, b).String(), goal)
		})
	})
}

func fraction(c score.Counts) string {
	if c.Ref == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d = %.1f %%", c.Errors(), c.Ref, 100*c.Rate())
}

func points(a, b score.Counts) string {
	if b.Ref == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.2f", 100*(a.Rate()-b.Rate()))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

func secondsOrNone(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return seconds(d)
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func mibOrNone(n int64) string {
	if n == 0 {
		return "-"
	}
	return mib(n)
}
