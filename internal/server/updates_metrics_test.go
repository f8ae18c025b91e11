package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

func TestUpdateMetrics(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	f.status.State, f.status.Trial = deployment.Trial, &deployment.TrialStatus{HealthySeconds: 42, NeededSeconds: 600}
	f.status.Alarm, f.status.Checked = &deployment.Problem{Code: "x"}, time.Unix(1700000000, 0)
	url := r.start(t).URL
	const prefix = "whisper_appliance_"
	do(t, "GET", url+"/metrics", nil).want(t, 200, prefix+`update_state{state="trial"} 1`, prefix+`update_state{state="idle"} 0`,
		prefix+"update_trial_healthy_seconds 42", prefix+"update_trial_needed_seconds 600", prefix+"update_alarm 1", prefix+"update_available 1",
		prefix+`deployments_total{outcome="committed"} 1`, prefix+`deployments_total{outcome="rolled_back"} 1`, prefix+`deployments_total{outcome="failed"} 0`,
		prefix+"update_last_success_timestamp_seconds 1.767323105e+09", prefix+"update_last_check_timestamp_seconds 1.7e+09", prefix+"update_status_available 1")
	if f.said() != "" {
		t.Errorf("a scrape asked for %s", f.said())
	}
	f.set(func() { f.unread = io.ErrUnexpectedEOF })
	a := do(t, "GET", url+"/metrics", nil)
	a.want(t, 200, prefix+"update_status_available 0")
	if strings.Contains(a.body, "update_state{") {
		t.Error("metrics of files that cannot be read")
	}
}
