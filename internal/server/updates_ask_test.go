package server

import (
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// set changes what is known of attempts.
func (a *asking) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// reset forgets them.
func (a *asking) reset() {
	a.set(func() { a.ended, a.failures, a.failed, a.checked = time.Time{}, 0, nil, time.Time{} })
}

// TestReadersOfAFailingSource: while the sources cannot be asked, readers are
// told so and cause no more attempts than one a minute, and ever fewer.
func TestReadersOfAFailingSource(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	clock := time.Now()
	r.asking.now = func() time.Time { return clock }
	read := func(code int, says ...string) {
		t.Helper()
		for range 3 {
			do(t, "GET", url+"/api/enterprise/check-updates", nil).want(t, code, says...)
		}
	}
	f.set(func() { f.refuses = fault.New(fault.Unavailable, "source_unreachable", "the line is down").Try("wait") })
	attempts := 0
	for range 2 * 60 { // two hours
		r.asking.set(func() { clock = clock.Add(time.Minute) })
		f.set(func() { f.asked = nil })
		read(503, "source_unreachable", "the line is down", "wait")
		if n := strings.Count(f.said(), "check"); n > 1 {
			t.Fatalf("%d attempts in a minute", n)
		}
		attempts += strings.Count(f.said(), "check")
	}
	if attempts < 7 || attempts > 12 {
		t.Errorf("%d attempts in two hours", attempts)
	}
	// A look that somebody else had made counts, a bad one too.
	f.set(func() { f.status.Checked = time.Now().Add(-time.Hour) })
	read(200, `"has_update":true`)
	f.set(func() {
		f.status.CheckError = &deployment.Problem{Code: "bad_signature", Message: "it is forged", Hint: "tell its publisher"}
	})
	read(503, "bad_signature", "it is forged", "tell its publisher")
	f.set(func() { f.refuses, f.status.CheckError, f.asked = nil, nil, nil })
	r.asking.set(func() { clock = clock.Add(checkLater) })
	read(200, `"has_update":true`)
	if f.said() != "check" || r.asking.failures != 0 {
		t.Errorf("asked %q, %d failures", f.said(), r.asking.failures)
	}
}

// TestBusyUpdater: one that is at work is no failure of the sources.
func TestBusyUpdater(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	f.set(func() { f.refuses = fault.New(fault.Busy, "updater_busy", "it is at work").Try("wait") })
	do(t, "GET", url+"/api/update/check", nil).want(t, 503, "updater_busy", "it is at work")
	f.set(func() { f.status.Checked = time.Now().Add(-time.Hour) })
	do(t, "GET", url+"/api/update/check", nil).want(t, 200, `"update_available":true`)
	if r.asking.failures != 0 {
		t.Errorf("%d failures", r.asking.failures)
	}
}

// TestUpdaterHasShownNothing since the machine started: what is asked of it
// makes it start, and its answer is the answer.
func TestUpdaterHasShownNothing(t *testing.T) {
	t.Parallel()
	for door, c := range map[string]struct {
		code  int
		asked string
	}{
		"GET /api/enterprise/check-updates": {200, "check"},
		"GET /api/update/check":             {200, "check"},
		"POST /api/updates/check":           {200, "check"},
		"POST /api/v1/updates/check":        {200, "check"},
		"POST /api/enterprise/start-update": {200, "apply 1.1.0"},
		"POST /api/update/install":          {200, "apply 1.1.0"},
		"POST /api/simple-update":           {200, "apply 1.1.0"},
		"POST /api/restart-service":         {202, "restart"},
		"GET /api/v1/updates":               {503, ""}, // who only looks starts nothing
		"GET /api/enterprise/update-status": {503, ""},
		"GET /api/v1/updates/last-restart":  {503, ""},
	} {
		t.Run(door, func(t *testing.T) {
			r, f := updating(t)
			f.unread = fault.New(fault.NotFound, "no_status", "it has not run").Try("run it")
			method, path, _ := strings.Cut(door, " ")
			url := r.start(t).URL
			do(t, method, url+path, nil, "Authorization", adminKey).want(t, c.code)
			if f.said() != c.asked {
				t.Errorf("asked for %q, want %q", f.said(), c.asked)
			}
		})
	}
	r, f := updating(t)
	f.unread = fault.New(fault.NotFound, "no_status", "it has not run").Try("run it")
	f.refuses = fault.New(fault.Unavailable, "updater_unreachable", "nobody answers").Try("start it")
	f.asleep = f.refuses
	url := r.start(t).URL
	for _, door := range []string{"GET /api/update/check", "POST /api/updates/check", "POST /api/update/install", "POST /api/update/restart"} {
		method, path, _ := strings.Cut(door, " ")
		do(t, method, url+path, nil, "Authorization", adminKey).want(t, 503, "updater_unreachable", "nobody answers", "start it")
	}
}

// TestWhatIsOrderedIsWhatIsTold: the version in the answer is the one that was
// asked for; what would not be installed is left to the updater to refuse; and
// what waits behind a trial has not begun.
func TestWhatIsOrderedIsWhatIsTold(t *testing.T) {
	t.Parallel()
	doors := []string{"/api/enterprise/start-update", "/api/update/install", "/api/updates/apply", "/api/simple-update"}
	r, f := updating(t)
	url := r.start(t).URL
	f.set(func() { f.waits = true })
	for _, door := range append(doors, "/api/v1/updates/apply") {
		a := do(t, "POST", url+door, nil, "Authorization", adminKey)
		a.want(t, a.status, "is fetched, and waits for the end of the trial")
		if a.status >= 300 || strings.Contains(a.body, "has begun") {
			t.Errorf("%s: %d %s", door, a.status, a.body)
		}
	}
	do(t, "POST", url+"/api/v1/updates/apply", strings.NewReader(`{"version":"1.1.0"}`), "Authorization", adminKey).want(t, 202, "version 1.1.0 is fetched, and waits")
	f.set(func() { f.waits = false })
	for _, offer := range []*deployment.Offer{nil, {Version: "1.1.0", Refused: "held: a rollback left it"}} {
		f.set(func() {
			f.status.Available, f.asked = offer, nil
			f.refuses = fault.New(fault.Conflict, "nothing_offered", "nothing newer is on offer").Try("check")
		})
		for _, door := range doors {
			do(t, "POST", url+door, nil, "Authorization", adminKey).want(t, 409, "nothing_offered")
		}
		if want := strings.TrimSuffix(strings.Repeat("apply , ", len(doors)), ", "); f.said() != want {
			t.Errorf("asked for %q", f.said())
		}
	}
}

// TestRestartIsRefused while another release is being brought, and by an updater
// that does not come; how one ended can be read.
func TestRestartIsRefused(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	for _, state := range []deployment.State{deployment.Updating, deployment.RollingBack} {
		f.set(func() { f.status.State, f.status.Message = state, "unpacking" })
		do(t, "POST", url+"/api/update/restart", nil, "Authorization", adminKey).want(t, 429, "updater_busy", "unpacking", `"success":false`)
	}
	f.set(func() {
		f.status.State = deployment.Trial
		f.asleep = fault.New(fault.Unavailable, "updater_unreachable", "it does not start").Try("see its log")
	})
	do(t, "POST", url+"/api/restart-service", nil, "Authorization", adminKey).want(t, 503, "it does not start", "see its log")
	if f.said() != "" {
		t.Errorf("asked for %q", f.said())
	}
	f.set(func() { // a download may take hours
		f.asleep, f.status.State, f.status.Phase = nil, deployment.Updating, deployment.Fetch
	})
	do(t, "POST", url+"/api/restart-service", nil, "Authorization", adminKey).want(t, 202, "/api/v1/updates/last-restart")
	f.set(func() { f.unread = fault.New(fault.NotFound, "no_restart", "none yet").Try("ask for one") })
	do(t, "GET", url+"/api/v1/updates/last-restart", nil).want(t, 404, "no_restart")
	f.set(func() {
		f.unread, f.restart = nil, deployment.Restart{Error: &deployment.Problem{Code: "not_restarted", Message: "it is as before", Hint: "see"}}
	})
	do(t, "GET", url+"/api/v1/updates/last-restart", nil).want(t, 200, `"error":{"code":"not_restarted"`)
}

// TestDamagedBackup: what cannot serve is none.
func TestDamagedBackup(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	f.releases[1].Version = ""
	url := r.start(t).URL
	a := do(t, "GET", url+"/api/update/backups", nil)
	a.want(t, 200, `"name":"golden"`)
	if strings.Contains(a.body, `"name":"b"`) {
		t.Errorf("a damaged one: %s", a.body)
	}
	do(t, "POST", url+"/api/update/rollback", strings.NewReader(`{"backup_name":"golden"}`), "Authorization", adminKey, "Content-Type", "application/json").
		want(t, 409, "whisper-appliance slot deploy")
}

// TestErrorOfTheLast: what somebody should know of, in words.
func TestErrorOfTheLast(t *testing.T) {
	t.Parallel()
	from, to := deployment.Release{Version: "1"}, deployment.Release{Version: "2"}
	for _, c := range []struct {
		record deployment.Record
		want   string
	}{
		{deployment.Record{Outcome: deployment.Committed, To: to}, ""},
		{deployment.Record{Outcome: deployment.Kept, To: to}, ""},
		{deployment.Record{Outcome: deployment.Canceled, To: to}, ""},
		{deployment.Record{Outcome: deployment.RolledBack, Kind: "rollback", To: to}, ""},
		{deployment.Record{Outcome: deployment.RolledBack, From: from, To: to, Says: "it is dumb"}, "version 2 was rolled back, and version 1 serves again: it is dumb"},
		{deployment.Record{Outcome: deployment.RolledBack, To: to, Reason: "gate"}, "version 2 was rolled back, and what was there before serves again: gate"},
		{deployment.Record{Outcome: deployment.Aborted, From: from, Says: "no room"}, "the update was not installed: no room"},
		{deployment.Record{Outcome: deployment.Failed, From: from, To: to}, "version 2 failed, and nobody can say what serves: no reason was recorded"},
	} {
		if got := lastError(deployment.Status{State: deployment.Idle}, []deployment.Record{c.record}); got != c.want {
			t.Errorf("%+v: %q, want %q", c.record, got, c.want)
		}
		if got := lastError(deployment.Status{State: deployment.Updating}, []deployment.Record{c.record}); got != "" {
			t.Errorf("while the next is under way: %q", got)
		}
		alarm := deployment.Status{State: deployment.Updating, Alarm: &deployment.Problem{Message: "look"}}
		if got := lastError(alarm, []deployment.Record{c.record}); got != "look" {
			t.Errorf("the alarm: %q", got)
		}
	}
}
