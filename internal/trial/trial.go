// Package trial judges a release that serves on trial: good, bad or
// inconclusive, with a reason, whom it is blamed on and what the verdict rests
// on. It also compares two releases before either is switched to.
//
// It has no clock, asks nobody and writes nothing: samples go in, in the order
// in which they were taken, and a verdict comes out after each. It trusts the
// samples to be true, and not to be complete: time between two of them that are
// far apart proves nothing, counters may begin anew, and what a release before
// could not do either is not held against this one.
package trial

import (
	"cmp"
	"slices"
	"time"

	"whisper-appliance/internal/deployment"
)

// Rules are what a release is held to. A zero stands for the default.
type Rules struct {
	Length       time.Duration `json:"length_ns"`     // healthy time that it must show; 10 min
	Cap          time.Duration `json:"cap_ns"`        // observed time after which it is kept without proof; 3 × Length
	Tick         time.Duration `json:"tick_ns"`       // the most that lies between two samples for the time between to count; 30 s
	Requests     int64         `json:"requests"`      // that it must have answered, synthetic ones among them; 5
	ErrorBudget  float64       `json:"error_budget"`  // share of requests that may fail, more where as many failed before; 0.05
	ErrorSample  int64         `json:"error_sample"`  // requests below which that share says nothing; 20
	SpeedFactor  float64       `json:"speed_factor"`  // times the real-time factor before; 1.5
	SpeedRuns    int           `json:"speed_runs"`    // synthetic runs on an idle engine that are compared, the newest; 10
	MemoryFactor float64       `json:"memory_factor"` // times the memory before; 1.5
	MemoryMargin int64         `json:"memory_margin"` // bytes that are allowed above that; 64 MiB
}

// What is bad when it is seen so often, or more often.
const (
	failedSmokes = 3 // in a row
	mostFlips    = 3 // and no more
	heavyLooks   = 3 // over the memory budget, in a row
)

func (r Rules) filled() Rules {
	r.Length = cmp.Or(r.Length, 10*time.Minute)
	r.Cap = cmp.Or(r.Cap, 3*r.Length)
	r.Tick = cmp.Or(r.Tick, 30*time.Second)
	r.Requests = cmp.Or(r.Requests, 5)
	r.ErrorBudget = cmp.Or(r.ErrorBudget, 0.05)
	r.ErrorSample = cmp.Or(r.ErrorSample, 20)
	r.SpeedFactor = cmp.Or(r.SpeedFactor, 1.5)
	r.SpeedRuns = cmp.Or(r.SpeedRuns, 10)
	r.MemoryFactor = cmp.Or(r.MemoryFactor, 1.5)
	r.MemoryMargin = cmp.Or(r.MemoryMargin, 64<<20)
	return r
}

// Baseline is how things were before the trial.
type Baseline struct {
	Figures    deployment.Figures `json:"figures"`              // of the release before; what is 0 is not compared
	Components []string           `json:"components,omitempty"` // that failed then already
	Checks     []string           `json:"checks,omitempty"`     // of smoke, likewise
	Restarts   uint32             `json:"restarts"`             // systemd's count, after the new server's start
	Watchdog   int                `json:"watchdog"`             // kills by the watchdog, likewise
}

// Sample is what was seen of the new server at one moment, or since the sample
// before.
type Sample struct {
	At         time.Duration // on CLOCK_BOOTTIME
	Up         bool          // systemd calls it active, and it answers
	Active     string        // systemd's ActiveState
	Stopped    bool          // somebody stopped it
	PID        int           // 0 where it does not run
	Restarts   uint32        // by systemd, since somebody last started it
	Invocation string        // systemd's id of this start
	Watchdog   int           // kills by the watchdog, counted on from Baseline
	Ends       []End         // of this release's runs that nobody wanted, the newest last, as far as they are kept
	Result     string        // systemd's word for how it last ended: "success", "exit-code", "oom-kill", …
	Exit       int           // its last exit status
	Smoke      *Smoke        // nil = none was made
	Counters   *Counters     // of the new server since its start; nil = it could not be asked
	Runs       []Run         // synthetic requests that were made since
	Memory     int64         // bytes resident, of server and engine; 0 = not known
	Failing    []Failing     // components that fail
	Busy       bool          // the engine works for somebody
	NoModel    bool          // there is no model to transcribe with
}

