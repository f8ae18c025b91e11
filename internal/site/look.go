package site

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/measure"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/trial"
)

// serving is the server behind the appliance's own socket.
func (m *Machine) serving() measure.Server {
	return measure.Server{Socket: m.Paths.APISocket, Proc: paths.MachineAt("").Proc, Unit: m.unit(systemd.Service), Now: sinceBoot}
}

// unit asks what systemd knows of a server's unit. One that is down without
// having failed was stopped by somebody.
func (m *Machine) unit(name string) func(context.Context) (measure.Unit, error) {
	return func(ctx context.Context) (measure.Unit, error) {
		u, err := m.known(ctx, name)
		return measure.Unit{Active: u.Active, PID: u.MainPID, Restarts: u.Restarts, Invocation: u.Invocation, Result: u.Result, Exit: u.Exit,
			Stopped: u.Active == "inactive" && u.Result == "success"}, err
	}
}

// look is a sample of the server that serves. What the gate has noted is read
// last: an end that systemd counts is in it.
func (m *Machine) look(ctx context.Context, full bool) (trial.Sample, error) {
	s, err := m.serving().Look(ctx, full)
	if name, nerr := m.slots().Serving(); nerr == nil {
		s.Ends = m.ends(name)
	}
	for _, e := range s.Ends {
		if e.Result == trial.Watchdog {
			s.Watchdog++
		}
	}
	return s, err
}

// mostEnds bounds what is read of the gate's notes, in bytes.
const mostEnds = 64 << 10

// endsFile is where the gate notes how the server has ended.
func (m *Machine) endsFile() string {
	return filepath.Join(m.Paths.GateRun, strings.TrimSuffix(systemd.Service, ".service")+".ends")
}

// ends is how runs of the release in the slot name have ended that nobody wanted
// to end, the newest last, as the gate has noted it: in a line the link's target,
// the result, the kind of exit, the status or signal and the id of the run, "-"
// where systemd told nothing, and when that was. None is what could not be read,
// too. A gate of before wrote no time.
func (m *Machine) ends(name string) (list []trial.End) {
	data, err := durable.ReadRegular(m.endsFile(), mostEnds)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) != 5 && len(words) != 6 || filepath.Base(words[0]) != name {
			continue
		}
		for i, word := range words {
			if word == "-" {
				words[i] = ""
			}
		}
		e := trial.End{Result: words[1], Code: words[2], Status: words[3], Invocation: words[4]}
		if at, err := strconv.ParseInt(words[len(words)-1], 10, 64); err == nil && len(words) == 6 {
			e.At = at
		}
		list = append(list, e)
	}
	return list
}

// What a comparison and a measurement may take: somebody waits for them, apt for
// one. What they did not find out in that time the trial does.
const (
	compareLimit  = 30 * time.Second
	baselineLimit = 20 * time.Second
)

// baseline is how the server that serves does, now or where it is too busy to be
// measured as it did before.
func (m *Machine) baseline(ctx context.Context) (trial.Baseline, error) {
	limited, cancel := half(ctx, baselineLimit)
	defer cancel()
	b, err := m.serving().Baseline(limited)
	if err != nil && (ctx.Err() != nil || limited.Err() == nil) {
		return b, err
	}
	about, err := m.serving().About(ctx)
	if err != nil {
		return b, err
	}
	kept, known, err := deployment.FiguresOf(m.Paths.Updater, about.Version, about.Model)
	if known {
		b.Figures = b.Figures.Or(kept)
	}
	return b, err
}

func (m *Machine) figures(ctx context.Context) (deployment.Figures, error) {
	return m.serving().Figures(ctx)
}

// rehearse runs the release in the slot name on a socket of its own, beside the
// server that serves, and holds one against the other. The error is for a
// candidate that is bad.
func (m *Machine) rehearse(ctx context.Context, name string, release slot.Manifest) (trial.Finding, error) {
	unit, door := systemd.Preflight(name), systemd.PreflightSocket(name)
	ran := !m.stopping(ctx)
	m.dark(ctx, unit, door) // what a killed run has left may be of another release
	defer func() {
		ctx := context.WithoutCancel(ctx)
		m.dark(ctx, unit, door)
		// That it failed is in the record, and no trouble of this machine's.
		m.bus.ResetFailed(ctx, unit) //nolint:errcheck // there is mostly nothing to reset
	}()
	m.bus.ResetFailed(ctx, unit) //nolint:errcheck // there is mostly nothing to reset
	began := time.Now()
	if err := m.bus.Start(ctx, unit); err != nil {
		return m.notStarted(ctx, unit, time.Since(began), err)
	}
	candidate := measure.Server{Socket: m.Paths.PreflightSocket(name), Proc: paths.MachineAt("").Proc, Unit: m.unit(unit), Version: release.Version}
	err := m.attest(ctx, unit, name, release)
	if err == nil {
		err = m.passes(ctx, unit, candidate, release)
	}
	switch {
	case ctx.Err() != nil: // a question that was broken off is not the candidate's failure
		return trial.Finding{}, context.Cause(ctx)
	case err != nil && ran && m.stopping(ctx): // and the rehearsal with it
		return unproven("no_rehearsal", "it could not be tried in the dark: the appliance was stopped"), nil
	case err != nil:
		return trial.Finding{}, err
	}
	limited, cancel := half(ctx, compareLimit)
	defer cancel()
	finding, err := measure.Compare(limited, m.serving(), candidate)
	switch {
	case ctx.Err() != nil:
		return finding, context.Cause(ctx)
	case err != nil:
		return unproven("no_time", "the comparison with the release before would have taken longer than there is time for"), nil
	}
	return judged(finding)
}

