package deployment

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Limits over which a version is told to be worse than the one before it.
const (
	WorseRealTime = 1.5 // times the real-time factor
	WorseMemory   = 1.3 // times the memory
	WorseStart    = 2.0 // times the time until READY
	WorseErrors   = 2.0 // times the error ratio, and by a hundredth of the requests as well

	moreErrors = 0.01 // a ratio is no higher by less
	fewErrors  = 50   // requests; a ratio of fewer says nothing
)

// Analysis is what can be learned from a record. Times are in seconds.
type Analysis struct {
	Says        string          `json:"says"` // the sum of it, a sentence
	Attempts    int             `json:"attempts"`
	Outcomes    map[string]int  `json:"outcomes"`
	Decided     int             `json:"decided"`      // attempts to bring a release to service that nobody took back
	Succeeded   int             `json:"succeeded"`    // of these, committed or kept
	SuccessRate float64         `json:"success_rate"` // 0 to 1; 0 where none was decided
	Withdrawn   int             `json:"withdrawn"`    // cancelled, or rolled back because somebody said so
	Rollbacks   int             `json:"rollbacks"`    // ways back that were asked for; they are no part of the rate
	Failures    []FailureClass  `json:"failures"`     // the commonest first
	Phases      []PhaseDuration `json:"phases"`       // in the order of a transaction
	Deployments []Impact        `json:"deployments"`  // the newest first
	Versions    []Measured      `json:"versions"`     // the newest first, by when each was first measured
	Regressions []Regression    `json:"regressions"`  // the newest version's first

	FailedRequests int64   `json:"failed_requests"` // in all deployments that know
	LongestGap     float64 `json:"longest_gap_seconds"`
}

// FailureClass is attempts that failed alike.
type FailureClass struct {
	Phase  Phase   `json:"phase"`
	Reason string  `json:"reason"` // stable code
	Blame  string  `json:"blame"`
	Count  int     `json:"count"`
	Last   Example `json:"last"`
	Says   string  `json:"says"` // the class, for people
}

// Example is the newest attempt of a class.
type Example struct {
	Transaction string    `json:"transaction"`
	Version     string    `json:"version"`
	At          time.Time `json:"at"`
	Says        string    `json:"says,omitempty"`
	Hint        string    `json:"hint,omitempty"`
}

// PhaseDuration is how long a phase takes where it goes well.
type PhaseDuration struct {
	Phase  Phase   `json:"phase"`
	Count  int     `json:"count"`
	Median float64 `json:"median_seconds"`
	P95    float64 `json:"p95_seconds"`
}

// Impact is what those who used the appliance met with during a deployment.
type Impact struct {
	Transaction string    `json:"transaction"`
	Started     time.Time `json:"started"`
	Seconds     float64   `json:"seconds"` // from beginning to end, the trial included
	From        string    `json:"from"`    // version
	To          string    `json:"to"`      // version
	Outcome     string    `json:"outcome"`
	Requests    Requests  `json:"requests"`
}

// Measured are the figures of a version, each the median of those that its
// deployments measured.
type Measured struct {
	Version     string    `json:"version"`
	Before      string    `json:"before,omitempty"` // the version that it is compared with
	First       time.Time `json:"first"`
	Deployments int       `json:"deployments"` // that measured something
	Requests    int64     `json:"requests"`    // answered during these
	Figures     Figures   `json:"figures"`
}

// Regression is a figure in which a version is worse than the one before it.
type Regression struct {
	Version string  `json:"version"`
	Before  string  `json:"before"`
	Figure  string  `json:"figure"` // the key in Figures: "real_time"
	Was     float64 `json:"was"`
	Is      float64 `json:"is"`
	Ratio   float64 `json:"ratio"` // 0 where there was nothing to divide by
	Limit   float64 `json:"limit"` // that the ratio should not exceed
	Says    string  `json:"says"`
}

// Analyze learns from records, in whatever order they come.
func Analyze(records []Record) Analysis {
	old := slices.SortedStableFunc(slices.Values(records), func(a, b Record) int { return a.Started.Compare(b.Started) })
	a := Analysis{
		Attempts: len(old), Outcomes: map[string]int{}, Failures: failures(old), Phases: durations(old),
		Deployments: []Impact{}, Versions: measured(old),
	}
	for _, r := range old {
		a.count(r)
	}
	if a.Decided > 0 {
		a.SuccessRate = float64(a.Succeeded) / float64(a.Decided)
	}
	slices.Reverse(a.Deployments)
	a.Regressions = regressions(a.Versions)
	a.Says = a.words()
	return a
}

