package deployment

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// day is the n-th day of a record.
func day(n int) time.Time { return time.Date(2026, 3, n, 2, 0, 0, 0, time.UTC) }

// attempt is a deployment on the n-th day that goes from one version to another.
func attempt(n int, from, to, outcome string) Record {
	return Record{
		Transaction: "t" + to, Kind: "update", From: Release{Version: from}, To: Release{Version: to},
		Started: day(n), Ended: day(n).Add(time.Minute), Outcome: outcome,
	}
}

func (r Record) failedAt(phase Phase, reason, blame, says string) Record {
	r.At, r.Reason, r.Blame, r.Says = phase, reason, blame, says
	return r
}

func (r Record) with(f Figures) Record { r.Figures = f; return r }

func (r Record) served(answered, failed int64, gap float64) Record {
	r.Requests = Requests{Answered: answered, Failed: failed, Gap: gap, Known: true}
	return r
}

func (r Record) of(kind string) Record { r.Kind = kind; return r }

func TestAnalyzeNothing(t *testing.T) {
	a := Analyze(nil)
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "null") {
		t.Errorf("a list is null: %s", data)
	}
	if a.SuccessRate != 0 || a.Says != "no deployment has been recorded" {
		t.Errorf("%+v", a)
	}
}

func TestSuccessRate(t *testing.T) {
	for _, c := range []struct {
		name                         string
		records                      []Record
		decided, succeeded, withdrew int
		rate                         float64
	}{
		{"committed", []Record{attempt(1, "1", "2", Committed)}, 1, 1, 0, 1},
		{"kept without proof", []Record{attempt(1, "1", "2", Kept)}, 1, 1, 0, 1},
		{"half", []Record{attempt(1, "1", "2", Committed), attempt(2, "2", "3", RolledBack)}, 2, 1, 0, 0.5},
		{"aborted and failed", []Record{attempt(1, "1", "2", Aborted), attempt(2, "1", "2", Failed)}, 2, 0, 0, 0},
		{"cancelled is no failure", []Record{attempt(1, "1", "2", Canceled), attempt(2, "1", "2", Committed)}, 1, 1, 1, 1},
		{"nor is what somebody rolled back", []Record{attempt(1, "1", "2", RolledBack).failedAt(OnTrial, "asked", Operator, "")}, 0, 0, 1, 0},
		{"a way back is apart", []Record{attempt(1, "2", "1", Committed).of("rollback")}, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Analyze(c.records)
			if a.Decided != c.decided || a.Succeeded != c.succeeded || a.Withdrawn != c.withdrew || a.SuccessRate != c.rate {
				t.Errorf("%d of %d, %d withdrawn, rate %v", a.Succeeded, a.Decided, a.Withdrawn, a.SuccessRate)
			}
			if a.Attempts != len(c.records) {
				t.Errorf("%d attempts of %d", a.Attempts, len(c.records))
			}
			n := 0
			for _, of := range a.Outcomes {
				n += of
			}
			if n != len(c.records) {
				t.Errorf("outcomes %v", a.Outcomes)
			}
		})
	}
}

