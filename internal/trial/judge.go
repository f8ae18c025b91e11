package trial

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Judge judges one trial. It is for one goroutine at a time.
type Judge struct {
	rules   Rules
	base    Baseline
	credit  Credit
	last    Sample // the one before, where there is one
	seen    bool   // there is
	ready   bool   // it was ready then
	well    bool   // nothing at all was wrong then
	short   bool   // the machine is to blame for what fails, now or then
	verdict Verdict
}

// New is a judge of a trial that begins, where credit is zero, or goes on. What
// was stored counts less a tick, in which nobody looked.
func New(base Baseline, rules Rules, credit Credit) *Judge {
	j := &Judge{rules: rules.filled(), base: base, credit: credit}
	j.credit.Speeds = slices.Clone(credit.Speeds)
	if credit.Samples == 0 {
		j.credit.Restarts = base.Restarts
	}
	j.credit.Healthy = max(0, credit.Healthy-j.rules.Tick)
	j.verdict = Verdict{Word: deployment.Inconclusive, Reason: ReasonEarly, Says: "the trial has just begun"}
	return j
}

// Reopen lets the trial go on after a verdict that was final and was not carried
// out, as a new judge would with the same credit.
func (j *Judge) Reopen() { *j = *New(j.base, j.rules, j.credit) }

// Credit is what has been seen so far, to be stored and given to New.
func (j *Judge) Credit() Credit {
	c := j.credit
	c.Speeds = slices.Clone(c.Speeds)
	return c
}

// Verdict is the one after the last Look.
func (j *Judge) Verdict() Verdict { return j.verdict }

// Look takes the next sample and gives the verdict after it. After a verdict
// that is final it gives that one.
func (j *Judge) Look(s Sample) Verdict {
	if j.verdict.Final() {
		return j.verdict
	}
	j.short = s.excused() || j.last.excused()
	reset := j.count(s)
	bad, is := j.bad(s, reset)
	why := j.wrong(s)
	j.time(s, why)
	j.last, j.seen = s, true
	if n := s.past(); n > 0 {
		j.credit.Seen = s.Ends[n-1]
	}
	switch {
	case is:
		j.verdict = bad
	default:
		j.verdict = j.standing(s, why)
	}
	j.verdict.Evidence = append(j.verdict.Evidence, j.evidence()...)
	return j.verdict
}

// time gives credit for the time since the sample before: for no more than a
// tick, because whatever happened in a longer gap was not seen, and only where
// nothing was wrong at both ends of it. Time in which somebody had stopped the
// server does not count at all.
func (j *Judge) time(s Sample, why *Verdict) {
	well := why == nil
	if j.seen && s.At > j.last.At && !s.Stopped && !j.last.Stopped {
		passed := min(s.At-j.last.At, j.rules.Tick)
		j.credit.Observed += passed
		if well && j.well {
			j.credit.Healthy += passed
		}
	}
	j.well = well
	if !well {
		j.credit.Trouble = Trouble{why.Reason, why.Blame, why.Says}
	}
}

// count takes the sample's numbers into the credit. It reports whether
// somebody has started the server anew, with which systemd's count of restarts
// begins anew.
func (j *Judge) count(s Sample) (reset bool) {
	c := &j.credit
	c.Samples++
	if s.Active != "" && s.Restarts < c.Restarts {
		c.Restarts, reset = 0, true
	}
	j.countRequests(s)
	j.countRuns(s)
	j.countMemory(s)
	j.countSmoke(s)
	j.countReadiness(s)
	return reset
}

func (j *Judge) countRuns(s Sample) {
	c := &j.credit
	for _, r := range s.Runs {
		if r.excused() {
			continue
		}
		c.Synthetic.Answered++
		if r.failed() {
			c.Synthetic.Failed++
		}
		if v := r.fair(); v > 0 {
			c.Speeds = append(c.Speeds, v)
		}
	}
	if over := len(c.Speeds) - j.rules.SpeedRuns; over > 0 {
		c.Speeds = slices.Delete(c.Speeds, 0, over)
	}
}

// countRequests adds what the server counted since the sample before. One that
// was started anew counts from 0. While the environment is to blame, or there is
// no model, failures are not held against it.
func (j *Judge) countRequests(s Sample) {
	if s.Counters == nil {
		return
	}
	c := &j.credit
	since := c.Last
	anew := s.Invocation != "" && c.Invocation != "" && s.Invocation != c.Invocation
	if anew || s.Counters.Answered < since.Answered || s.Counters.Failed < since.Failed {
		since = Counters{}
	}
	failed := s.Counters.Failed - since.Failed
	answered := s.Counters.Answered - since.Answered
	c.Last, c.Invocation = *s.Counters, cmp.Or(s.Invocation, c.Invocation)
	if s.NoModel || s.excused() {
		answered, failed = answered-failed, 0
	}
	c.Counted.Answered += max(0, answered)
	c.Counted.Failed += failed
}

func (j *Judge) countMemory(s Sample) {
	if s.Memory == 0 {
		return
	}
	j.credit.Memory, j.credit.Peak = s.Memory, max(j.credit.Peak, s.Memory)
	if budget := j.budget(); budget > 0 && s.Memory > budget {
		j.credit.Heavy++
	} else {
		j.credit.Heavy = 0
	}
}

