package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

const adminKey = "Bearer wa_admin"

// TestOriginalUpdateKeys: each door of the original has its keys, no others,
// and points to its successor.
func TestOriginalUpdateKeys(t *testing.T) {
	t.Parallel()
	const check = "update_available current_version latest_version update_info update_info.sha update_info.message update_info.author update_info.date last_check"
	const install = "success message backup_path restart_required restart_attempted restart_success"
	const status = "status update_state checking_updates progress message deployment_type container_type current_version latest_version updates_available " +
		"last_check last_update backup_created available_backups error rollback_performed update_log enterprise_features"
	for _, c := range []struct {
		door, body string
		code       int
		keys       string
		says       []string
		asked      string
	}{
		{"GET /api/enterprise/check-updates", "", 200, "status deployment_type container_type current_version latest_version has_update release_notes last_check " +
			"enterprise_features update_method technical_solution technical_solution.problem technical_solution.solution technical_solution.benefits",
			[]string{`"status":"success"`, `"has_update":true`, `"latest_version":"1.1.0"`, `"current_version":"1.0.0"`, strings.Repeat("ü", 499) + `…"`}, "check"},
		{"POST /api/enterprise/start-update", "", 200, "status message deployment_type container_type update_method current_version latest_version backup_created features",
			[]string{`"status":"success"`, `"latest_version":"1.1.0"`, `"update_method":"blue_green"`, "tx9"}, "apply 1.1.0"},
		{"GET /api/enterprise/update-status", "", 200, status, []string{`"update_state":"idle"`, `"progress":0`, `"last_update":"2026-01-02T03:05:05Z"`,
			`"available_backups":2`, `"error":"version 1.0.1 was rolled back, and version 1.0.0 serves again: three smokes failed"`, `"rollback_performed":true`, `"container_type":null`}, ""},
		{"GET /api/update/check", "", 200, check, []string{`"update_available":true`, `"date":"2026-01-02T03:04:05Z"`}, "check"},
		{"POST /api/update/install", "", 200, install, []string{`"success":true`, `"backup_path":"slots/a"`, `"restart_required":false`}, "apply 1.1.0"},
		{"GET /api/update/status", "", 200, "repo_path current_commit update_available update_info update_info.sha update_info.message update_info.author update_info.date " +
			"last_check backups recent_commits", []string{`"backups":2`, `"current_commit":"0123456789"`, `"sha":"abcdef0"`, `"author":"http"`}, ""},
		{"GET /api/update/history", "", 200, "commits", []string{`"message":"nothing → 1.0.0: committed"`, `"author":"dpkg"`}, ""},
		{"GET /api/update/backups", "", 200, "backups", []string{`{"name":"b","path":"slots/b","date":"2026-01-02T03:04:05Z","size":9},{"name":"golden"`}, ""},
		{"POST /api/update/rollback", `{"backup_name":"b","force":true}`, 200, "success message", []string{`"success":true`, "tx9"}, "rollback"},
		{"POST /api/update/restart", "", 202, "success message", []string{`"success":true`}, "restart"},
		{"POST /api/updates/check", `{"background":true}`, 200, check, []string{`"update_available":true`}, "check"},
		{"POST /api/updates/apply", "", 200, install, []string{`"success":true`}, "apply 1.1.0"},
		{"POST /api/updates/rollback", "", 200, "success message", []string{`"success":true`}, "rollback"},
		{"GET /api/updates/status", "", 200, status, []string{`"status":"success"`}, ""},
		{"POST /api/simple-update", "", 200, "status message previous_version new_version backup_location update_method restart_required",
			[]string{`"previous_version":"1.0.0"`, `"new_version":"1.1.0"`}, "apply 1.1.0"},
		{"GET /api/check-git-updates", "", 200, "status message new_endpoint enterprise_features", []string{`"status":"deprecated"`}, ""},
		{"POST /api/restart-service", "", 202, "status message", []string{`"status":"success"`}, "restart"},
	} {
		t.Run(c.door, func(t *testing.T) {
			r, f := updating(t)
			method, path, _ := strings.Cut(c.door, " ")
			a := do(t, method, r.start(t).URL+path, strings.NewReader(c.body), "Authorization", adminKey, "Content-Type", "application/json")
			a.want(t, c.code, c.says...)
			got, want := paths(a.json(t)), strings.Fields(c.keys)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("keys %v\nwant %v", got, want)
			}
			if f.said() != c.asked {
				t.Errorf("asked for %q, want %q", f.said(), c.asked)
			}
			if a.header.Get("Deprecation") != replaced || !strings.Contains(a.header.Get("Link"), `>; rel="successor-version"`) {
				t.Errorf("headers %v", a.header)
			}
		})
	}
}