// dark ends the rehearsal.
func (m *Machine) dark(ctx context.Context, units ...string) {
	for _, unit := range units {
		if err := m.bus.Stop(ctx, unit); err != nil {
			m.Log.Warn("the rehearsal does not end", "unit", unit, "error", err)
		}
	}
}

// stopping tells whether the server is down, and nobody starts it.
func (m *Machine) stopping(ctx context.Context) bool {
	u, err := m.known(ctx, systemd.Service)
	return err == nil && (u.Active == "inactive" || u.Active == "deactivating")
}

// enoughStart is many times what a server takes to start on a slow machine.
const enoughStart = 20 * time.Second

// hangs tells a candidate whose start has lasted so long, or as long as its unit
// lets it, that it does not get ready: whoever's time is over then.
func (m *Machine) hangs(ctx context.Context, unit string, lasted time.Duration) bool {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return false
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
	defer cancel()
	u, err := m.known(ask, unit)
	return err == nil && (u.Result == "timeout" || u.Active == "activating" && u.MainPID != 0 && lasted >= enoughStart)
}

// notStarted tells a candidate that does not come up, in the time that its start
// has lasted, from a machine that does not let it.
func (m *Machine) notStarted(ctx context.Context, unit string, lasted time.Duration, err error) (trial.Finding, error) {
	if m.hangs(ctx, unit, lasted) {
		return trial.Finding{}, failed(unit, fmt.Errorf("it does not get ready, after %v: %w", lasted.Round(time.Second), err))
	}
	if ctx.Err() != nil {
		return trial.Finding{}, context.Cause(ctx)
	}
	u, askErr := m.known(ctx, unit)
	why := hindered(u)
	if askErr != nil {
		why = "systemd does not say what became of it"
	}
	if why == "" {
		return trial.Finding{}, failed(unit, ended(u, err))
	}
	why = fmt.Sprintf("it could not be tried in the dark: %s: %s", unit, why)
	m.Log.Warn("no rehearsal", "unit", unit, "error", err)
	return unproven("no_rehearsal", why), nil
}

// unproven is a rehearsal that says nothing of the release.
func unproven(reason, why string) trial.Finding {
	return trial.Finding{Verdict: trial.Verdict{Word: deployment.Inconclusive, Reason: reason, Blame: deployment.Environment, Says: why, Evidence: []string{why}}}
}

// half is ctx with half of the time that is left, and no more than most: what is
// only wanted leaves the rest to what is needed.
func half(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, most)
}

// Exit statuses with which systemd says that it could not set a unit up, but for
// the one that says that there is no program.
const firstOfUnit, lastOfUnit, noProgram = 200, 245, 203

// hindered is why a unit did not come up that was not its program's doing, ""
// where it was. The program of one that never ran has done nothing.
func hindered(u systemd.Unit) string {
	switch {
	case u.Load != "loaded":
		return "it is " + u.Load
	case u.Exit >= firstOfUnit && u.Exit <= lastOfUnit && u.Exit != noProgram:
		return fmt.Sprintf("systemd could not set it up, status %d", u.Exit)
	case u.Result == "resources" || u.Result == "oom-kill":
		return "the machine could not give it what it needs (" + u.Result + ")"
	case u.Result == "success" && u.Exit == 0:
		return "it was never begun"
	}
	return ""
}

// ended is err with how the unit's process ended: a job may say only that another
// one came after it.
func ended(u systemd.Unit, err error) error {
	if u.Result == "" || u.Result == "success" {
		return err
	}
	return fmt.Errorf("its server ended (%s, status %d): %w", u.Result, u.Exit, err)
}

func failed(unit string, err error) error {
	return fault.New(fault.Unavailable, "rehearsal_failed", "the release does not come up as it should, tried in the dark: it was not switched to").
		Because(err).Try("`journalctl -u %s -n 50` says why", unit)
}

// attest sees that the unit runs what the manifest says.
func (m *Machine) attest(ctx context.Context, unit, name string, release slot.Manifest) error {
	u, err := m.known(ctx, unit)
	if err != nil {
		return err
	}
	runs, _, err := m.slots().Attest(ctx, paths.MachineAt("").Proc, u.MainPID, slot.ServerPath)
	if err != nil {
		return failed(unit, err)
	}
	if runs != name {
		return failed(unit, fmt.Errorf("process %d runs the program of slot %q, not that of slot %s with version %s", u.MainPID, runs, name, release.Version))
	}
	return nil
}

// passes asks the candidate for what the server that serves can do.
func (m *Machine) passes(ctx context.Context, unit string, candidate measure.Server, release slot.Manifest) error {
	ask := &switchSmoke{serving: m.Paths.APISocket}
	if err := ask.ask(ctx, candidate.Socket); err != nil {
		return failed(unit, err)
	}
	report := smoke.Check{Socket: candidate.Socket, Version: release.Version}.Run(ctx)
	for _, r := range report.Results {
		if r.Verdict == smoke.Failed && (r.Name == "answers" || r.Name == "version") {
			return failed(unit, fmt.Errorf("%s: %s", r.Name, r.Says))
		}
	}
	return nil
}

// judged is the finding, and an error where it is bad.
func judged(f trial.Finding) (trial.Finding, error) {
	if f.Word != deployment.Bad {
		return f, nil
	}
	return f, fault.New(fault.Unavailable, "rehearsal_failed", "the release was tried in the dark and is no good: %s", f.Says).
		Try("`whisper-appliance update history` has what was measured")
}
