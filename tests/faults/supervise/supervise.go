// Package supervise stands in for systemd in tests that need no container: it
// holds the appliance's listening sockets, starts its servers through the links
// with these sockets, waits for their readiness, kills those whose watchdog
// runs out, starts them again, and runs the gate around each start, all as the
// units of this project say. It knows those units alone, and of them what an
// update can tell: no sandbox, no limits, no engine.
//
// It trusts the releases that it starts as far as a test does: nothing of them
// is left after Close, nor after this process has been killed. It writes
// sockets and the gate's counts below Config.Run, and nothing else; the gate
// may move the link `current`.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// Service is the unit of the server; see Next, Preflight and Engine for others.
const (
	Service = "whisper-appliance.service"
	Socket  = "whisper-appliance.socket"
)

// Next names the units of a slot's candidate.
func Next(name string) (service, socket string) { return instance("next", name) }

// Preflight names the units of a slot's rehearsal.
func Preflight(name string) (service, socket string) { return instance("preflight", name) }

// Engine names the unit of a slot's engine, which has no process here.
func Engine(name string) string {
	service, _ := instance("engine", name)
	return service
}

func instance(template, name string) (service, socket string) {
	unit := "whisper-appliance-" + template + "@" + name
	return unit + ".service", unit + ".socket"
}

const gateDir = "gate" // below Run: the gate's counts

// Config says what is supervised. Home and Run must be set; Run needs a short
// path, for sockets lie there.
type Config struct {
	Home    string // holds slots/, current and stable
	Run     string // for api.sock, next-a.sock and so on
	Gate    string // the script units/gate; "" = none is run
	Package string // what the gate takes for the package's directory; "" = it is told of none
	Path    string // PATH of servers and gate; "" = this process's

	StartTimeout time.Duration // until READY; 0 = 5 s
	StopTimeout  time.Duration // until a stop becomes a kill; 0 = 5 s
	Watchdog     time.Duration // 0 = 1 s
	RestartPause time.Duration // RestartSec; 0 = 100 ms
}

// Unit is how a unit is, in systemd's words.
type Unit struct {
	Name       string `json:"name"`
	Active     string `json:"active"` // active, inactive, failed, activating, deactivating
	Sub        string `json:"sub"`    // running, dead, failed, start-pre, start, auto-restart, stop, listening
	Result     string `json:"result"` // of the last run: success, exit-code, signal, core-dump, timeout, watchdog, protocol, resources
	Exit       int    `json:"exit"`   // its exit status, or the number of the signal
	PID        int    `json:"pid"`
	Restarts   uint32 `json:"restarts"` // since somebody last started it
	Invocation string `json:"invocation"`
	Status     string `json:"status"` // what it last said of itself
	Kills      int    `json:"kills"`  // by the watchdog, ever
	Stopped    bool   `json:"stopped"`
}

func (u Unit) state() slot.State {
	return slot.State{Active: u.Active, PID: u.PID, Invocation: u.Invocation}
}

// Supervisor is a running stand-in. It is slot.Units.
type Supervisor struct {
	config  Config
	forks   *forker
	sockets *sockets
	closing chan struct{}
	work    sync.WaitGroup // everything that runs beside the callers

	mu       sync.Mutex
	services map[string]*service
	engines  map[string]bool // those that were started
	muted    map[string]bool // by the socket's path
	broken   bool            // no process can be set up
	runs     int
}