// excused reports whether something fails that is not the candidate's fault.
func (s Sample) excused() bool {
	return slices.ContainsFunc(s.Failing, func(f Failing) bool {
		return !f.Advisory && f.Blame != "" && f.Blame != deployment.Candidate
	})
}

// Smoke is one run of the smoke test.
type Smoke struct {
	OK     bool
	Failed []string // names of the checks that failed
	Says   string   // what the first of them said
	Blame  string   // whom the failure is blamed on; "" = the candidate
}

// Counters are requests for work, as a server counts them from its start.
type Counters struct {
	Answered int64 `json:"answered"` // failed ones among them
	Failed   int64 `json:"failed"`   // by the server's fault
}

// Failing is a component that fails.
type Failing struct {
	Name     string
	Code     string // stable
	Says     string
	Blame    string // whom it is blamed on; "" = the candidate
	Advisory bool   // the appliance is well without it: told, and no more
}

// Run is one transcription of the reference clip.
type Run struct {
	Seconds float64 // that it took
	Waited  float64 // seconds of these in which work, of this or other programs, waited for a processor
	Sound   float64 // seconds of sound that it was about
	Idle    bool    // nobody else used the engine meanwhile
	Cold    bool    // the engine had to be started or to load its model for it
	Right   bool    // what is said in the clip was heard
	Problem string  // why there is no text: a code, one of those below where it tells of one; "" = there is
	Says    string  // the same, or the text, for people
}

// Problems of a Run that say nothing of the release, and one that does.
const (
	Busy      = "busy"
	LowMemory = "low_memory"
	NoModel   = "model_not_installed"
	Crashed   = "crashed" // server or engine ended over it
)

// excused tells a run that could not be made from one that failed.
func (r Run) excused() bool {
	return r.Problem == Busy || r.Problem == LowMemory || r.Problem == NoModel
}

// failed tells a run that the release is to answer for.
func (r Run) failed() bool { return !r.excused() && (r.Problem != "" || !r.Right) }

// fair is the real-time factor as it would have been at best had nobody else
// used the processors; it is what a release is blamed for.
func (r Run) fair() float64 {
	if r.speed() == 0 {
		return 0
	}
	return max(r.Seconds-max(0, r.Waited), r.Seconds/leastFair) / r.Sound
}

// leastFair bounds what waiting excuses: a factor of the time that a run took.
const leastFair = 10

// speed is the real-time factor, 0 where the run says nothing of it.
func (r Run) speed() float64 {
	if r.Problem != "" || !r.Idle || r.Cold || r.Sound <= 0 || r.Seconds <= 0 {
		return 0
	}
	return r.Seconds / r.Sound
}

