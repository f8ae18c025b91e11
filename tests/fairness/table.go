package main

import (
	"fmt"
	"slices"
	"time"

	"whisper-appliance/tests/report"
)

// The goals, each at most.
const (
	mostByIdle  = 2 // 95th percentile beside long files by idle's, in two lanes
	mostByShare = 3 // the longest wait by the fair share
)

// times is a spread of durations.
type times struct{ p50, p95, most time.Duration }

func spread(list []time.Duration) times {
	if len(list) == 0 {
		return times{}
	}
	return times{report.Median(list), report.Percentile(list, 95), slices.Max(list)}
}

// String is the three in seconds.
func (t times) String() string {
	return fmt.Sprintf("median %s, p95 %s, longest %s", seconds(t.p50), seconds(t.p95), seconds(t.most))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// fairShare is how long the last of ten users waits where all get the same and
// nobody else anything: ten times as long as one alone.
func (r *result) fairShare() time.Duration { return users * spread(r.idle).p50 }

// besideGoal is the 95th percentile that is allowed beside long files, and in
// words why.
func (r *result) besideGoal() (time.Duration, string) {
	idle, window := spread(r.idle).p95, report.Median(r.window)
	if r.name == oneLane {
		return idle + window, fmt.Sprintf("idle p95 and a window of 10 s, %s", seconds(window))
	}
	return mostByIdle * idle, fmt.Sprintf("%d times the idle p95", mostByIdle)
}

// goals counts what was held against a goal.
type goals struct{ met, all int }

// judge says whether a goal of ours was met; whisper-server has none.
func (g *goals) judge(r *result, met bool, goal string) string {
	switch {
	case r.name == theirs:
		return ""
	case !met:
		g.all++
		return "missed, " + goal
	}
	g.all, g.met = g.all+1, g.met+1
	return "met, " + goal
}

// write puts the tables.
func write(out *report.Report, results []*result) {
	g := &goals{}
	out.Printf("\nfrom a clip's request to its answer; the clips last %v\n", clipLength)
	out.Table(func(row func(...any)) {
		row("", "beside it", "clips", "median", "p95", "longest", "p95 by idle", "goal")
		for _, r := range results {
			r.rows(row, g)
		}
	})
	out.Printf("\nten users at once, each with a key of its own and a clip, while a long file runs\n")
	out.Table(func(row func(...any)) {
		row("", "rounds", "median", "longest", "fair share", "longest by it", "goal")
		for _, r := range results {
			crowd, share := spread(r.crowd), r.fairShare()
			row(r.name, r.load.rounds, seconds(crowd.p50), seconds(crowd.most), seconds(share), by(crowd.most, share),
				g.judge(r, crowd.most <= mostByShare*share, fmt.Sprintf("%d times the fair share", mostByShare)))
		}
	})
	out.Printf("\ngoals: %d of %d met\n", g.met, g.all)
	out.Printf("fair share: ten times the median of a clip alone, which is what the last of ten waits where all get the same and the long file nothing.\n")
	for _, r := range results {
		out.Printf("%s: long files last %v; %d came to their end and were begun anew; %d of %d clips had another text than idle\n",
			r.name, r.long.duration.Round(time.Second), r.finished, r.differ, len(r.beside)+len(r.crowd))
	}
	out.Printf("whisper-server does one request after the other: its long files are shorter and its clips fewer, or it would take for ever\n")
}

// rows are a result's lines about clips idle and beside long files.
func (r *result) rows(row func(...any), g *goals) {
	idle, beside := spread(r.idle), spread(r.beside)
	limit, why := r.besideGoal()
	row(r.name, "nothing", len(r.idle), seconds(idle.p50), seconds(idle.p95), seconds(idle.most))
	row("", "two long files", len(r.beside), seconds(beside.p50), seconds(beside.p95), seconds(beside.most), by(beside.p95, idle.p95),
		g.judge(r, beside.p95 <= limit, "≤ "+seconds(limit)+": "+why))
}

func by(a, b time.Duration) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}
