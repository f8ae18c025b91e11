package update

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/deployment"
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
	s := deployment.Status{
		State: deployment.Idle, Message: "nothing to do", Current: u.release(serving), Stable: u.release(committed), Golden: u.release(slot.Golden),
		Floor: st.Floor, Available: st.Check.Offer, Checked: st.Check.At, CheckError: st.Check.Error, Stale: st.Check.Stale, Source: st.Check.Source,
		Held: st.Held, Pinned: st.Pinned, Quarantined: st.Banned, Alarm: st.Alarm, Last: st.Last, Updated: u.Now(), Policy: u.policyShown(),
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
	case st.Alarm != nil:
		s.State, s.Message = deployment.Attention, st.Alarm.Message
	case s.Available != nil:
		s.Message = "version " + s.Available.Version + " is available"
	}
	if now != nil {
		s.State, s.Phase, s.Progress, s.Message, s.PID = now.State, now.Phase, now.Progress, now.Message, os.Getpid()
		if now.Trial != nil {
			s.Trial = now.Trial
		}
	}
	return s
}

// policyShown is the policy in force; where the settings cannot be read it is
// empty, and whatever needs it says so.
func (u *Updater) policyShown() deployment.Policy {
	set, err := u.Settings()
	if err != nil {
		return deployment.Policy{}
	}
	return deployment.Policy{Channel: set.Channel, Automatic: set.Automatic, Window: set.Window, Days: set.Days, Locked: set.Locked}
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

// cancelFile in the run directory asks whoever is at work to stop.
const cancelFile = "cancel"

// cancellable is ctx, ended as well when somebody asks for it in the run
// directory.
func (u *Updater) cancellable(ctx context.Context) (context.Context, func()) {
	path := filepath.Join(u.Run, cancelFile)
	os.Remove(path) //nolint:errcheck // an order that came too late for the one before
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if os.Remove(path) == nil {
				cancel(errCanceled)
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
		os.Remove(path) //nolint:errcheck // mostly not there
	}
}

// askToStop leaves the order to cancel.
func (u *Updater) askToStop() error {
	if err := os.WriteFile(filepath.Join(u.Run, cancelFile), nil, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return cannotWrite(u.Run, err)
	}
	return nil
}

func validVersion(v string) error { return release.ValidVersion(v) }
