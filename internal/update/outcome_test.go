package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// TestTrialCommitted: the way that everything goes.
func TestTrialCommitted(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.stands(slot.B, slot.A, slot.B)
	if _, err := os.Stat(w.u.ballasts()[0]); err == nil {
		t.Error("the ballast is there during the trial")
	}
	w.proves()
	w.stands(slot.B, slot.B, slot.B)
	w.idles()
	r := w.last(1)
	if r.Outcome != deployment.Committed || r.Door != deployment.DoorDpkg || r.From.Version != "1.0.0" || r.To.Version != "1.1.0" || r.To.Slot != slot.B || r.To.Digest == "" {
		t.Errorf("record %+v", r)
	}
	if !r.Requests.Known || r.Requests.Answered == 0 {
		t.Errorf("requests %+v", r.Requests)
	}
	st := w.state()
	if st.Floor != "1.1.0" || st.Last == nil || st.Last.Transaction != r.Transaction || st.Alarm != nil {
		t.Errorf("floor %s, last %+v, alarm %+v", st.Floor, st.Last, st.Alarm)
	}
	for _, path := range w.u.ballasts() {
		if info, err := os.Stat(path); err != nil || info.Size() != ballastBytes {
			t.Errorf("ballast %s: %v", filepath.Base(path), err)
		}
	}
}

// TestFailures: what becomes of a release that is no good, and who is to blame.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name            string
		spoil           func(w *world)
		code            string
		outcome         string
		at              deployment.Phase
		reason          string
		blame           string
		banned          bool
		current, stable string
		runs            string
		alarm           string
	}{
		{"it crashes beside the server", func(w *world) { w.m.Crash = []string{"next 1.1.0"} },
			slot.CandidateFailed, deployment.Aborted, deployment.Overlap, slot.CandidateFailed, deployment.Candidate, true, slot.A, slot.A, slot.A, "package_not_serving"},
		{"it does not pass the smoke test", func(w *world) { w.m.Sick = []string{"1.1.0"} },
			slot.CandidateFailed, deployment.Aborted, deployment.Overlap, slot.CandidateFailed, deployment.Candidate, true, slot.A, slot.A, slot.A, "package_not_serving"},
		{"it fails the rehearsal", func(w *world) {
			w.u.Site.Rehearse = func(context.Context, string, slot.Manifest) (trial.Finding, error) {
				return trial.Finding{Verdict: trial.Verdict{Evidence: []string{"three pairs"}}}, fault.New(fault.Unavailable, "rehearsal_failed", "it is deaf").Try("wait")
			}
		}, "rehearsal_failed", deployment.Aborted, deployment.Preflight, "rehearsal_failed", deployment.Candidate, true, slot.A, slot.A, slot.A, "package_not_serving"},
		{"it does not take over", func(w *world) { w.m.Crash = []string{"server 1.1.0"} },
			slot.RolledBack, deployment.RolledBack, deployment.TakeOver, slot.RolledBack, deployment.Candidate, true, slot.A, slot.A, slot.A, "package_not_serving"},
		{"and the way back is damaged", func(w *world) {
			w.m.Crash = []string{"server 1.1.0"}
			w.m.after = func(verb, unit string) {
				if verb == "restart" {
					os.RemoveAll(w.u.Slots.Path(slot.A))
				}
			}
		}, slot.RolledBack, deployment.RolledBack, deployment.TakeOver, slot.RolledBack, deployment.Candidate, true, slot.Golden, slot.Golden, "golden", ""},
		{"nothing comes up any more", func(w *world) {
			w.m.Crash = []string{"server 1.1.0"}
			w.m.after = func(verb, unit string) { w.m.Crash = []string{"server 1.1.0", "server 1.0.0"} }
		}, slot.NotServing, deployment.Failed, deployment.TakeOver, slot.NotServing, deployment.Environment, false, slot.A, slot.A, "activating", slot.NotServing},
		{"systemd does not answer", func(w *world) { w.m.Down = true },
			"engine_stays", deployment.Aborted, deployment.Stage, "engine_stays", deployment.Environment, false, slot.A, slot.A, slot.A, "package_not_serving"},
		{"systemd goes away in between", func(w *world) {
			w.m.after = func(verb, _ string) { w.m.Down = verb == "start" }
		}, slot.CandidateFailed, deployment.Aborted, deployment.Overlap, "no_systemd", deployment.Environment, false, slot.A, slot.A, slot.A, "package_not_serving"},
		{"the tree is damaged", func(w *world) { spoil(w.t, filepath.Join(w.tree("1.1.0"), slot.ServerPath)) },
			"damaged_release", deployment.Aborted, deployment.Stage, "damaged_release", deployment.Candidate, true, slot.A, slot.A, slot.A, "package_not_serving"},
		{"there is no room", func(w *world) { w.u.Slots.Room = 1 << 60 },
			"disk_full", deployment.Aborted, deployment.Stage, "disk_full", deployment.Environment, false, slot.A, slot.A, slot.A, "package_not_serving"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			want := w.deploy("1.1.0")
			digest, err := slot.Read(want.Tree)
			must(t, err)
			tt.spoil(w)
			res, err := w.u.Apply(t.Context(), want)
			wantCode(t, err, tt.code)
			if res.Outcome != tt.outcome {
				t.Errorf("outcome %s", res.Outcome)
			}
			if w.m.after = nil; w.m.Down { // it answers again, and the next run finds what was left
				w.m.Down = false
				_, err := w.u.Recover(t.Context(), false)
				must(t, err)
			}
			if tt.runs == "golden" {
				tt.runs = w.m.runs()
				if w.m.version(w.m.where(server)) != "1.0.0" {
					t.Error("the golden release does not serve")
				}
			}
			if tt.code == slot.NotServing { // the candidate is all that still answers
				w.m.Units["next-b"], w.m.Units["door-b"] = slot.State{}, slot.State{}
			}
			w.stands(tt.current, tt.stable, tt.runs)
			r := w.last(1)
			if r.Outcome != tt.outcome || r.At != tt.at || r.Reason != tt.reason || r.Blame != tt.blame || r.Says == "" || r.Hint == "" {
				t.Errorf("record %s at %s: %s, %s, says %q, hint %q", r.Outcome, r.At, r.Reason, r.Blame, r.Says, r.Hint)
			}
			st := w.state()
			if banned := st.banned(digest.Digest(), "") != nil; banned != tt.banned {
				t.Errorf("quarantine %+v", st.Banned)
			}
			if st.Alarm == nil || tt.alarm != "" && st.Alarm.Code != tt.alarm || st.Alarm.Hint == "" {
				t.Errorf("alarm %+v, want %s", st.Alarm, tt.alarm)
			}
			w.idles()
			w.again(t, false, 1)
		})
	}
}

