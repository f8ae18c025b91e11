// Package report is what the measurements have in common at their end: medians
// and percentiles, and a result file that says when, of which commit and on
// which machine it was measured. It trusts its caller for the commit and the
// kernel for the machine, and writes docs/results.
package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"whisper-appliance/internal/durable"
)

// Percentile is the smallest of the values that p percent of them do not
// exceed; the median is the 50th. It is 0 where there are none.
func Percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median is the middle value, or the mean of the two there.
func Median(values []time.Duration) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Report is the text of a result file in the making.
type Report struct {
	text bytes.Buffer
}

// New begins a report: title, date, commit, processor and the lines of
// versions, each "name value". The commit is the measured program's, as it
// says it itself: the checkout may be another one by now.
func New(title, commit string, versions ...string) *Report {
	r := &Report{}
	r.Printf("%s\n\n", title)
	r.Table(func(row func(cells ...any)) {
		row("date", time.Now().UTC().Format(time.RFC3339))
		row("commit", commit+changed(commit))
		row("processor", processor())
		for _, v := range versions {
			name, value, _ := strings.Cut(v, " ")
			row(name, value)
		}
	})
	return r
}

// Printf adds text.
func (r *Report) Printf(format string, args ...any) { fmt.Fprintf(&r.text, format, args...) }

// Table adds aligned columns: fill calls row once a line.
func (r *Report) Table(fill func(row func(cells ...any))) {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fill(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	})
	w.Flush() //nolint:errcheck // a buffer takes everything
	for line := range strings.Lines(table.String()) {
		r.Printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

// String is the report so far.
func (r *Report) String() string { return r.text.String() }

// Publish prints the report, and keeps it where name is not empty.
func (r *Report) Publish(stdout io.Writer, root, name string) error {
	if _, err := io.WriteString(stdout, r.String()); err != nil || name == "" {
		return err
	}
	return r.Save(root, name)
}

// Save keeps the report as docs/results/name in the checkout at root.
func (r *Report) Save(root, name string) error {
	if err := durable.WriteFile(filepath.Join(root, "docs", "results", name), r.text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

// Load is how many processes wanted a processor in the last minute, as the
// kernel puts it: a machine that has other things to do measures badly. It is
// "unknown" where the kernel does not say.
func Load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(data), " ")
	return load
}

// changed says of a program whose sources were not those of its commit that
// the commit alone does not give its results.
func changed(commit string) string {
	if strings.HasSuffix(commit, "-dirty") {
		return " (built from a tree that differs from the commit)"
	}
	return ""
}

// processor is the model's name and how many of its threads there are.
func processor() string {
	name := runtime.GOARCH
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		name = modelName(string(info), name)
	}
	return fmt.Sprintf("%s, %d threads", name, runtime.NumCPU())
}

// modelName is the first processor's in the text of the kernel's cpuinfo.
func modelName(info, otherwise string) string {
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}
