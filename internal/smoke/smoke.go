// Package smoke is the check after an installation, an update or a repair: does
// this server do what people come for? It asks the doors as their users would,
// over the Unix socket, HTTP and HTTPS, and has a known sentence transcribed.
//
// It trusts nothing that it has not seen answered, and writes nothing.
package smoke

import (
	"context"
	_ "embed"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
)

// The reference clip, 4 s of speech, and what is said in it.
var (
	//go:embed reference.wav
	clip []byte
	//go:embed reference.txt
	said string
)

// Verdict is how a check ended.
type Verdict string

// The verdicts. Only Failed makes a report bad.
const (
	Passed   Verdict = "passed"
	Degraded Verdict = "degraded" // something is missing that an administrator knows of, such as a model
	Failed   Verdict = "failed"
	Skipped  Verdict = "skipped" // Says why
)

// Result is one check.
type Result struct {
	Name    string        `json:"name"`
	Verdict Verdict       `json:"verdict"`
	Says    string        `json:"says,omitempty"`
	Hint    string        `json:"hint,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// Report is all checks, in the order they were made.
type Report struct {
	Verdict Verdict       `json:"verdict"` // the worst of the checks; Skipped counts as passed
	Version string        `json:"version,omitempty"`
	Slot    string        `json:"slot,omitempty"`
	Results []Result      `json:"results"`
	Took    time.Duration `json:"took_ns"`
}

// Check says what is to be checked.
type Check struct {
	Socket  string // path of the Unix socket to ask
	Address string // host:port of HTTP and HTTPS, of the same server; "" = not asked, as of a server beside the port
	Key     string // an API key, where the address needs one
	Version string // what the server must be; "" = whatever it is
	Wait    time.Duration

	// Tell is called with each result as it comes; nil = nobody listens.
	Tell func(Result)
}

// pause lies between two attempts.
const pause = 500 * time.Millisecond

// Run makes the checks. Until the server answers it waits, for as long as Wait.
func (c Check) Run(ctx context.Context) Report {
	began := time.Now()
	r := &run{Check: c, local: api.OverSocket(c.Socket)}
	r.local.Key = c.Key
	r.await(ctx)
	for _, step := range []struct {
		name string
		do   func(ctx context.Context) (string, error)
	}{
		{"answers", r.answers},
		{"version", r.version},
		{"components", r.components},
		{"http", r.http},
		{"https", r.https},
		{"deployment-info", r.deploymentInfo},
		{"check-updates", r.checkUpdates},
		{"maintenance", r.maintenance},
		{"transcription", r.transcription},
		{"engine", r.engine},
	} {
		r.step(ctx, step.name, step.do)
	}
	r.report.Took = time.Since(began)
	return r.report
}

// run is one Run in progress.
type run struct {
	Check
	local  *api.Client
	report Report
	health health
	asked  error // why /health/detailed could not be had
	heard  bool  // the clip was transcribed, so that there is an engine
}

// stepLimit bounds one check.
const stepLimit = 60 * time.Second

func (r *run) step(ctx context.Context, name string, do func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	began := time.Now()
	says, err := "", error(nil)
	if r.asked != nil && len(r.report.Results) > 0 { // the first check has said why
		err = skipped("the server does not answer")
	} else {
		says, err = do(ctx)
	}
	result := Result{Name: name, Verdict: Passed, Says: says, Took: time.Since(began)}
	if err != nil {
		result.Verdict, result.Says, result.Hint = verdict(err), err.Error(), fault.Hint(err)
	}
	if r.report.Verdict == "" || worse(result.Verdict, r.report.Verdict) {
		r.report.Verdict = result.Verdict
	}
	if r.report.Verdict == Skipped {
		r.report.Verdict = Passed
	}
	r.report.Results = append(r.report.Results, result)
	if r.Tell != nil {
		r.Tell(result)
	}
}

func worse(a, b Verdict) bool {
	rank := map[Verdict]int{Passed: 0, Skipped: 0, Degraded: 1, Failed: 2}
	return rank[a] > rank[b]
}

// lesser is an error that makes a check no failure.
type lesser struct {
	error
	verdict Verdict
}

func (l lesser) Unwrap() error { return l.error }

func degraded(err error) error { return lesser{err, Degraded} }

func skipped(why string) error {
	return lesser{fault.New(fault.Unavailable, "skipped", "%s", why), Skipped}
}

func verdict(err error) Verdict {
	if l, ok := err.(lesser); ok { //nolint:errorlint // made here, never wrapped
		return l.verdict
	}
	return Failed
}