// TestPackageAlarmEnds: a package whose release serves already ends the alarm
// about the one before it.
func TestPackageAlarmEnds(t *testing.T) {
	w := newWorld(t)
	w.m.Crash = []string{"next 1.1.0"}
	_, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
	wantCode(t, err, slot.CandidateFailed)
	if st := w.state(); st.Alarm == nil || st.Alarm.Code != packageNotServing {
		t.Errorf("alarm %+v", st.Alarm)
	}
	res, err := w.u.Apply(t.Context(), w.deploy("1.0.0"))
	must(t, err)
	if st := w.state(); res.Outcome != Already || st.Alarm != nil {
		t.Errorf("outcome %s, alarm %+v", res.Outcome, st.Alarm)
	}
}

// TestTrialEnds in every way there is.
func TestTrialEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		end     func(w *world)
		outcome string
		reason  string
		blame   string
		serves  string
		held    bool
		banned  bool
		alarm   string
	}{
		{"good", (*world).proves, deployment.Committed, "", "", slot.B, false, false, ""},
		{"bad", (*world).fails, deployment.RolledBack, trial.ReasonRestarted, deployment.Candidate, slot.A, false, true, "package_not_serving"},
		{"bad, and the settings are to blame", func(w *world) {
			s := good(1)
			s.Restarts, s.Result, s.Exit = 3, "exit-code", 78
			w.watch(s)
		}, deployment.RolledBack, trial.ReasonRestarted, deployment.Configuration, slot.A, true, false, "package_not_serving"},
		{"inconclusive to the end", func(w *world) {
			var samples []trial.Sample
			for n := range 70 {
				s := good(n)
				s.Counters = nil
				samples = append(samples, s)
			}
			w.watch(samples...)
		}, deployment.Kept, trial.ReasonFew, deployment.Environment, slot.B, false, false, "kept_without_proof"},
		{"committed by hand", func(w *world) {
			r, err := w.u.Commit(w.t.Context())
			if err != nil || r.Version != "1.1.0" {
				w.t.Error(r, err)
			}
		}, deployment.Committed, "commit_asked", "", slot.B, false, false, ""},
		{"rolled back by hand", func(w *world) {
			res, err := w.u.Rollback(w.t.Context(), deployment.DoorCLI)
			if err != nil || res.Outcome != deployment.RolledBack || res.From.Version != "1.1.0" {
				w.t.Error(res, err)
			}
		}, deployment.RolledBack, "rollback_asked", deployment.Operator, slot.A, true, false, ""},
		{"cancelled", func(w *world) {
			_, err := w.u.Cancel(w.t.Context(), deployment.DoorHTTP)
			must(w.t, err)
		}, deployment.RolledBack, "rollback_asked", deployment.Operator, slot.A, true, false, ""},
		{"taken back by the gate", func(w *world) {
			must(w.t, w.u.Slots.Activate(slot.A))
			w.m.launch(server)
			if !w.watch(good(1)) {
				w.t.Error("the trial goes on")
			}
		}, deployment.RolledBack, "gate", deployment.Candidate, slot.A, false, true, "package_not_serving"},
		{"while the server is stopped", func(w *world) {
			w.m.Idle, w.m.Units[server] = "the appliance is stopped", slot.State{Active: "inactive"}
			_, err := w.u.Rollback(w.t.Context(), deployment.DoorCLI)
			must(w.t, err)
			if w.m.Units[server].Active != "inactive" {
				w.t.Error("the server was started")
			}
			w.m.Idle = ""
			w.m.launch(server)
		}, deployment.RolledBack, "rollback_asked", deployment.Operator, slot.A, true, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.onTrial("1.1.0")
			tt.end(w)
			w.stands(tt.serves, tt.serves, tt.serves)
			w.idles()
			r := w.last(1)
			if r.Outcome != tt.outcome || r.Reason != tt.reason || r.Blame != tt.blame {
				t.Errorf("record %s, %s, %s: %s", r.Outcome, r.Reason, r.Blame, r.Says)
			}
			st := w.state()
			if (st.Held == "1.1.0") != tt.held || (len(st.Banned) == 1) != tt.banned {
				t.Errorf("held %q, quarantine %+v", st.Held, st.Banned)
			}
			if (st.Alarm == nil) != (tt.alarm == "") || st.Alarm != nil && st.Alarm.Code != tt.alarm {
				t.Errorf("alarm %+v, want %q", st.Alarm, tt.alarm)
			}
			if _, err := w.u.Commit(t.Context()); err == nil {
				t.Error("there is a trial to commit")
			}
		})
	}
}

