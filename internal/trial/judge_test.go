package trial

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

// A story is a trial in a few lines: what is seen after how long, and the
// verdict then.
type story struct {
	name  string
	base  Baseline
	rules Rules
	from  Credit
	steps []step
}

type step struct {
	after  time.Duration // since the step before
	change func(*Sample) // of the sample before; nil = it is as it was
	times  int           // 0 = once
	want   string        // word and reason after it, and blame where there is one
}

const (
	early  = "inconclusive under_way"
	proven = "good proven"
	tick   = 30 * time.Second
)

func said(v Verdict) string {
	s := strings.TrimSpace(v.Word + " " + v.Reason + " " + v.Blame)
	if v.Capped {
		s += " capped"
	}
	return s
}

// begin is the first sample of a story: all is well.
func begin() Sample {
	return Sample{At: time.Hour, Up: true, Active: "active", PID: 7, Invocation: "one", Smoke: &Smoke{OK: true}, Counters: &Counters{Answered: 1}, Memory: 100 << 20}
}

func (s story) tell(t *testing.T) *Judge {
	t.Helper()
	j, at := New(s.base, s.rules, s.from), begin()
	for i, step := range s.steps {
		var got Verdict
		for range max(1, step.times) {
			at.At += step.after
			if at.Counters != nil { // or each look would share it with the one before
				c := *at.Counters
				at.Counters = &c
			}
			if step.change != nil {
				step.change(&at)
			}
			got = j.Look(at)
			at.Runs = nil
		}
		if said(got) != step.want {
			t.Errorf("step %d: %q, want %q (%s)", i+1, said(got), step.want, got.Says)
		}
		if got.Says == "" || len(got.Evidence) == 0 {
			t.Errorf("step %d: %q has no words or no evidence: %+v", i+1, said(got), got)
		}
		if got.Word == deployment.Bad && got.Blame == "" {
			t.Errorf("step %d: bad, and nobody is blamed", i+1)
		}
	}
	return j
}

// looks are so many ticks in which all goes on as it was.
func looks(n int, want string) step { return step{after: tick, times: n, want: want} }

// first is the look that a trial begins with.
func first() step { return step{want: early} }

func request(s *Sample) { s.Counters.Answered++ }

func failedRequest(s *Sample) { s.Counters.Answered++; s.Counters.Failed++ }

// runs are n synthetic runs of so many seconds for one of sound.
func runs(n int, seconds float64) func(*Sample) {
	return func(s *Sample) {
		for range n {
			s.Runs = append(s.Runs, Run{Seconds: seconds, Sound: 1, Idle: true, Right: true})
		}
	}
}

func TestStories(t *testing.T) {
	measured := Baseline{Figures: deployment.Figures{RealTime: 0.2, MemoryBytes: 100 << 20}}
	for _, s := range slices.Concat(goodStories(), crashStories(), smokeStories(), requestStories(measured), pauseStories(), inconclusiveStories()) {
		t.Run(s.name, func(t *testing.T) { s.tell(t) })
	}
}