// Codes of a Verdict's Reason.
const (
	// Good.
	ReasonProven = "proven"

	// Bad.
	ReasonRestarted = "restarted"        // it ended by itself and was started again
	ReasonSignal    = "signal"           // likewise, of a signal: it crashed
	ReasonOOM       = "out_of_memory"    // likewise, killed for memory
	ReasonUnit      = "unit_failed"      // systemd could not run its unit: it was never begun
	ReasonWatchdog  = "watchdog"         // it hung
	ReasonSmoke     = "smoke_failed"     // three times in a row
	ReasonFlapping  = "flapping"         // ready, not ready, ready
	ReasonErrors    = "too_many_errors"  // of its requests
	ReasonSlow      = "slower"           // than the release before
	ReasonHeavy     = "too_much_memory"  // beside the release before
	ReasonWrongText = "wrong_text"       // of the reference clip, where the release before was right
	ReasonCrashed   = "crashed"          // over the reference clip
	ReasonNoAnswer  = "no_transcription" // of the reference clip, where the release before gave one

	// Inconclusive.
	ReasonEarly     = "under_way"        // nothing is wrong, and it is too early to say more
	ReasonStopped   = "stopped"          // somebody stopped the server
	ReasonDown      = "down"             // it does not answer
	ReasonFailing   = "component_failed" // and smoke has not yet failed three times over it
	ReasonNoModel   = "no_model"
	ReasonFew       = "too_few_requests"
	ReasonUnchecked = "not_checked" // no smoke test has passed yet
	ReasonBusy      = "engine_busy"
	ReasonMemory    = "short_of_memory"
	ReasonFewRuns   = "too_few_runs"
	ReasonUnproven  = "unproven" // it was not healthy for long enough, of whatever
)

// Verdict is what is to be said of a release.
type Verdict struct {
	Word     string   `json:"word"`             // deployment.Good, Bad or Inconclusive
	Reason   string   `json:"reason"`           // stable code
	Blame    string   `json:"blame,omitempty"`  // deployment.Candidate, Environment or Configuration; "" where nothing is wrong
	Says     string   `json:"says"`             // the reason for people
	Evidence []string `json:"evidence"`         // what it rests on, a line each
	Capped   bool     `json:"capped,omitempty"` // inconclusive to the end: it is kept, and somebody has to be told
}

// Final reports whether nothing that comes after changes the verdict.
func (v Verdict) Final() bool { return v.Word != deployment.Inconclusive || v.Capped }

// Credit is what has been seen of a release so far. It is stored now and then,
// so that a trial can go on after a crash or a boot.
type Credit struct {
	Healthy    time.Duration `json:"healthy_ns"`  // in which nothing was wrong
	Observed   time.Duration `json:"observed_ns"` // in which somebody looked, and nobody had stopped the server
	Samples    int           `json:"samples"`
	Restarts   uint32        `json:"restarts"` // what systemd's count must not exceed
	Counted    Counters      `json:"counted"`  // since the trial began
	Last       Counters      `json:"last"`     // what the server showed last
	Invocation string        `json:"invocation,omitempty"`
	Synthetic  Counters      `json:"synthetic"`
	Speeds     []float64     `json:"speeds,omitempty"`      // real-time factors of the newest runs on an idle engine
	Seen       End           `json:"seen,omitzero"`         // the last of Sample.Ends that says nothing of what comes; zero = none does
	Memory     int64         `json:"memory,omitempty"`      // bytes, the last that was seen
	Peak       int64         `json:"peak,omitempty"`        // bytes, the most that was seen
	Heavy      int           `json:"heavy,omitempty"`       // looks over the memory budget, in a row
	Unready    int           `json:"unready,omitempty"`     // how often it was ready no more
	BadSmokes  int           `json:"bad_smokes,omitempty"`  // in a row
	Smoked     bool          `json:"smoked,omitempty"`      // a smoke test has passed
	SmokeBlame string        `json:"smoke_blame,omitempty"` // of the last smoke test; "" = it passed
	SmokeSays  string        `json:"smoke_says,omitempty"`
	Trouble    Trouble       `json:"trouble,omitzero"` // the last that kept time from being healthy
}

// Trouble is something that was wrong for a while.
type Trouble struct {
	Reason string `json:"reason"`
	Blame  string `json:"blame"`
	Says   string `json:"says"`
}

// Requests are those that the server counted. Synthetic ones are among them,
// and are all that is known where it could not be asked.
func (c Credit) Requests() Counters {
	return Counters{max(c.Counted.Answered, c.Synthetic.Answered), max(c.Counted.Failed, c.Synthetic.Failed)}
}
