//go:build man

package main

import (
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"whisper-appliance/internal/version"
)

// addBuildCommands adds what only the build of the package needs: the manual's
// pages whisper-appliance-update(1) and those of its verbs.
func addBuildCommands(root *cobra.Command) {
	root.AddCommand(&cobra.Command{
		Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			date := time.Unix(0, 0)
			if s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date = time.Unix(s, 0).UTC()
			}
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Date: &date, Source: "whisper-appliance " + version.Build().Version, Manual: "Whisper appliance"}
			return doc.GenManTree(root, header, args[0])
		},
	})
}