func TestUpdateDoors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		door, body string
		code       int
		says       []string
		asked      string
	}{
		{"GET /api/v1/updates", "", 200, []string{`"state":"idle"`, `"version":"1.1.0"`, `"automatic":"download"`}, ""},
		{"GET /api/v1/updates/history?limit=1", "", 200, []string{`"transaction":"tx2"`, `"reason":"smoke_failed"`}, ""},
		{"GET /api/v1/deployments?limit=1", "", 200, []string{`"transaction":"tx2"`, `"analysis":{"says":"1 of 2 succeeded (50 %)`, `"success_rate":0.5`, `"reason":"smoke_failed"`}, ""},
		{"GET /api/v1/deployments?limit=0", "", 422, []string{"limit"}, ""},
		{"POST /api/v1/updates/check", "", 200, []string{`"update_available":true`, `"version":"1.1.0"`}, "check"},
		{"POST /api/v1/updates/download", "", 202, []string{"fetching what is on offer"}, "download "},
		{"POST /api/v1/updates/download", `{"version":"1.1.0"}`, 202, []string{"fetching 1.1.0"}, "download 1.1.0"},
		{"POST /api/v1/updates/apply", `{"version":"1.1.0"}`, 202, []string{`"transaction":"tx9"`}, "apply 1.1.0"},
		{"POST /api/v1/updates/apply", `{"version":"v1.1.0"}`, 202, []string{"the update to 1.1.0 has begun as tx9"}, "apply 1.1.0"},
		{"POST /api/v1/updates/apply", "", 202, []string{"the update has begun as tx9"}, "apply "},
		{"POST /api/v1/updates/apply", `{"verison":"1.1.0"}`, 422, []string{"verison"}, ""},
		{"POST /api/v1/updates/apply", `{`, 400, nil, ""},
		{"POST /api/v1/updates/rollback", "", 202, []string{`"transaction":"tx9"`}, "rollback"},
		{"POST /api/v1/updates/cancel", "", 202, nil, "cancel"},
		{"GET /api/v1/updates/last-restart", "", 200, []string{`"invocation":"0123"`}, ""},
		{"POST /api/v1/updates/restart", "", 202, []string{"verifies"}, "restart"},
		{"PUT /api/v1/updates/policy", `{"channel":"beta","days":[]}`, 204, nil, "policy true []"},
		{"PUT /api/v1/updates/policy", `{"channel":5}`, 422, nil, ""},
	} {
		t.Run(c.door, func(t *testing.T) {
			r, f := updating(t)
			method, path, _ := strings.Cut(c.door, " ")
			a := do(t, method, r.start(t).URL+path, strings.NewReader(c.body), "Authorization", adminKey, "Content-Type", "application/json")
			a.want(t, c.code, c.says...)
			if f.said() != c.asked {
				t.Errorf("asked for %q, want %q", f.said(), c.asked)
			}
			if strings.Contains(path, "limit=1") && strings.Count(a.body, `"outcome":"committed"`) > 1 {
				t.Errorf("more than one record in %s", a.body)
			}
		})
	}
}

