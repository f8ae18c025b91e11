package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/version"
)

func slotCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "slot",
		Short: "Show, fill and switch the slots that releases lie in",
		Long: "Show, fill and switch the slots that releases lie in. One of the slots a and b serves and the other\n" +
			"one holds the release before, or the next; golden is the package's own release.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(slotListCommand(a), slotSwitchCommand(a), slotDeployCommand(a), slotSealCommand(a))
	return c
}

func slotListCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the slots, what is in them, which serves and which is the way back",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.slots()
			if err != nil {
				return err
			}
			list, err := s.List(c.Context())
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(list)
			}
			return a.printSlots(list)
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) printSlots(list []slot.Entry) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SLOT\tSTATE\tVERSION\tCOMMIT\tSAYS")
	for _, e := range list {
		says := e.Problem
		switch {
		case e.Serving && e.Stable:
			says = "serves " + says
		case e.Serving:
			says = "serves, on trial " + says
		case e.Stable:
			says = "the way back " + says
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Name, e.State, e.Version, e.Commit, says)
	}
	return w.Flush()
}

// exitsHelp is for those who start a command that switches from a script.
const exitsHelp = "Exits with 0 where the release serves, or will as soon as a server is started, or is queued behind a trial; 69\n" +
	"where it does not and the one before serves on; 75 where another change is under way; 1 where that cannot be said."

func slotSwitchCommand(a *app) *cobra.Command {
	return a.ofUpdater(&cobra.Command{
		Use:   "switch a|b",
		Short: "Make the other slot serve, without refusing a connection",
		Long: "Make a slot serve: its server is started beside the one that serves, checked, and takes over.\n" +
			"Where it does not come up everything stays, or becomes again, as it was.\n\n" + exitsHelp,
		ValidArgs: []cobra.Completion{slot.A, slot.B},
	}, "switch")
}

func slotDeployCommand(a *app) *cobra.Command {
	return a.ofUpdater(&cobra.Command{
		Use:   "deploy",
		Short: "Copy the package's release into the idle slot and switch to it",
		Long: "Copy a release into the idle slot, read it back from the disk, and switch to it. Where the appliance\n" +
			"does not run nothing is started but what is there. What serves already is not deployed again.\n\n" + exitsHelp,
	}, "deploy", "--trial=false")
}

// slots are the appliance's. Only an installed one has any.
func (a *app) slots() (*slot.Slots, error) {
	if a.paths.Slots == "" {
		return nil, fault.New(fault.NotFound, "not_installed", "this %s was not installed: there are no slots", program).
			Try("install the package; its `%s` knows where they are", program)
	}
	return slot.Of(a.paths.Slots, a.paths.Current, a.paths.Stable, a.paths.Golden), nil
}

func slotSealCommand(a *app) *cobra.Command {
	arch := runtime.GOARCH
	c := &cobra.Command{
		Use:   "seal DIR",
		Short: "Write the manifest of a release, which lists every file of it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			build := version.Build()
			m, err := slot.Seal(c.Context(), args[0], slot.Info{Version: build.Version, Commit: build.Commit, Arch: arch, Contract: slot.Contract})
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(m)
			}
			_, err = fmt.Fprintf(a.out, "%s: version %s, %d files, %s\n", filepath.Join(args[0], slot.ManifestName), m.Version, len(m.Files), fault.Bytes(m.Size()))
			return err
		},
	}
	c.Flags().StringVar(&arch, "arch", arch, "`processor` that the programs are for, as Go calls it")
	a.jsonFlag(c)
	return c
}
