package update

import (
	"cmp"
	"os"
	"slices"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
)

// doing is what goes on beside what the state says.
type doing struct {
	State    deployment.State
	Phase    deployment.Phase
	Progress deployment.Progress
	Message  string
	Trial    *deployment.TrialStatus
}

// show lets everybody see the state, and what is done just now; nil is nothing.
// That it cannot be shown stops nothing.
func (u *Updater) show(st *state, now *doing) {
	st.now = now
	if err := os.MkdirAll(u.Run, 0o755); err != nil {
		u.Log.Warn("the status cannot be shown", "error", err)
		return
	}
	if err := deployment.WriteStatus(u.Run, u.status(st, now)); err != nil {
		u.Log.Warn("the status cannot be shown", "error", err)
	}
}

// Status is how the updater is, as far as can be told without the lock.
func (u *Updater) Status() (deployment.Status, error) {
	if s, err := deployment.ReadStatus(u.Run); err == nil && !s.Interrupted {
		return s, nil
	}
	st, err := u.load()
	if err != nil {
		return deployment.Status{}, err
	}
	return u.status(st, nil), nil
}

func (u *Updater) status(st *state, now *doing) deployment.Status {
	serving, committed := u.links()
	policy, trouble := u.policyShown()
	alarm := cmp.Or(st.Alarm, trouble)
	s := deployment.Status{
		State: deployment.Idle, Message: "nothing to do", Current: u.release(serving), Stable: u.release(committed), Golden: u.release(slot.Golden),
		Floor: st.Floor, Available: st.Check.Offer, Checked: st.Check.At, CheckError: st.Check.Error, Stale: st.Check.Stale, Source: fault.Address(st.Check.Source),
		Held: st.Held, HeldBy: st.Hold.Door, HeldSince: st.Hold.At, Pinned: st.Pinned, Quarantined: st.Banned, Alarm: alarm, Last: st.Last, Updated: u.Now(), Policy: policy,
	}
	if s.Available != nil && s.Available.Version == s.Current.Version {
		s.Available = nil // it was offered before it came to serve
	}
	if st.Queued != nil {
		s.Queued = &deployment.Offer{Version: st.Queued.Version, Fetched: true}
	}
	if st.Step != idle {
		s.Transaction, s.Door, s.From, s.To = st.Attempt.Transaction, st.Attempt.Door, st.Attempt.From, st.Attempt.To
	}
	switch {
	case st.Step == onTrial:
		s.State, s.Phase, s.Message = deployment.Trial, deployment.OnTrial, "version "+st.Attempt.To.Version+" serves, and has to prove itself"
		s.Trial = &deployment.TrialStatus{TriesLeft: st.TriesLeft}
	case st.Step == rollingBack:
		s.State, s.Phase, s.Message = deployment.RollingBack, deployment.Rollback, "going back to version "+st.Attempt.From.Version
	case st.Step != idle:
		s.State, s.Message = deployment.Updating, "an update is under way"
	case alarm != nil:
		s.State, s.Message = deployment.Attention, alarm.Message
	case s.Available != nil:
		s.Message = "version " + s.Available.Version + " is available"
	}
	if now != nil {
		s.State, s.Phase, s.Progress, s.Message, s.PID = now.State, now.Phase, now.Progress, now.Message, os.Getpid()
		if now.Trial != nil {
			s.Trial = plainTrial(*now.Trial)
		}
	}
	s.Message = clip(s.Message)
	return s
}

// plainTrial is how a trial stands, in words of which a terminal takes no orders.
func plainTrial(t deployment.TrialStatus) *deployment.TrialStatus {
	t.Says, t.Evidence = clip(t.Says), slices.Clone(t.Evidence)
	for i, line := range t.Evidence {
		t.Evidence[i] = clip(line)
	}
	return &t
}

// policyShown is the policy in force, and what is wrong with the one that was
// set; where the settings cannot be read it is empty, and whatever needs it says
// so.
func (u *Updater) policyShown() (deployment.Policy, *deployment.Problem) {
	set, err := u.Settings()
	if err != nil {
		return deployment.Policy{}, nil
	}
	return deployment.Policy{Channel: set.Channel, Automatic: set.Automatic, Window: set.Window, Days: set.Days, Locked: set.Locked}, set.Trouble
}

// meter shows how far a phase is, four times a second at most.
func (u *Updater) meter(st *state, s deployment.State, p deployment.Phase, message string) func(done, total int64) {
	began, shown := u.Clock(), time.Duration(-1)
	return func(done, total int64) {
		now := u.Clock()
		if shown >= 0 && now-shown < 250*time.Millisecond && done < total {
			return
		}
		shown = now
		left := -1.0
		if spent := (now - began).Seconds(); done > 0 && spent > 0 && total > 0 {
			left = spent / float64(done) * float64(total-done)
		}
		u.show(st, &doing{State: s, Phase: p, Message: message, Progress: deployment.Progress{Done: done, Total: total, LeftSeconds: left}})
	}
}

func phaseWords(p deployment.Phase) string {
	switch p {
	case deployment.Plan:
		return "looking for the release"
	case deployment.Reserve:
		return "seeing that there is room"
	case deployment.Fetch:
		return "downloading"
	case deployment.Verify:
		return "verifying its signature"
	case deployment.Stage:
		return "unpacking"
	case deployment.Publish:
		return "reading it back from the disk"
	case deployment.Preflight:
		return "trying it in the dark"
	case deployment.Arm:
		return "measuring the release before"
	case deployment.Overlap:
		return "starting it beside the server"
	case deployment.Switch:
		return "switching"
	case deployment.TakeOver:
		return "taking over"
	case deployment.OnTrial:
		return "on trial"
	case deployment.Commit:
		return "committing"
	case deployment.Clean:
		return "cleaning up"
	}
	return "going back"
}

func validVersion(v string) error { return release.ValidVersion(v) }
