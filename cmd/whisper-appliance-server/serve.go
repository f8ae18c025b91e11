package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/cert"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/portmux"
	"whisper-appliance/internal/server"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
)

// drainLimit is how long a stop waits for requests under way.
const drainLimit = 30 * time.Second

// serve runs the server until ctx ends.
func serve(ctx context.Context, listen string, stderr io.Writer) error {
	p, settings, log, err := prepare(listen, stderr)
	if err != nil {
		return err
	}
	c := settings.Current()
	parts, err := appliance.New(p, c, log, stderr)
	if err != nil {
		return err
	}
	certs := &cert.Manager{Dir: p.TLS, Names: c.TLS.Names, CertFile: c.TLS.Certificate, KeyFile: c.TLS.Key}
	if err := firstCertificate(ctx, certs, log); err != nil {
		return err
	}
	doors, err := open(p, c, certs)
	if err != nil {
		return err
	}
	s := &server.Server{
		Config: settings.Current, SaveSetting: settings.Save,
		Service: parts.Service, Models: parts.Models,
		Engine: parts.Engine, EngineRunning: parts.EngineRunning, EngineDown: parts.EngineDown,
		Keys:  auth.NewKeyring(cmp.Or(c.Auth.KeysFile, p.Keys), log),
		Spool: p.Spool, Programs: appliance.Programs(p, c), Log: log,
		TLSReady: func() bool { return certs.Fingerprint() != "" },
	}
	return runAll(ctx, s, parts, certs, c, log, doors)
}

// prepare finds the paths and the settings and makes the directories.
func prepare(listen string, stderr io.Writer) (paths.Paths, *appliance.Settings, *slog.Logger, error) {
	p, err := paths.Find(paths.System())
	if err != nil {
		return p, nil, nil, err
	}
	from := config.Sources{Settings: p.Settings, Config: p.Config, ConfigD: p.ConfigDir, Environ: os.Environ(),
		Reserved: reserved()}
	if listen != "" {
		from.Flags = []config.Flag{{Name: "listen", Key: "server.listen", Text: listen}}
	}
	settings, err := appliance.LoadSettings(from)
	if err != nil {
		return p, nil, nil, err
	}
	// The settings say how to log, and log themselves when they change.
	log, err := newLogger(stderr, settings.Current().Log, os.Getenv("JOURNAL_STREAM"))
	if err != nil {
		return p, nil, nil, err
	}
	settings.Log = log
	for _, note := range settings.Report().Notes {
		log.Warn("setting has no effect", "note", note)
	}
	return p, settings, log, p.Prepare()
}

// runAll runs what lives as long as the server, and ends it when one ends.
func runAll(ctx context.Context, s *server.Server, parts *appliance.Appliance, certs *cert.Manager,
	c *config.Config, log *slog.Logger, doors []*portmux.Listener) error {
	// Engines outlive the requests that use them: they stop last.
	engines, stopEngines := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopEngines()
	wg.Go(func() {
		if err := parts.Run(engines); err != nil {
			log.Error("engines can no longer be started", "error", err)
		}
	})
	certCtx, stopCerts := context.WithCancel(ctx)
	defer stopCerts()
	wg.Go(func() { keepCertificate(certCtx, certs, log) })
	if c.Models.Preload {
		wg.Go(func() {
			if err := parts.Preload(engines, c.Models.Default); err != nil && engines.Err() == nil {
				log.Error("model not loaded ahead", "error", err, "hint", fault.Hint(err))
			}
		})
	}
	listeners := make([]net.Listener, len(doors))
	for i, door := range doors {
		listeners[i] = door
		log.Info("serving", "address", door.Addr().String(), "version", version.Build().Version)
	}
	systemd.Notify("READY=1") //nolint:errcheck // nobody listens without systemd
	err := s.Serve(ctx, drainLimit, listeners...)
	for _, door := range doors {
		seen := door.Stats()
		log.Info("door closed", "address", door.Addr().String(), "silent_clients", seen.Silent, "evicted_clients", seen.Evicted)
	}
	log.Info("stopped")
	return err
}

// open makes the doors: the sockets handed down by systemd, or else the port
// and the Unix socket that the settings name.
func open(p paths.Paths, c *config.Config, certs *cert.Manager) ([]*portmux.Listener, error) {
	inherited, err := systemd.Listeners()
	if err != nil {
		return nil, err
	}
	if len(inherited) == 0 {
		if inherited, err = listenOurselves(p, c); err != nil {
			return nil, err
		}
	}
	doors := make([]*portmux.Listener, len(inherited))
	for i, l := range inherited {
		doors[i] = portmux.New(l, certs.TLSConfig())
		doors[i].MaxConns = c.Server.MaxConnections
	}
	return doors, nil
}

func listenOurselves(p paths.Paths, c *config.Config) ([]net.Listener, error) {
	tcp, err := net.Listen("tcp", c.Server.Listen)
	if err != nil {
		e := fault.New(fault.Unavailable, "cannot_listen", "cannot listen on %s", c.Server.Listen).On("server.listen").Because(err)
		if errors.Is(err, syscall.EADDRINUSE) {
			e.Try("another program has the port: `ss -ltnp` names it; choose another with --listen or [server] listen")
		}
		return nil, e
	}
	// What lies there is left from an earlier server: one that lives has the
	// lock of the engine's socket beside it, and appliance.New has asked.
	os.Remove(p.APISocket) //nolint:errcheck // Listen says what is wrong
	local, err := net.Listen("unix", p.APISocket)
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("open the local door: %w", err)
	}
	// Everybody on this machine may knock: who it is decides what they may.
	if err := os.Chmod(p.APISocket, 0o666); err != nil {
		return nil, err
	}
	return []net.Listener{tcp, local}, nil
}

// reserved are variables with our prefix that are no settings.
func reserved() []string {
	return []string{"WHISPER_APPLIANCE_URL", "WHISPER_APPLIANCE_KEY", "WHISPER_APPLIANCE_FINGERPRINT", "WHISPER_APPLIANCE_CACERT"}
}

// firstCertificate makes or reads the certificate before the doors open. Only
// the administrator's own files and names end the server here, and only while
// they give nothing that could be served. Where ours cannot be made, as on a
// full disk, plain HTTP is served until it can: keepCertificate says why, and
// tries again.
func firstCertificate(ctx context.Context, certs *cert.Manager, log *slog.Logger) error {
	event, err := certs.Refresh(ctx)
	if err != nil && certs.Fingerprint() == "" && lasting(err) {
		return err
	}
	logCertificate(log, event)
	return nil
}

// keepCertificate renews it until ctx ends.
func keepCertificate(ctx context.Context, certs *cert.Manager, log *slog.Logger) {
	certs.Run(ctx, func(e cert.Event, err error) {
		if err != nil {
			log.Error("certificate not refreshed", "https", certs.Fingerprint() != "", "error", err, "hint", fault.Hint(err))
			return
		}
		logCertificate(log, e)
	})
}

func logCertificate(log *slog.Logger, e cert.Event) {
	if e.Change != cert.None {
		log.Info("certificate", "change", string(e.Change), "reason", e.Reason, "names", e.Names,
			"not_after", e.NotAfter, "sha256", e.Fingerprint)
	}
}
