package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/cert"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/portmux"
	"whisper-appliance/internal/server"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/watchdog"
)

// drainLimit is how long a stop waits for requests under way.
const drainLimit = 30 * time.Second

// appliant is the server with all that lives as long as it.
type appliant struct {
	start      time.Time
	paths      paths.Paths
	settings   *appliance.Settings
	level      *slog.LevelVar
	initial    *config.Config // as the server started
	log        *slog.Logger
	env        environment.Environment
	supervised bool // systemd starts engine and decoders
	inherited  []systemd.Listener
	hup        chan os.Signal

	parts      *appliance.Appliance
	jobs       *appliance.Jobs
	certs      *cert.Manager
	keys       *auth.Keyring
	bus        *systemd.Bus
	updates    *updater // nil where there is none
	components *component.Registry
	guard      watchdog.Guard
	doors      []*portmux.Listener
	readyAfter atomic.Int64 // nanoseconds from start; 0 until then
}

// serve runs the server until ctx ends.
func serve(ctx context.Context, listen string, stderr io.Writer) error {
	a := &appliant{start: time.Now(), supervised: systemd.Supervised(), level: new(slog.LevelVar), bus: systemd.New(), hup: make(chan os.Signal, 1)}
	// From the first moment: who comes early must not end the server.
	signal.Notify(a.hup, syscall.SIGHUP)
	defer signal.Stop(a.hup)
	if err := a.prepare(listen, stderr); err != nil {
		return err
	}
	if err := a.assemble(stderr); err != nil {
		return err
	}
	defer a.bus.Close()              //nolint:errcheck // the process ends
	defer a.jobs.Close()             //nolint:errcheck // what was stored is
	systemd.NotifyStatus("starting") //nolint:errcheck // nobody listens without systemd
	if err := a.components.Start(ctx); err != nil {
		return err
	}
	a.checkPaths()
	return a.run(ctx)
}

// prepare finds the paths and the settings, and sets up the log.
func (a *appliant) prepare(listen string, stderr io.Writer) error {
	var err error
	if a.paths, err = paths.Find(paths.System()); err != nil {
		return err
	}
	if a.inherited, err = systemd.NamedListeners(); err != nil {
		return err
	}
	a.supervised = a.supervised && a.paths.Kind == paths.Installed && len(a.inherited) > 0
	if err := a.notBesideUnits(); err != nil {
		return err
	}
	if a.settings, err = appliance.LoadSettings(sources(a.paths, listen)); err != nil {
		return err
	}
	return a.setUpLog(stderr)
}

// notBesideUnits refuses to take over, by hand, sockets that systemd holds.
func (a *appliant) notBesideUnits() error {
	if a.supervised || a.paths.Kind != paths.Installed || !systemd.Booted("") || os.Getenv("RUNTIME_DIRECTORY") != "" {
		return nil
	}
	return fault.New(fault.Conflict, "systemd_runs_it", "systemd runs this server: its sockets in %s are not to be taken away", a.paths.Run).
		Try("systemctl start whisper-appliance; for a second server, set STATE_DIRECTORY and RUNTIME_DIRECTORY to directories of its own")
}

func sources(p paths.Paths, listen string) config.Sources {
	from := config.Sources{Settings: p.Settings, Config: p.Config, ConfigD: p.ConfigDir, Environ: os.Environ(),
		Reserved: reserved(), Checkout: p.Kind == paths.Development}
	if listen != "" {
		from.Flags = []config.Flag{{Name: "listen", Key: "server.listen", Text: listen}}
	}
	return from
}

// reserved are variables with our prefix that are no settings.
func reserved() []string {
	return []string{"WHISPER_APPLIANCE_URL", "WHISPER_APPLIANCE_KEY", "WHISPER_APPLIANCE_FINGERPRINT", "WHISPER_APPLIANCE_CACERT",
		"WHISPER_APPLIANCE_FAULTS"}
}

