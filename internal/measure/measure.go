// Package measure asks a server how it does: whether it answers, what fails of
// it, what it counted, how fast it transcribes a known sentence and how much
// memory it and its engine hold. What it finds is what trials are judged by and
// what versions are compared with.
//
// It believes a server's answers as far as their form; each question has a time
// in which it must be answered. It never competes with people: a recording of
// its own is sent only to an engine that nobody uses. It writes nothing.
package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/internal/trial"
)

// Times that questions may take.
const (
	askLimit   = 10 * time.Second  // for one answer
	runLimit   = 120 * time.Second // for one transcription of the clip, the engine's start included
	lookLimit  = 150 * time.Second // for one look, a smoke test included
	idlePause  = 250 * time.Millisecond
	enoughRuns = 10
)

// Server is one to be asked.
type Server struct {
	Socket  string // path of its Unix socket
	Key     string // API key; "" where the caller may ask without
	Address string // host:port, for the smoke test's doors; "" = they are not asked
	Version string // that it has to be, for the smoke test; "" = any

	// Beside are the sockets of other servers of this machine, whose users would
	// have to share its processors with a run.
	Beside []string

	// Wait is how long a run waits for the engine to be idle; 0 = not at all.
	Wait time.Duration

	// Limit is what one transcription may take; 0 = 2 minutes.
	Limit time.Duration

	// Proc is where the kernel shows processes, for their memory; "" = that is
	// not measured.
	Proc string

	// PIDs are the server's and its engine's; nil = the server's by Unit, and what
	// is not known of that as the server tells it.
	PIDs func(ctx context.Context) ([]int, error)

	// Unit is what systemd knows of the server; nil = nobody asks.
	Unit func(ctx context.Context) (Unit, error)

	// Now is the time since boot, with that in which the machine slept; nil = a
	// sample has none.
	Now func() time.Duration
}

// Unit is what systemd knows of a server's unit. See trial.Sample.
type Unit struct {
	Active     string
	PID        int
	Restarts   uint32
	Invocation string
	Watchdog   int
	Result     string
	Exit       int
	Stopped    bool
}

// Look takes a sample. full asks for a smoke test, whose transcription is a run,
// too, where nobody else wants the engine. That the server does not answer is
// in the sample; an error is that ctx has ended.
func (s Server) Look(ctx context.Context, full bool) (trial.Sample, error) {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	c := s.client()
	defer c.close()
	var sample trial.Sample
	if s.Now != nil {
		sample.At = s.Now() // before what takes its time, so that looks are as far apart as they were begun
	}
	s.unit(limited, &sample)
	err := c.see(limited, &sample)
	sample.Up = err == nil && slices.Contains([]string{"", "active", "reloading"}, sample.Active)
	switch {
	case sample.Stopped, sample.Active == "activating", sample.Active == "deactivating":
	case err != nil:
		sample.Smoke = &trial.Smoke{Failed: []string{"answers"}, Says: err.Error()}
	case !sample.Up: // somebody else answers in its place
		sample.Smoke = &trial.Smoke{Failed: []string{"unit"}, Says: "systemd calls the server " + sample.Active}
	case full:
		s.test(limited, c, &sample)
	}
	return sample, context.Cause(ctx)
}

// unit takes over what systemd knows. Where it does not answer nothing is known.
func (s Server) unit(ctx context.Context, sample *trial.Sample) {
	if s.Unit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	u, err := s.Unit(ctx)
	if err != nil {
		return
	}
	sample.Active, sample.PID, sample.Restarts, sample.Invocation = u.Active, u.PID, u.Restarts, u.Invocation
	sample.Watchdog, sample.Result, sample.Exit, sample.Stopped = u.Watchdog, u.Result, u.Exit, u.Stopped
}

// client asks one server.
type client struct {
	*api.Client
	s Server
}

func (s Server) client() client {
	c := client{api.OverSocket(s.Socket), s}
	c.Key = s.Key
	return c
}

func (c client) close() { c.HTTP.CloseIdleConnections() }

// detail is what of /health/detailed is looked at.
type detail struct {
	Status     component.Health  `json:"status"`
	Components []component.State `json:"components"`
	Startup    struct {
		ReadyMS float64 `json:"ready_ms"`
	} `json:"startup"`
	Environment struct {
		Slot string `json:"slot"`
	} `json:"environment"`
	Versions struct {
		Server string `json:"server"`
	} `json:"versions"`
	Units []struct {
		Name string `json:"name"`
		PID  int    `json:"main_pid"`
	} `json:"units"`
}

// detail asks for the long health answer, which a server without a model gives
// with 503.
func (c client) detail(ctx context.Context) (d detail, err error) {
	const path = "/health/detailed"
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	status, body, err := c.Raw(ctx, path)
	if err != nil {
		return d, fmt.Errorf("ask for %s: %w", path, err)
	}
	if json.Unmarshal(body, &d) != nil || d.Status == "" {
		return d, fault.New(fault.Internal, "bad_answer", "%s answers status %d and no health", path, status).
			Try("is it a server of this appliance? `whisper-appliance smoke` says more")
	}
	return d, nil
}

// see fills in what the server tells of itself. The error is that it does not
// answer; what it does not tell stays unknown.
func (c client) see(ctx context.Context, sample *trial.Sample) error {
	d, err := c.detail(ctx)
	if err != nil {
		return err
	}
	sample.Failing = failing(d.Components)
	sample.NoModel = d.noModel()
	m, err := c.metrics(ctx)
	if err != nil {
		return nil //nolint:nilerr // it answers: what it counts is not known
	}
	counters := m.counters()
	sample.Counters, sample.Busy = &counters, !m.idle()
	if m.loaded() {
		sample.Memory, _ = c.memory(ctx, d) // 0 where it is not known
	}
	return nil
}

