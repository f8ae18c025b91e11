package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/publish"
	"whisper-appliance/internal/trust"
)

// maxRoot is the longest root of trust, in bytes.
const maxRoot = 1 << 20

// readRoot is the root of trust in that file, nil where none is named.
func readRoot(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := durable.ReadRegular(path, maxRoot)
	if err != nil {
		return nil, err
	}
	if err := trust.CheckRoot(data); err != nil {
		return nil, fault.New(fault.BadInput, "bad_root", "%s is no root of trust", path).Because(err).On("root").
			Try("name the %s that `keys init` made", publish.RootName)
	}
	return data, nil
}

const rootUsage = "`file` with the root of trust; else the repository's own first root, which proves that all holds together and not whose it is"

func bundleCommand(a *app) *cobra.Command {
	out, arch, root := ".", "", ""
	c := &cobra.Command{
		Use:   "bundle VERSION",
		Short: "Put one release and all that proves it into one file",
		Long: "Put one release and all that proves it into one file, whisper-appliance_VERSION_ARCH.wa, for machines\n" +
			"without a network: `whisper-appliance update install FILE`. It needs no keys.",
		Args:              exactly("a version"),
		ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			trusted, err := readRoot(root)
			if err != nil {
				return err
			}
			name, o, err := publish.Bundle(c.Context(), a.repository, trusted, args[0], arch, out)
			if err != nil {
				return err
			}
			return printed(a, bundled{name, o}, func(w io.Writer, b bundled) {
				fmt.Fprintf(w, "%s\nversion %s for %s, sha256 %s\n", b.File, b.Version, b.Arch, b.SHA256)
			})
		},
	}
	c.Flags().StringVar(&out, "out", out, "`file`, or directory for it")
	c.Flags().StringVar(&arch, "arch", "", "the `processor`, where the version is published for several")
	c.Flags().StringVar(&root, "root", "", rootUsage)
	a.repositoryFlag(c)
	a.jsonFlag(c)
	return c
}

type bundled struct {
	File string `json:"file"`
	trust.Offer
}

func verifyCommand(a *app) *cobra.Command {
	root := ""
	c := &cobra.Command{
		Use:   "verify REPOSITORY|FILE.wa|FILE.tar.zst",
		Short: "See that everything is signed, whole, and what is said of it",
		Long: "Look at a repository or a bundle as a machine does that has never seen it: the chain of roots from the\n" +
			"first on, all metadata, and each release, which is unpacked to be compared with its manifest and with\n" +
			"what the metadata say. Of a *.tar.zst, which holds no signatures, only the form is verified.",
		Args: exactly("a repository, a bundle or a release"),
		RunE: func(c *cobra.Command, args []string) error {
			trusted, err := readRoot(root)
			if err != nil {
				return err
			}
			v := publish.Verifier{Root: trusted, Now: a.now}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			var seen *publish.Verified
			switch {
			case info.IsDir():
				seen, err = v.Repository(c.Context(), trust.Directory(args[0]))
			case filepath.Ext(args[0]) == publish.BundleSuffix:
				seen, err = v.Bundle(c.Context(), args[0])
			default:
				return a.verifyArtefact(c, args[0], root)
			}
			if err != nil {
				return err
			}
			return a.verified(seen, root)
		},
	}
	c.Flags().StringVar(&root, "root", "", rootUsage)
	a.jsonFlag(c)
	return c
}

func (a *app) verifyArtefact(c *cobra.Command, file, root string) error {
	if root != "" {
		return usage(c, errors.New("a release by itself holds no signatures: --root is for a repository or a bundle"))
	}
	seen, err := publish.Inspect(c.Context(), file, "")
	if err != nil {
		return err
	}
	return printed(a, seen, func(w io.Writer, seen publish.Artefact) {
		printArtefact(w, seen)
		fmt.Fprintln(w, "It is whole. Who made it is not said in it.")
	})
}

func (a *app) verified(seen *publish.Verified, root string) error {
	err := printed(a, seen, func(w io.Writer, seen *publish.Verified) {
		printOffers(w, seen.Offers)
		fmt.Fprintf(w, "Verified: version %d of what is on offer, %d releases unpacked and compared; good until %s.\n", seen.Version, seen.Checked, date(seen.Expires))
	})
	if a.jsonOut {
		return err
	}
	a.warn(seen.Index)
	if root == "" {
		fmt.Fprintln(a.errOut, "note: its own first root was believed; --root FILE proves whose it is")
	}
	return err
}

// warn tells what does not keep anybody from going on.
func (a *app) warn(x *trust.Index) {
	if !x.Stale.IsZero() {
		fmt.Fprintf(a.errOut, "note: it has not been renewed since %s: `refresh`\n", date(x.Stale))
	}
	for _, what := range x.Ignored {
		fmt.Fprintf(a.errOut, "note: machines ignore %s\n", what)
	}
}

func listCommand(a *app) *cobra.Command {
	root := ""
	c := &cobra.Command{
		Use:   "list",
		Short: "List the releases on offer",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			trusted, err := readRoot(root)
			if err != nil {
				return err
			}
			x, err := publish.List(c.Context(), a.repository, trusted, a.now)
			if err != nil {
				return err
			}
			if !a.jsonOut {
				a.warn(x)
			}
			return printed(a, x, func(w io.Writer, x *trust.Index) { printOffers(w, x.Offers) })
		},
	}
	c.Flags().StringVar(&root, "root", "", rootUsage)
	a.repositoryFlag(c)
	a.jsonFlag(c)
	return c
}

// completeVersions offers the versions on offer, for the first argument; where
// anything fails it offers nothing.
func (a *app) completeVersions(c *cobra.Command, args []string, _ string) (versions []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	x, err := publish.List(c.Context(), a.repository, nil, a.now)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, o := range x.Offers {
		versions = append(versions, o.Version+"\t"+o.Channel)
	}
	return versions, cobra.ShellCompDirectiveNoFileComp
}
