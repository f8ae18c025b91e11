package main

import (
	"context"
	"fmt"
	"io"

	"os"
	"strings"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/faultpoint"
	"whisper-appliance/internal/logging"
	"whisper-appliance/internal/server"
	"whisper-appliance/internal/systemd"
)

// setUpLog makes the log as the settings want it.
func (a *appliant) setUpLog(stderr io.Writer) error {
	c := a.settings.Current()
	a.env = environment.Detect(environment.Probe{Kind: a.paths.Kind, Profile: c.Environment.Profile, Virtualization: a.virtualization()})
	var err error
	a.log, err = serverLog(stderr, c.Log, os.Getenv("JOURNAL_STREAM"), a.level, a.env, a.paths.SlotName)
	if err != nil {
		return err
	}
	a.initial = c
	a.settings.Log = a.log
	a.settings.Changed = func(c *config.Config) {
		if level, err := logging.ParseLevel(c.Log.Level); err == nil { // it has been checked
			a.level.Set(level)
		}
	}
	for _, note := range a.settings.Report().Notes {
		a.log.Warn("setting has no effect", "note", note)
	}
	return nil
}

// followSignals reads settings and certificate again at each SIGHUP.
func (a *appliant) followSignals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.hup:
			a.reload(ctx)
		}
	}
}

// reload takes in what can be changed while the server runs, and says what cannot.
func (a *appliant) reload(ctx context.Context) {
	systemd.Reloading()             //nolint:errcheck // nobody listens without systemd
	defer systemd.Notify("READY=1") //nolint:errcheck // as above
	after, err := a.settings.Reload()
	if err != nil {
		a.log.Error("changed settings are not taken over", logging.Err(err))
		return
	}
	a.certs.Use(after.TLS.Certificate, after.TLS.Key, after.TLS.Names)
	if err := a.certificate(ctx); err != nil {
		a.log.Error("certificate not refreshed", "https", a.certs.Fingerprint() != "", logging.Err(err))
	}
	a.components.Recheck()
	a.log.Info("reloaded", "needs_restart", strings.Join(needRestart(a.initial, after), ", "))
}

// needRestart names settings of now that the server which started with before
// has not taken over.
func needRestart(a, b *config.Config) []string {
	var names []string
	for _, s := range []struct {
		name    string
		changed bool
	}{
		{"server.listen", a.Server.Listen != b.Server.Listen},
		{"server.max_connections", a.Server.MaxConnections != b.Server.MaxConnections},
		{"auth.keys_file", a.Auth.KeysFile != b.Auth.KeysFile},
		{"models.directory", a.Models.Directory != b.Models.Directory},
		{"transcription.max_duration", a.Transcription.MaxDuration != b.Transcription.MaxDuration},
		{"decode.ffmpeg", a.Decode.FFmpeg != b.Decode.FFmpeg},
		{"decode.timeout", a.Decode.Timeout != b.Decode.Timeout},
		{"log.format", a.Log.Format != b.Log.Format},
		{"environment.profile", a.Environment.Profile != b.Environment.Profile},
	} {
		if s.changed {
			names = append(names, s.name)
		}
	}
	return names
}

// watch feeds systemd's watchdog while every call of ours returns in its time:
// those under way, and one through the whole handler.
func (a *appliant) watch(ctx context.Context, s *server.Server) {
	interval := systemd.WatchdogInterval()
	if interval == 0 {
		return
	}
	a.guard.Add(s.Probe(interval))
	a.guard.Run(ctx, interval/5, systemd.Notify, a.log)
}

// loopLimit is how long one round of a loop of ours may take.
const loopLimit = 20 * time.Second

// report keeps the line that systemctl status shows.
func (a *appliant) report(ctx context.Context, s *server.Server) {
	beat, end := a.guard.Loop("status line", loopLimit)
	defer end()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := ""
	for {
		faultpoint.Here("server.status")
		beat()
		if line := a.line(s); line != last {
			systemd.NotifyStatus(line) //nolint:errcheck // nobody listens without systemd
			last = line
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// line is "serving, tiny, 2 jobs, slot a", with what is wrong behind it.
func (a *appliant) line(s *server.Server) string {
	jobs := s.Jobs()
	words := []string{"serving", a.settings.Current().Models.Default, fmt.Sprintf("%d jobs", jobs)}
	if jobs == 1 {
		words[2] = "1 job"
	}
	if s.Draining() {
		words[0] = "stopping"
	}
	if a.paths.SlotName != "" {
		words = append(words, "slot "+a.paths.SlotName)
	}
	line := strings.Join(words, ", ")
	for _, state := range a.components.States() {
		if state.Status == "failed" {
			line += "; " + state.Name + ": " + state.Error
		}
	}
	return fault.Short(line)
}

// units and ping ask systemd.
func (a *appliant) units(ctx context.Context) ([]systemd.Unit, error) {
	return a.bus.Units(ctx, systemd.Ours()...)
}

func (a *appliant) ping(ctx context.Context) error {
	_, err := a.bus.Manager(ctx)
	return err
}

// virtualization is what systemd says of the machine, "" where it does not.
func (a *appliant) virtualization() string {
	if !a.supervised {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	m, err := a.bus.Manager(ctx)
	if err != nil {
		return ""
	}
	return m.Virtualization
}