// TestRollbackFails: where the release before does not come up golden serves,
// and where nothing does somebody is told.
func TestRollbackFails(t *testing.T) {
	w := newWorld(t)
	must(t, os.RemoveAll(w.u.Slots.Golden))
	tree(t, w.u.Slots.Golden, "0.9.0")
	w.onTrial("1.1.0")
	w.m.Crash = []string{"server 1.0.0"}
	w.fails()
	if current, stable := w.u.links(); current != slot.Golden || stable != slot.Golden || w.m.version(w.m.where(server)) != "0.9.0" {
		t.Errorf("current %s, stable %s", current, stable)
	}
	if st := w.state(); st.Alarm == nil || st.Alarm.Code != "rolled_back_elsewhere" && st.Alarm.Code != "package_not_serving" {
		t.Errorf("alarm %+v", st.Alarm)
	}
	w.m.Crash = nil
	w.onTrial("1.2.0")
	w.m.Crash = []string{"server 1.0.0", "server 0.9.0", "server 1.1.0"}
	w.m.launch(server)
	st := w.state()
	err := w.u.beginRollback(t.Context(), st, verdict{reason: "restarted", blame: deployment.Candidate, says: "it crashes"}, false)
	if err == nil {
		t.Fatal("nothing came up, and nobody is told")
	}
	if r := w.last(2); r.Outcome != deployment.Failed {
		t.Errorf("record %+v", r)
	}
	if st := w.state(); st.Alarm == nil || st.Step != idle {
		t.Errorf("%s, alarm %+v", st.Step, st.Alarm)
	}
}