// budget is the memory that the release may take, 0 where it is not known.
func (j *Judge) budget() int64 {
	before := j.base.Figures.MemoryBytes
	if before <= 0 {
		return 0
	}
	return int64(j.rules.MemoryFactor*float64(before)) + j.rules.MemoryMargin
}

// countSmoke counts failures in a row. One for which something else is to
// blame counts neither way; one of nothing but what failed before the update is
// none.
func (j *Judge) countSmoke(s Sample) {
	c := &j.credit
	switch {
	case s.Smoke == nil, s.Stopped:
	case s.Smoke.OK, j.knownSmoke(s.Smoke):
		c.BadSmokes, c.Smoked, c.SmokeBlame, c.SmokeSays = 0, true, "", ""
	default:
		c.SmokeBlame, c.SmokeSays = cmp.Or(s.Smoke.Blame, deployment.Candidate), s.Smoke.Says
		if c.SmokeBlame == deployment.Candidate {
			c.BadSmokes++
		}
	}
}

// knownSmoke tells a failure of nothing but what failed before the update.
func (j *Judge) knownSmoke(s *Smoke) bool {
	return len(s.Failed) > 0 && !slices.ContainsFunc(s.Failed, func(name string) bool { return !slices.Contains(j.base.Checks, name) })
}

// countReadiness counts how often the server was ready, and then no more. That
// somebody stops or restarts it is no such change, and that it ends by itself
// is counted by systemd.
func (j *Judge) countReadiness(s Sample) {
	if s.Stopped || s.Active == "activating" || s.Active == "deactivating" {
		j.ready = false
		return
	}
	ready := s.Up && j.failing(s, deployment.Candidate) == nil
	if j.ready && !ready {
		j.credit.Unready++
	}
	j.ready = ready
}

// failing is the first component that fails, is needed, did not fail before,
// and is blamed on whom ("" = whomever).
func (j *Judge) failing(s Sample, blame string) *Failing {
	for _, f := range s.Failing {
		if f.Blame == "" {
			f.Blame = deployment.Candidate
		}
		if !f.Advisory && !slices.Contains(j.base.Components, f.Name) && (blame == "" || f.Blame == blame) {
			return &f
		}
	}
	return nil
}

// Status is how the trial stands, but for its start and the tries that are
// left, which are the caller's to fill in.
func (j *Judge) Status() deployment.TrialStatus {
	c, n := j.credit, j.credit.Requests()
	return deployment.TrialStatus{
		HealthySeconds: c.Healthy.Seconds(), NeededSeconds: j.rules.Length.Seconds(), CapSeconds: j.rules.Cap.Seconds(),
		Requests: n.Answered, Failed: n.Failed, Verdict: j.verdict.Word, Reason: j.verdict.Reason, Says: j.verdict.Says,
		Evidence: slices.Clone(j.verdict.Evidence), Extended: j.extended(), Samples: c.Samples, Synthetic: int(c.Synthetic.Answered),
		SpeedRatio: j.speedRatio(), MemoryRatio: j.memoryRatio(),
	}
}

// extended reports whether the trial lasts longer than it has to.
func (j *Judge) extended() bool {
	return j.verdict.Word == deployment.Inconclusive && j.credit.Observed > j.rules.Length+2*j.rules.Tick
}

// speed is the median real-time factor of the newest runs, less the time that
// others delayed them, 0 of too few.
func (j *Judge) speed() float64 {
	if len(j.credit.Speeds) < j.rules.SpeedRuns {
		return 0
	}
	return median(j.credit.Speeds)
}

func (j *Judge) speedRatio() float64 { return ratio(j.speed(), j.base.Figures.RealTime) }

func (j *Judge) memoryRatio() float64 {
	return ratio(float64(j.credit.Memory), float64(j.base.Figures.MemoryBytes))
}

// ratio is 0 where either is not known.
func ratio(is, was float64) float64 {
	if was <= 0 {
		return 0
	}
	return is / was
}

// median is 0 of nothing.
func median(v []float64) float64 {
	n := len(v)
	if n == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(n-1)/2] + s[n/2]) / 2
}

// RealTime is the median real-time factor of the runs that had the engine for
// themselves, and how many those are. It is 0 of none.
func RealTime(runs []Run) (factor float64, of int) {
	var v []float64
	for _, r := range runs {
		if s := r.speed(); s > 0 {
			v = append(v, s)
		}
	}
	return median(v), len(v)
}

// evidence are the numbers that any verdict rests on.
func (j *Judge) evidence() []string {
	c, n := j.credit, j.credit.Requests()
	lines := []string{
		fmt.Sprintf("%v of %v healthy, %v observed, %d looks", round(c.Healthy), round(j.rules.Length), round(c.Observed), c.Samples),
		fmt.Sprintf("%d requests answered, %d failed, %d of them of our own", n.Answered, n.Failed, c.Synthetic.Answered),
	}
	if v := j.speed(); v > 0 {
		lines = append(lines, fmt.Sprintf("real-time factor %.3f, before %s", v, orUnknown(j.base.Figures.RealTime, "%.3f")))
	}
	if c.Memory > 0 {
		before := "unknown"
		if b := j.base.Figures.MemoryBytes; b > 0 {
			before = fault.Bytes(b)
		}
		lines = append(lines, fmt.Sprintf("memory %s, before %s", fault.Bytes(c.Memory), before))
	}
	return lines
}

func orUnknown(v float64, form string) string {
	if v <= 0 {
		return "unknown"
	}
	return fmt.Sprintf(form, v)
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
