// Package site is an installed appliance as the updater works on it: its units
// over systemd, its servers over their sockets, its clock and its settings. It
// puts an update.Updater together.
//
// It trusts systemd, and a server as far as it answers: what a server says is
// held against the process that runs. It starts and stops the appliance's units
// and none else, and writes the order for the fetcher.
package site

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/trust"
	"whisper-appliance/internal/update"
	"whisper-appliance/internal/version"
)

// Machine is the appliance of this machine.
type Machine struct {
	Paths paths.Paths
	Log   *slog.Logger

	// Watching says that this process watches trials itself; else the updater's
	// unit is started for that.
	Watching bool

	bus Bus // nil without systemd
}

// Bus is systemd. Start, Stop and Restart return when the jobs have ended, and
// where ctx has no deadline after some minutes; see systemd.Bus.
type Bus interface {
	jobs
	Units(ctx context.Context, names ...string) ([]systemd.Unit, error)
	Close() error
}

// jobs are what changes units.
type jobs interface {
	Start(ctx context.Context, units ...string) error
	Stop(ctx context.Context, units ...string) error
	Restart(ctx context.Context, units ...string) error
	ResetFailed(ctx context.Context, units ...string) error
}

// Open looks at the machine. Only an installed appliance can be updated: else
// the error is a fault, "not_installed".
func Open(p paths.Paths, log *slog.Logger) (*Machine, error) {
	if p.Slots == "" {
		return nil, fault.New(fault.NotFound, "not_installed", "this appliance was not installed: there are no slots to put a release in").
			Try("install the package; a checkout is updated with git")
	}
	m := &Machine{Paths: p, Log: log}
	if systemd.Booted("") {
		m.bus = systemd.New()
	}
	return m, nil
}

// Over is Open with something in systemd's place.
func Over(p paths.Paths, log *slog.Logger, b Bus) *Machine {
	return &Machine{Paths: p, Log: log, bus: b}
}

// Close ends what was opened.
func (m *Machine) Close() error {
	if m.bus == nil {
		return nil
	}
	return m.bus.Close()
}

// Updater puts the updater of this machine together.
func (m *Machine) Updater() (*update.Updater, error) {
	p := m.Paths
	root, err := os.ReadFile(p.TrustRoot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the root of trust: %w", err)
	}
	proc := paths.MachineAt("").Proc
	u := &update.Updater{
		Slots: m.slots(), Dir: p.Updater, Run: p.UpdaterRun, Fetched: filepath.Join(p.Fetched, "repository"), Log: m.Log,
		Trust:    &trust.Store{Dir: filepath.Join(p.Updater, "trust"), Root: root, Now: time.Now},
		Settings: m.settings, Version: version.Build().Version,
		MachineID: firstLine(p.MachineID), BootID: firstLine(filepath.Join(proc, "sys/kernel/random/boot_id")),
		Now: time.Now, Clock: sinceBoot,
	}
	if m.bus != nil {
		u.Site, u.Fetch = m.site(), m.fetch
	}
	return u, nil
}

func (m *Machine) slots() *slot.Slots {
	s := slot.Of(m.Paths.Slots, m.Paths.Current, m.Paths.Stable, m.Paths.Golden)
	s.GoldenBefore = m.Paths.GoldenOld
	return s
}

func (m *Machine) settings() (update.Settings, error) {
	return update.LoadSettings(config.Sources{Config: m.Paths.Config, ConfigD: m.Paths.ConfigDir}, m.Paths.Updater, firstLine(m.Paths.Source))
}

// firstLine of a small file, "" where there is none.
func firstLine(path string) string {
	data, err := durable.ReadRegular(path, 4096)
	if err != nil { // files of the kernel are regular, and say that they are empty
		data, _ = os.ReadFile(path) //nolint:errcheck // "" then
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimSpace(string(line))
}

// sinceBoot is CLOCK_BOOTTIME.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // every Linux has it
	}
	return time.Duration(ts.Nano())
}

func (m *Machine) site() update.Site {
	return update.Site{
		Switch: m.swap, Idle: m.idle, Rehearse: m.rehearse, Baseline: m.baseline, Look: m.look, Figures: m.figures, Watch: m.watch, Restart: m.restart, Evidence: m.evidence, TakenBack: m.takenBack, ForgetTaken: m.forgetTaken, Ends: m.ends,
	}
}

