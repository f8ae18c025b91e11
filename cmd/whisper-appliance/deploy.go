package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
)

// site is the appliance of this machine, for whoever changes what serves on it.
type site struct {
	slots *slot.Slots
	swap  *slot.Switch // nil without systemd
	idle  string       // why no server is to be started, "" where one may be
	tell  func(step, text string)
}

// deployed is what became of a release.
type deployed struct {
	Slot    string `json:"slot"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Before  string `json:"before"`         // the slot that served, "" for none
	Placed  bool   `json:"placed"`         // it was copied there
	Already bool   `json:"already"`        // it served before
	Running bool   `json:"running"`        // a server runs it now
	Idle    string `json:"idle,omitempty"` // why none does
}

// site looks at what runs. done ends its connection to systemd.
func (a *app) site(ctx context.Context, slots *slot.Slots) (s *site, done func(), err error) {
	s = &site{slots: slots, tell: func(step, text string) { fmt.Fprintf(a.errOut, "%s: %s\n", step, text) }}
	if !systemd.Booted("") {
		s.idle = "systemd does not run here"
		return s, func() {}, nil
	}
	bus, err := systemd.Dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	done = func() { bus.Close() } //nolint:errcheck // nothing more is asked of it
	units, err := bus.Units(ctx, systemd.Service, systemd.Socket)
	if err != nil || len(units) != 2 {
		done()
		return nil, nil, cmp.Or(err, fmt.Errorf("systemd lists %d units, not the server's two", len(units)))
	}
	s.idle, s.swap = whyIdle(units[0], units[1]), a.swap(slots, bus, s.tell)
	return s, done, nil
}

// whyIdle says why a server is not to be started, "" where it may be: what its
// administrator has stopped stays stopped.
func whyIdle(service, socket systemd.Unit) string {
	running := service.Active != "inactive" && service.Active != "failed"
	switch {
	case running:
		return ""
	case service.Load != "loaded":
		return fmt.Sprintf("%s is %s", service.Name, service.Load)
	case socket.Active != "active":
		return "the appliance is stopped"
	}
	return ""
}

func (a *app) swap(slots *slot.Slots, bus *systemd.Bus, tell func(step, text string)) *slot.Switch {
	return &slot.Switch{
		Slots: slots, Units: busUnits{bus}, Service: systemd.Service, Run: a.paths.Run, Socket: a.paths.APISocket,
		Next:     func(name string) (service, door string) { return systemd.Next(name), systemd.NextSocket(name) },
		Engine:   systemd.EngineService,
		Smoke:    (&switchSmoke{serving: a.paths.APISocket, full: transcribes}).ask,
		Proc:     paths.MachineAt("").Proc,
		Progress: tell,
	}
}

// deploy makes the release in from serve: placed where it is not yet, switched
// to, and the one to go back to from now on. It can be killed at any point and
// run again.
func (s *site) deploy(ctx context.Context, from string) (deployed, error) {
	if err := s.slots.Prepare(); err != nil {
		return deployed{}, err
	}
	m, err := slot.Read(from)
	if err != nil {
		return deployed{}, err
	}
	d := deployed{}
	if d.Slot, d.Placed, err = s.place(ctx, from, m); err != nil {
		return d, inTime(ctx, err)
	}
	if err := s.serve(ctx, &d); err != nil {
		return d, err
	}
	return d, s.slots.Commit(d.Slot)
}

// place finds the slot that holds m already, or makes the idle one hold it.
func (s *site) place(ctx context.Context, from string, m slot.Manifest) (name string, placed bool, err error) {
	serving, err := s.slots.Serving()
	if err != nil {
		return "", false, err
	}
	if s.holds(ctx, serving, m) {
		return serving, false, nil
	}
	if name, err = s.slots.Idle(); err != nil {
		return "", false, err
	}
	if s.holds(ctx, name, m) {
		return name, false, nil
	}
	if s.swap != nil {
		if err := s.swap.Vacate(ctx, name); err != nil {
			return name, false, err
		}
	}
	s.tell("place", fmt.Sprintf("release %s, %s, into slot %s", m.Version, fault.Bytes(m.Size()), name))
	_, err = s.slots.Place(ctx, from, name, nil)
	return name, err == nil, err
}

// holds tells whether slot a or b holds exactly m. Golden does not count: it is
// the package's, and changes under a server when dpkg unpacks the next.
func (s *site) holds(ctx context.Context, name string, m slot.Manifest) bool {
	if name != slot.A && name != slot.B {
		return false
	}
	diffs, got, err := slot.Verify(ctx, s.slots.Path(name), slot.Check{Owned: s.slots.Owned})
	return err == nil && len(diffs) == 0 && got.Same(m)
}

// serve makes d.Slot serve, and fills in the rest of d.
func (s *site) serve(ctx context.Context, d *deployed) (err error) {
	if d.Before, err = s.slots.Serving(); err != nil {
		return err
	}
	m, err := slot.Read(s.slots.Path(d.Slot))
	if err != nil {
		return err
	}
	d.Version, d.Commit = m.Version, m.Commit
	if s.idle != "" {
		d.Idle, d.Already = s.idle, d.Before == d.Slot
		return s.slots.Activate(d.Slot)
	}
	out, err := s.swap.To(ctx, d.Slot)
	d.Already, d.Running = out.Already, err == nil
	return inTime(ctx, err)
}

// tooSlow is the code of a change that ran out of time before it switched.
const tooSlow = "too_slow"

// inTime words what ended because ctx ran out of time. What a switch ended with
// says more.
func inTime(ctx context.Context, err error) error {
	var f *fault.Error
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.As(err, &f) && switchEnded(f) {
		return err
	}
	return fault.New(fault.Unavailable, tooSlow, "there was not enough time (%v): nothing was switched, and the release before serves on", context.Cause(ctx)).
		Because(err).Try("give it more, as by --within 10m, and try again")
}

// switchEnded tells whether f says what serves after a switch: it is the
// outcome, though somebody cancelled the switch when it could not be any more.
func switchEnded(f *fault.Error) bool {
	return slices.Contains([]string{slot.CandidateFailed, slot.RolledBack, slot.NotServing, tooSlow}, f.Code)
}

// printDeployed says what serves. That nobody reads it changes nothing of it.
func (a *app) printDeployed(d deployed) error {
	if a.jsonOut {
		if err := a.printJSON(d); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.EIO) {
			return err
		}
		return nil
	}
	switch {
	case d.Already && d.Running:
		fmt.Fprintf(a.out, "slot %s serves %s already\n", d.Slot, d.Version)
	case d.Running:
		fmt.Fprintf(a.out, "slot %s serves %s\n", d.Slot, d.Version)
	case d.Already:
		fmt.Fprintf(a.out, "slot %s has %s already; no server runs: %s\n", d.Slot, d.Version, d.Idle)
	default:
		fmt.Fprintf(a.out, "slot %s will serve %s; no server runs: %s\n", d.Slot, d.Version, d.Idle)
	}
	return nil
}

// busUnits is systemd as a switch wants it.
type busUnits struct{ bus *systemd.Bus }

func (u busUnits) Start(ctx context.Context, unit string) error { return u.bus.Start(ctx, unit) }

func (u busUnits) Restart(ctx context.Context, unit string) error { return u.bus.Restart(ctx, unit) }

func (u busUnits) Stop(ctx context.Context, unit string) error { return u.bus.Stop(ctx, unit) }

func (u busUnits) ResetFailed(ctx context.Context, unit string) error {
	return u.bus.ResetFailed(ctx, unit)
}

func (u busUnits) State(ctx context.Context, unit string) (slot.State, error) {
	seen, err := u.bus.Unit(ctx, unit)
	return slot.State{Active: seen.Active, PID: seen.MainPID, Invocation: seen.Invocation}, err
}
