package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/publish"
)

func keysCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and replace the keys that releases are signed with",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&a.keys, "dir", "keys", "`directory` of the keys")
	c.AddCommand(keysInitCommand(a), keysRotateCommand(a), keysListCommand(a))
	return c
}

func keysInitCommand(a *app) *cobra.Command {
	threshold := 1
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the first keys, and the root of trust that names them",
		Long: "Make the first keys: root-1 and root-2, which say whose signatures count, targets, which says which\n" +
			"releases there are, and online, which says that this is the newest state. root.json names them all,\n" +
			"is no secret, and is what the appliance's package carries as its root of trust.\n\n" +
			"Whoever has a root key and the threshold of them can make every machine install anything: keep each\n" +
			"on a medium of its own, away from any network. With one of the two lost the other replaces it.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := publish.InitKeys(a.keys, threshold, a.now())
			if err != nil {
				return err
			}
			list, err := k.List()
			if err != nil {
				return err
			}
			return printed(a, list, func(w io.Writer, list []publish.Key) {
				printKeys(w, list)
				fmt.Fprintf(w, "\nThe root of trust is %s. Now take the root keys off this machine.\n", filepath.Join(a.keys, publish.RootName))
			})
		},
	}
	c.Flags().IntVar(&threshold, "root-threshold", threshold, "how `many` of the two root keys have to sign a new root")
	a.jsonFlag(c)
	return c
}

func keysListCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the keys, what each signs, and which are not here",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			k, err := publish.LoadKeys(a.keys)
			if err != nil {
				return err
			}
			list, err := k.List()
			if err != nil {
				return err
			}
			return printed(a, list, printKeys)
		},
	}
	a.jsonFlag(c)
	return c
}

func printKeys(w io.Writer, list []publish.Key) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tSIGNS\tID")
	for _, k := range list {
		fmt.Fprintf(t, "%s\t%s\t%.16s\n", cmp.Or(k.File, "(not here)"), cmp.Or(strings.Join(k.Roles, ", "), "(nothing)"), k.ID)
	}
	t.Flush() //nolint:errcheck // w is in memory
}

func keysRotateCommand(a *app) *cobra.Command {
	which := ""
	c := &cobra.Command{
		Use:   "rotate " + publish.Root + "|" + publish.Targets + "|" + publish.Online,
		Short: "Put a new key in the place of one, and sign the repository anew",
		Long: "Put a new key in the place of one of a role's. The new root is signed by old root keys and new ones, so\n" +
			"that machines follow by themselves, and what the old key signed counts no longer. This needs the root\n" +
			"keys, and online's; a lost key can be replaced as long as enough root keys are left.\n\n" +
			"Copy the repository to where machines look afterwards, and " + publish.RootName + " into the next package.",
		Args:      exactly("a role", publish.Root, publish.Targets, publish.Online),
		ValidArgs: []cobra.Completion{publish.Root, publish.Targets, publish.Online},
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.open()
			if err != nil {
				return err
			}
			done, err := r.Rotate(c.Context(), args[0], which)
			if err != nil {
				return err
			}
			return printed(a, done, func(w io.Writer, done *publish.Rotated) {
				fmt.Fprintf(w, "%s: %.16s in the place of %.16s, by root version %d\n%s\n", done.File, done.New, done.Old, done.Root, done.Notice)
			})
		},
	}
	c.Flags().StringVar(&which, "key", "", "the `file` of the key to replace, or the beginning of its id; else the role's oldest")
	a.repositoryFlag(c)
	a.jsonFlag(c)
	return c
}

// exactly one argument is taken, which is said in words.
func exactly(what string, choices ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		words := what
		if len(choices) > 0 {
			words += ": " + strings.Join(choices, ", ")
		}
		return usage(c, errors.New("it takes "+words))
	}
}