// TestRollbackWithoutSystemd: the link goes back at once, and the server as soon
// as systemd answers.
func TestRollbackWithoutSystemd(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	w.m.Down = true
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	wantCode(t, err, "systemd_away")
	if current, _ := w.u.links(); current != slot.A || w.state().Step != rollingBack {
		t.Errorf("current %s, step %s", current, w.state().Step)
	}
	if watch, err := w.u.Recover(t.Context(), false); err == nil || !watch {
		t.Errorf("nobody goes on with it: %v", err)
	}
	w.m.Down = false
	if !w.watch(good(1)) {
		t.Error("the watch goes on")
	}
	w.stands(slot.A, slot.A, slot.A)
	w.idles()
	if r := w.last(1); r.Outcome != deployment.RolledBack || r.Blame != deployment.Operator {
		t.Errorf("record %+v", r)
	}
}

// TestRollback goes from what is committed to what was before, and holds what it
// left.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	_, err := w.u.Rollback(t.Context(), deployment.DoorCLI)
	wantCode(t, err, "nothing_before")
	w.offers("1.1.0")
	w.apply(Want{Trial: true}, OnTrial)
	w.proves()
	res, err := w.u.Rollback(t.Context(), deployment.DoorHTTP)
	if err != nil || res.Outcome != deployment.Committed || res.To.Version != "1.0.0" {
		t.Fatalf("%+v, %v", res, err)
	}
	w.stands(slot.A, slot.A, slot.A)
	st := w.state()
	if r := w.last(2); r.Kind != kindRollback || st.Held != "1.1.0" || st.Floor != "1.1.0" {
		t.Errorf("record %+v, held %q, floor %s", r, st.Held, st.Floor)
	}
	w.refused(Want{Trial: true, Auto: true, Version: "1.1.0"}, "held")
	w.refused(Want{Trial: true}, "held")
	w.apply(Want{Trial: true, Version: "1.1.0"}, OnTrial)
	w.proves()
	if st := w.state(); st.Held != "" {
		t.Errorf("%s is still held", st.Held)
	}
	// One that fails leaves nothing held.
	w.m.Crash = []string{"next 1.0.0"}
	_, err = w.u.Rollback(t.Context(), deployment.DoorCLI)
	wantCode(t, err, slot.CandidateFailed)
	w.stands(slot.B, slot.B, slot.B)
	if st := w.state(); st.Held != "" {
		t.Errorf("%s is held", st.Held)
	}
}

// TestWatch is the loop itself: a bad release is gone at the first look.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	must(t, w.u.Watch(t.Context()))
	w.onTrial("1.1.0")
	w.u.Site.Look = func(context.Context, bool) (trial.Sample, error) {
		s := good(1)
		s.Watchdog = 1
		return s, nil
	}
	w.u.Settings = func() (Settings, error) { return Settings{}, errors.New("no such key") }
	must(t, w.u.Watch(t.Context()))
	w.stands(slot.A, slot.A, slot.A)
	if r := w.last(1); r.Reason != trial.ReasonWatchdog {
		t.Errorf("%+v", r)
	}
}