func TestFailureClasses(t *testing.T) {
	records := []Record{
		attempt(3, "1", "4", RolledBack).failedAt(OnTrial, "crashed", Candidate, "it crashed twice"),
		attempt(1, "1", "2", RolledBack).failedAt(OnTrial, "crashed", Candidate, "it crashed"),
		attempt(4, "1", "5", Aborted).failedAt(Fetch, "disk_full", Environment, "the disk is full"),
		attempt(2, "1", "3", Aborted).failedAt(OnTrial, "crashed", Environment, ""),
		attempt(5, "1", "6", Canceled).failedAt(Fetch, "canceled", Operator, ""),
		attempt(6, "1", "6", Committed),
		attempt(7, "6", "1", RolledBack).of("rollback"),
		attempt(8, "6", "7", Failed),
	}
	got := Analyze(records).Failures
	want := []struct {
		phase         Phase
		reason, blame string
		count         int
		version, says string
	}{
		{OnTrial, "crashed", Candidate, 2, "4", "2 times: crashed in phase trial (candidate), last with version 4: it crashed twice"},
		{"", "unknown", "unknown", 1, "7", "once: unknown in phase unknown (unknown), last with version 7"},
		{Fetch, "disk_full", Environment, 1, "5", "once: disk_full in phase fetch (environment), last with version 5: the disk is full"},
		{OnTrial, "crashed", Environment, 1, "3", "once: crashed in phase trial (environment), last with version 3"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d classes: %+v", len(got), got)
	}
	for i, w := range want {
		g := got[i]
		if g.Phase != w.phase || g.Reason != w.reason || g.Blame != w.blame || g.Count != w.count || g.Last.Version != w.version || g.Says != w.says {
			t.Errorf("class %d: %+v", i, g)
		}
	}
}

func TestPhaseDurations(t *testing.T) {
	var records []Record
	for i := range 20 {
		r := attempt(i+1, "1", "2", Committed)
		r.Phases = []PhaseTime{{Stage, float64(i + 1)}, {Plan, 1}}
		records = append(records, r)
	}
	broken := attempt(21, "1", "2", Aborted).failedAt(Stage, "disk_full", Environment, "")
	broken.Phases = []PhaseTime{{Plan, 3}, {Stage, 1000}}
	got := Analyze(append(records, broken)).Phases
	want := []PhaseDuration{{Plan, 21, 1, 1}, {Stage, 20, 10.5, 19}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: the phase that failed says nothing", got, want)
	}
}

func TestImpact(t *testing.T) {
	a := Analyze([]Record{
		attempt(1, "1", "2", Committed).served(100, 2, 0.25),
		attempt(2, "2", "3", RolledBack).served(50, 1, 1.5),
		attempt(3, "2", "4", Aborted),
	})
	if a.FailedRequests != 3 || a.LongestGap != 1.5 {
		t.Errorf("%d failed, gap %v", a.FailedRequests, a.LongestGap)
	}
	var to []string
	for _, d := range a.Deployments {
		to = append(to, d.To)
		if d.Seconds != 60 {
			t.Errorf("%s took %v s", d.To, d.Seconds)
		}
	}
	if !slices.Equal(to, []string{"4", "3", "2"}) {
		t.Errorf("order %v, want the newest first", to)
	}
	if a.Deployments[0].Requests.Known {
		t.Error("what nobody counted is known")
	}
	if want := "1 of 3 succeeded (33 %); 3 requests failed during deployments, the longest gap was 1.5 s"; a.Says != want {
		t.Errorf("it says %q, want %q", a.Says, want)
	}
}

func TestMeasured(t *testing.T) {
	got := Analyze([]Record{
		attempt(1, "0", "1", Committed).with(Figures{StartSeconds: 1, RealTime: 0.2, MemoryBytes: 100, Runs: 10}).served(60, 0, 0),
		attempt(2, "1", "2", RolledBack).with(Figures{StartSeconds: 2, RealTime: 0.9}),
		attempt(3, "1", "3", Committed).with(Figures{StartSeconds: 1.5, Runs: 3}),
		attempt(4, "1", "1", Committed).with(Figures{StartSeconds: 3, RealTime: 0.4, Runs: 10}).served(40, 0, 0),
		attempt(5, "3", "1", Committed).with(Figures{StartSeconds: 9}).of("rollback"),
	}).Versions
	if len(got) != 3 || got[0].Version != "3" || got[1].Version != "2" || got[2].Version != "1" {
		t.Fatalf("versions %+v", got)
	}
	one := got[2]
	if one.Figures.StartSeconds != 2 || math.Abs(one.Figures.RealTime-0.3) > 1e-9 || one.Figures.MemoryBytes != 100 || one.Figures.Runs != 20 {
		t.Errorf("medians %+v", one.Figures)
	}
	if one.Deployments != 2 || one.Requests != 100 || one.Before != "" {
		t.Errorf("%+v", one)
	}
	if got[0].Before != "1" || got[1].Before != "1" {
		t.Errorf("3 is compared with %q and 2 with %q, want what each replaced", got[0].Before, got[1].Before)
	}
}

func TestMeasuredAfterAnUnmeasuredVersion(t *testing.T) {
	got := Analyze([]Record{
		attempt(1, "0", "1", Committed).with(Figures{StartSeconds: 1}),
		attempt(2, "1", "2", Committed),
		attempt(3, "2", "3", Committed).with(Figures{StartSeconds: 3}),
	})
	if got.Versions[0].Before != "1" || len(got.Regressions) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestRegressions looks at each limit from both sides.
func TestRegressions(t *testing.T) {
	base := Figures{StartSeconds: 1, RealTime: 0.2, MemoryBytes: 100 << 20, HealthSeconds: 0.01, ErrorRatio: 0.01}
	with := func(change func(*Figures)) Figures { f := base; change(&f); return f }
	for _, c := range []struct {
		name   string
		is     Figures
		served int64
		figure string // "" = none
		says   string
	}{
		{"the same", base, 1000, "", ""},
		{"real time at its limit", with(func(f *Figures) { f.RealTime = 0.2 * 1.5 }), 1000, "", ""},
		{"real time over it", with(func(f *Figures) { f.RealTime = 0.32 }), 1000, "real_time", "2 needs 0.32 s of work for a second of sound, 1.6 times as much as 1"},
		{"real time not measured", with(func(f *Figures) { f.RealTime = 0 }), 1000, "", ""},
		{"memory at its limit", with(func(f *Figures) { f.MemoryBytes = 130 << 20 }), 1000, "", ""},
		{"memory over it", with(func(f *Figures) { f.MemoryBytes = 131 << 20 }), 1000, "memory_bytes", "2 holds 131 MiB of memory, 1.3 times as much as 1"},
		{"start at its limit", with(func(f *Figures) { f.StartSeconds = 2 }), 1000, "", ""},
		{"start over it", with(func(f *Figures) { f.StartSeconds = 2.1 }), 1000, "start_seconds", "2 needs 2.1 s to start, 2.1 times as much as 1"},
		{"errors a little more", with(func(f *Figures) { f.ErrorRatio = 0.02 }), 1000, "", ""},
		{"errors clearly more", with(func(f *Figures) { f.ErrorRatio = 0.03 }), 1000, "error_ratio", "2 failed 3.0 % of its requests, 1 1.0 %"},
		{"errors of too few requests", with(func(f *Figures) { f.ErrorRatio = 0.5 }), 49, "", ""},
		{"errors of just enough", with(func(f *Figures) { f.ErrorRatio = 0.5 }), 50, "error_ratio", "2 failed 50.0 %"},
		{"health alone", with(func(f *Figures) { f.HealthSeconds = 9 }), 1000, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Analyze([]Record{
				attempt(2, "1", "2", Committed).with(c.is).served(c.served, 0, 0),
				attempt(1, "0", "1", Committed).with(base).served(1000, 0, 0),
			}).Regressions
			if c.figure == "" {
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Figure != c.figure || !strings.HasPrefix(got[0].Says, c.says) {
				t.Fatalf("%+v", got)
			}
			if r := got[0]; r.Version != "2" || r.Before != "1" || r.Ratio <= r.Limit {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestErrorsWhereThereWereNone(t *testing.T) {
	got := Analyze([]Record{
		attempt(1, "0", "1", Committed).with(Figures{StartSeconds: 1}).served(100, 0, 0),
		attempt(2, "1", "2", Committed).with(Figures{StartSeconds: 1, ErrorRatio: 0.05}).served(100, 5, 0),
	}).Regressions
	if len(got) != 1 || got[0].Figure != "error_ratio" || got[0].Ratio != 0 {
		t.Errorf("%+v", got)
	}
}