// TestUpdateFailures: each kind of failure has its status and the updater's
// words, at the doors of today and at the original's.
func TestUpdateFailures(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	for _, c := range []struct {
		err   error
		order int // status of what was ordered
		read  int // status of a look that has the sources asked
	}{
		{fault.New(fault.Unavailable, "updater_unreachable", "the updater does not answer").Try("start it"), 503, 503},
		{fault.New(fault.Unavailable, "no_source", "no source of releases is configured").Try("name one"), 503, 503},
		{fault.New(fault.Forbidden, "updater_denied", "the bus does not let this user").Try("reload it"), 503, 503},
		{fault.New(fault.Forbidden, "not_offered", "only what is on offer").Try("check"), 409, 503},
		{fault.New(fault.Conflict, "nothing_offered", "nothing newer is on offer").Try("check"), 409, 503},
		{fault.New(fault.Conflict, "quarantined", "that version is quarantined").Try("wait"), 409, 503},
		{fault.New(fault.Unsupported, "wrong_arch", "a release for another machine").Try("take another"), 409, 503},
		{fault.New(fault.NotFound, "no_such_release", "not on offer").Try("check"), 404, 503},
		{fault.New(fault.NoSpace, "disk_full", "5 bytes are missing").Try("delete some"), 507, 503},
		{fault.New(fault.Busy, "busy", "another update is under way").Try("wait"), 429, 200},
		{fault.New(fault.Internal, "odd", "our mistake").Try("tell"), 500, 503},
		{fault.New(fault.Conflict, deployment.RolledBack, "it came back").Try("see the record"), 409, 503},
		{errors.New("insides"), 500, 500},
	} {
		words := []string{"internal_error"}
		var worded *fault.Error
		if errors.As(c.err, &worded) {
			words = []string{worded.Code, worded.Message, worded.Hint}
		}
		f.set(func() { f.refuses, f.status.Checked = c.err, time.Now().Add(-time.Hour) })
		r.asking.reset()
		for _, door := range []string{"/api/v1/updates/apply", "/api/v1/updates/rollback", "/api/v1/updates/restart"} {
			do(t, "POST", url+door, nil, "Authorization", adminKey).want(t, c.order, words...)
		}
		for _, door := range []string{"/api/enterprise/start-update", "/api/update/install", "/api/update/restart", "/api/simple-update", "/api/restart-service"} {
			a := do(t, "POST", url+door, nil, "Authorization", adminKey)
			a.want(t, c.order, append(words, `"status":"error"`, `"success":false`, `"error_details":"`, `"backup_available":true`,
				fmt.Sprintf(`"rollback_performed":%v`, words[0] == deployment.RolledBack))...)
			if a.header.Get("Deprecation") == "" {
				t.Errorf("%s fails without a pointer", door)
			}
		}
		for _, door := range []string{"/api/enterprise/check-updates", "/api/update/check"} {
			a := do(t, "GET", url+door, nil)
			if c.read == 200 {
				a.want(t, 200, `"1.1.0"`)
			} else if worded != nil {
				a.want(t, c.read, `"status":"error"`, worded.Message, worded.Hint)
			} else {
				a.want(t, c.read, `"status":"error"`)
			}
		}
	}
}

// TestUpdaterAway: without an updater, or with one that has shown nothing,
// what needs it says why, and everything else goes on.
func TestUpdaterAway(t *testing.T) {
	t.Parallel()
	for code, with := range map[string]func(*rig, *fakeUpdates){
		"no_updater": func(r *rig, _ *fakeUpdates) { r.Updates = nil },
		"no_status": func(_ *rig, f *fakeUpdates) {
			f.unread = fault.New(fault.NotFound, "no_status", "it has not run").Try("run it")
			f.refuses, f.asleep = f.unread, f.unread
		},
		"updater_unreadable": func(_ *rig, f *fakeUpdates) { f.unread = io.ErrUnexpectedEOF },
	} {
		t.Run(code, func(t *testing.T) {
			r, f := updating(t)
			with(r, f)
			url := r.start(t).URL
			for path, methods := range doorList() {
				about := strings.HasPrefix(path, "/api/v1/updates") || originalUpdatePath(path) || path == "/api/v1/deployments"
				orders := methods[0] != "GET" && code != "no_updater" // the bus may work where files cannot be read
				if !about || orders || path == "/api/check-git-updates" || path == "/api/enterprise/deployment-info" {
					continue
				}
				if methods[0] == "PUT" {
					do(t, "PUT", url+path, strings.NewReader("{}"), "Authorization", adminKey).want(t, 503, code)
					continue
				}
				body := strings.NewReader(`{"backup_name":"b"}`)
				if strings.HasPrefix(path, "/api/v1/") {
					body = strings.NewReader("")
				}
				a := do(t, methods[0], url+path, body, "Authorization", adminKey, "Content-Type", "application/json")
				a.want(t, 503, code, `"hint":"`)
			}
			do(t, "GET", url+"/health", nil).want(t, 200, `"status":"ok"`)
			do(t, "GET", url+"/api/check-git-updates", nil).want(t, 200)
			do(t, "GET", url+"/metrics", nil).want(t, 200, "whisper_appliance_ready 1")
			post(t, url+"/v1/audio/transcriptions", recording("file"), part{name: "model", value: "whisper-1"}).want(t, 200, "Part")
		})
	}
}

