package site

import (
	"context"
	"fmt"

	"whisper-appliance/internal/deployment"
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
		u, err := m.bus.Unit(ctx, name)
		return measure.Unit{Active: u.Active, PID: u.MainPID, Restarts: u.Restarts, Invocation: u.Invocation, Result: u.Result, Exit: u.Exit,
			Stopped: u.Active == "inactive" && u.Result == "success"}, err
	}
}

func (m *Machine) look(ctx context.Context, full bool) (trial.Sample, error) {
	return m.serving().Look(ctx, full)
}

// baseline is how the server that serves does, now or where it is too busy to be
// measured as it did before.
func (m *Machine) baseline(ctx context.Context) (trial.Baseline, error) {
	b, err := m.serving().Baseline(ctx)
	if err != nil {
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
	defer m.dark(context.WithoutCancel(ctx), unit, door)
	m.bus.ResetFailed(ctx, unit) //nolint:errcheck // there is mostly nothing to reset
	if err := m.bus.Start(ctx, unit); err != nil {
		return m.notStarted(ctx, unit, err)
	}
	if err := m.attest(ctx, unit, name, release); err != nil {
		return trial.Finding{}, err
	}
	candidate := measure.Server{Socket: m.Paths.PreflightSocket(name), Proc: paths.MachineAt("").Proc, Unit: m.unit(unit),
		Version: release.Version}
	if err := m.passes(ctx, candidate, release); err != nil {
		return trial.Finding{}, err
	}
	finding, err := measure.Compare(ctx, m.serving(), candidate)
	if err != nil {
		return finding, err
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

// Exit statuses with which systemd says that it could not set a unit up, but for
// the one that says that there is no program.
const firstOfUnit, lastOfUnit, noProgram = 200, 245, 203

// notStarted tells a candidate that does not come up from a machine that does
// not let it.
func (m *Machine) notStarted(ctx context.Context, unit string, err error) (trial.Finding, error) {
	if ctx.Err() != nil {
		return trial.Finding{}, context.Cause(ctx)
	}
	u, askErr := m.bus.Unit(ctx, unit)
	if askErr != nil || u.Load != "loaded" || u.Exit >= firstOfUnit && u.Exit <= lastOfUnit && u.Exit != noProgram {
		why := fmt.Sprintf("it could not be tried in the dark: %s is %s, status %d", unit, u.Load, u.Exit)
		m.Log.Warn("no rehearsal", "unit", unit, "error", err)
		return trial.Finding{Verdict: trial.Verdict{Word: deployment.Inconclusive, Reason: "no_rehearsal", Blame: deployment.Environment, Says: why, Evidence: []string{why}}}, nil
	}
	return trial.Finding{}, failed(unit, err)
}

func failed(unit string, err error) error {
	return fault.New(fault.Unavailable, "rehearsal_failed", "the release does not come up as it should, tried in the dark: it was not switched to").
		Because(err).Try("`journalctl -u %s -n 50` says why", unit)
}

// attest sees that the unit runs what the manifest says.
func (m *Machine) attest(ctx context.Context, unit, name string, release slot.Manifest) error {
	u, err := m.bus.Unit(ctx, unit)
	if err != nil {
		return err
	}
	sl := m.swap(nil).Slots
	runs, _, err := sl.Attest(ctx, paths.MachineAt("").Proc, u.MainPID, slot.ServerPath)
	if err != nil {
		return failed(unit, err)
	}
	if runs != name {
		return failed(unit, fmt.Errorf("process %d runs the program of slot %q, not that of slot %s with version %s", u.MainPID, runs, name, release.Version))
	}
	return nil
}

// passes asks the candidate for what the server that serves can do.
func (m *Machine) passes(ctx context.Context, candidate measure.Server, release slot.Manifest) error {
	ask := &switchSmoke{serving: m.Paths.APISocket}
	if err := ask.ask(ctx, candidate.Socket); err != nil {
		return failed(candidate.Socket, err)
	}
	report := smoke.Check{Socket: candidate.Socket, Version: release.Version}.Run(ctx)
	for _, r := range report.Results {
		if r.Verdict == smoke.Failed && (r.Name == "answers" || r.Name == "version") {
			return failed(candidate.Socket, fmt.Errorf("%s: %s", r.Name, r.Says))
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