func goodStories() []story {
	return []story{
		{name: "ten healthy minutes with requests", steps: []step{
			first(), {after: tick, change: request, times: 19, want: early}, {after: tick, change: request, want: proven},
		}},
		{name: "a verdict stays", steps: []step{
			first(), {after: tick, change: request, times: 20, want: proven},
			{after: tick, change: func(s *Sample) { s.Restarts = 9 }, want: proven},
		}},
		{name: "low traffic: our own requests count", steps: []step{
			first(), {after: tick, change: runs(1, 0.2), times: 4, want: early}, looks(15, early), {after: tick, change: runs(1, 0.2), want: proven},
		}},
		{name: "one request too few, and then it comes", steps: []step{
			first(), {after: tick, change: request, times: 3, want: early}, looks(17, "inconclusive too_few_requests environment"),
			{after: tick, change: request, want: proven},
		}},
		{name: "nobody can ask the server for its counters", steps: []step{
			{change: func(s *Sample) { s.Counters = nil }, want: early}, {after: tick, change: runs(1, 0.2), times: 20, want: proven},
		}},
		{name: "a short trial", rules: Rules{Length: time.Minute}, steps: []step{
			first(), {after: tick, change: request, want: early}, {after: tick, change: func(s *Sample) { s.Counters.Answered = 5 }, want: proven},
		}},
		{name: "a component that failed before", base: Baseline{Components: []string{"tls"}}, steps: []step{
			{change: func(s *Sample) { s.Failing = []Failing{{Name: "tls", Code: "x"}} }, want: early}, {after: tick, change: request, times: 20, want: proven},
		}},
		{name: "a smoke check that failed before", base: Baseline{Checks: []string{"https"}}, steps: []step{
			{change: func(s *Sample) { s.Smoke = &Smoke{Failed: []string{"https"}} }, want: early}, {after: tick, change: request, times: 20, want: proven},
		}},
		{name: "what is wanted and not required", steps: []step{
			{change: func(s *Sample) { s.Failing = []Failing{{Name: "network", Advisory: true}} }, want: early}, {after: tick, change: request, times: 20, want: proven},
		}},
	}
}

func crashStories() []story {
	weighed := Baseline{Figures: deployment.Figures{MemoryBytes: 100 << 20}}
	restarts := func(n uint32) func(*Sample) { return func(s *Sample) { s.Restarts = n } }
	ended := func(result string, exit int) func(*Sample) {
		return func(s *Sample) { s.Restarts, s.Result, s.Exit = 1, result, exit }
	}
	return []story{
		{name: "a restart", steps: []step{first(), {after: tick, change: restarts(1), want: "bad restarted candidate"}}},
		{name: "restarts from before are none", base: Baseline{Restarts: 2}, steps: []step{
			{change: restarts(2), want: early}, looks(1, early), {after: tick, change: restarts(3), want: "bad restarted candidate"},
		}},
		{name: "somebody restarts it by hand", base: Baseline{Restarts: 2}, steps: []step{
			{change: restarts(2), want: early},
			{after: tick, change: func(s *Sample) { s.Restarts, s.Invocation = 0, "two" }, want: early}, looks(1, early),
			{after: tick, change: restarts(1), want: "bad restarted candidate"},
		}},
		{name: "by hand, and then it crashes before the next look", base: Baseline{Restarts: 2}, steps: []step{
			{change: restarts(2), want: early}, {after: tick, change: restarts(1), want: "bad restarted candidate"},
		}},
		{name: "systemd cannot be asked for a while", base: Baseline{Restarts: 2}, steps: []step{
			{change: restarts(2), want: early}, {after: tick, change: func(s *Sample) { s.Restarts, s.Active, s.Invocation = 0, "", "" }, want: early},
			{after: tick, change: func(s *Sample) { s.Restarts, s.Active, s.Invocation = 2, "active", "one" }, want: early},
		}},
		{name: "killed for memory, and nobody knows what is usual", steps: []step{first(), {after: tick, change: ended("oom-kill", 9), want: "bad out_of_memory environment"}}},
		{name: "killed for memory, of which it took no more than before", base: weighed, steps: []step{first(), {after: tick, change: ended("oom-kill", 9), want: "bad out_of_memory environment"}}},
		{name: "killed for memory, of which it took more than it may", base: weighed, steps: []step{
			{change: func(s *Sample) { s.Memory = 300 << 20 }, want: early}, {after: tick, change: func(s *Sample) { s.Memory = 0 }, want: early},
			{after: tick, change: ended("oom-kill", 9), want: "bad out_of_memory candidate"},
		}},
		{name: "killed for memory where the machine is short of it", base: weighed, steps: []step{
			{change: func(s *Sample) {
				s.Memory = 300 << 20
				s.Failing = []Failing{{Name: "memory", Code: "low_memory", Blame: deployment.Environment}}
			}, want: "inconclusive component_failed environment"},
			{after: tick, change: ended("oom-kill", 9), want: "bad out_of_memory environment"},
		}},
		{name: "the settings are wrong", steps: []step{first(), {after: tick, change: ended("exit-code", 78), want: "bad restarted configuration"}}},
		{name: "the unit cannot be set up", steps: []step{first(), {after: tick, change: ended("exit-code", 226), want: "bad unit_failed configuration"}}},
		{name: "the gate cannot be run", steps: []step{first(), {after: tick, change: ended("exit-code", 0), want: "bad unit_failed configuration"}}},
		{name: "there is no program that can be executed", steps: []step{first(), {after: tick, change: ended("exit-code", 203), want: "bad restarted candidate"}}},
		{name: "systemd has no resources", steps: []step{first(), {after: tick, change: ended("resources", 0), want: "bad unit_failed environment"}}},
		{name: "the watchdog", base: Baseline{Watchdog: 1}, steps: []step{
			{change: func(s *Sample) { s.Watchdog = 1 }, want: early},
			{after: tick, change: func(s *Sample) { s.Watchdog, s.Restarts = 2, 1 }, want: "bad watchdog candidate"},
		}},
	}
}