// TestEnterpriseDegrades: every enterprise door has its answer for when what is
// behind it is away: the reason with the original's keys, or what there is
// without it. A door that is new has to be given one.
func TestEnterpriseDegrades(t *testing.T) {
	t.Parallel()
	const info, check, start, status = "/api/enterprise/deployment-info", "/api/enterprise/check-updates", "/api/enterprise/start-update", "/api/enterprise/update-status"
	gone := fault.New(fault.Unavailable, "updater_unreachable", "the updater does not answer").Try("start it")
	says := []string{`"status":"error"`, `"message":"`, `"hint":"`}
	for name, c := range map[string]struct {
		breaks func(*rig, *fakeUpdates)
		code   string         // of the reason
		want   map[string]int // by door
	}{
		"no updater": {func(r *rig, _ *fakeUpdates) { r.Updates = nil }, "no_updater", map[string]int{info: 200, check: 503, start: 503, status: 503}},
		"it does not answer": {func(_ *rig, f *fakeUpdates) {
			f.refuses, f.asleep = gone, gone
			f.status.Checked = time.Now().Add(-time.Hour)
		},
			"updater_unreachable", map[string]int{info: 200, check: 503, start: 503, status: 200}},
		"its files cannot be read": {func(_ *rig, f *fakeUpdates) { f.unread = io.ErrUnexpectedEOF }, "updater_unreadable",
			map[string]int{info: 200, check: 503, start: 503, status: 503}},
		"no components": {func(r *rig, _ *fakeUpdates) { r.Components = nil }, "", map[string]int{info: 200, check: 200, start: 200, status: 200}},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := updating(t)
			c.breaks(r, f)
			url := r.start(t).URL
			for path, methods := range doorList() {
				if !strings.HasPrefix(path, "/api/enterprise/") {
					continue
				}
				want, known := c.want[path]
				if !known {
					t.Errorf("%s: nothing says what it answers then", path)
					continue
				}
				a := do(t, methods[0], url+path, nil, "Authorization", adminKey)
				switch {
				case want != 200:
					a.want(t, want, append(says, c.code)...)
				case path == info: // what does not work is false, and says why
					a.want(t, 200, `"status":"success"`, `"zero_downtime_updates":false`, `"feature_reasons":{"automatic_rollback":"it needs the updater: `)
				default:
					a.want(t, 200, `"status":"success"`)
				}
			}
		})
	}
}

