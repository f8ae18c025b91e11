package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/smoke"
	"whisper-appliance/internal/systemd"
)

func smokeCommand(a *app) *cobra.Command {
	check := smoke.Check{}
	c := &cobra.Command{
		Use:   "smoke",
		Short: "Check that this machine's server does what people come for",
		Long: "Ask the server as its users would: components, versions, HTTP, HTTPS, the old endpoints, and a known sentence to be\n" +
			"transcribed. This is the check after an installation, an update or a repair.\n\n" +
			"Exit code 0: passed, or degraded by something that an administrator knows of, such as a model that is not there yet;\n" +
			"1: failed.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if check.Socket == "" {
				check.Socket = a.paths.APISocket
			}
			if !c.Flags().Changed("address") {
				check.Address = a.localAddress(c.Context())
			}
			if !c.Flags().Changed("want") {
				check.Version = a.servingVersion()
			}
			check.Key = a.orVariable("", keyVariable)
			return a.smoke(c.Context(), check)
		},
	}
	f := c.Flags()
	f.DurationVar(&check.Wait, "wait", 10*time.Second, "how long to wait for a server that is being started")
	f.StringVar(&check.Socket, "socket", "", "Unix `socket` of the server; else this machine's")
	f.StringVar(&check.Address, "address", "", "`HOST:PORT` of HTTP and HTTPS; else the port of this machine's server; \"\" = they are not asked")
	f.StringVar(&check.Version, "want", "", "the `version` that must serve; else that of the slot that serves; \"\" = any")
	a.jsonFlag(c)
	return c
}

// smoke makes the check and prints each step as it ends.
func (a *app) smoke(ctx context.Context, check smoke.Check) error {
	if !a.jsonOut {
		check.Tell = func(r smoke.Result) {
			fmt.Fprintf(a.out, "%-8s %-16s %8v  %s\n", r.Verdict, r.Name, r.Took.Round(time.Millisecond), r.Says)
			if r.Hint != "" && r.Verdict != smoke.Passed {
				fmt.Fprintf(a.out, "%-34s try: %s\n", "", r.Hint)
			}
		}
	}
	report := check.Run(ctx)
	if a.jsonOut {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(a.out, "%s in %v\n", report.Verdict, report.Took.Round(10*time.Millisecond)); err != nil {
		return err
	}
	if report.Verdict != smoke.Failed {
		return nil
	}
	n := 0
	for _, r := range report.Results {
		if r.Verdict == smoke.Failed {
			n++
		}
	}
	return fault.New(fault.Internal, "smoke_failed", "%d of %d checks failed", n, len(report.Results)).
		Try("`whisper-appliance doctor` says what to do")
}

// servingVersion is that of the slot which serves, with its commit as the
// server tells its own; "" where there is none.
func (a *app) servingVersion() string {
	if a.paths.Kind != paths.Installed {
		return ""
	}
	m, err := slot.Read(a.paths.Current)
	if err != nil {
		return ""
	}
	return m.Version + " (" + m.Commit + ")"
}

// localAddress is where this machine's server is asked over TCP, "" where that
// is not known.
func (a *app) localAddress(ctx context.Context) string {
	if a.paths.Kind != paths.Installed {
		c, _, err := config.Load(a.sources())
		if err != nil {
			return ""
		}
		return reachable(c.Server.Listen)
	}
	bus, err := systemd.Dial(ctx)
	if err != nil {
		return ""
	}
	defer bus.Close() //nolint:errcheck // it was asked what there was to ask
	addresses, err := bus.Listening(ctx, systemd.Socket)
	if err != nil {
		return ""
	}
	for _, address := range addresses {
		if at := reachable(address); at != "" {
			return at
		}
	}
	return ""
}

// reachable is the address at which a listener can be asked from this machine,
// "" where it has no port.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" || port == "" {
		return ""
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1}).String()
	}
	return net.JoinHostPort(host, port)
}