// assemble makes the parts; the components start them.
func (a *appliant) assemble(stderr io.Writer) error {
	c := a.settings.Current()
	if a.supervised {
		a.parts = appliance.Supervised(a.paths, a.settings.Current, a.log, a.bus.Unit)
	} else {
		if err := a.paths.Prepare(); err != nil {
			return err
		}
		var err error
		if a.parts, err = appliance.New(a.paths, a.settings.Current, a.log, stderr); err != nil {
			return err
		}
	}
	a.certs = &cert.Manager{Dir: a.paths.TLS, Names: c.TLS.Names, CertFile: c.TLS.Certificate, KeyFile: c.TLS.Key}
	a.keys = auth.NewKeyring(cmp.Or(c.Auth.KeysFile, a.paths.Keys), a.log)
	a.jobs = &appliance.Jobs{Paths: a.paths, Config: a.settings.Current, Service: a.parts.Service, Role: a.role(), Standby: a.standsIn(), Log: a.log}
	parts := appliance.Parts{Jobs: a.jobs, Paths: a.paths, Config: a.settings.Current, Appliance: a.parts,
		Doors: a.openDoors, Certificate: a.certificate, Keys: a.keys.Err}
	if a.supervised {
		parts.Systemd = a.ping
	}
	if a.supervised && a.paths.Slots != "" {
		a.updates = newUpdater(a.paths)
		parts.Updater = a.updates.check
	}
	var err error
	a.components, err = component.New(parts.Components(), a.log, a.circumstances()...)
	return err
}

// circumstances are what somebody who looks for the cause of a failure asks first.
func (a *appliant) circumstances() []slog.Attr {
	wd, _ := os.Getwd()       //nolint:errcheck // "" says so
	exe, _ := os.Executable() //nolint:errcheck // "" says so
	who := strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	attrs := []slog.Attr{
		slog.String("working_directory", wd), slog.String("executable", exe), slog.String("slot", a.paths.SlotName),
		slog.String("version", version.Build().Version), slog.String("user", who), slog.String("search_path", os.Getenv("PATH")),
	}
	if a.supervised {
		attrs = append(attrs, slog.String("unit", a.ownUnit()))
	}
	return attrs
}

// ownUnit is the unit that runs this server.
func (a *appliant) ownUnit() string {
	switch {
	case a.listensOn("next-"):
		return systemd.Next(a.paths.SlotName)
	case a.listensOn("preflight-"):
		return systemd.Preflight(a.paths.SlotName)
	}
	return systemd.Service
}

// role tells this server from the one that stands in while a switch lasts.
func (a *appliant) role() string {
	if a.standsIn() {
		return "next"
	}
	return "server"
}

// standsIn tells whether this is not the server, but one for a switch or a
// rehearsal: what one alone may do is not for it.
func (a *appliant) standsIn() bool { return a.listensOn("next-") || a.listensOn("preflight-") }

// listensOn tells whether this is the server of a slot while a switch or a
// rehearsal lasts: it has a socket of that kind for itself.
func (a *appliant) listensOn(kind string) bool {
	own := kind + a.paths.SlotName + ".sock"
	return slices.ContainsFunc(a.inherited, func(l systemd.Listener) bool { return filepath.Base(l.Addr().String()) == own })
}

// server is the doors' other side.
func (a *appliant) server() *server.Server {
	c := a.settings.Current()
	s := &server.Server{
		Config: a.settings.Current, SaveSetting: a.settings.Save,
		Service: a.parts.Service, Models: a.parts.Models,
		Engine: a.parts.Engine, EngineRunning: a.parts.EngineRunning, EngineDown: a.parts.EngineDown,
		Keys: a.keys, Desk: a.jobs.Desk,
		Spool: a.paths.Spool, Programs: appliance.Programs(a.paths, c), Log: a.log,
		TLSReady:   func() bool { return a.certs.Fingerprint() != "" },
		Components: a.components, Watchdog: &a.guard,
		Environment: a.surroundings(), Slot: a.paths.SlotName,
		Proc: a.paths.Proc, Cgroup: a.paths.Cgroup,
		Directories: []server.Directory{{Name: "state", Path: a.paths.State}, {Name: "models", Path: a.parts.Models.Dir}, {Name: "spool", Path: a.paths.Spool}},
		Connections: a.connections, ReadyAfter: func() time.Duration { return time.Duration(a.readyAfter.Load()) },
	}
	if a.supervised {
		s.Units = a.units
	}
	if a.updates != nil {
		s.Updates = a.updates
	}
	return s
}