func smokeStories() []story {
	fails := func(blame string) func(*Sample) {
		return func(s *Sample) { s.Smoke = &Smoke{Failed: []string{"http", "https"}, Says: "no answer", Blame: blame} }
	}
	passes := func(s *Sample) { s.Smoke = &Smoke{OK: true} }
	const failing = "inconclusive smoke_failed candidate"
	up := func(on bool) func(*Sample) { return func(s *Sample) { s.Up = on } }
	flip := []step{{after: tick, change: up(true), want: early}, {after: tick, change: up(false), want: "inconclusive down candidate"}}
	return []story{
		{name: "three in a row", steps: []step{first(), {after: tick, change: fails(""), times: 2, want: failing}, {after: tick, want: "bad smoke_failed candidate"}}},
		{name: "two, and it passes, and two", steps: []step{
			first(), {after: tick, change: fails(""), times: 2, want: failing}, {after: tick, change: passes, want: early},
			{after: tick, change: fails(""), times: 2, want: failing},
		}},
		{name: "a look without a smoke test is none", steps: []step{
			first(), {after: tick, change: fails(""), times: 2, want: failing},
			{after: tick, change: func(s *Sample) { s.Smoke = nil }, times: 5, want: failing}, {after: tick, change: fails(""), want: "bad smoke_failed candidate"},
		}},
		{name: "of the environment, for as long as it likes", steps: []step{
			first(), {after: tick, change: fails(deployment.Environment), times: 9, want: "inconclusive smoke_failed environment"},
		}},
		{name: "one check of two had failed before", base: Baseline{Checks: []string{"https"}}, steps: []step{
			first(), {after: tick, change: fails(""), times: 2, want: failing}, {after: tick, want: "bad smoke_failed candidate"},
		}},
		{name: "down because of the settings", steps: []step{
			first(), {after: tick, change: func(s *Sample) { fails("")(s); s.Up, s.Active, s.Exit = false, "failed", 78 }, times: 2, want: "inconclusive down configuration"},
			{after: tick, want: "bad smoke_failed configuration"},
		}},
		{name: "three flip-flops", steps: slices.Concat([]step{first()}, flip, flip, flip, flip[:1])},
		{name: "four", steps: slices.Concat([]step{first()}, flip, flip, flip, flip[:1], []step{{after: tick, change: up(false), want: "bad flapping candidate"}})},
		{name: "a component that comes and goes", steps: slices.Concat([]step{first()}, repeat(3, step{
			after: tick, change: func(s *Sample) { s.Failing = []Failing{{Name: "engine", Says: "down"}} }, want: "inconclusive component_failed candidate",
		}, step{after: tick, change: func(s *Sample) { s.Failing = nil }, want: early}), []step{
			{after: tick, change: func(s *Sample) { s.Failing = []Failing{{Name: "engine"}} }, want: "bad flapping candidate"},
		})},
		{name: "one of the environment comes and goes", steps: slices.Concat([]step{first()}, repeat(6, step{
			after: tick, change: func(s *Sample) {
				s.Failing = []Failing{{Name: "spool", Code: "disk_full", Blame: deployment.Environment}}
			}, want: "inconclusive component_failed environment",
		}, step{after: tick, change: func(s *Sample) { s.Failing = nil }, want: early}))},
		{name: "somebody restarts it again and again", steps: slices.Concat([]step{first()}, repeat(6,
			step{after: tick, change: func(s *Sample) { s.Up, s.Active = false, "deactivating" }, want: "inconclusive down candidate"},
			step{after: tick, change: func(s *Sample) { s.Up, s.Active = true, "active" }, want: early}))},
	}
}