// New is Open for a test, which closes it.
func New(t testing.TB, c Config) *Supervisor {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Open opens the port, on loopback, and api.sock. No server is started: that
// Start does, or the first connection.
func Open(c Config) (*Supervisor, error) {
	c.StartTimeout = cmp.Or(c.StartTimeout, 5*time.Second)
	c.StopTimeout = cmp.Or(c.StopTimeout, 5*time.Second)
	c.Watchdog = cmp.Or(c.Watchdog, time.Second)
	c.RestartPause = cmp.Or(c.RestartPause, 100*time.Millisecond)
	c.Path = cmp.Or(c.Path, os.Getenv("PATH"))
	socks, err := openSockets(c.Run)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{config: c, sockets: socks, forks: newForker(), closing: make(chan struct{}), engines: map[string]bool{}, muted: map[string]bool{}}
	s.services = map[string]*service{Service: {
		s: s, program: filepath.Join(c.Home, "current", slot.ServerPath), sockets: []string{Socket}, restart: true, gate: true,
		unit: fresh(Service), name: strings.TrimSuffix(Service, ".service"),
	}}
	for _, name := range []string{slot.A, slot.B} {
		program := filepath.Join(c.Home, "slots", name, slot.ServerPath)
		next, door := Next(name)
		s.services[next] = &service{s: s, program: program, sockets: []string{Socket, door}, unit: fresh(next)}
		rehearsal, stage := Preflight(name)
		s.services[rehearsal] = &service{s: s, program: program, sockets: []string{stage}, unit: fresh(rehearsal), closes: stage}
	}
	s.work.Go(s.activate)
	return s, nil
}

func fresh(name string) Unit {
	return Unit{Name: name, Active: "inactive", Sub: "dead", Result: "success"}
}

// Close kills whatever runs, and closes the sockets.
func (s *Supervisor) Close() {
	close(s.closing)
	s.PowerOff()
	s.work.Wait()
	s.forks.close()
}

// PowerOff is what of a power cut the disk does not see: every process is
// killed, no gate runs any more, who connects is refused, and orders that are
// under way come to nothing. It returns when all is gone. The socket of Serve
// stays.
func (s *Supervisor) PowerOff() {
	s.sockets.power(false)
	for _, v := range s.services {
		v.power(false)
	}
	for _, v := range s.services {
		v.stop(context.Background()) //nolint:errcheck // it waits until it is gone
	}
}

// PowerOn is the boot after PowerOff: the port is open again, nothing runs, and
// what lay in /run, the gate's counts, is forgotten.
func (s *Supervisor) PowerOn() error {
	if err := os.RemoveAll(s.Path(gateDir)); err != nil {
		return err
	}
	s.mu.Lock()
	clear(s.engines)
	s.mu.Unlock()
	for _, v := range s.services {
		v.power(true)
	}
	s.sockets.power(true)
	return s.sockets.open(Socket)
}

// Address is the port's, host:port.
func (s *Supervisor) Address() string { return s.sockets.address }

// Path is where a socket lies in Run: "api.sock", "next-a.sock".
func (s *Supervisor) Path(name string) string { return filepath.Join(s.config.Run, name) }

// Journal is what a service's processes have printed, the newest 64 KiB.
func (s *Supervisor) Journal(unit string) string {
	if v := s.services[unit]; v != nil {
		return v.journal.String()
	}
	return ""
}

// Break keeps every unit's process from being set up, as a drop-in that asks for
// what is not there does; or ends that. What runs goes on.
func (s *Supervisor) Break(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = on
}

// Start starts a unit, and returns when it is up, has failed for the first
// time, or ctx has ended, which the start does not mind.
func (s *Supervisor) Start(ctx context.Context, unit string) error {
	switch v, kind := s.find(unit); kind {
	case aService:
		return v.start(ctx)
	case anEngine:
		s.engine(unit, true)
		return nil
	case aSocket:
		return s.sockets.open(unit)
	}
	return noUnit(unit)
}

// Stop stops a unit, and a socket's service with it.
func (s *Supervisor) Stop(ctx context.Context, unit string) error {
	switch v, kind := s.find(unit); kind {
	case aService:
		return v.stop(ctx)
	case anEngine:
		s.engine(unit, false)
		return nil
	case aSocket:
		if v != nil {
			if err := v.stop(ctx); err != nil {
				return err
			}
		}
		s.sockets.shut(unit)
		return nil
	}
	return noUnit(unit)
}

// Restart stops a unit and starts it again, also where it does not run.
func (s *Supervisor) Restart(ctx context.Context, unit string) error {
	v, kind := s.find(unit)
	if kind != aService {
		return errors.Join(s.Stop(ctx, unit), s.Start(ctx, unit))
	}
	// Once it is begun it is ended, whoever has asked and gone.
	done := make(chan error, 1)
	s.work.Go(func() {
		background := context.WithoutCancel(ctx)
		err := v.stop(background)
		done <- errors.Join(err, v.start(background))
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return unfinished("restart", unit, context.Cause(ctx))
	}
}

// ResetFailed forgets a failure.
func (s *Supervisor) ResetFailed(_ context.Context, unit string) error {
	v, kind := s.find(unit)
	if kind == nothing {
		return noUnit(unit)
	}
	if kind == aService {
		v.reset()
	}
	return nil
}

// State is what a switch wants to know.
func (s *Supervisor) State(ctx context.Context, unit string) (slot.State, error) {
	u, err := s.Unit(ctx, unit)
	return u.state(), err
}

// Unit is all that is known of a unit.
func (s *Supervisor) Unit(_ context.Context, unit string) (Unit, error) {
	v, kind := s.find(unit)
	u := fresh(unit)
	switch kind {
	case aService:
		return v.now(), nil
	case anEngine:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.engines[unit] {
			u.Active, u.Sub = "active", "running"
		}
	case aSocket:
		if s.sockets.listens(unit) {
			u.Active, u.Sub = "active", "listening"
		}
	case nothing:
		return u, noUnit(unit)
	}
	return u, nil
}

func (s *Supervisor) engine(unit string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engines[unit] = on
}

// The kinds of units.
const (
	nothing = iota
	aService
	anEngine
	aSocket
)

// find gives a unit's kind; of a socket also the service that is stopped with it.
func (s *Supervisor) find(unit string) (*service, int) {
	if v := s.services[unit]; v != nil {
		return v, aService
	}
	for _, name := range []string{slot.A, slot.B, slot.Golden} {
		service, socket := instance("engine", name)
		if unit == service || unit == socket {
			return nil, anEngine
		}
	}
	if !s.sockets.known(unit) {
		return nil, nothing
	}
	return s.services[strings.TrimSuffix(unit, ".socket")+".service"], aSocket
}

func noUnit(unit string) error {
	return fault.New(fault.NotFound, "no_unit", "there is no such unit: %s", unit)
}

func noPower(unit string) error {
	return fault.New(fault.Unavailable, "no_power", "start %s: the power is off", unit)
}

func unfinished(verb, unit string, why error) error {
	return fault.New(fault.Unavailable, "job_unfinished", "%s %s: it has not ended yet", verb, unit).Because(why)
}
