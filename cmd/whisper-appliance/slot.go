package main

import (
	"context"
	"fmt"
	"os"
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

func slotSwitchCommand(a *app) *cobra.Command {
	trial := false
	c := &cobra.Command{
		Use:   "switch a|b",
		Short: "Make the other slot serve, without refusing a connection",
		Long: "Make a slot serve: its server is started beside the one that serves, checked, and takes over.\n" +
			"Where it does not come up everything stays, or becomes again, as it was.",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []cobra.Completion{slot.A, slot.B},
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeSlots(c.Context(), "slot switch "+args[0], func(ctx context.Context, s *site) error {
				d := deployed{Slot: args[0]}
				if err := s.serve(ctx, &d); err != nil {
					return err
				}
				if !trial {
					if err := s.slots.Commit(d.Slot); err != nil {
						return err
					}
				}
				return a.printDeployed(d)
			})
		},
	}
	c.Flags().BoolVar(&trial, "trial", false, "do not make it the slot to go back to: three failed starts end the trial")
	a.jsonFlag(c)
	return c
}

func slotDeployCommand(a *app) *cobra.Command {
	from, first := "", false
	c := &cobra.Command{
		Use:   "deploy",
		Short: "Copy the package's release into the idle slot and switch to it",
		Long: "Copy a release into the idle slot, read it back from the disk, and switch to it. Where the appliance\n" +
			"does not run nothing is started but what is there. What serves already is not deployed again.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.changeSlots(c.Context(), "slot deploy", func(ctx context.Context, s *site) error {
				if from == "" {
					from = s.slots.Golden
				}
				if first {
					if err := s.notYet(ctx); err != nil {
						return err
					}
				}
				d, err := s.deploy(ctx, from)
				if err != nil {
					return err
				}
				return a.printDeployed(d)
			})
		},
	}
	c.Flags().StringVar(&from, "from", "", "`directory` of the release; else the package's own")
	c.Flags().BoolVar(&first, "first", false, "for a first installation: place and link it, and start nothing")
	a.jsonFlag(c)
	return c
}

// changeSlots does work as the only one that changes slots, and as root.
func (a *app) changeSlots(ctx context.Context, what string, work func(context.Context, *site) error) error {
	slots, err := a.slots()
	if err != nil {
		return err
	}
	if err := rootOnly(os.Geteuid(), what); err != nil {
		return err
	}
	release, err := slot.Lock(filepath.Join(a.paths.Updater, "lock"), what)
	if err != nil {
		return err
	}
	defer release()
	s, done, err := a.site(ctx, slots)
	if err != nil {
		return err
	}
	defer done()
	return work(ctx, s)
}

func rootOnly(euid int, what string) error {
	if euid == 0 {
		return nil
	}
	return fault.New(fault.Forbidden, "need_root", "`%s %s` changes the system and is root's alone", program, what).
		Try("sudo %s %s", program, what)
}

// slots are the appliance's. Only an installed one has any.
func (a *app) slots() (*slot.Slots, error) {
	if a.paths.Slots == "" {
		return nil, fault.New(fault.NotFound, "not_installed", "this %s was not installed: there are no slots", program).
			Try("install the package; its `%s` knows where they are", program)
	}
	return &slot.Slots{Dir: a.paths.Slots, Current: a.paths.Current, Stable: a.paths.Stable, Golden: a.paths.Golden, Owned: true}, nil
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