func repeat(n int, steps ...step) []step { return slices.Repeat(steps, n) }

func requestStories(measured Baseline) []story {
	counters := func(answered, failed int64) func(*Sample) {
		return func(s *Sample) { s.Counters = &Counters{answered, failed} }
	}
	memory := func(mib int64) func(*Sample) { return func(s *Sample) { s.Memory = mib << 20 } }
	return []story{
		{name: "one in twenty fails", steps: []step{first(), {after: tick, change: counters(100, 5), want: early}}},
		{name: "more than one in twenty", steps: []step{first(), {after: tick, change: counters(100, 6), want: "bad too_many_errors candidate"}}},
		{name: "of too few", steps: []step{first(), {after: tick, change: counters(19, 19), want: early}, {after: tick, change: failedRequest, want: "bad too_many_errors candidate"}}},
		{name: "as many failed before", base: Baseline{Figures: deployment.Figures{ErrorRatio: 0.3}}, steps: []step{
			first(), {after: tick, change: counters(100, 30), want: early}, {after: tick, change: failedRequest, want: "bad too_many_errors candidate"},
		}},
		{name: "counters begin anew", steps: []step{
			first(), {after: tick, change: counters(100, 4), want: early},
			{after: tick, change: func(s *Sample) { s.Invocation = "two"; counters(100, 4)(s) }, want: early},
			{after: tick, change: counters(10, 4), want: "bad too_many_errors candidate"}, // 12 of 210
		}},
		{name: "there is no model, so that all fail", steps: []step{
			{change: func(s *Sample) { s.NoModel = true; counters(100, 100)(s) }, want: early}, {after: tick, change: failedRequest, times: 5, want: early},
		}},
		{name: "our own fail, and nobody counts", steps: []step{
			{change: func(s *Sample) { s.Counters = nil }, want: early},
			{after: tick, change: func(s *Sample) { s.Runs = []Run{{Problem: "engine_failed"}} }, times: 19, want: early},
			{after: tick, change: func(s *Sample) { s.Runs = []Run{{Right: false, Seconds: 1, Sound: 1}} }, want: "bad too_many_errors candidate"},
		}},
		{name: "our own could not be made", steps: []step{
			{change: func(s *Sample) { s.Counters = nil }, want: early},
			{after: tick, change: func(s *Sample) { s.Runs = []Run{{Problem: Busy}, {Problem: LowMemory}, {Problem: NoModel}} }, times: 19, want: early},
		}},
		{name: "as slow as may be", base: measured, steps: []step{first(), {after: tick, change: runs(10, 0.3), want: early}}},
		{name: "slower", base: measured, steps: []step{first(), {after: tick, change: runs(9, 0.31), want: early}, {after: tick, change: runs(1, 0.31), want: "bad slower candidate"}}},
		{name: "it gets slower", base: measured, steps: []step{first(), {after: tick, change: runs(10, 0.2), want: early}, {after: tick, change: runs(5, 0.9), want: "bad slower candidate"}}},
		{name: "a few slow runs", base: measured, steps: []step{first(), {after: tick, change: runs(10, 0.2), want: early}, {after: tick, change: runs(4, 0.9), want: early}}},
		{name: "slow because others use the processors", base: measured, steps: []step{first(), {after: tick, change: func(s *Sample) {
			s.Runs = slices.Repeat([]Run{{Seconds: 0.6, Waited: 0.3, Sound: 1, Idle: true, Right: true}}, 10)
		}, want: early}}},
		{name: "slower than that explains", base: measured, steps: []step{first(), {after: tick, change: func(s *Sample) {
			s.Runs = slices.Repeat([]Run{{Seconds: 0.61, Waited: 0.3, Sound: 1, Idle: true, Right: true}}, 10)
		}, want: "bad slower candidate"}}},
		{name: "waiting does not explain all", base: measured, steps: []step{first(), {after: tick, change: func(s *Sample) {
			s.Runs = slices.Repeat([]Run{{Seconds: 3.1, Waited: 9, Sound: 1, Idle: true, Right: true}}, 10)
		}, want: "bad slower candidate"}}},
		{name: "slow while others use the engine, or cold", base: measured, steps: []step{first(), {after: tick, change: func(s *Sample) {
			for range 20 {
				s.Runs = append(s.Runs, Run{Seconds: 9, Sound: 1, Right: true}, Run{Seconds: 9, Sound: 1, Right: true, Idle: true, Cold: true})
			}
		}, want: early}}},
		{name: "slow, and nothing to compare with", steps: []step{first(), {after: tick, change: runs(20, 9), want: early}}},
		{name: "as much memory as may be", base: measured, steps: []step{first(), {after: tick, change: memory(214), times: 5, want: early}}},
		{name: "too much", base: measured, steps: []step{first(), {after: tick, change: memory(215), times: 2, want: early}, {after: tick, want: "bad too_much_memory candidate"}}},
		{name: "too much for a moment", base: measured, steps: []step{
			first(), {after: tick, change: memory(999), times: 2, want: early}, {after: tick, change: memory(100), want: early}, {after: tick, change: memory(999), times: 2, want: early},
		}},
		{name: "memory is not known now", base: measured, steps: []step{
			first(), {after: tick, change: memory(999), times: 2, want: early}, {after: tick, change: memory(0), times: 5, want: early},
		}},
		{name: "memory was not known before", steps: []step{first(), {after: tick, change: memory(9999), times: 9, want: early}}},
	}
}