// count takes one record into the sums.
func (a *Analysis) count(r Record) {
	a.Outcomes[r.Outcome]++
	a.Deployments = append(a.Deployments, Impact{
		Transaction: r.Transaction, Started: r.Started, Seconds: max(0, r.Ended.Sub(r.Started).Seconds()),
		From: r.From.Version, To: r.To.Version, Outcome: r.Outcome, Requests: r.Requests,
	})
	if r.Requests.Known {
		a.FailedRequests += r.Requests.Failed
		a.LongestGap = max(a.LongestGap, r.Requests.Gap)
	}
	switch {
	case r.Kind == "rollback":
		a.Rollbacks++
	case withdrawn(r):
		a.Withdrawn++
	default:
		a.Decided++
		if succeeded(r) {
			a.Succeeded++
		}
	}
}

func succeeded(r Record) bool { return r.Outcome == Committed || r.Outcome == Kept }

// withdrawn tells an attempt that somebody took back from one that failed.
func withdrawn(r Record) bool {
	return r.Outcome == Canceled || !succeeded(r) && r.Blame == Operator
}

// failed tells attempts that went wrong by themselves. A way back that was
// asked for has gone well where it ends with what was there before.
func failed(r Record) bool {
	wanted := r.Kind == "rollback" && r.Outcome == RolledBack
	return !succeeded(r) && !withdrawn(r) && !wanted
}

func (a *Analysis) words() string {
	if a.Attempts == 0 {
		return "no deployment has been recorded"
	}
	s := fmt.Sprintf("%d of %d succeeded", a.Succeeded, a.Decided)
	if a.Decided > 0 {
		s += fmt.Sprintf(" (%.0f %%)", 100*a.SuccessRate)
	}
	for _, also := range []struct {
		n    int
		what string
	}{{a.Withdrawn, "taken back by somebody"}, {a.Rollbacks, "rolled back by hand"}} {
		if also.n > 0 {
			s += fmt.Sprintf(", %d %s", also.n, also.what)
		}
	}
	return s + fmt.Sprintf("; %d requests failed during deployments, the longest gap was %.1f s", a.FailedRequests, a.LongestGap)
}

// failures groups those of old that failed.
func failures(old []Record) []FailureClass {
	type key struct {
		phase         Phase
		reason, blame string
	}
	index := map[key]int{}
	classes := []FailureClass{}
	for _, r := range old {
		if !failed(r) {
			continue
		}
		k := key{r.At, cmp.Or(r.Reason, "unknown"), cmp.Or(r.Blame, "unknown")}
		i, ok := index[k]
		if !ok {
			i = len(classes)
			index[k] = i
			classes = append(classes, FailureClass{Phase: k.phase, Reason: k.reason, Blame: k.blame})
		}
		classes[i].Count++
		classes[i].Last = Example{Transaction: r.Transaction, Version: r.To.Version, At: r.Ended, Says: r.Says, Hint: r.Hint}
	}
	for i := range classes {
		classes[i].Says = classes[i].words()
	}
	slices.SortStableFunc(classes, func(a, b FailureClass) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.At.Compare(a.Last.At))
	})
	return classes
}

func (c FailureClass) words() string {
	times := "once"
	if c.Count > 1 {
		times = fmt.Sprintf("%d times", c.Count)
	}
	s := fmt.Sprintf("%s: %s in phase %s (%s), last with version %s", times, c.Reason, cmp.Or(c.Phase, "unknown"), c.Blame, cmp.Or(c.Last.Version, "unknown"))
	if c.Last.Says != "" {
		s += ": " + c.Last.Says
	}
	return s
}

// durations are those of the phases that were gone through to their end.
func durations(old []Record) []PhaseDuration {
	took := map[Phase][]float64{}
	for _, r := range old {
		for _, p := range r.Phases {
			if p.Phase != r.At || succeeded(r) {
				took[p.Phase] = append(took[p.Phase], p.Seconds)
			}
		}
	}
	all := []PhaseDuration{}
	for _, phase := range append(Phases(), Rollback) {
		if s := took[phase]; len(s) > 0 {
			all = append(all, PhaseDuration{Phase: phase, Count: len(s), Median: median(s), P95: percentile(s, 0.95)})
		}
	}
	return all
}

