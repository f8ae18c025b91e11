package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/update"
)

func quarantineCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "quarantine", Short: "Show or clear the releases that are refused", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	list := &cobra.Command{
		Use: "list", Short: "List the releases that are refused, each with the reason", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			u, err := a.open()
			if err != nil {
				return err
			}
			s, err := u.Status()
			if err != nil {
				return err
			}
			if s.Quarantined == nil {
				s.Quarantined = []deployment.Quarantine{}
			}
			return a.print(s.Quarantined, quarantineWords(s.Quarantined))
		},
	}
	forget := &cobra.Command{
		Use: "clear [VERSION|DIGEST]", Short: "Let a release be tried again; without one, all", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			n, err := u.Unquarantine(first(args))
			if err != nil {
				return err
			}
			return a.print(map[string]int{"cleared": n}, fmt.Sprintf("%d cleared", n))
		},
	}
	c.AddCommand(list, forget)
	return c
}

func quarantineWords(list []deployment.Quarantine) string {
	if len(list) == 0 {
		return "no release is quarantined"
	}
	return table("VERSION\tSINCE\tREASON\tSAYS", func(row func(...string)) {
		for _, q := range list {
			row(q.Version, when(q.At), q.Reason, q.Says)
		}
	})
}

// table lays rows out under a heading.
func table(heading string, fill func(row func(cells ...string))) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	fill(func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) })
	w.Flush() //nolint:errcheck // a builder takes everything
	return b.String()
}

func policyCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Show or set what happens by itself", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(policyGetCommand(a), policySetCommand(a))
	return c
}

func policyGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show what happens by itself, and what /etc fixes", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			u, err := a.open()
			if err != nil {
				return err
			}
			set, err := u.Settings()
			if err != nil {
				return err
			}
			p := deployment.Policy{Channel: set.Channel, Automatic: set.Automatic, Window: set.Window, Days: set.Days, Locked: set.Locked}
			return a.print(p, policyWords(p))
		},
	}
}

func policySetCommand(a *app) *cobra.Command {
	var channel, automatic, window string
	var days []string
	c := &cobra.Command{
		Use: "set", Short: "Set what happens by itself, where /etc does not fix it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			given := func(name string, v *string) *string {
				if c.Flags().Changed(name) {
					return v
				}
				return nil
			}
			change := deployment.PolicyChange{Channel: given("channel", &channel), Automatic: given("automatic", &automatic), Window: given("window", &window)}
			if c.Flags().Changed("days") {
				change.Days = append([]string{}, days...)
			}
			if change.Channel == nil && change.Automatic == nil && change.Window == nil && change.Days == nil {
				return wrongUsage(c, errors.New("nothing to set"))
			}
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			if err := u.SetPolicy(deployment.Door(a.door), change); err != nil {
				return err
			}
			return a.print(change, "set")
		},
	}
	f := c.Flags()
	f.StringVar(&channel, "channel", "", "stable or beta")
	f.StringVar(&automatic, "automatic", "", "off, download or install")
	f.StringVar(&window, "window", "", `when, like "02:00-05:00"; "" is at any time`)
	f.StringSliceVar(&days, "days", nil, `on which days, like "sat,sun"; none is every day`)
	return c
}

func policyWords(p deployment.Policy) string {
	days := "every day"
	if len(p.Days) > 0 {
		days = strings.Join(p.Days, ", ")
	}
	window := p.Window
	if window == "" {
		window = "at any time"
	}
	words := fmt.Sprintf("channel    %s\nautomatic  %s\nwindow     %s\ndays       %s", p.Channel, p.Automatic, window, days)
	if len(p.Locked) > 0 {
		words += "\nfixed by config.toml: " + strings.Join(p.Locked, ", ")
	}
	return words
}

func recoverCommand(a *app) *cobra.Command {
	boot := false
	c := &cobra.Command{
		Use: "recover", Short: "Settle what an interrupted update has left", Args: cobra.NoArgs, Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			// Before the server's start a start of it would be waited for in vain.
			watch, err := u.Recover(c.Context(), boot || a.site.Down(c.Context()))
			if err != nil {
				return err
			}
			return a.print(map[string]bool{"trial": watch}, "settled")
		},
	}
	c.Flags().BoolVar(&boot, "boot", false, "the server has not been started yet: move links alone")
	return c
}

func scrubCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "scrub", Short: "Read every byte of every slot, and bring a damaged idle one anew", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			list, err := u.Scrub(c.Context(), nil)
			if err != nil {
				return err
			}
			if err := a.print(list, scrubWords(list)); err != nil {
				return err
			}
			if bad := damagedOf(list); bad > 0 {
				return fault.New(fault.Internal, "slot_damaged", "%d of %d slots are damaged", bad, len(list)).Try("apt reinstall whisper-appliance; and see that disk and memory are well")
			}
			return nil
		},
	}
}

func damagedOf(list []update.Scrubbed) (n int) {
	for _, s := range list {
		if s.Problem != "" && s.Healed == "" {
			n++
		}
	}
	return n
}

func scrubWords(list []update.Scrubbed) string {
	return table("SLOT\tVERSION\tSAYS", func(row func(...string)) {
		for _, s := range list {
			says := "whole"
			switch {
			case s.Empty:
				says = "empty"
			case s.Healed != "":
				says = "was damaged (" + s.Problem + "), and was brought anew from " + s.Healed
			case s.Problem != "":
				says = "damaged: " + s.Problem
			}
			row(s.Slot, s.Version, says)
		}
	})
}

// autoCommand is the timer's.
func autoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "auto", Short: "Do what the policy says, as the timer does each hour", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			u, err := a.openToChange()
			if err != nil {
				return err
			}
			res, err := u.Auto(c.Context())
			if err != nil {
				return err
			}
			return a.print(res, resultWords(res))
		},
	}
}
