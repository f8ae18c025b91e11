package trial

import (
	"fmt"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// Pairs is how many runs of each release are compared before a switch.
const Pairs = 3

// clearly is how many times worse a release is that is refused before anybody
// has used it. What is worse by less is for the trial to judge.
const clearly = 3.0

// Memory is what both releases held while they were compared, and what the
// machine had. 0 is not known.
type Memory struct {
	Incumbent int64 // bytes
	Candidate int64 // bytes
	Available int64 // bytes that the machine could give before the candidate was started
	Needed    int64 // bytes that a second engine takes
}

// short reports whether the machine cannot hold both.
func (m Memory) short() bool { return m.Needed > 0 && m.Available > 0 && m.Available < m.Needed }

// Finding is how two releases compare.
type Finding struct {
	Verdict
	SpeedRatio  float64 `json:"speed_ratio"`  // real-time factor by the incumbent's, medians; 0 unknown
	MemoryRatio float64 `json:"memory_ratio"` // likewise, memory
}

// Compare compares the candidate with the release that serves, by runs that
// were made by turns: the n-th of each is a pair. It is bad only where it is
// clearly worse in every pair: slower by three times, or without the right text
// where the incumbent has it; or where it ended over a run that the incumbent
// lived through, or holds three times the memory. A machine that is busy, short
// of memory or without a model proves nothing.
func Compare(incumbent, candidate []Run, m Memory) Finding {
	f := Finding{MemoryRatio: ratio(float64(m.Candidate), float64(m.Incumbent))}
	is, _ := RealTime(candidate)
	was, _ := RealTime(incumbent)
	f.SpeedRatio = ratio(is, was)
	n := min(len(incumbent), len(candidate))
	f.Verdict = compare(incumbent[:n], candidate[:n], m, f)
	for i := range n {
		f.Evidence = append(f.Evidence, fmt.Sprintf("pair %d: %s, before %s", i+1, candidate[i].words(), incumbent[i].words()))
	}
	if m.Candidate > 0 && m.Incumbent > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("memory %s, before %s", fault.Bytes(m.Candidate), fault.Bytes(m.Incumbent)))
	}
	return f
}

// compare has the verdict without its evidence.
func compare(incumbent, candidate []Run, m Memory, f Finding) Verdict {
	bad := func(reason, says string) Verdict {
		return Verdict{Word: deployment.Bad, Reason: reason, Blame: deployment.Candidate, Says: says}
	}
	p := pairs(incumbent, candidate)
	switch {
	case p.crashed > 0:
		return bad(ReasonCrashed, "it ended over the reference clip, which the release before lived through")
	case m.short():
		return unclear(ReasonMemory, "the machine cannot hold two engines: %s are available, %s are needed", fault.Bytes(m.Available), fault.Bytes(m.Needed))
	case p.excuse != "":
		return excuse(p.excuse)
	case p.whole < Pairs:
		return unclear(ReasonFewRuns, "%d of %d pairs of runs could be compared", p.whole, Pairs)
	case p.mute == p.whole:
		return bad(ReasonNoAnswer, "it gives no transcription of the reference clip, and the release before does")
	case p.wrong == p.whole:
		return bad(ReasonWrongText, "it hears something else in the reference clip, which the release before hears right")
	case p.slow == p.whole:
		return bad(ReasonSlow, fmt.Sprintf("it needs %.1f times as long as the release before", f.SpeedRatio))
	case f.MemoryRatio >= clearly:
		return bad(ReasonHeavy, fmt.Sprintf("it holds %.1f times the memory of the release before", f.MemoryRatio))
	case p.wrong > 0:
		return unclear(ReasonWrongText, "it was right in %d of %d pairs", p.whole-p.wrong, p.whole)
	case p.timed < Pairs:
		return unclear(ReasonBusy, "the engine was used meanwhile, so that %d of %d pairs tell of speed", p.timed, Pairs)
	case f.SpeedRatio > deployment.WorseRealTime:
		return unclear(ReasonSlow, "it needs %.1f times as long as the release before", f.SpeedRatio)
	}
	return Verdict{Word: deployment.Good, Reason: ReasonProven, Says: fmt.Sprintf("%d pairs of runs are alike", p.whole)}
}

func unclear(reason, format string, args ...any) Verdict {
	return Verdict{Word: deployment.Inconclusive, Reason: reason, Blame: deployment.Environment, Says: fmt.Sprintf(format, args...)}
}

// excuse is for runs that could not be made.
func excuse(problem string) Verdict {
	switch problem {
	case NoModel:
		return unclear(ReasonNoModel, "there is no model, so that nothing can be transcribed")
	case LowMemory:
		return unclear(ReasonMemory, "there was not enough memory for a run")
	}
	return unclear(ReasonBusy, "the appliance was busy, and nobody is kept waiting for a comparison")
}

// tally counts what pairs of runs show.
type tally struct {
	whole   int    // pairs in which the incumbent gave the right text, and the candidate had its chance
	mute    int    // of these, without any text of the candidate
	wrong   int    // of these, without the right text of the candidate
	timed   int    // of these, with a speed of both
	slow    int    // of these, clearly slower
	crashed int    // pairs in which the candidate alone ended
	excuse  string // why a run could not be made, of the last; "" = all were
}

func pairs(incumbent, candidate []Run) tally {
	var t tally
	for i, c := range candidate {
		b := incumbent[i]
		if c.Problem == Crashed && b.Problem != Crashed {
			t.crashed++
		}
		for _, r := range []Run{b, c} {
			if r.excused() {
				t.excuse = r.Problem
			}
		}
		if b.failed() || b.excused() || c.excused() {
			continue
		}
		t.whole++
		if c.failed() {
			t.wrong++
		}
		if c.Problem != "" {
			t.mute++
		}
		if was, is := b.speed(), c.speed(); was > 0 && is > 0 {
			t.timed++
			if c.fair() >= clearly*was {
				t.slow++
			}
		}
	}
	return t
}

// words is a run for people.
func (r Run) words() string {
	switch {
	case r.Problem != "":
		return r.Problem
	case !r.Right:
		return "wrong text"
	case !r.Idle:
		return fmt.Sprintf("%.2f s, not alone", r.Seconds)
	case r.Cold:
		return fmt.Sprintf("%.2f s, the engine's start included", r.Seconds)
	}
	return fmt.Sprintf("%.2f s", r.Seconds)
}