// median is 0 of nothing, and of an even number the mean of the two in the middle.
func median(v []float64) float64 {
	n := len(v)
	if n == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// percentile is the smallest value that a share p of v does not exceed.
func percentile(v []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[max(0, int(math.Ceil(p*float64(len(s))))-1)]
}

// measured are the versions that old has figures of, the newest first. Each is
// compared with the version that it replaced, or where that was never measured
// with the one that was measured before it.
func measured(old []Record) []Measured {
	all := []Measured{}
	figures := map[string][]Figures{}
	from := map[string]string{}
	for _, r := range old {
		version := r.To.Version
		if r.Figures == (Figures{}) || version == "" || r.Kind == "rollback" {
			continue
		}
		i := slices.IndexFunc(all, func(m Measured) bool { return m.Version == version })
		if i < 0 {
			i = len(all)
			all = append(all, Measured{Version: version, First: r.Started})
		}
		if r.Requests.Known {
			all[i].Requests += r.Requests.Answered
		}
		all[i].Deployments++
		figures[version] = append(figures[version], r.Figures)
		if r.From.Version != version {
			from[version] = r.From.Version
		}
	}
	for i := range all {
		version := all[i].Version
		all[i].Figures = medians(figures[version])
		if before := from[version]; len(figures[before]) > 0 {
			all[i].Before = before
		} else if i > 0 {
			all[i].Before = all[i-1].Version
		}
	}
	slices.Reverse(all)
	return all
}

// medians are those of each figure, of the values that were measured.
func medians(of []Figures) Figures {
	each := func(get func(Figures) float64) float64 {
		var v []float64
		for _, f := range of {
			if x := get(f); x > 0 {
				v = append(v, x)
			}
		}
		return median(v)
	}
	m := Figures{
		StartSeconds:  each(func(f Figures) float64 { return f.StartSeconds }),
		FirstSeconds:  each(func(f Figures) float64 { return f.FirstSeconds }),
		RealTime:      each(func(f Figures) float64 { return f.RealTime }),
		MemoryBytes:   int64(each(func(f Figures) float64 { return float64(f.MemoryBytes) })),
		HealthSeconds: each(func(f Figures) float64 { return f.HealthSeconds }),
	}
	var ratios []float64 // none is a value, too
	for _, f := range of {
		m.Runs += f.Runs
		ratios = append(ratios, f.ErrorRatio)
	}
	m.ErrorRatio = median(ratios)
	return m
}

// regressions compares each version with the one before it.
func regressions(versions []Measured) []Regression {
	worse := []Regression{}
	for _, m := range versions {
		i := slices.IndexFunc(versions, func(b Measured) bool { return b.Version == m.Before })
		if i < 0 {
			continue
		}
		before := versions[i]
		worse = append(worse, Worse(m.Version, before.Version, before.Figures, m.Figures)...)
		if r, ok := moreFailures(before, m); ok {
			worse = append(worse, r)
		}
	}
	return worse
}

// Worse lists what of a version's figures is over its limit, beside those of
// the version before: real time, memory and start. What either has not measured
// is passed over.
func Worse(version, before string, was, is Figures) []Regression {
	const mebi = 1 << 20
	var worse []Regression
	for _, c := range []struct {
		figure  string
		was, is float64
		limit   float64
		form    string
		unit    float64
	}{
		{"real_time", was.RealTime, is.RealTime, WorseRealTime, "needs %.2f s of work for a second of sound", 1},
		{"memory_bytes", float64(was.MemoryBytes), float64(is.MemoryBytes), WorseMemory, "holds %.0f MiB of memory", mebi},
		{"start_seconds", was.StartSeconds, is.StartSeconds, WorseStart, "needs %.1f s to start", 1},
	} {
		if c.was <= 0 || c.is <= c.limit*c.was {
			continue
		}
		ratio := c.is / c.was
		worse = append(worse, Regression{
			Version: version, Before: before, Figure: c.figure, Was: c.was, Is: c.is, Ratio: ratio, Limit: c.limit,
			Says: fmt.Sprintf("%s "+c.form+", %.1f times as much as %s", version, c.is/c.unit, ratio, before),
		})
	}
	return worse
}

// moreFailures tells an error ratio that is clearly higher, of enough requests.
func moreFailures(before, m Measured) (Regression, bool) {
	was, is := before.Figures.ErrorRatio, m.Figures.ErrorRatio
	if min(before.Requests, m.Requests) < fewErrors || is <= WorseErrors*was || is-was <= moreErrors {
		return Regression{}, false
	}
	r := Regression{Version: m.Version, Before: before.Version, Figure: "error_ratio", Was: was, Is: is, Limit: WorseErrors}
	if was > 0 {
		r.Ratio = is / was
	}
	r.Says = fmt.Sprintf("%s failed %.1f %% of its requests, %s %.1f %%", m.Version, 100*is, before.Version, 100*was)
	return r, true
}
