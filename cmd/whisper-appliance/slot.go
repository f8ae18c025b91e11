package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

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
const exitsHelp = "Exits with 0 where the release serves, or will as soon as a server is started; 69 where it does not and\n" +
	"the one before serves on; 75 where another change or a trial is running; 1 where that cannot be said."

func slotSwitchCommand(a *app) *cobra.Command {
	trial, within := false, time.Duration(0)
	c := &cobra.Command{
		Use:   "switch a|b",
		Short: "Make the other slot serve, without refusing a connection",
		Long: "Make a slot serve: its server is started beside the one that serves, checked, and takes over.\n" +
			"Where it does not come up everything stays, or becomes again, as it was.\n\n" + exitsHelp,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []cobra.Completion{slot.A, slot.B},
		RunE: func(c *cobra.Command, args []string) error {
			if err := switchable(args[0]); err != nil {
				return err
			}
			return a.changeSlots(c.Context(), "slot switch "+args[0], within, func(ctx context.Context, s *site) error {
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
	withinFlag(c, &within)
	a.jsonFlag(c)
	return c
}

// switchable refuses what a server is not switched to.
func switchable(name string) error {
	switch name {
	case slot.A, slot.B:
		return nil
	case slot.Golden:
		return fault.New(fault.BadInput, "golden_stays", "golden is the package's own release: it is no slot to switch to, since every upgrade of the package changes it under its server").
			On("slot").Try("`%s slot deploy` copies it into the idle slot and switches to that", program)
	}
	return fault.New(fault.BadInput, "unknown_slot", "there is no slot %q; a server is switched to slot a or b", fault.Short(name)).On("slot")
}

// withinFlag gives c the time for all that it does.
func withinFlag(c *cobra.Command, within *time.Duration) {
	c.Flags().DurationVar(within, "within", slot.Within, "`time` for all of it, like 90s; after that what served before serves again, for which there is time besides")
}

func slotDeployCommand(a *app) *cobra.Command {
	from, within := "", time.Duration(0)
	c := &cobra.Command{
		Use:   "deploy",
		Short: "Copy the package's release into the idle slot and switch to it",
		Long: "Copy a release into the idle slot, read it back from the disk, and switch to it. Where the appliance\n" +
			"does not run nothing is started but what is there. What serves already is not deployed again.\n\n" + exitsHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.changeSlots(c.Context(), "slot deploy", within, func(ctx context.Context, s *site) error {
				if from == "" {
					from = s.slots.Golden
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
	withinFlag(c, &within)
	a.jsonFlag(c)
	return c
}

// changeSlots does work as the only one that changes slots, as root, and within
// a time.
func (a *app) changeSlots(ctx context.Context, what string, within time.Duration, work func(context.Context, *site) error) error {
	if within <= 0 {
		return usageError{fmt.Errorf("--within is %v: it has to be more than nothing", within)}
	}
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
	persist()
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("it took more than %v", within))
	defer cancel()
	s, done, err := a.site(ctx, slots)
	if err != nil {
		return slotExit(err)
	}
	defer done()
	return slotExit(work(ctx, s))
}

// persist lets the program live though its terminal has gone, or nobody reads
// what it writes: a change of slots that is killed in the middle has to be ended
// by another run. It holds until the program ends, whose exit code is then the
// outcome's.
func persist() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
}

// slotExit keeps the exit codes apart of those who change slots from a script:
// 69 says that the release before serves, and 75 that to wait helps.
func slotExit(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || switchEnded(f) && f.Code != slot.NotServing {
		return err
	}
	if code := exitOf(f); code != exitUnavailable && code != exitBusy || f.Kind == fault.Busy {
		return err
	}
	return exitAs{err, exitError}
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