func pauseStories() []story {
	stopped := func(on bool) func(*Sample) {
		return func(s *Sample) {
			s.Stopped, s.Up, s.Active = on, !on, "active"
			if on {
				s.Active, s.PID, s.Smoke = "inactive", 0, &Smoke{Failed: []string{"answers"}}
			} else {
				s.PID, s.Smoke = 8, &Smoke{OK: true}
			}
		}
	}
	const waits = "inconclusive stopped environment"
	return []story{
		{name: "somebody stops it for hours", steps: []step{
			first(), {after: tick, change: request, times: 19, want: early},
			{after: tick, change: stopped(true), want: waits}, {after: time.Hour, times: 9, want: waits},
			{after: tick, change: stopped(false), want: early}, {after: tick, change: request, want: proven},
		}},
		{name: "the machine sleeps", steps: []step{
			first(), {after: tick, change: request, times: 18, want: early}, {after: 8 * time.Hour, want: early}, {after: tick, want: proven},
		}},
		{name: "a clock that goes back gives nothing", steps: []step{
			first(), {after: tick, change: request, times: 19, want: early}, {after: -time.Hour, want: early}, {after: tick, want: proven},
		}},
		{name: "down in between gives no credit", steps: []step{
			first(), {after: tick, change: request, times: 10, want: early},
			{after: tick, change: func(s *Sample) { s.Up = false }, want: "inconclusive down candidate"}, {after: tick, change: func(s *Sample) { s.Up = true }, want: early},
			looks(9, early), looks(1, proven),
		}},
	}
}

