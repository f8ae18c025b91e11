package trial

import (
	"cmp"
	"fmt"
	"strings"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// bad holds the sample against every rule that ends a trial.
func (j *Judge) bad(s Sample, reset bool) (Verdict, bool) {
	for _, rule := range []func(Sample) *Verdict{
		j.hung, j.restarted, j.smoke, j.flapping, j.errors, j.slow, j.heavy,
	} {
		if v := rule(s); v != nil {
			v.Word = deployment.Bad
			if reset {
				v.Evidence = append(v.Evidence, "systemd counts restarts anew since somebody started the server")
			}
			return *v, true
		}
	}
	return Verdict{}, false
}

func (j *Judge) hung(s Sample) *Verdict {
	if s.Watchdog <= j.base.Watchdog {
		return nil
	}
	return &Verdict{
		Reason: ReasonWatchdog, Blame: deployment.Candidate, Says: "the server hung, and systemd's watchdog ended it",
		Evidence: append([]string{fmt.Sprintf("%d kills by the watchdog, %d at the start", s.Watchdog, j.base.Watchdog)}, j.Ended(j.news(s)...).Evidence...),
	}
}

func (j *Judge) restarted(s Sample) *Verdict {
	if s.Restarts <= j.credit.Restarts {
		return nil
	}
	v := j.Ended(j.news(s)...)
	v.Evidence = append([]string{fmt.Sprintf("%d restarts by systemd, %d at the start", s.Restarts, j.credit.Restarts)}, v.Evidence...)
	return &v
}

func (j *Judge) smoke(s Sample) *Verdict {
	if j.credit.BadSmokes < failedSmokes {
		return nil
	}
	v := &Verdict{
		Reason: ReasonSmoke, Blame: deployment.Candidate, Says: fmt.Sprintf("the smoke test failed %d times in a row", j.credit.BadSmokes),
		Evidence: []string{"smoke: " + j.credit.SmokeSays},
	}
	if !s.Up {
		v.Blame = j.Ended(j.news(s)...).Blame
	}
	return v
}

func (j *Judge) flapping(Sample) *Verdict {
	if j.credit.Unready <= mostFlips {
		return nil
	}
	return &Verdict{
		Reason: ReasonFlapping, Blame: deployment.Candidate, Says: "the server is ready, and then it is not, again and again",
		Evidence: []string{fmt.Sprintf("%d times it was ready no more, %d are allowed", j.credit.Unready, mostFlips)},
	}
}

func (j *Judge) errors(Sample) *Verdict {
	n := j.credit.Requests()
	budget := max(j.rules.ErrorBudget, j.base.Figures.ErrorRatio)
	if n.Answered < j.rules.ErrorSample || float64(n.Failed) <= budget*float64(n.Answered) {
		return nil
	}
	return &Verdict{
		Reason: ReasonErrors, Blame: deployment.Candidate, Says: fmt.Sprintf("%d of %d requests failed", n.Failed, n.Answered),
		Evidence: []string{fmt.Sprintf("%.1f %% failed, %.1f %% are allowed", 100*float64(n.Failed)/float64(n.Answered), 100*budget)},
	}
}

func (j *Judge) slow(Sample) *Verdict {
	was, is := j.base.Figures.RealTime, j.speed()
	if was <= 0 || is <= j.rules.SpeedFactor*was {
		return nil
	}
	return &Verdict{
		Reason: ReasonSlow, Blame: deployment.Candidate, Says: fmt.Sprintf("it needs %.1f times as long as the release before", is/was),
		Evidence: []string{fmt.Sprintf("the median of the last %d runs on an idle engine; %.1f times is allowed", len(j.credit.Speeds), j.rules.SpeedFactor)},
	}
}

func (j *Judge) heavy(Sample) *Verdict {
	if j.credit.Heavy < heavyLooks {
		return nil
	}
	return &Verdict{
		Reason: ReasonHeavy, Blame: deployment.Candidate,
		Says:     fmt.Sprintf("it holds %s of memory, %s are allowed", fault.Bytes(j.credit.Memory), fault.Bytes(j.budget())),
		Evidence: []string{fmt.Sprintf("%d looks in a row were over the budget", j.credit.Heavy)},
	}
}

// wrong is why the time since the sample before proves nothing, nil where it does.
func (j *Judge) wrong(s Sample) *Verdict {
	switch f := j.failing(s, ""); {
	case s.Stopped:
		return &Verdict{Reason: ReasonStopped, Blame: deployment.Environment, Says: "somebody has stopped the server; the trial waits"}
	case !s.Up:
		return &Verdict{Reason: ReasonDown, Blame: j.Ended(j.news(s)...).Blame, Says: "the server does not answer"}
	case j.credit.SmokeBlame != "":
		return &Verdict{Reason: ReasonSmoke, Blame: j.credit.SmokeBlame, Says: "the smoke test failed: " + j.credit.SmokeSays}
	case f != nil:
		return &Verdict{
			Reason: ReasonFailing, Blame: f.Blame, Says: fmt.Sprintf("the component %s fails: %s", f.Name, f.Says),
			Evidence: []string{fmt.Sprintf("%s: %s", f.Name, strings.TrimSpace(f.Code+" "+f.Says))},
		}
	}
	return nil
}

// standing is the verdict where no rule was broken: good once there is proof,
// else inconclusive, at the cap for good. why is what is wrong now, nil where
// nothing is.
func (j *Judge) standing(s Sample, why *Verdict) Verdict {
	v := j.lacking(s)
	switch {
	case why != nil:
		v = *why
	case v.Reason == "":
		return Verdict{Word: deployment.Good, Reason: ReasonProven, Says: fmt.Sprintf("it was healthy for %v and answered %d requests", round(j.credit.Healthy), j.credit.Requests().Answered)}
	}
	v.Word = deployment.Inconclusive
	if v.Capped = j.capped(why); !v.Capped {
		return v
	}
	if t := j.credit.Trouble; v.Reason == ReasonEarly {
		v.Reason, v.Blame, v.Says = cmp.Or(t.Reason, ReasonUnproven), cmp.Or(t.Blame, deployment.Environment), cmp.Or(t.Says, v.Says)
	}
	v.Says = fmt.Sprintf("nothing proves the release good or bad after %v: %s", round(j.credit.Observed), v.Says)
	return v
}

// capped reports whether there was time enough for a proof. What fails by its
// own fault when that is over has as long again for the rules to decide.
func (j *Judge) capped(why *Verdict) bool {
	if why != nil && why.Blame == deployment.Candidate {
		return j.credit.Observed >= 2*j.rules.Cap
	}
	return j.credit.Observed >= j.rules.Cap
}

// lacking is what is still missing of a proof; without a Reason there is nothing.
func (j *Judge) lacking(s Sample) Verdict {
	n := j.credit.Requests()
	switch {
	case j.credit.Healthy < j.rules.Length:
		return Verdict{Reason: ReasonEarly, Says: fmt.Sprintf("%v of %v healthy so far", round(j.credit.Healthy), round(j.rules.Length))}
	case s.NoModel:
		return Verdict{Reason: ReasonNoModel, Blame: deployment.Environment, Says: "there is no model, so that nothing can be transcribed"}
	case !j.credit.Smoked:
		return Verdict{Reason: ReasonUnchecked, Blame: deployment.Environment, Says: "no smoke test has been made and passed"}
	case n.Answered-n.Failed < j.rules.Requests && s.Busy:
		return Verdict{Reason: ReasonBusy, Blame: deployment.Environment, Says: "the engine works for somebody all the time, so that nothing else could be tried"}
	case n.Answered-n.Failed < j.rules.Requests:
		return Verdict{Reason: ReasonFew, Blame: deployment.Environment, Says: fmt.Sprintf("only %d of %d requests were answered", n.Answered-n.Failed, j.rules.Requests)}
	}
	return Verdict{}
}
