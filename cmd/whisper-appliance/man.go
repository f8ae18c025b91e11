//go:build man

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/version"
)

// addBuildCommands adds what only the build of the package needs.
func addBuildCommands(root *cobra.Command) { root.AddCommand(manCommand(root)) }

// manCommand writes the manual's pages. Only the build of the package has it
// (tag man): the programs carry none of the libraries that it needs.
func manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			date := time.Unix(0, 0)
			if s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date = time.Unix(s, 0).UTC()
			}
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Date: &date, Source: program + " " + version.Build().Version, Manual: "Whisper appliance"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return err
			}
			return settingsPage(filepath.Join(args[0], program+"-config.5"), date)
		},
	}
}

// settingsPage is the reference of the settings as whisper-appliance-config(5).
func settingsPage(path string, date time.Time) error {
	var b bytes.Buffer
	b.WriteString("whisper-appliance-config 5 \"" + date.Format("January 2006") + "\" \"" + program + "\" \"Whisper appliance\"\n====\n\n" +
		"# NAME\n\nwhisper-appliance-config - settings of the whisper appliance\n\n# DESCRIPTION\n\n" +
		"Settings are read from config.toml and then from config.d/\\*.toml beside it, in /etc/whisper-appliance; the page and\n" +
		"`whisper-appliance config set` save to settings.toml in the state directory, over which both win. The environment\n" +
		"(WHISPER_APPLIANCE_SECTION_NAME) wins over all of them.\n\n# SETTINGS\n\n```\n")
	if err := config.Reference(&b); err != nil {
		return err
	}
	b.WriteString("```\n\n# SEE ALSO\n\nwhisper-appliance(1), whisper-appliance-server(8)\n")
	return os.WriteFile(path, md2man.Render(b.Bytes()), 0o644)
}