func inconclusiveStories() []story {
	return []story{
		{name: "no model", steps: []step{
			{change: func(s *Sample) { s.NoModel = true }, want: early}, looks(19, early), looks(40, "inconclusive no_model environment"), looks(1, "inconclusive no_model environment capped"),
		}},
		{name: "no model, and then there is", steps: []step{
			{change: func(s *Sample) { s.NoModel = true }, want: early}, looks(19, early), looks(20, "inconclusive no_model environment"),
			{after: tick, change: func(s *Sample) { s.NoModel = false; s.Counters.Answered = 9 }, want: proven},
		}},
		{name: "nobody asks for anything", steps: []step{first(), looks(59, "inconclusive too_few_requests environment"), looks(1, "inconclusive too_few_requests environment capped")}},
		{name: "somebody's long recording", steps: []step{
			{change: func(s *Sample) { s.Busy = true }, want: early}, looks(59, "inconclusive engine_busy environment"), looks(1, "inconclusive engine_busy environment capped"),
		}},
		{name: "no smoke test was made", steps: []step{
			{change: func(s *Sample) { s.Smoke = nil }, want: early}, {after: tick, change: request, times: 59, want: "inconclusive not_checked environment"},
			looks(1, "inconclusive not_checked environment capped"),
		}},
		{name: "the disk is full", steps: []step{
			{change: func(s *Sample) {
				s.Failing = []Failing{{Name: "spool", Code: "disk_full", Says: "full", Blame: deployment.Environment}}
			}, want: "inconclusive component_failed environment"},
			looks(59, "inconclusive component_failed environment"), looks(1, "inconclusive component_failed environment capped"),
			{after: tick, change: func(s *Sample) { s.Restarts = 1 }, want: "inconclusive component_failed environment capped"},
		}},
		{name: "well at the cap, and not for long enough", steps: []step{
			{change: func(s *Sample) { s.Failing = []Failing{{Name: "spool", Blame: deployment.Environment}} }, want: "inconclusive component_failed environment"},
			looks(50, "inconclusive component_failed environment"), {after: tick, change: func(s *Sample) { s.Failing = nil }, want: early},
			looks(8, early), looks(1, "inconclusive component_failed environment capped"),
		}},
		{name: "its own fault at the cap", steps: []step{
			first(), looks(58, "inconclusive too_few_requests environment"),
			{after: tick, change: func(s *Sample) { s.Smoke = &Smoke{Failed: []string{"http"}} }, times: 2, want: "inconclusive smoke_failed candidate"},
			looks(1, "bad smoke_failed candidate"),
		}},
		{name: "its own fault, and no rule for it", steps: []step{
			{change: func(s *Sample) { s.Up, s.Smoke = false, nil }, want: "inconclusive down candidate"},
			looks(119, "inconclusive down candidate"), looks(1, "inconclusive down candidate capped"),
		}},
		{name: "a cap of one's own", rules: Rules{Cap: 11 * time.Minute}, steps: []step{first(), looks(21, "inconclusive too_few_requests environment"), looks(1, "inconclusive too_few_requests environment capped")}},
	}
}

// TestResume: what was stored goes on in another process, a tick less.
func TestResume(t *testing.T) {
	before := story{steps: []step{first(), {after: tick, change: request, times: 15, want: early}}}.tell(t)
	stored, err := json.Marshal(before.Credit())
	if err != nil {
		t.Fatal(err)
	}
	var credit Credit
	if err := json.Unmarshal(stored, &credit); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(credit, before.Credit()) {
		t.Errorf("%+v was stored as %+v", before.Credit(), credit)
	}
	// Fifteen ticks were healthy: fourteen count, the machine has booted, and six are missing.
	after := story{from: credit, steps: []step{
		{change: func(s *Sample) { s.At, s.Invocation = time.Minute, "two" }, want: early}, looks(5, early), looks(1, proven),
	}}.tell(t)
	if n := after.Status().Requests; n != 17 { // 16 before the boot, and the one that the new server shows
		t.Errorf("%d requests", n)
	}
}

