package trial

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	r := func(seconds float64) Run { return Run{Seconds: seconds, Sound: 4, Idle: true, Right: true} }
	three := func(a Run) []Run { return []Run{a, a, a} }
	problem := func(code string) Run { return Run{Problem: code, Idle: true} }
	wrong := Run{Seconds: 1, Sound: 4, Idle: true}
	shared := Run{Seconds: 9, Sound: 4, Right: true}
	none := Memory{}
	for _, c := range []struct {
		name                 string
		incumbent, candidate []Run
		memory               Memory
		want                 string
	}{
		{"alike", three(r(1)), three(r(1.1)), none, proven},
		{"faster", three(r(1)), three(r(0.1)), none, proven},
		{"half as slow again", three(r(1)), three(r(1.5)), none, proven},
		{"slower, for the trial to judge", three(r(1)), three(r(2.9)), none, "inconclusive slower environment"},
		{"three times as slow in all pairs", three(r(1)), three(r(3)), none, "bad slower candidate"},
		{"three times as slow in two pairs", three(r(1)), []Run{r(3), r(3), r(2.9)}, none, "inconclusive slower environment"},
		{"slow because others use the processors", three(r(1)), three(Run{Seconds: 4, Waited: 1.1, Sound: 4, Idle: true, Right: true}), none, "inconclusive slower environment"},
		{"slow while it was not alone", three(r(1)), three(shared), none, "inconclusive engine_busy environment"},
		{"the incumbent was not alone", three(shared), three(r(9)), none, "inconclusive engine_busy environment"},
		{"wrong text in all pairs", three(r(1)), three(wrong), none, "bad wrong_text candidate"},
		{"wrong text once", three(r(1)), []Run{r(1), wrong, r(1)}, none, "inconclusive wrong_text environment"},
		{"wrong text of both", three(wrong), three(wrong), none, "inconclusive too_few_runs environment"},
		{"the incumbent is wrong", three(wrong), three(r(1)), none, "inconclusive too_few_runs environment"},
		{"no text at all", three(r(1)), three(problem("engine_failed")), none, "bad no_transcription candidate"},
		{"no text of either", three(problem("engine_failed")), three(problem("engine_failed")), none, "inconclusive too_few_runs environment"},
		{"it ended", three(r(1)), []Run{problem(Crashed)}, none, "bad crashed candidate"},
		{"both ended", []Run{problem(Crashed)}, []Run{problem(Crashed)}, none, "inconclusive too_few_runs environment"},
		{"the incumbent ended", three(problem(Crashed)), three(r(1)), none, "inconclusive too_few_runs environment"},
		{"two pairs", three(r(1))[:2], three(r(9)), none, "inconclusive too_few_runs environment"},
		{"nothing", nil, nil, none, "inconclusive too_few_runs environment"},
		{"busy", three(r(1)), []Run{r(9), r(9), problem(Busy)}, none, "inconclusive engine_busy environment"},
		{"no model", three(problem(NoModel)), three(problem(NoModel)), none, "inconclusive no_model environment"},
		{"no memory for a run", three(r(1)), three(problem(LowMemory)), none, "inconclusive short_of_memory environment"},
		{"no memory for two", nil, nil, Memory{Available: 99, Needed: 100}, "inconclusive short_of_memory environment"},
		{"just enough memory for two", three(r(1)), three(r(1)), Memory{Available: 100, Needed: 100}, proven},
		{"three times the memory", three(r(1)), three(r(1)), Memory{Incumbent: 100, Candidate: 300}, "bad too_much_memory candidate"},
		{"less than that", three(r(1)), three(r(1)), Memory{Incumbent: 100, Candidate: 299}, proven},
		{"memory unknown", three(r(1)), three(r(1)), Memory{Candidate: 300}, proven},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Compare(c.incumbent, c.candidate, c.memory)
			if said(got.Verdict) != c.want {
				t.Errorf("%q, want %q (%s)", said(got.Verdict), c.want, got.Says)
			}
			if got.Says == "" {
				t.Error("no words")
			}
		})
	}
}

func TestCompareTellsItsEvidence(t *testing.T) {
	got := Compare([]Run{{Seconds: 1, Sound: 4, Idle: true, Right: true}, {Seconds: 1, Cold: true, Idle: true, Right: true}},
		[]Run{{Seconds: 2, Sound: 4, Idle: true, Right: true}, {Right: true}}, Memory{Incumbent: 1 << 20, Candidate: 2 << 20})
	want := "pair 1: 2.00 s, before 1.00 s\npair 2: 0.00 s, not alone, before 1.00 s, the engine's start included\nmemory 2 MiB, before 1 MiB"
	if text := strings.Join(got.Evidence, "\n"); text != want {
		t.Errorf("%s", text)
	}
	if got.SpeedRatio != 2 || got.MemoryRatio != 2 {
		t.Errorf("%+v", got)
	}
}