// TestWatchEnds with its context, and leaves the trial with its credit.
func TestWatchEnds(t *testing.T) {
	w := newWorld(t)
	w.onTrial("1.1.0")
	if w.watch(good(0), good(1), good(2)) {
		t.Fatal("over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.u.Site.Look = func(context.Context, bool) (trial.Sample, error) { cancel(); return good(3), nil }
	if err := w.u.Watch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if st := w.state(); st.Step != onTrial || st.Credit.Healthy != 2*time.Second {
		t.Errorf("%s, %v", st.Step, st.Credit.Healthy)
	}
	if s, err := w.u.Status(); err != nil || s.State != deployment.Trial || s.Trial == nil || s.Trial.Samples != 3 || s.Trial.TriesLeft != tries {
		t.Errorf("%+v, %v", s.Trial, err)
	}
}

// TestNobodyWatches: that the watch does not start ends no trial.
func TestNobodyWatches(t *testing.T) {
	w := newWorld(t)
	w.u.Site.Watch = func(context.Context) error {
		return fault.New(fault.Unavailable, "nobody_watches", "no").Try("start it")
	}
	res, err := w.u.Apply(t.Context(), w.deploy("1.1.0"))
	wantCode(t, err, "nobody_watches")
	if res.Outcome != OnTrial || w.state().Step != onTrial {
		t.Errorf("%+v, %s", res, w.state().Step)
	}
	w.proves()
	w.last(1)
}

// holding has somebody hold the lock for something that ends with its context,
// and gives why that ended, once it has.
func (w *world) holding(what string, like func(context.Context) (context.Context, func())) (ended <-chan error) {
	w.t.Helper()
	unlock, err := w.u.lock(what)
	must(w.t, err)
	ctx, stop := like(w.t.Context())
	why := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stop()
		unlock()
		why <- context.Cause(ctx)
	}()
	return why
}

// TestVerdictBeforeDownload: what is downloaded meanwhile makes room for the
// verdict, be it good or bad.
func TestVerdictBeforeDownload(t *testing.T) {
	for verdict, serves := range map[string]string{deployment.Bad: slot.A, deployment.Good: slot.B} {
		w := newWorld(t)
		w.onTrial("1.1.0")
		var held bool
		w.u.Site.Figures = func(context.Context) (deployment.Figures, error) {
			_, err := w.u.tryLock("another")
			held = hasCode(err, "slots_busy")
			return deployment.Figures{}, nil
		}
		ended := w.holding("a download", w.u.yielding)
		if verdict == deployment.Bad {
			w.fails()
		} else {
			w.proves()
		}
		if err := <-ended; !errors.Is(err, errYielded) {
			t.Errorf("%s: the download ended by %v", verdict, err)
		}
		if w.stands(serves, serves, serves); held != (verdict == deployment.Good) {
			t.Errorf("%s: measured with the lock %v", verdict, held)
		}
	}
}

// TestNobodyWaitsForALook: what somebody asks for comes before what only looks
// or downloads, and before nothing else.
func TestNobodyWaitsForALook(t *testing.T) {
	for name, tt := range map[string]struct {
		trial bool
		do    func(w *world) error
	}{
		"rollback": {true, func(w *world) error { _, err := w.u.Rollback(t.Context(), deployment.DoorCLI); return err }},
		"commit":   {true, func(w *world) error { _, err := w.u.Commit(t.Context()); return err }},
		"restart":  {false, func(w *world) error { _, err := w.u.Restart(t.Context()); return err }},
		"deploy":   {false, func(w *world) error { _, err := w.u.Apply(t.Context(), w.deploy("1.2.0")); return err }},
	} {
		w := newWorld(t)
		w.u.Site.Restart = func(ctx context.Context) (string, error) { return w.m.swap(nil).Again(ctx) }
		if tt.trial {
			w.onTrial("1.1.0")
		}
		asked := make(chan struct{})
		w.u.Fetch = func(ctx context.Context, _ Order, _ func(int64)) error {
			close(asked)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		w.set.Sources = []string{"https://slow.example/r"}
		looked := make(chan error, 1)
		go func() { _, err := w.u.Check(t.Context()); looked <- err }()
		<-asked
		if err := tt.do(w); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-looked; !hasCode(err, "yielded") || fault.KindOf(err) != fault.Busy {
			t.Errorf("%s: the look ended by %v", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(w.u.Run, yieldPrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := w.holding("an update", func(context.Context) (context.Context, func()) { return w.u.cancellable(ctx) })
	began := time.Now()
	if _, err := w.u.Rollback(t.Context(), deployment.DoorCLI); !hasCode(err, "slots_busy") || time.Since(began) > time.Second {
		t.Errorf("beside an update: %v after %v", err, time.Since(began))
	}
	if ctx.Err() != nil {
		t.Error("the update was stopped")
	}
	cancel()
	<-ended
}

// TestRestart takes its turn with everything else.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	_, err := w.u.Restart(t.Context())
	wantCode(t, err, "no_systemd")
	w.u.Site.Restart = func(ctx context.Context) (string, error) { return w.m.swap(nil).Again(ctx) }
	before := w.m.Units[server].Invocation
	if now, err := w.u.Restart(t.Context()); err != nil || now == "" || now == before {
		t.Errorf("%q, %v", now, err)
	}
	unlock, err := w.u.lock("somebody")
	must(t, err)
	defer unlock()
	if _, err := w.u.Restart(t.Context()); fault.KindOf(err) != fault.Busy {
		t.Errorf("%v", err)
	}
}