func (m *Machine) swap(tell func(step, text string)) *slot.Switch {
	ask := &switchSmoke{serving: m.Paths.APISocket}
	ask.full = ask.transcribes
	return &slot.Switch{
		Slots: m.slots(), Units: units{m}, Service: systemd.Service, Run: m.Paths.Run, Socket: m.Paths.APISocket,
		Next:   func(name string) (service, door string) { return systemd.Next(name), systemd.NextSocket(name) },
		Engine: systemd.EngineService,
		Smoke:  ask.ask, Shipped: m.shipped,
		Proc: paths.MachineAt("").Proc,
		Progress: func(step, text string) {
			if step == slot.StepStart && text != systemd.Service { // which would be started by the question
				ask.remember()
			}
			tell(step, text)
		},
	}
}

// idle says why a server is not to be started, "" where it may be: what its
// administrator has stopped stays stopped.
func (m *Machine) idle(ctx context.Context) (string, error) {
	list, err := m.bus.Units(ctx, systemd.Service, systemd.Socket)
	if err != nil || len(list) != 2 {
		return "", cmp.Or(err, fmt.Errorf("systemd lists %d units, not the server's two", len(list)))
	}
	service, socket := list[0], list[1]
	switch {
	case service.Active != "inactive" && service.Active != "failed":
		return "", nil
	case service.Load != "loaded":
		return fmt.Sprintf("%s is %s", service.Name, service.Load), nil
	case socket.Active != "active":
		return "the appliance is stopped", nil
	}
	return "", nil
}

// known is what systemd knows of one unit.
func (m *Machine) known(ctx context.Context, name string) (systemd.Unit, error) {
	list, err := m.bus.Units(ctx, name)
	if err != nil || len(list) != 1 {
		return systemd.Unit{}, cmp.Or(err, fmt.Errorf("systemd lists %d units called %s", len(list), name))
	}
	return list[0], nil
}

// takenBack tells whether the gate has left a mark that it has taken the slot name
// back. The mark does not outlive the machine's run.
func (m *Machine) takenBack(name string) bool {
	_, err := os.Stat(m.taken(name))
	return err == nil
}

// forgetTaken removes that mark: whether another is newer no clock could tell.
func (m *Machine) forgetTaken(name string) error {
	mark := m.taken(name)
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil // on a read-only file system to remove it would fail all the same
	}
	if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the gate's mark: %w", err)
	}
	return nil
}

func (m *Machine) taken(name string) string { return filepath.Join(m.Paths.GateRun, "taken-"+name) }

// Down tells whether no server runs, nor is being started: then links are all
// that there is to be moved.
func (m *Machine) Down(ctx context.Context) bool {
	if m.bus == nil {
		return true
	}
	u, err := m.known(ctx, systemd.Service)
	return err == nil && (u.Active == "inactive" || u.Active == "failed") && u.MainPID == 0
}

// watchLimit is what the updater's unit may take to be ready: it does not wait
// for a lock that this process holds.
const watchLimit = 30 * time.Second

// watch has the updater's unit watch the trial, unless this process does. That
// the caller has no time left, or was told to stop, takes no judge from a trial.
func (m *Machine) watch(ctx context.Context) error {
	if m.Watching {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchLimit)
	defer cancel()
	if err := m.bus.Start(ctx, systemd.Updater); err != nil {
		return fault.New(fault.Unavailable, "nobody_watches", "the new release serves, and nobody watches its trial: %s does not start", systemd.Updater).
			Because(err).Try("systemctl start %s; `whisper-appliance update rollback` goes back", systemd.Updater)
	}
	return nil
}

// restart restarts the server and waits until another process runs what the
// link names.
func (m *Machine) restart(ctx context.Context) (string, error) {
	return m.swap(func(string, string) {}).Again(ctx)
}

// units is systemd as a switch wants it.
type units struct{ m *Machine }

func (u units) Start(ctx context.Context, unit string) error { return u.m.bus.Start(ctx, unit) }

func (u units) Restart(ctx context.Context, unit string) error { return u.m.bus.Restart(ctx, unit) }

func (u units) Stop(ctx context.Context, unit string) error { return u.m.bus.Stop(ctx, unit) }

func (u units) ResetFailed(ctx context.Context, unit string) error {
	return u.m.bus.ResetFailed(ctx, unit)
}

func (u units) State(ctx context.Context, unit string) (slot.State, error) {
	seen, err := u.m.known(ctx, unit)
	return slot.State{Active: seen.Active, PID: seen.MainPID, Invocation: seen.Invocation, Result: seen.Result, Exit: seen.Exit}, err
}
