package server

import (
	"context"
	"time"

	"whisper-appliance/internal/deployment"
)

// updateFacts is what the updater shows in its files.
type updateFacts struct {
	status  deployment.Status
	records []deployment.Record
}

// readUpdates reads them. It asks no updater.
func (s *Server) readUpdates(context.Context) (updateFacts, error) {
	st, err := s.updateStatus()
	if err != nil {
		return updateFacts{}, err
	}
	list, err := s.records(0)
	return updateFacts{st, list}, err
}

// updates tells of updates what the files say now, where they can be read in
// time. A disk that hangs costs a scrape sampleLimit once.
func (c collector) updates(e emitter) {
	if c.s.Updates == nil {
		return
	}
	limit := time.NewTimer(sampleLimit)
	defer limit.Stop()
	select {
	case <-c.s.seen.updates.take(context.Background(), c.s.readUpdates):
	case <-limit.C:
	}
	facts, _, err := c.s.seen.updates.get()
	e.gauge("update_status_available", "1 while the updater's files can be read; without them there is no other metric of updates.", truth(err == nil))
	if err != nil {
		return
	}
	st := facts.status
	for _, state := range updateStates() {
		e.gauge("update_state", "1 for the state that the updater is in, 0 for the others.", truth(st.State == state), "state", string(state))
	}
	e.gauge("update_available", "1 while a newer release is on offer that would be installed.", truth(installable(st.Available)))
	e.gauge("update_alarm", "1 while somebody has to look at the updater.", truth(st.Alarm != nil))
	e.gauge("update_last_check_timestamp_seconds", "When the sources were last asked; 0 for never.", unixTime(st.Checked))
	if t := st.Trial; t != nil {
		e.gauge("update_trial_healthy_seconds", "Time for which the release on trial has been healthy.", t.HealthySeconds)
		e.gauge("update_trial_needed_seconds", "How much of it is needed.", t.NeededSeconds)
	}
	c.record(e, facts.records)
}

func (c collector) record(e emitter, list []deployment.Record) {
	outcomes := map[string]int{}
	for _, o := range []string{deployment.Committed, deployment.Kept, deployment.RolledBack, deployment.Aborted, deployment.Canceled, deployment.Failed} {
		outcomes[o] = 0
	}
	var failed int64
	for _, r := range list {
		outcomes[r.Outcome]++
		failed += r.Requests.Failed
	}
	for outcome, n := range outcomes {
		e.count("deployments_total", "Deployments in the record, by how they ended.", float64(n), "outcome", outcome)
	}
	e.count("deployment_failed_requests_total", "Requests that failed during the deployments in the record.", float64(failed))
	last, _ := lastSuccess(list)
	e.gauge("update_last_success_timestamp_seconds", "When a release was last committed; 0 for never.", unixTime(last.Ended))
}

// lastSuccess is the newest deployment that brought a release to stay.
func lastSuccess(newestFirst []deployment.Record) (r deployment.Record, ok bool) {
	for _, r := range newestFirst {
		if r.Outcome == deployment.Committed || r.Outcome == deployment.Kept {
			return r, true
		}
	}
	return r, false
}

func updateStates() []deployment.State {
	return []deployment.State{deployment.Idle, deployment.Checking, deployment.Downloading, deployment.Updating, deployment.Trial,
		deployment.RollingBack, deployment.Attention}
}

func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
