package measure

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestCompare(t *testing.T) {
	crashes := func(p *played) { p.cut = true }
	busy := func(p *played) { p.jobs = 1 }
	cold := func(p *played) { p.loaded = false }
	same := func(*played) {}
	for _, c := range []struct {
		name                 string
		incumbent, candidate func(*played)
		available            string // KiB, "" = not known
		want                 string
		was, is              int // transcriptions, the first one of each apart
	}{
		{"alike", same, same, "", "good proven", 3, 3},
		{"both cold at first", cold, cold, "", "good proven", 3, 3},
		{"memory for both", same, same, "150", "good proven", 3, 3},
		{"no memory for both", same, same, "149", "inconclusive short_of_memory", 0, -1},
		{"somebody uses the incumbent", busy, same, "", "inconclusive engine_busy", -1, -1},
		{"somebody uses the candidate", same, busy, "", "inconclusive engine_busy", -1, -1},
		{"the candidate ends", same, crashes, "", "bad crashed", 0, 0},
		{"both end", crashes, crashes, "", "inconclusive too_few_runs", 0, -1},
		{"another text", same, func(p *played) { p.heard = "thank you" }, "", "bad wrong_text", 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			was, is := well().with(c.incumbent), well().with(c.candidate)
			incumbent, candidate := was.serve(t), is.serve(t)
			if c.available != "" {
				if err := os.WriteFile(filepath.Join(incumbent.Proc, "meminfo"), []byte("MemTotal: 9 kB\nMemAvailable: "+c.available+" kB\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Compare(t.Context(), incumbent, candidate)
			if err != nil || got.Word+" "+got.Reason != c.want {
				t.Errorf("%s %s (%s), %v, want %s", got.Word, got.Reason, got.Says, err, c.want)
			}
			if was.runs-1 != c.was || is.runs-1 != c.is {
				t.Errorf("%d and %d transcriptions", was.runs, is.runs)
			}
		})
	}
}

func TestCompareMeasuresMemory(t *testing.T) {
	incumbent, candidate := well().serve(t), well().serve(t)
	candidate.Unit = func(context.Context) (Unit, error) { return Unit{PID: 12}, nil }
	candidate.Proc = processes(t, map[int]int{11: 293, 12: 7, 10: 999})
	got, err := Compare(t.Context(), incumbent, candidate)
	if err != nil || got.MemoryRatio != 2 || got.SpeedRatio <= 0 {
		t.Errorf("%+v, %v: the candidate's server is its unit's", got, err)
	}
}

func TestCompareEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Compare(ctx, well().serve(t), well().serve(t)); err == nil || got.Word == "bad" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNobodyHoldsNothing(t *testing.T) {
	s := Server{Socket: filepath.Join(t.TempDir(), "none"), Proc: t.TempDir()}
	if n := s.Resident(t.Context()); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if n := available(s.Proc); n != 0 {
		t.Errorf("%d bytes available", n)
	}
}
