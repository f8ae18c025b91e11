package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/diagnose"
	"whisper-appliance/internal/doctor"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/systemd"
)

func diagnoseCommand(a *app) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use:   "diagnose",
		Short: "Write a bundle for a bug report, without secrets",
		Long: "Write one .tar.gz with what is known of this appliance: versions, units, health, findings, settings and journal. Audio,\n" +
			"transcripts, keys, passwords, addresses and this machine's name are not in it; its README says what was left out.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.diagnose(c.Context(), output) },
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write; else one named after the time, here")
	a.jsonFlag(c)
	return c
}

// diagnose writes the bundle and lists what is in it.
func (a *app) diagnose(ctx context.Context, output string) error {
	host, _ := os.Hostname() //nolint:errcheck // "" is nothing to take out
	now := time.Now()
	if output == "" {
		output = bundleName(now)
	}
	parts, done := a.parts(ctx)
	defer done()
	bundle := diagnose.Bundle{Host: host, Now: now, Parts: parts}
	var entries []diagnose.Entry
	err := durable.Write(output, 0o600, func(w io.Writer) (err error) {
		entries, err = bundle.Write(ctx, w)
		return err
	})
	if err != nil {
		return fault.New(fault.Internal, "cannot_write", "%s cannot be written", output).On("--output").Because(err).
			Try("name a file in a directory of yours: whisper-appliance diagnose --output FILE")
	}
	return a.printBundle(output, entries)
}

// bundleName tells nothing of the machine: files are sent on by their names.
func bundleName(now time.Time) string {
	return "whisper-appliance-diagnose-" + now.Format("20060102-150405") + ".tar.gz"
}

func (a *app) printBundle(output string, entries []diagnose.Entry) error {
	if a.jsonOut {
		return a.printJSON(struct {
			File  string           `json:"file"`
			Parts []diagnose.Entry `json:"parts"`
		}{output, entries})
	}
	for _, e := range entries {
		fmt.Fprintf(a.out, "%-18s %10s  %s\n", e.Name, fault.Bytes(int64(e.Bytes)), e.Does)
		if e.Error != "" {
			fmt.Fprintf(a.out, "%-18s %10s  not whole: %s\n", "", "", e.Error)
		}
	}
	_, err := fmt.Fprintf(a.out, "Written to %s. Its README.txt says what was left out; look through it before you send it on.\n", output)
	return err
}

// parts is what goes into the bundle; done gives back what they hold.
func (a *app) parts(ctx context.Context) (parts []diagnose.Part, done func()) {
	d, done := a.doctor(ctx)
	socket := filepath.Join(a.paths.Run, "journal.sock")
	_, settings, wrong := config.Load(a.sources())
	parts = []diagnose.Part{
		{Name: "versions.json", Does: "this program, the slots and their manifests",
			Make: diagnose.JSON(func(context.Context) (diagnose.Versions, error) { return diagnose.VersionsOf(a.paths), nil })},
		{Name: "environment.json", Does: "what kind of machine this is", Make: diagnose.JSON(a.environment)},
		{Name: "paths.json", Does: "where everything is, and how it is there",
			Make: diagnose.JSON(func(context.Context) ([]paths.Finding, error) { return a.paths.Check(a.pathsUser()), nil })},
		{Name: "config.json", Does: "the settings in force, and where each comes from",
			Make: diagnose.JSON(func(context.Context) (*config.Report, error) {
				if wrong != nil {
					return nil, wrong
				}
				return diagnose.Settings(settings), nil
			})},
		{Name: "components.json", Does: "the server's parts, as it sees them", Make: a.ask("/api/v1/components")},
		{Name: "health.json", Does: "the server's long health answer", Make: a.ask("/health/detailed")},
		{Name: "metrics.txt", Does: "the server's counters", Make: a.ask("/metrics")},
		{Name: "machine.txt", Does: "kernel, distribution, memory, disks", Make: diagnose.Machine(a.paths)},
	}
	if a.paths.Kind == paths.Installed {
		parts = append(parts,
			diagnose.Part{Name: "units.json", Does: "systemd, our units and their effective settings", Make: unitsPart(d)},
			diagnose.Part{Name: "drop-ins.txt", Does: "changes to our units", Make: diagnose.DropIns(a.paths.DropIns)},
			diagnose.Part{Name: "journal.jsonl", Does: "the journal of our units", Make: diagnose.Journal(socket)})
	}
	// Last, for it takes longest.
	parts = append(parts, diagnose.Part{Name: "doctor.json", Does: "what doctor finds",
		Make: diagnose.JSON(func(ctx context.Context) ([]doctor.Finding, error) { return d.Examine(ctx, nil), nil })})
	return parts, done
}

func unitsPart(d *doctor.Doctor) func(ctx context.Context) ([]byte, error) {
	bus, ok := d.Units.(*systemd.Bus)
	if !ok {
		return func(context.Context) ([]byte, error) { return nil, d.Bus }
	}
	return diagnose.UnitsPart(bus)
}

func (a *app) environment(ctx context.Context) (environment.Environment, error) {
	probe := environment.Probe{Kind: a.paths.Kind}
	if c, _, err := config.Load(a.sources()); err == nil {
		probe.Profile = c.Environment.Profile
	}
	if bus, err := systemd.Dial(ctx); err == nil {
		if m, err := bus.Manager(ctx); err == nil {
			probe.Virtualization = m.Virtualization
		}
		bus.Close() //nolint:errcheck // nothing more is asked of it
	}
	return environment.Detect(probe), nil
}

// ask is a part's Make: what the server on this machine answers, whatever its
// status.
func (a *app) ask(path string) func(ctx context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		if _, ok, err := a.localServer(ctx); err != nil || !ok {
			return nil, errors.Join(err, errors.New("no server answers on this machine"))
		}
		client := api.OverSocket(a.paths.APISocket)
		defer client.HTTP.CloseIdleConnections()
		status, data, err := client.Raw(ctx, path)
		if err == nil && status >= 300 && !json.Valid(data) {
			err = fmt.Errorf("ask for %s: status %d", path, status)
		}
		return data, err
	}
}
