package main

import (
	"fmt"
	"time"

	"whisper-appliance/tests/report"
)

// write puts the tables. Every ratio is ours by theirs: below 1 ours is better.
func (m *measurement) write(out *report.Report) {
	out.Printf("\nlatency, one request at a time, %d runs each in turn; ratio is ours by theirs\n", m.settings.runs)
	out.Table(func(row func(...any)) {
		row("clip", "", "ours", "theirs", "ratio", "text")
		for _, l := range m.latency {
			text := "differs"
			if l.sameText {
				text = "same"
			}
			row(times(l.sample.name, "median", report.Median(l.ours), report.Median(l.theirs), text)...)
			row(times("", "p95", report.Percentile(l.ours, 95), report.Percentile(l.theirs, 95), "")...)
		}
	})
	out.Printf("\nstart, median of %d\n", m.settings.starts)
	out.Table(func(row func(...any)) {
		row("", "", "ours", "theirs", "ratio", "")
		row(times("process to first health answer", "", report.Median(m.start.ours), report.Median(m.start.theirs), "ours has no model in memory by then, theirs has")...)
		row(times("process to first text of "+m.samples[0].name, "", report.Median(m.start.oursText), report.Median(m.start.theirText), "the model is read on both sides")...)
	})
	out.Printf("\nresident memory (Pss), ours with its engine\n")
	out.Table(func(row func(...any)) {
		row("", "ours", "theirs", "ratio", "")
		row(sizes("started, nothing transcribed yet", m.memory.oursIdle, m.memory.theirsStarted, "whisper-server always holds a model")...)
		row(sizes("after transcribing", m.memory.oursLoaded, m.memory.theirsLoaded, "")...)
		row(sizes("after unload", m.memory.oursUnloaded, m.memory.theirsLoaded, "whisper-server cannot unload")...)
	})
}

func times(name, kind string, ours, theirs time.Duration, note string) []any {
	return []any{name, kind, fmt.Sprintf("%.3f s", ours.Seconds()), fmt.Sprintf("%.3f s", theirs.Seconds()), ratio(float64(ours), float64(theirs)), note}
}

func sizes(name string, ours, theirs int64, note string) []any {
	return []any{name, mib(ours), mib(theirs), ratio(float64(ours), float64(theirs)), note}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func ratio(ours, theirs float64) string {
	if theirs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ours/theirs)
}