// checkPaths says which paths are not as they should be: what fails for it
// later says only what it could not do.
func (a *appliant) checkPaths() {
	for _, f := range a.paths.Check(paths.Me()) {
		if f.Verdict == paths.Problem {
			a.log.Warn("path is not as it should be", "name", f.Name, "file", f.Path, "what", f.What, "hint", f.Hint)
		}
	}
}

// surroundings are where the appliance runs and where it looks for things.
func (a *appliant) surroundings() server.Surroundings {
	s := server.Surroundings{Environment: a.env, AppRoot: a.paths.Slot}
	for _, c := range a.components.List() {
		s.SearchPaths = append(s.SearchPaths, c.Search...)
	}
	for _, e := range a.paths.List() {
		if _, err := os.Stat(e.Path); err == nil {
			s.Detected = append(s.Detected, e.Path)
		}
	}
	return s
}

// connections are those of all doors.
func (a *appliant) connections() server.Connections {
	var sum server.Connections
	for _, door := range a.doors {
		seen := door.Stats()
		sum.Open += int64(seen.Open)
		sum.Pending += int(seen.Pending)
		sum.Silent += int64(seen.Silent)
		sum.Evicted += int64(seen.Evicted)
	}
	return sum
}

// run serves until ctx ends, and everything that lives beside the server with it.
func (a *appliant) run(ctx context.Context) error {
	// Engines outlive the requests that use them: they stop last.
	beside, stopBeside := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopBeside()
	wg.Go(func() {
		if err := a.parts.Run(beside); err != nil {
			a.log.Error("engines can no longer be started", "error", err)
		}
	})
	a.preload(ctx)
	s := a.server()
	a.jobs.Ended, a.jobs.Event, a.jobs.Told = s.JobEnded, s.JobEvent, s.WebhookSent
	doing, stopJobs := context.WithCancel(context.WithoutCancel(ctx)) // what is waited for is done in the drain
	defer stopJobs()
	context.AfterFunc(ctx, a.jobs.Stop)
	wg.Go(func() { a.jobs.Run(doing) })
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	for _, loop := range []func(context.Context){
		a.components.Run, a.followSignals, a.pending,
	} {
		wg.Go(func() { loop(work) })
	}
	wg.Go(func() { a.watch(beside, s) })
	wg.Go(func() { a.report(beside, s) })
	listeners := make([]net.Listener, len(a.doors))
	for i, door := range a.doors {
		listeners[i] = door
		a.log.Info("serving", "address", door.Addr().String(), "version", version.Build().Version)
	}
	a.ready()
	err := s.Serve(ctx, drainLimit, listeners...)
	for _, door := range a.doors {
		seen := door.Stats()
		a.log.Info("door closed", "address", door.Addr().String(), "silent_clients", seen.Silent, "evicted_clients", seen.Evicted)
	}
	a.log.Info("stopped")
	return err
}

// ready says that the server serves, and how long that took.
func (a *appliant) ready() {
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	a.readyAfter.Store(int64(time.Since(a.start)))
	a.log.Info("ready", "start_ms", time.Since(a.start).Milliseconds(), "components_ms", a.components.Total().Milliseconds())
}

// preload has the engine read the model before the server says that it is
// ready, where the settings want that: a switch then goes to a server that is
// warm. What takes long is waited for; what fails is tried by the first request.
func (a *appliant) preload(ctx context.Context) {
	c := a.settings.Current()
	if !c.Models.Preload {
		return
	}
	systemd.NotifyStatus("loading " + c.Models.Default) //nolint:errcheck // nobody listens without systemd
	done := make(chan error, 1)
	go func() { done <- a.parts.Preload(ctx, c.Models.Default) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		systemd.ExtendTimeout(30 * time.Second) //nolint:errcheck // nobody listens without systemd
		select {
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				a.log.Error("model not loaded ahead", logging.Err(err))
			}
			return
		case <-tick.C:
		}
	}
}

// pending takes up what was left to be done. One server does it: not the one
// that stands in while a switch lasts.
func (a *appliant) pending(ctx context.Context) {
	if !a.standsIn() {
		a.parts.TakeUpPending(ctx, a.paths, a.settings.Current, a.log)
	}
}

// check reads paths and settings and says what is wrong with them.
func check(listen string, stdout io.Writer) error {
	p, err := paths.Find(paths.System())
	if err != nil {
		return err
	}
	if _, err := appliance.LoadSettings(sources(p, listen)); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, "the settings are in order")
	return err
}
