package measure

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/internal/trial"
)

func look(t *testing.T, s Server, full bool) trial.Sample {
	t.Helper()
	sample, err := s.Look(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	return sample
}

func TestLook(t *testing.T) {
	p := well()
	p.posts = map[string]int{"200": 10, "400": 2, "500": 3, "503": 1, "507": 4}
	s := p.serve(t)
	s.Unit = func(context.Context) (Unit, error) {
		return Unit{Active: "active", PID: 10, Restarts: 2, Invocation: "x", Watchdog: 1, Result: "success", Exit: 3}, nil
	}
	got := look(t, s, false)
	if !got.Up || got.At != time.Hour || got.PID != 10 || got.Restarts != 2 || got.Invocation != "x" || got.Watchdog != 1 || got.Result != "success" || got.Exit != 3 {
		t.Errorf("%+v", got)
	}
	if got.Counters == nil || *got.Counters != (trial.Counters{Answered: 20, Failed: 4}) {
		t.Errorf("counters %+v", got.Counters)
	}
	if got.Memory != 150<<10 {
		t.Errorf("memory %d, want that of server and engine", got.Memory)
	}
	if got.Smoke != nil || got.Runs != nil || p.runs != 0 {
		t.Errorf("a short look had something transcribed: %+v", got)
	}
	if got.Busy || got.NoModel || len(got.Failing) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestFullLook(t *testing.T) {
	p := well()
	got := look(t, p.serve(t), true)
	if got.Smoke == nil || !got.Smoke.OK || p.runs != 1 {
		t.Fatalf("smoke %+v, %d transcriptions", got.Smoke, p.runs)
	}
	if len(got.Runs) != 1 || !got.Runs[0].Idle || got.Runs[0].Cold || !got.Runs[0].Right || got.Runs[0].Sound != 3.66 || got.Runs[0].Seconds <= 0 {
		t.Errorf("runs %+v", got.Runs)
	}
}

func TestLookAtWhatIsWrong(t *testing.T) {
	environment, configuration := deployment.Environment, deployment.Configuration
	for _, c := range []struct {
		name   string
		server *played
		unit   Unit
		up     bool
		smoke  string // "" = none was made, else "ok" or the failed checks
		blame  string
		runs   int
	}{
		{"all well", well(), Unit{Active: "active"}, true, "ok", "", 1},
		{"it reloads", well(), Unit{Active: "reloading"}, true, "ok", "", 1},
		{"somebody uses the engine", well().with(func(p *played) { p.jobs = 1 }), Unit{}, true, "ok", "", 0},
		{"somebody uses it, and a component fails", well().fails("doors", "x").with(func(p *played) { p.jobs = 1 }), Unit{}, true, "components", "", 0},
		{"it does not answer", well().with(func(p *played) { p.dead = true }), Unit{Active: "active"}, false, "answers", "", 0},
		{"it has failed", well().with(func(p *played) { p.dead = true }), Unit{Active: "failed"}, false, "answers", "", 0},
		{"it is being started", well().with(func(p *played) { p.dead = true }), Unit{Active: "activating"}, false, "", "", 0},
		{"it was stopped", well().with(func(p *played) { p.dead = true }), Unit{Active: "inactive", Stopped: true}, false, "", "", 0},
		{"another answers in its place", well(), Unit{Active: "failed"}, false, "unit", "", 0},
		{"a component fails", well().fails("doors", "x"), Unit{}, true, "components", "", 1},
		{"the disk is full", well().fails("spool", "disk_full"), Unit{}, true, "ok", "", 1}, // smoke calls that degraded
		{"the disk is read-only", well().fails("state", "state_not_writable"), Unit{}, true, "components", environment, 1},
		{"the certificate is bad", well().fails("tls", "tls_expired"), Unit{}, true, "components", configuration, 1},
		{"systemd does not answer", well().fails("systemd", "component_failed"), Unit{}, true, "ok", "", 1},
		{"two fail, and one is its own", well().fails("systemd", "x").fails("doors", "x"), Unit{}, true, "components", "", 1},
		{"another text", well().with(func(p *played) { p.heard = "nothing of the sort" }), Unit{}, true, "transcription", "", 0},
		{"it fails beside somebody's work", well().with(func(p *played) { p.heard, p.others = "nothing of the sort", 1 }), Unit{}, true, "transcription", environment, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.server.serve(t)
			s.Unit = func(context.Context) (Unit, error) { return c.unit, nil }
			got := look(t, s, true)
			made, by := "", ""
			if got.Smoke != nil {
				made, by = strings.Join(got.Smoke.Failed, " "), got.Smoke.Blame
				if got.Smoke.OK {
					made = "ok"
				} else if got.Smoke.Says == "" {
					t.Error("it says nothing")
				}
			}
			if got.Up != c.up || made != c.smoke || by != c.blame || len(got.Runs) != c.runs {
				t.Errorf("up %v, smoke %q blamed on %q, %d runs", got.Up, made, by, len(got.Runs))
			}
		})
	}
}

func TestNoModel(t *testing.T) {
	s := well().fails("models", "model_not_installed").serve(t)
	got := look(t, s, true)
	if !got.NoModel || len(got.Failing) != 0 || got.Smoke == nil || !got.Smoke.OK || len(got.Runs) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSystemdDoesNotAnswer(t *testing.T) {
	s := well().serve(t)
	s.Unit = func(context.Context) (Unit, error) { return Unit{Restarts: 9}, errors.New("no bus") }
	if got := look(t, s, false); !got.Up || got.Active != "" || got.Restarts != 0 {
		t.Errorf("%+v", got)
	}
}

// TestNoMetrics: what is not known of a server is not held against it.
func TestNoMetrics(t *testing.T) {
	p := well()
	p.noMetrics = true
	if got := look(t, p.serve(t), true); !got.Up || got.Counters != nil || got.Memory != 0 || got.Smoke == nil || !got.Smoke.OK || p.runs != 0 {
		t.Errorf("%+v", got)
	}
}

func TestLookEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := well().serve(t).Look(ctx, true); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestBrokenAfterItsHeaders(t *testing.T) {
	for code, want := range map[string]int64{"engine_crashed": 3, "undecodable": 0} {
		p := well().with(func(p *played) { p.broken, p.posts = code, map[string]int{"200": 5} })
		if got := look(t, p.serve(t), false); got.Counters == nil || got.Counters.Failed != want {
			t.Errorf("%s: %+v, want %d failed", code, got.Counters, want)
		}
	}
}

func TestRuns(t *testing.T) {
	fail := func(status int, code string) func(*played) {
		return func(p *played) {
			p.heard, p.status, p.refuse = "", status, `{"error":"it will not","code":"`+code+`"}`
		}
	}
	for _, c := range []struct {
		name   string
		server *played
		made   int // of 3
		check  func(trial.Run) bool
	}{
		{"well", well(), 3, func(r trial.Run) bool { return r.Idle && r.Right && !r.Cold && r.Problem == "" }},
		{"a wrong text", well().with(func(p *played) { p.heard = "thank you" }), 3, func(r trial.Run) bool { return !r.Right && r.Says == "thank you" }},
		{"others were faster", well().with(func(p *played) { p.others = 1 }), 3, func(r trial.Run) bool { return !r.Idle && r.Right }},
		{"busy", well().with(func(p *played) { p.jobs = 1 }), 1, func(r trial.Run) bool { return r.Problem == trial.Busy }},
		{"refused as busy", well().with(fail(429, "busy")), 1, func(r trial.Run) bool { return r.Problem == trial.Busy }},
		{"no model", well().with(fail(503, "model_not_installed")), 1, func(r trial.Run) bool { return r.Problem == trial.NoModel }},
		{"no memory", well().with(fail(503, "low_memory")), 1, func(r trial.Run) bool { return r.Problem == trial.LowMemory }},
		{"no room", well().with(fail(507, "disk_full")), 1, func(r trial.Run) bool { return r.Problem == trial.LowMemory }},
		{"the engine ended", well().with(fail(503, "engine_crashed")), 3, func(r trial.Run) bool { return r.Problem == trial.Crashed }},
		{"the answer ended", well().with(func(p *played) { p.cut = true }), 3, func(r trial.Run) bool { return r.Problem == trial.Crashed }},
		{"the engine fails", well().with(fail(500, "engine_failed")), 3, func(r trial.Run) bool { return r.Problem == "engine_failed" }},
		{"nobody is there", well().with(func(p *played) { p.dead = true }), 3, func(r trial.Run) bool { return r.Problem == "no_server" && r.Says != "" }},
		{"metrics are refused", well().with(func(p *played) { p.noMetrics = true }), 3, func(r trial.Run) bool { return r.Problem == "bad_answer" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := 0
			runs := c.server.serve(t).Runs(t.Context(), 3, func(trial.Run) { told++ })
			if len(runs) != c.made || told != c.made {
				t.Fatalf("%d runs, %d told, want %d", len(runs), told, c.made)
			}
			for _, r := range runs {
				if !c.check(r) {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

func TestRunsWaitForTheEngine(t *testing.T) {
	p := well()
	p.jobs = 1
	s := p.serve(t)
	s.Wait = time.Minute
	var runs []trial.Run
	done := make(chan struct{})
	go func() {
		defer close(done)
		runs = s.Runs(t.Context(), 1, nil)
	}()
	time.AfterFunc(10*time.Millisecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.jobs = 0
	})
	<-done
	if len(runs) != 1 || !runs[0].Right {
		t.Errorf("%+v", runs)
	}
}

func TestRunsEndWithTheirContext(t *testing.T) {
	p := well()
	p.jobs = 1
	s := p.serve(t)
	s.Wait = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if runs := s.Runs(ctx, 3, nil); len(runs) != 0 {
		t.Errorf("%+v", runs)
	}
}

// TestBeside: users of another server share the processors.
func TestBeside(t *testing.T) {
	busy := well()
	busy.jobs = 1
	s := well().serve(t)
	s.Beside = []string{busy.serve(t).Socket}
	if runs := s.Runs(t.Context(), 1, nil); runs[0].Problem != trial.Busy {
		t.Errorf("%+v", runs)
	}
	s.Beside = []string{filepath.Join(t.TempDir(), "none")}
	if runs := s.Runs(t.Context(), 1, nil); !runs[0].Idle {
		t.Errorf("%+v", runs)
	}
}

func TestTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "talk.wav")
	if err := os.WriteFile(file, []byte("sound"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := well().serve(t)
	if r := s.Time(t.Context(), Recording{Path: file}); !r.Right || r.Sound != 8 || r.Problem != "" {
		t.Errorf("%+v", r)
	}
	if r := s.Time(t.Context(), Recording{Path: file + "x"}); r.Problem != "failed" || r.Says == "" {
		t.Errorf("%+v", r)
	}
}

func TestFigures(t *testing.T) {
	p := well()
	p.loaded, p.posts = false, map[string]int{"200": 30, "500": 10}
	got, err := p.serve(t).Figures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.StartSeconds != 1.5 || got.MemoryBytes != 150<<10 || got.ErrorRatio != 0.25 {
		t.Errorf("%+v", got)
	}
	if got.FirstSeconds <= 0 || got.RealTime <= 0 || got.HealthSeconds <= 0 || got.Runs != 9 {
		t.Errorf("%+v: the first of ten runs was cold", got)
	}
}

func TestFiguresOfABusyServer(t *testing.T) {
	p := well()
	p.jobs = 1
	got, runs, err := p.serve(t).Measure(t.Context(), 5, nil)
	if err != nil || got.RealTime != 0 || got.Runs != 0 || got.StartSeconds != 1.5 || len(runs) != 1 || p.runs != 0 {
		t.Errorf("%+v, %v, %v", got, runs, err)
	}
}

func TestFiguresOfNobody(t *testing.T) {
	s := Server{Socket: filepath.Join(t.TempDir(), "none")}
	if _, err := s.Figures(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("error %v", err)
	}
	if _, err := s.Baseline(t.Context()); err == nil {
		t.Error("a baseline of nobody")
	}
	if _, _, err := s.Health(t.Context(), 3); err == nil {
		t.Error("health of nobody")
	}
}

func TestBaseline(t *testing.T) {
	got, err := well().fails("doors", "x").serve(t).Baseline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Components, []string{"doors"}) || !slices.Equal(got.Checks, []string{"components"}) || got.Figures.RealTime <= 0 {
		t.Errorf("%+v", got)
	}
}

func TestHealth(t *testing.T) {
	p50, p99, err := well().serve(t).Health(t.Context(), 10)
	if err != nil || p50 <= 0 || p99 < p50 {
		t.Errorf("%v, %v, %v", p50, p99, err)
	}
	if _, p99, err := well().serve(t).Health(t.Context(), 0); p99 != 0 || err != nil {
		t.Errorf("of none: %v, %v", p99, err)
	}
}

func TestResident(t *testing.T) {
	proc := processes(t, map[int]int{1: 10, 2: 20})
	if n, err := Resident(proc, []int{1, 2, 3}); n != 30<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := Resident(proc, []int{3}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(filepath.Join(proc, "2", "smaps_rollup"), []byte("Rss: 1 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Resident(proc, []int{1, 2}); err == nil {
		t.Error("a file without its number is read")
	}
}

func TestPIDsAsTold(t *testing.T) {
	s := well().serve(t)
	s.PIDs = func(context.Context) ([]int, error) { return []int{12}, nil }
	if got := look(t, s, false); got.Memory != 7<<10 {
		t.Errorf("memory %d", got.Memory)
	}
	s.PIDs = func(context.Context) ([]int, error) { return nil, errors.New("no") }
	if got := look(t, s, false); got.Memory != 0 {
		t.Errorf("memory %d", got.Memory)
	}
	s.Proc = ""
	if got := look(t, s, false); got.Memory != 0 {
		t.Errorf("memory %d", got.Memory)
	}
}

// TestReport holds smoke's names to those that are known here.
func TestReport(t *testing.T) {
	report := smoke.Check{Socket: well().serve(t).Socket}.Run(t.Context())
	var names []string
	for _, r := range report.Results {
		names = append(names, r.Name)
	}
	for _, name := range []string{"answers", "components", "https", "transcription", "engine"} {
		if !slices.Contains(names, name) {
			t.Errorf("smoke has no check %s: %v", name, names)
		}
	}
}

func TestAbout(t *testing.T) {
	got, err := well().serve(t).About(t.Context())
	if err != nil || got != (About{Version: "1", Commit: "c", Slot: "a", Model: "tiny"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := (Server{Socket: filepath.Join(t.TempDir(), "none")}).About(t.Context()); err == nil {
		t.Error("nobody says something")
	}
}

func TestUnload(t *testing.T) {
	p := well()
	s := p.serve(t)
	if err := s.Unload(t.Context()); err != nil || p.loaded {
		t.Fatalf("loaded %v, %v", p.loaded, err)
	}
	if runs := s.Runs(t.Context(), 2, nil); len(runs) != 2 || !runs[0].Cold || runs[1].Cold {
		t.Errorf("%+v: the first alone should be cold", runs)
	}
	p.forbid = true
	if err := s.Unload(t.Context()); fault.KindOf(err) != fault.Forbidden || fault.Hint(err) != "be root" {
		t.Errorf("error %v", err)
	}
	p.jobs = 1
	if err := s.Unload(t.Context()); fault.KindOf(err) != fault.Busy {
		t.Errorf("error %v", err)
	}
	if err := (Server{Socket: filepath.Join(t.TempDir(), "none")}).Unload(t.Context()); err == nil {
		t.Error("nobody has unloaded it")
	}
}

// TestUpdaterAway: that the updater cannot be reached is no failure of a release.
func TestUpdaterAway(t *testing.T) {
	report := smoke.Report{Results: []smoke.Result{{Name: "check-updates", Verdict: smoke.Failed, Says: "updater: it does not answer"}}}
	away := []trial.Failing{{Name: "updater", Advisory: true}}
	if got := judged(report, away, true); !got.OK {
		t.Errorf("%+v", got)
	}
	if got := judged(report, nil, true); got.OK || got.Blame != "" {
		t.Errorf("a door that is broken: %+v", got)
	}
}
