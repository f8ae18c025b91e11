package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/version"
)

func versionCommand(a *app) *cobra.Command {
	check := false
	c := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and build date",
		Long: "Print version, commit and build date. With --check those of everything on this machine: the release\n" +
			"that serves, its programs, the package, what runs, what the server says; in a checkout the git tag.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if check {
				return a.versionCheck(c.Context())
			}
			if a.jsonOut {
				return a.printJSON(version.Build())
			}
			_, err := fmt.Fprintln(a.out, version.Line(program))
			return err
		},
	}
	c.Flags().BoolVar(&check, "check", false, "see that everything on this machine is of one version")
	a.jsonFlag(c)
	return c
}