const codeNoModel = "model_not_installed"

func (d detail) noModel() bool {
	return slices.ContainsFunc(d.Components, func(st component.State) bool { return st.Code == codeNoModel })
}

// failing are the components that fail by themselves: one that waits for
// another is well as soon as that is.
func failing(components []component.State) []trial.Failing {
	var list []trial.Failing
	for _, st := range components {
		if st.Status != component.Failed || st.Code == codeNoModel {
			continue
		}
		list = append(list, trial.Failing{
			Name: st.Name, Code: st.Code, Says: st.Error, Blame: blame(st.Code), Advisory: Advisory(st.Name),
		})
	}
	return list
}

// Advisory tells whether a component speaks of the machine alone, and of no
// release that runs there: what it says is shown, and judges nothing.
func Advisory(component string) bool {
	return slices.Contains([]string{"systemd", "updater", "network", "gpu"}, component)
}

// blame is whom a component's failure is blamed on, by its code; "" where the
// release may well be at fault.
func blame(code string) string {
	environment := []string{
		"disk_full", "low_memory", "no_memory", "no_directory", "state_not_writable", "spool_not_writable",
		"source_unreachable", "source_refused", "download_failed", "decode_memory",
	}
	switch {
	case slices.Contains(environment, code):
		return deployment.Environment
	case strings.HasPrefix(code, "tls_"), code == "certificate_unusable", code == "bad_certificate", code == "bad_config":
		return deployment.Configuration
	}
	return ""
}

// test makes the smoke test, and a run of its transcription. While somebody
// else wants the engine it looks at the components alone: what people get is
// counted anyway.
func (s Server) test(ctx context.Context, c client, sample *trial.Sample) {
	w, err := c.begin(ctx)
	if err != nil || !w.idle {
		sample.Smoke = known(sample.Failing)
		return
	}
	report := smoke.Check{Socket: s.Socket, Address: s.Address, Key: s.Key, Version: s.Version}.Run(ctx)
	waited, idle := c.waited(w), c.alone(ctx, w)
	if d, err := c.detail(ctx); err == nil {
		sample.Failing, sample.NoModel = failing(d.Components), d.noModel()
	}
	sample.Smoke = judged(report, sample.Failing, idle)
	for _, r := range report.Results {
		if r.Name == "transcription" && r.Verdict == smoke.Passed {
			sample.Runs = append(sample.Runs, trial.Run{
				Seconds: r.Took.Seconds(), Waited: min(waited, r.Took.Seconds()), Sound: smoke.Length.Seconds(), Idle: idle, Cold: w.cold, Right: true, Says: r.Says,
			})
		}
	}
}

// known is a smoke test of nothing but what fails.
func known(failing []trial.Failing) *trial.Smoke {
	for _, f := range failing {
		if !f.Advisory {
			return &trial.Smoke{Failed: []string{"components"}, Says: f.Name + ": " + f.Says, Blame: f.Blame}
		}
	}
	return &trial.Smoke{OK: true, Says: "the engine is in use: the components alone were looked at"}
}

// judged is a report, and whom its failures are blamed on: components that fail
// tell that of themselves, and a transcription that fails beside somebody
// else's work says nothing of the release.
func judged(report smoke.Report, failing []trial.Failing, idle bool) *trial.Smoke {
	out := &trial.Smoke{OK: true}
	for _, r := range report.Results {
		if r.Verdict != smoke.Failed {
			continue
		}
		by := ""
		switch r.Name {
		case "components":
			of := known(failing)
			if of.OK {
				continue // what failed is advisory, or well again
			}
			by = of.Blame
		case "check-updates":
			if slices.ContainsFunc(failing, func(f trial.Failing) bool { return f.Name == "updater" && f.Advisory }) {
				continue // the updater, or the bus, is away
			}
		case "https":
			by = known(failing).Blame // as the certificate's component has it
		case "transcription", "engine":
			if !idle {
				by = deployment.Environment
			}
		}
		if out.OK {
			out.OK, out.Says, out.Blame = false, r.Name+": "+r.Says, by
		}
		if by == "" { // one that is the release's fault decides
			out.Says, out.Blame = r.Name+": "+r.Says, ""
		}
		out.Failed = append(out.Failed, r.Name)
	}
	return out
}

// About is what a server says of itself.
type About struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Slot    string `json:"slot,omitempty"`
	Model   string `json:"model,omitempty"` // the one in use
}

// About asks what serves.
func (s Server) About(ctx context.Context) (About, error) {
	c := s.client()
	defer c.close()
	d, err := c.detail(ctx)
	if err != nil {
		return About{}, err
	}
	version, commit, _ := strings.Cut(d.Versions.Server, " ")
	a := About{Version: version, Commit: strings.Trim(commit, "()"), Slot: d.Environment.Slot}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	h, err := c.short(ctx)
	a.Model = h.Model.Name
	return a, err
}

// short is what of /health is looked at.
type short struct {
	Model struct {
		Name   string `json:"current_model_name"`
		Loaded bool   `json:"model_loaded"`
	} `json:"model_status"`
}

func (c client) short(ctx context.Context) (h short, err error) {
	answer, err := c.Health(ctx)
	if err == nil {
		err = json.Unmarshal(answer, &h)
	}
	return h, err
}
