package update

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/trial"
)

// Watch judges the trial that runs until it has ended, and then installs what
// was queued behind it. Without a trial it returns at once. A switch that goes on
// is waited for, and one that was cut off is settled. It takes the lock only for
// what it writes; whoever else ends the trial meanwhile is found out. The end of
// ctx leaves the trial to a later call.
func (u *Updater) Watch(ctx context.Context) error {
	st, err := u.switched(ctx)
	if err != nil {
		return err
	}
	if (st.Step == onTrial || st.Step == rollingBack) && u.Site.Look != nil {
		if err := u.watch(ctx, st); err != nil {
			return err
		}
	}
	return u.takeQueued(ctx)
}

// switched is the state once no link is about to move: whoever was about to has
// done so, or does not live any more, and then it is settled.
func (u *Updater) switched(ctx context.Context) (*state, error) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		st, err := u.load()
		if err != nil || st.Step != armed {
			return st, err
		}
		if _, err := u.Recover(ctx, false); err != nil && !hasCode(err, "slots_busy") {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// glance is between two looks at a switch that goes on.
const glance = 100 * time.Millisecond

// watch is the trial's loop. One look is a function of its own.
func (u *Updater) watch(ctx context.Context, st *state) error {
	rules := u.rules()
	judge := trial.New(st.Baseline, rules, st.Credit)
	tick := time.NewTicker(rules.Tick)
	defer tick.Stop()
	for n := 0; ; n++ {
		over, err := u.look(ctx, st.Attempt.Transaction, judge, n)
		if over || ctx.Err() != nil {
			return err
		}
		if err != nil { // a full disk, or systemd is away: the trial goes on
			u.Log.Error("what the trial came to cannot be done yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// rules are what a trial is judged by.
func (u *Updater) rules() trial.Rules {
	set, err := u.Settings()
	if err != nil {
		u.Log.Warn("the settings cannot be read: the trial goes on by the defaults", "error", err)
		set = Settings{Update: config.Default().Update}
	}
	return rulesOf(set)
}

// ended is what is to be said of how runs of the candidate have ended since its
// transaction began, but for those that a look has found nobody to answer for.
// known is that somebody has noted any.
func (u *Updater) ended(st *state) (said trial.Verdict, known bool) {
	if u.Site.Ends == nil {
		return said, false
	}
	began := st.Attempt.Started.Add(-noteSlack).Unix()
	ends := slices.DeleteFunc(st.Credit.Fresh(u.Site.Ends(st.Attempt.To.Slot)), func(e trial.End) bool {
		return e.At != 0 && e.At < began // of what lay in the slot before
	})
	if len(ends) == 0 {
		return said, false
	}
	return trial.New(st.Baseline, u.rules(), st.Credit).Ended(ends...), true
}

// noteSlack is what the gate's clock, which has whole seconds, may be behind.
const noteSlack = 2 * time.Second

// rulesOf are the settings' rules. A short trial is looked at more often.
func rulesOf(set Settings) trial.Rules {
	often := cmp.Or(set.Tick, min(max(set.Trial/40, time.Second), 30*time.Second))
	return trial.Rules{Length: set.Trial, Cap: 3 * set.Trial, Tick: often}
}

// look takes one sample and does what follows from it. over says that the trial
// has ended, by this or by somebody else. A release that was found good, and could
// not be committed yet, has to be good at later looks, too.
func (u *Updater) look(ctx context.Context, transaction string, judge *trial.Judge, n int) (over bool, err error) {
	over, err = u.lookOnce(ctx, transaction, judge, n)
	if v := judge.Verdict(); !over && v.Final() && v.Word != deployment.Bad {
		judge.Reopen()
	}
	return over, err
}

func (u *Updater) lookOnce(ctx context.Context, transaction string, judge *trial.Judge, n int) (over bool, err error) {
	sample, err := u.Site.Look(ctx, n%2 == 0)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		u.Log.Warn("the server on trial cannot be looked at", "error", err)
		return false, nil
	}
	v := judge.Look(sample)
	lock := u.lock
	if v.Word != deployment.Inconclusive || v.Capped { // a download must not keep a verdict waiting
		lock = u.lockFirst
	}
	unlock, err := lock("the trial")
	if hasCode(err, "slots_busy") {
		return false, nil // the next look finds out what became of it
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	st, err := u.load()
	if err != nil {
		return false, err
	}
	if st.Attempt.Transaction != transaction || st.Step != onTrial && st.Step != rollingBack {
		return true, nil
	}
	if st.Step == rollingBack {
		err := u.goBack(ctx, st, false)
		return err == nil, err
	}
	serving, _ := u.links()
	seen := st.Credit.Seen
	st.Credit = judge.Credit()
	if serving != st.Attempt.To.Slot {
		st.Credit.Seen = seen // what was looked at last may be the release before
		err := u.settleTrial(ctx, st, false, false)
		return err == nil, err
	}
	return u.act(ctx, st, judge, v)
}

// keptWithoutProof is the code of the alarm about a release that serves, and is
// none to be afraid of.
const keptWithoutProof = "kept_without_proof"

// act does what a verdict asks for.
func (u *Updater) act(ctx context.Context, st *state, judge *trial.Judge, v trial.Verdict) (over bool, err error) {
	st.Attempt.Requests.Answered, st.Attempt.Requests.Failed, st.Attempt.Requests.Known = counted(st.Credit)
	switch {
	case v.Word == deployment.Bad:
		err = u.beginRollback(ctx, st, verdict{reason: v.Reason, blame: v.Blame, says: v.Says, evidence: v.Evidence}, false)
		return err == nil, err
	case v.Word == deployment.Good:
		st.Attempt.Figures = u.measure(ctx)
		st.Attempt.Says, st.Attempt.Evidence = v.Says, append(st.Attempt.Evidence, v.Evidence...)
		err = u.commit(st, deployment.Committed)
		return err == nil, err
	case v.Capped:
		st.Attempt.Reason, st.Attempt.Says, st.Attempt.Blame = v.Reason, v.Says, v.Blame
		st.Attempt.Evidence = append(st.Attempt.Evidence, v.Evidence...)
		st.raise(&deployment.Problem{Code: keptWithoutProof, At: u.Now(),
			Message: fmt.Sprintf("version %s serves and was kept, but its trial proved nothing: %s", st.Attempt.To.Version, v.Says),
			Hint:    "see that it transcribes; `whisper-appliance update rollback` goes back"})
		err = u.commit(st, deployment.Kept)
		return err == nil, err
	}
	status := judge.Status()
	status.TriesLeft, status.Started = st.TriesLeft, st.Attempt.Started
	err = u.save(st)
	u.show(st, &doing{State: deployment.Trial, Phase: deployment.OnTrial, Trial: &status, Message: fmt.Sprintf("version %s is on trial: %s", st.Attempt.To.Version, v.Says)})
	return false, err
}

func counted(c trial.Credit) (answered, failed int64, known bool) {
	return c.Counted.Answered + c.Synthetic.Answered, c.Counted.Failed + c.Synthetic.Failed, c.Samples > 0
}

// measure notes what later releases are compared with.
func (u *Updater) measure(ctx context.Context) deployment.Figures {
	if u.Site.Figures == nil {
		return deployment.Figures{}
	}
	f, err := u.Site.Figures(ctx)
	if err != nil {
		u.Log.Warn("the release's figures are not known", "error", err)
	}
	return f
}

// Trial tells whether a trial runs, is about to or is being taken back, or
// something waits for its end.
func (u *Updater) Trial() (bool, error) {
	st, err := u.load()
	if err != nil {
		return false, err
	}
	return st.Step == armed || st.Step == onTrial || st.Step == rollingBack || st.Queued != nil, nil
}

// watched sees to it that somebody watches.
func (u *Updater) watched(ctx context.Context) error {
	if u.Site.Watch == nil {
		return nil
	}
	return u.Site.Watch(context.WithoutCancel(ctx))
}

// settled is settle for a verb: a trial that it meets is watched from then on,
// though whoever was to do so has died.
func (u *Updater) settled(ctx context.Context) (*state, error) {
	st, err := u.settle(ctx, false)
	if waits, terr := u.Trial(); terr != nil || !waits {
		return st, err
	}
	if werr := u.watched(ctx); werr != nil {
		u.Log.Error("a release is on trial", "error", werr)
	}
	return st, err
}