// TestWhoMayUpdate: reading is for those who may transcribe, changing for
// administrators.
func TestWhoMayUpdate(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	h := r.Handler()
	for path, methods := range doorList() {
		about := strings.HasPrefix(path, "/api/v1/updates") || originalUpdatePath(path) || path == "/api/v1/deployments"
		if !about || path == "/api/v1/updates/events" {
			continue
		}
		method, reading := methods[0], methods[0] == "GET"
		without, user := 401, 403
		if reading {
			without, user = 200, 200
		}
		if w := ask(h, remote, method, path); w.Code != 401 {
			t.Errorf("%s %s from afar: %d", method, path, w.Code)
		}
		if w := ask(h, lan, method, path); w.Code != without {
			t.Errorf("%s %s from the network: %d, want %d", method, path, w.Code, without)
		}
		before := f.said()
		if w := ask(h, remote, method, path, "Authorization", "Bearer wa_user"); w.Code != user {
			t.Errorf("%s %s with a user's key: %d, want %d", method, path, w.Code, user)
		}
		if !reading && f.said() != before {
			t.Errorf("%s %s was ordered by a user", method, path)
		}
		if w := ask(h, remote, method, path, "Authorization", adminKey); w.Code == 401 || w.Code == 403 {
			t.Errorf("%s %s with an admin's key: %d", method, path, w.Code)
		}
	}
	if w := ask(h, remote, "GET", "/api/v1/updates/events"); w.Code != 401 {
		t.Errorf("events from afar: %d", w.Code)
	}
}

func TestRollbackNames(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	for body, c := range map[string]struct {
		code int
		says string
	}{
		`{"backup_name":"b"}`:           {200, "tx9"},
		`{"backup_name":"a"}`:           {404, "no_such_backup"}, // it serves
		`{"backup_name":"backup_2025"}`: {404, "no_such_backup"},
		`{"backup_name":"golden"}`:      {409, "not_by_name"},
		`{"backup_name":"../a"}`:        {400, "no path"},
		`{"backup_name":"/etc/passwd"}`: {400, "no path"},
		`{"backup_name":"..\\..\\a"}`:   {400, "no path"},
		`{"backup_name":"b\u0000"}`:     {400, "no path"},
		`{"backup_name":".."}`:          {400, "no path"},
		`{"backup_name":""}`:            {400, "missing"},
		`{}`:                            {400, "missing"},
		``:                              {400, "missing"},
		`{"backup_name":5}`:             {422, "backup_name"},
		`not json`:                      {400, ""},
	} {
		before := f.said()
		do(t, "POST", url+"/api/update/rollback", strings.NewReader(body), "Authorization", adminKey, "Content-Type", "application/json").want(t, c.code, c.says)
		if c.code != 200 && f.said() != before {
			t.Errorf("%s: asked for %s", body, f.said())
		}
	}
	do(t, "POST", url+"/api/updates/rollback", strings.NewReader(`{"backup_name":"c"}`), "Authorization", adminKey, "Content-Type", "application/json").want(t, 404)
}

// TestReadersCheckNowAndThen: a look by somebody who may only read has the
// sources asked at most once a minute.
func TestReadersCheckNowAndThen(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	for range 3 {
		do(t, "GET", url+"/api/enterprise/check-updates", nil).want(t, 200, `"has_update":true`)
	}
	if f.said() != "check" {
		t.Errorf("asked %q", f.said())
	}
	var later time.Duration
	r.asking.set(func() { r.asking.now = func() time.Time { return time.Now().Add(later) } })
	for _, then := range []time.Time{time.Now().Add(-2 * checkEvery), time.Now().AddDate(10, 0, 0)} { // old, or the clock was wrong
		r.asking.set(func() { later += checkEvery })
		f.set(func() { f.asked = nil })
		for range 3 {
			f.set(func() { f.status.Checked = then })
			do(t, "GET", url+"/api/update/check", nil).want(t, 200)
		}
		if f.said() != "check" {
			t.Errorf("at %v: asked %q", then, f.said())
		}
	}
	// While one waits, others are told what is known, and that nothing is.
	release := make(chan struct{})
	long := time.Now().Add(-time.Hour)
	r.asking.set(func() { later += checkEvery })
	f.set(func() { f.status.Checked, f.during = long, func(context.Context) { <-release } })
	first := make(chan answered)
	go func() { first <- do(t, "GET", url+"/api/update/check", nil) }()
	eventually(t, "the question", func() bool { return strings.Count(f.said(), "check") == 2 })
	do(t, "GET", url+"/api/update/check", nil).want(t, 200, stamp(long))
	f.set(func() { f.status.Checked = time.Time{} })
	do(t, "GET", url+"/api/update/check", nil).want(t, 503, "not_checked", `"hint":"`)
	close(release)
	(<-first).want(t, 200, `"update_available":true`)
}

