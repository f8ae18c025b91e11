package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/update"
)

// noon is a time as the words have it, whatever the clock of the machine.
func noon() time.Time { return time.Date(2026, 3, 4, 12, 30, 0, 0, time.Local) }

func TestStatusWords(t *testing.T) {
	a := deployment.Release{Version: "1.0.0", Slot: "a"}
	b := deployment.Release{Version: "1.1.0", Slot: "b"}
	golden := deployment.Release{Version: "0.9.0", Slot: "golden"}
	settled := deployment.Status{State: deployment.Idle, Message: "nothing to do", Current: a, Stable: a, Golden: golden}
	with := func(change func(s *deployment.Status)) deployment.Status {
		s := settled
		change(&s)
		return s
	}
	const serves = "serves      1.0.0 in slot a\npackage     0.9.0 in slot golden\n"
	for _, tt := range []struct {
		name   string
		status deployment.Status
		want   string
	}{
		{"nothing installed", deployment.Status{State: deployment.Idle, Message: "nothing to do"}, "state       nothing to do\nserves      nothing\npackage     nothing\n"},
		{"idle", settled, "state       nothing to do\n" + serves},
		{"checking", with(func(s *deployment.Status) { s.State, s.Message = deployment.Checking, "asking" }), "state       asking\ndoing       checking\n" + serves},
		{"downloading", with(func(s *deployment.Status) {
			s.State, s.Phase, s.Message = deployment.Downloading, deployment.Fetch, "downloading version 1.1.0"
			s.Progress = deployment.Progress{Done: 3 << 20, Total: 6 << 20, LeftSeconds: 61}
		}), "state       downloading version 1.1.0\ndoing       fetch, 3 MiB of 6 MiB, 1m1s left\n" + serves},
		{"of unknown speed", with(func(s *deployment.Status) {
			s.State, s.Phase, s.Message = deployment.Updating, deployment.Stage, "unpacking"
			s.Progress = deployment.Progress{Done: 1 << 20, Total: 6 << 20, LeftSeconds: -1}
		}), "state       unpacking\ndoing       stage, 1 MiB of 6 MiB\n" + serves},
		{"trial", with(func(s *deployment.Status) {
			s.State, s.Phase, s.Message, s.Current = deployment.Trial, deployment.OnTrial, "version 1.1.0 is on trial", b
			s.Trial = &deployment.TrialStatus{HealthySeconds: 90, NeededSeconds: 600, Requests: 7, Failed: 1, Says: "so far so good", Evidence: []string{"7 requests"}}
			s.Queued = &deployment.Offer{Version: "1.2.0"}
		}), "state       version 1.1.0 is on trial\ndoing       trial\nserves      1.1.0 in slot b\nway back    1.0.0 in slot a\npackage     0.9.0 in slot golden\n" +
			"trial       1m30s of 10m0s healthy, 7 requests, 1 failed; so far so good\n            7 requests\nqueued      version 1.2.0, for the end of the trial\n"},
		{"going back", with(func(s *deployment.Status) {
			s.State, s.Phase, s.Message, s.Current = deployment.RollingBack, deployment.Rollback, "going back to version 1.0.0", b
		}), "state       going back to version 1.0.0\ndoing       rollback\nserves      1.1.0 in slot b\nway back    1.0.0 in slot a\npackage     0.9.0 in slot golden\n"},
		{"attention", with(func(s *deployment.Status) {
			s.State, s.Message = deployment.Attention, "slot a is damaged"
			s.Alarm = &deployment.Problem{Code: "slot_damaged", Message: "slot a is damaged", Hint: "apt reinstall whisper-appliance"}
		}), "state       slot a is damaged\n" + serves + "ALARM       slot a is damaged\n            try: apt reinstall whisper-appliance\n"},
		{"all that may be told", with(func(s *deployment.Status) {
			s.Available = &deployment.Offer{Version: "1.1.0", Channel: "stable", Bytes: 5 << 20, Fetched: true, Refused: "held", Notes: "many\nlines"}
			s.Checked, s.Source, s.Stale = noon(), "/srv/releases", noon()
			s.CheckError = &deployment.Problem{Message: "no source answers"}
			s.Pinned, s.Held = "1.0.0", "1.1.0"
			s.Last = &deployment.Record{Kind: "update", From: a, To: b, Outcome: deployment.RolledBack, Says: "it crashed\nthrice", Ended: noon()}
		}), "state       nothing to do\n" + serves + "on offer    version 1.1.0 (stable, 5 MiB) is on offer, and fetched; it is not installed by itself: held\n" +
			"checked     2026-03-04 12:30, /srv/releases\ncheck       failed: no source answers\nsource      not renewed since 2026-03-04 12:30\npinned      version 1.0.0\n" +
			"held        version 1.1.0 is not installed by itself: it was left by a rollback\nlast        2026-03-04 12:30: update of 1.0.0 to 1.1.0 rolled back: it crashed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := statusWords(tt.status); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// TestGoneWords: a status outlives the process that showed it.
func TestGoneWords(t *testing.T) {
	const none = 1 << 30 // more than any process has
	if got := goneWords(0) + goneWords(os.Getpid()); got != "" {
		t.Errorf("of nobody and of one that lives: %q", got)
	}
	if got := goneWords(none); !strings.Contains(got, "1073741824") || !strings.Contains(got, "update recover") {
		t.Errorf("of one that is gone: %q", got)
	}
}

func TestHistoryWords(t *testing.T) {
	if historyWords(nil) != "no update was tried yet" {
		t.Error(historyWords(nil))
	}
	record := func(kind, outcome, says string, took time.Duration) deployment.Record {
		return deployment.Record{Kind: kind, Door: deployment.DoorTimer, To: deployment.Release{Version: "1.1.0"}, Outcome: outcome, Says: says, Started: noon().Add(-took), Ended: noon()}
	}
	got := historyWords([]deployment.Record{
		record("update", deployment.Committed, "", 90*time.Second),
		record("switch", deployment.RolledBack, "it crashed\nthrice", time.Second),
		record("deploy", deployment.Aborted, strings.Repeat("ä", 80), -time.Hour),
	})
	want := `ENDED             DOOR   KIND    FROM  TO     OUTCOME      TOOK   SAYS
2026-03-04 12:30  timer  update  -     1.1.0  committed    1m30s  
2026-03-04 12:30  timer  switch  -     1.1.0  rolled_back  1s     it crashed
2026-03-04 12:30  timer  deploy  -     1.1.0  aborted      0s     ` + strings.Repeat("ä", 50) + "…\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestAnalysisWords(t *testing.T) {
	got := analysisWords(deployment.Analysis{Says: "1 of 2 succeeded", Failures: []deployment.FailureClass{{Count: 2, Says: "twice: slow"}},
		Phases: []deployment.PhaseDuration{{Phase: deployment.Fetch, Median: 1.25, P95: 9}}, Regressions: []deployment.Regression{{Says: "1.1.0 is slower"}}})
	want := "1 of 2 succeeded\nfailed   twice: slow\nfetch        median 1.2 s, p95 9.0 s\nregression: 1.1.0 is slower\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestResultWords(t *testing.T) {
	to := deployment.Release{Version: "1.1.0", Slot: "b"}
	for want, r := range map[string]update.Result{
		"nothing newer is on offer":                               {Outcome: update.Already},
		"slot b serves 1.1.0 already":                             {Outcome: update.Already, To: to},
		"slot b has 1.1.0 already; no server runs: it is masked":  {Outcome: update.Already, To: to, Idle: "it is masked"},
		"version 1.1.0 is queued behind the trial of 1.0.0":       {Outcome: update.Queued, To: to, Behind: "1.0.0"},
		"slot b serves 1.1.0 again":                               {Outcome: deployment.RolledBack, To: to},
		"cancelled":                                               {Outcome: deployment.Canceled},
		"slot b serves 1.1.0":                                     {Outcome: deployment.Committed, To: to, Running: true},
		"slot b will serve 1.1.0; no server runs: it is masked":   {Outcome: deployment.Committed, To: to, Idle: "it is masked"},
		"slot b serves 1.1.0, on trial: `whisper-appliance updat": {Outcome: update.OnTrial, To: to, Running: true},
	} {
		if got := resultWords(r); !strings.HasPrefix(got, want) {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

func TestPolicyWords(t *testing.T) {
	got := policyWords(deployment.Policy{Channel: "stable", Automatic: "off", Locked: []string{"channel"}})
	if want := "channel    stable\nautomatic  off\nwindow     at any time\ndays       every day\nfixed by config.toml: channel"; got != want {
		t.Errorf("got:\n%s", got)
	}
	got = policyWords(deployment.Policy{Channel: "beta", Automatic: "install", Window: "02:00-05:00", Days: []string{"sat", "sun"}})
	if want := "channel    beta\nautomatic  install\nwindow     02:00-05:00\ndays       sat, sun"; got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestQuarantineWords(t *testing.T) {
	got := quarantineWords([]deployment.Quarantine{{Version: "1.1.0", Reason: "gate", Says: "it crashed", At: noon()}})
	if want := "VERSION  SINCE             REASON  SAYS\n1.1.0    2026-03-04 12:30  gate    it crashed\n"; got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestScrubWords(t *testing.T) {
	list := []update.Scrubbed{{Slot: "a", Version: "1.0.0"}, {Slot: "b", Empty: true}, {Slot: "golden", Version: "1.0.0", Problem: "bin is missing"},
		{Slot: "b", Version: "1.1.0", Problem: "bin is missing", Healed: "its source"}}
	want := "SLOT    VERSION  SAYS\na       1.0.0    whole\nb                empty\ngolden  1.0.0    damaged: bin is missing\n" +
		"b       1.1.0    was damaged (bin is missing), and was brought anew from its source\n"
	if got := scrubWords(list); got != want || damagedOf(list) != 1 {
		t.Errorf("%d damaged:\n%s", damagedOf(list), got)
	}
}