// TestReopen: a verdict that was not carried out is found again, or another.
func TestReopen(t *testing.T) {
	j := story{steps: []step{first(), {after: tick, change: request, times: 19, want: early}, looks(1, proven)}}.tell(t)
	had := j.Credit()
	j.Reopen()
	if v, is := j.Verdict(), j.Credit(); v.Final() || is.Healthy != had.Healthy-tick || is.Samples != had.Samples {
		t.Errorf("%s, %+v after %+v", said(v), is, had)
	}
	hung := Sample{At: time.Hour, Up: true, Active: "active", Watchdog: 1}
	if v := j.Look(hung); v.Word != deployment.Bad || v.Reason != ReasonWatchdog {
		t.Errorf("%s", said(v))
	}
}

// TestResumeKeepsWhatWasBad: failures before a crash of the updater are not forgotten.
func TestResumeKeepsWhatWasBad(t *testing.T) {
	fail := func(s *Sample) { s.Smoke = &Smoke{Failed: []string{"http"}} }
	before := story{base: Baseline{Restarts: 4}, steps: []step{
		{change: func(s *Sample) { s.Restarts = 0 }, want: early}, {after: tick, change: fail, times: 2, want: "inconclusive smoke_failed candidate"},
	}}.tell(t)
	story{base: Baseline{Restarts: 4}, from: before.Credit(), steps: []step{{change: fail, want: "bad smoke_failed candidate"}}}.tell(t)
	story{base: Baseline{Restarts: 4}, from: before.Credit(), steps: []step{{change: func(s *Sample) { s.Restarts = 1 }, want: "bad restarted candidate"}}}.tell(t)
}

func TestCreditIsACopy(t *testing.T) {
	j := New(Baseline{}, Rules{}, Credit{})
	j.Look(Sample{Runs: []Run{{Seconds: 1, Sound: 1, Idle: true, Right: true}}})
	j.Credit().Speeds[0] = 99
	if j.Credit().Speeds[0] != 1 {
		t.Error("the judge's own was changed")
	}
}

func TestStatus(t *testing.T) {
	base := Baseline{Figures: deployment.Figures{RealTime: 0.2, MemoryBytes: 50 << 20}}
	j := story{base: base, steps: []step{
		first(), {after: tick, change: runs(10, 0.25), want: early}, {after: tick, change: failedRequest, times: 21, want: "inconclusive too_few_requests environment"},
	}, rules: Rules{Requests: 99, ErrorSample: 99}}.tell(t)
	got := j.Status()
	if len(got.Evidence) == 0 {
		t.Error("no evidence")
	}
	got.Evidence = nil
	want := deployment.TrialStatus{
		HealthySeconds: 660, NeededSeconds: 600, CapSeconds: 1800, Requests: 22, Failed: 21, Verdict: "inconclusive", Reason: "too_few_requests",
		Says: "only 1 of 99 requests were answered", Samples: 23, Synthetic: 10, SpeedRatio: 1.25, MemoryRatio: 2,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	j.Look(Sample{At: 3 * time.Hour, Up: true})
	if !j.Status().Extended {
		t.Error("after more than its time it is not extended")
	}
}

func TestNoVerdictBeforeALook(t *testing.T) {
	if v := New(Baseline{}, Rules{}, Credit{}).Verdict(); said(v) != early || v.Final() {
		t.Errorf("%+v", v)
	}
}

func TestRealTime(t *testing.T) {
	got, n := RealTime([]Run{
		{Seconds: 1, Sound: 4, Idle: true}, {Seconds: 3, Sound: 4, Idle: true}, {Seconds: 2, Sound: 4, Idle: true},
		{Seconds: 9, Sound: 4}, {Seconds: 9, Sound: 4, Idle: true, Cold: true}, {Seconds: 9, Sound: 4, Idle: true, Problem: Busy}, {Idle: true, Seconds: 1},
	})
	if got != 0.5 || n != 3 {
		t.Errorf("%v of %d", got, n)
	}
	if got, n := RealTime(nil); got != 0 || n != 0 {
		t.Errorf("%v of %d runs", got, n)
	}
}
