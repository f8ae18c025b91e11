package report

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func ms(values ...int) (d []time.Duration) {
	for _, v := range values {
		d = append(d, time.Duration(v)*time.Millisecond)
	}
	return d
}

func TestPercentiles(t *testing.T) {
	for _, c := range []struct {
		name        string
		values      []time.Duration
		median, p95 int
	}{
		{"none", nil, 0, 0},
		{"one", ms(7), 7, 7},
		{"two", ms(10, 20), 15, 20},
		{"odd and unsorted", ms(5, 1, 3), 3, 5},
		{"ten", ms(1, 2, 3, 4, 6, 8, 7, 9, 10, 100), 6, 100},
		{"twenty", ms(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 100), 10, 19},
	} {
		if got := Median(c.values).Milliseconds(); int(got) != c.median {
			t.Errorf("%s: median %d ms, want %d", c.name, got, c.median)
		}
		if got := Percentile(c.values, 95).Milliseconds(); int(got) != c.p95 {
			t.Errorf("%s: p95 %d ms, want %d", c.name, got, c.p95)
		}
	}
}

func TestPercentileLeavesTheOrderAlone(t *testing.T) {
	values := ms(3, 1, 2)
	Percentile(values, 95)
	Median(values)
	if values[0] != 3*time.Millisecond {
		t.Error("the values were sorted in place")
	}
}

func TestReport(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "docs", "results"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := New("Speed", "0123456789ab", "ours 9.8.7 of today", "peer 1.9.5")
	r.Table(func(row func(...any)) {
		row("clip", "ms")
		row("a long name", 12)
		row("b", "")
	})
	if err := r.Save(root, "speed.txt"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "docs", "results", "speed.txt"))
	if err != nil || string(data) != r.String() {
		t.Fatalf("the file differs from the report: %v", err)
	}
	for _, want := range []string{
		"Speed\n\n", "\ndate       20", "\ncommit     0123456789ab\n", "\nprocessor  ", " threads\n",
		"\nours       9.8.7 of today\n", "\nclip         ms\na long name  12\nb\n",
	} {
		if !strings.Contains("\n"+r.String(), want) {
			t.Errorf("no %q in:\n%s", want, r)
		}
	}
	if err := r.Save(filepath.Join(root, "elsewhere"), "speed.txt"); err == nil {
		t.Error("saving where no directory is succeeded")
	}
}

func TestReportOfAChangedTree(t *testing.T) {
	r := New("Speed", "0123456789ab-dirty")
	if want := "0123456789ab-dirty (built from a tree that differs from the commit)\n"; !strings.Contains(r.String(), want) {
		t.Errorf("no %q in:\n%s", want, r)
	}
}

func TestModelName(t *testing.T) {
	info := "processor\t: 0\nvendor_id\t: X\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n"
	if got := modelName(info, "arm64"); got != "Some CPU @ 2 GHz" {
		t.Errorf("got %q", got)
	}
	if got := modelName("processor\t: 0\n", "arm64"); got != "arm64" {
		t.Errorf("without a name: %q", got)
	}
}

func TestLoadIsANumber(t *testing.T) {
	load := Load()
	if _, err := strconv.ParseFloat(load, 64); err != nil && load != "unknown" {
		t.Errorf("Load is %q", load)
	}
}
