package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/release"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trust"
)

// open is the repository with its keys.
func (a *app) open() (*publish.Repository, error) {
	k, err := publish.LoadKeys(a.keys)
	if err != nil {
		return nil, err
	}
	return &publish.Repository{Dir: a.repository, Keys: k, Now: a.now}, nil
}

func buildCommand(a *app) *cobra.Command {
	out, info := ".", slot.Info{Arch: runtime.GOARCH, Contract: slot.Contract}
	c := &cobra.Command{
		Use:   "build TREE",
		Short: "Pack a release's tree into the one file that is published",
		Long: "Pack the tree of a release into whisper-appliance_VERSION_ARCH.tar.zst and print its digest. A tree that\n" +
			"has a manifest must be what that says; with --version and --commit it is sealed anew. Two builds of one\n" +
			"tree are the same, byte for byte.",
		Args: exactly("the directory of a release"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := seal(c, args[0], info); err != nil {
				return err
			}
			built, err := publish.Build(c.Context(), args[0], out)
			if err != nil {
				return err
			}
			return printed(a, built, printArtefact)
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", out, "`directory` for the file")
	f.StringVar(&info.Version, "version", "", "seal the tree as this `version`: as the programs in it print it")
	f.StringVar(&info.Commit, "commit", "", "the `commit` that it was built from")
	f.StringVar(&info.Arch, "arch", info.Arch, "the `processor` that it is for, as Go calls it")
	c.MarkFlagsRequiredTogether("version", "commit")
	a.jsonFlag(c)
	return c
}

// seal lists the tree where that is asked for, and where it is not says how.
func seal(c *cobra.Command, dir string, info slot.Info) error {
	if info.Version != "" {
		if err := release.ValidVersion(info.Version); err != nil {
			return err
		}
		_, err := slot.Seal(c.Context(), dir, info)
		return err
	}
	m, err := slot.Read(dir)
	var f *fault.Error
	if errors.As(err, &f) && f.Code == "no_manifest" {
		return fault.New(fault.NotFound, "not_sealed", "%s has no manifest", dir).On("version").
			Try("say what it is, with --version and --commit; if there is no release in it, build one: `make build`")
	}
	if err == nil && c.Flags().Changed("arch") && m.Arch != info.Arch {
		return fault.New(fault.BadInput, "wrong_arch", "%s is for %s", dir, m.Arch).On("arch").Try("leave --arch out, or seal it anew with --version and --commit")
	}
	return err
}

func printArtefact(w io.Writer, b publish.Artefact) {
	fmt.Fprintf(w, "%s\nversion %s for %s, commit %s: %d files, %s, packed %s\nsha256 %s\n",
		b.File, b.Version, b.Arch, b.Commit, b.Files, fault.Bytes(b.Unpacked), fault.Bytes(b.Length), b.SHA256)
}

// maxNotesFile is enough for notes that are too long to be told so.
const maxNotesFile = 64 << 10

func publishCommand(a *app) *cobra.Command {
	rel, notes := publish.Release{}, ""
	c := &cobra.Command{
		Use:   "publish FILE...",
		Short: "Offer releases, or say something new of those that are on offer",
		Long: "Offer releases to the machines that look into the repository, which is made where it is missing. The\n" +
			"same file again says something new of it: another channel, another share, other notes. A version that\n" +
			"is on offer with other bytes is refused.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(c, errors.New("it takes the files that build made"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.open()
			if err != nil {
				return err
			}
			if notes != "" {
				data, err := durable.ReadRegular(notes, maxNotesFile)
				if err != nil {
					return err
				}
				rel.Notes = strings.TrimSpace(string(data))
			}
			var all []publish.Release
			for _, file := range args {
				rel.File = file
				all = append(all, rel)
			}
			return a.changed(r.Publish(c.Context(), all...))
		},
	}
	f := c.Flags()
	f.StringVar(&rel.Channel, "channel", release.Stable, "`channel`: "+release.Stable+", or "+release.Beta)
	f.IntVar(&rel.Rollout, "rollout", 100, "`percent` of machines that take it by themselves; anybody can ask for it")
	f.StringVar(&rel.Notes, "notes", "", "what is new, in a few `words`")
	f.StringVar(&notes, "notes-file", "", "`file` with what is new, at most 4 KiB")
	f.StringVar(&rel.MinUpdater, "min-updater", "", "the oldest `version` of the updater that can install it")
	f.BoolVar(&rel.Replace, "replace", false, "let a development build (VERSION+dev) take the place of another of the same version")
	f.IntVar(&rel.Schema.Min, "schema-min", 0, "the oldest `version` of the database's schema that it can work on")
	f.IntVar(&rel.Schema.Max, "schema-max", 0, "the `version` of the schema that it makes of it")
	c.MarkFlagsMutuallyExclusive("notes", "notes-file")
	c.RegisterFlagCompletionFunc("channel", cobra.FixedCompletions([]string{release.Stable, release.Beta}, cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // the flag is there
	a.changeFlags(c)
	return c
}

// changeFlags are those of commands that change the repository.
func (a *app) changeFlags(c *cobra.Command) {
	a.keysFlag(c)
	a.repositoryFlag(c)
	a.jsonFlag(c)
}

// changed tells what is on offer after a change.
func (a *app) changed(d *publish.Done, err error) error {
	if err != nil {
		return err
	}
	err = printed(a, d, func(w io.Writer, d *publish.Done) {
		printOffers(w, d.Offers)
		fmt.Fprintf(w, "Version %d of what is on offer; refresh it before %s.\n", d.Version, date(d.Expires))
	})
	if !a.jsonOut {
		for _, n := range d.Notices {
			fmt.Fprintf(a.errOut, "note: %s\n", n)
		}
	}
	return err
}

func printOffers(w io.Writer, offers []trust.Offer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tFOR\tCHANNEL\tROLLOUT\tSIZE\tPUBLISHED")
	for _, o := range offers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d %%\t%s\t%s\n", o.Version, o.Arch, o.Channel, o.Rollout, fault.Bytes(o.Length), date(o.Published))
	}
	t.Flush() //nolint:errcheck // w is in memory
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func rolloutCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "rollout VERSION PERCENT",
		Short: "Say how many machines take a release by themselves",
		Long: "Say how many percent of the machines take a release by themselves. Each draws a lot for each version and\n" +
			"keeps it: who is among the first 10 percent is among the first 50 as well. What a machine has installed\n" +
			"stays installed when the share becomes smaller.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(c, errors.New("it takes a version and a number of percent"))
			}
			return nil
		},
		ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			percent, err := strconv.Atoi(strings.TrimSuffix(args[1], "%"))
			if err != nil {
				return usage(c, fmt.Errorf("%q is no number of percent", fault.Short(args[1])))
			}
			r, err := a.open()
			if err != nil {
				return err
			}
			return a.changed(r.Rollout(c.Context(), args[0], percent))
		},
	}
	a.changeFlags(c)
	return c
}

func withdrawCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "withdraw VERSION",
		Short: "Take a release off the offer",
		Long: "Take a release off the offer: no machine installs it any more. Those that run it go on running it until\n" +
			"a newer one is on offer. Its file stays in targets/ and may be removed a day later.",
		Args:              exactly("a version"),
		ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.open()
			if err != nil {
				return err
			}
			return a.changed(r.Withdraw(c.Context(), args[0]))
		},
	}
	a.changeFlags(c)
	return c
}

func refreshCommand(a *app) *cobra.Command {
	targets := false
	c := &cobra.Command{
		Use:   "refresh",
		Short: "Sign that this is still the newest state, for 90 days",
		Long: "Sign the short-lived metadata anew, for 90 days, with the key online. Machines go on with what has\n" +
			"expired, but tell their owners since when nothing was renewed.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := a.open()
			if err != nil {
				return err
			}
			return a.changed(r.Refresh(c.Context(), targets))
		},
	}
	c.Flags().BoolVar(&targets, "targets", false, "the list of releases as well, for a year, with the key targets")
	a.changeFlags(c)
	return c
}