// TestRestartDoesNotWait: the answer comes although the updater's does not
// come before this server has ended.
func TestRestartDoesNotWait(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	f.during = func(ctx context.Context) { <-ctx.Done() }
	f.refuses = fault.New(fault.Unavailable, "updater_unreachable", "not in time").Because(context.DeadlineExceeded)
	began := time.Now()
	do(t, "POST", r.start(t).URL+"/api/restart-service", nil, "Authorization", adminKey).want(t, 202, `"status":"success"`)
	if took := time.Since(began); took > 5*refuseLimit {
		t.Errorf("it took %v", took)
	}
}

func TestSocketIOIsGone(t *testing.T) {
	t.Parallel()
	r, _ := updating(t)
	url := r.start(t).URL
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"} {
		for _, path := range []string{"/socket.io", "/socket.io/", "/socket.io/?EIO=4&transport=polling", "/socket.io/a/b"} {
			do(t, method, url+path, nil).want(t, 410, `"code":"gone"`, "/api/v1/transcriptions")
		}
	}
	do(t, "GET", url+"/socket.iox", nil).want(t, 404)
}

func TestEnterpriseStatusOfAnUpdate(t *testing.T) {
	t.Parallel()
	r, f := updating(t)
	url := r.start(t).URL
	for _, c := range []struct {
		state deployment.State
		phase deployment.Phase
		says  []string
	}{
		{deployment.Checking, "", []string{`"update_state":"idle"`, `"checking_updates":true`, `"progress":0`}},
		{deployment.Downloading, deployment.Fetch, []string{`"update_state":"updating"`, `"progress":17`}}, // two phases of 14, and half of the third
		{deployment.Trial, deployment.OnTrial, []string{`"update_state":"updating"`, `"progress":81`}},     // eleven, and 40 of 100 s
		{deployment.RollingBack, deployment.Rollback, []string{`"update_state":"updating"`, `"progress":0`}},
		{deployment.Attention, "", []string{`"update_state":"idle"`, `"error":"look here"`}},
	} {
		f.set(func() {
			f.status.State, f.status.Phase, f.status.Progress = c.state, c.phase, deployment.Progress{Done: 1, Total: 2}
			f.status.Trial = &deployment.TrialStatus{HealthySeconds: 40, NeededSeconds: 100}
			f.status.Alarm = nil
			if c.state == deployment.Attention {
				f.status.Alarm = &deployment.Problem{Message: "look here"}
			}
		})
		do(t, "GET", url+"/api/enterprise/update-status", nil).want(t, 200, c.says...)
	}
	f.set(func() {
		f.status.Alarm, f.status.CheckError, f.records = nil, &deployment.Problem{Message: "no way out"}, nil
	})
	do(t, "GET", url+"/api/enterprise/update-status", nil).want(t, 200, `"error":"no way out"`, `"last_update":null`, `"update_log":[]`)
}

// TestModulesWithAnUpdater: what the original claimed is claimed where the
// component is well.
func TestModulesWithAnUpdater(t *testing.T) {
	t.Parallel()
	r, _ := updating(t)
	check := &breakable{}
	registry, err := component.New([]component.Component{{Name: "updater", Does: "updates", Check: check.check, Every: time.Hour}}, r.Log)
	if err == nil {
		err = registry.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Components = registry
	url := r.start(t).URL
	do(t, "GET", url+"/health/detailed", nil).want(t, 200, `"update":true`)
	do(t, "GET", url+"/api/enterprise/deployment-info", nil).want(t, 200, `"zero_downtime_updates":true`, `"automatic_rollback":true`)
	do(t, "GET", url+"/api/enterprise/check-updates", nil).want(t, 200, `"enterprise_features":["zero_downtime_updates","permission_safe_operations"`)
}
