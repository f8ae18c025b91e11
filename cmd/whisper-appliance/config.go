package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
)

// sources says where the settings of this machine are.
func (a *app) sources() config.Sources {
	return config.Sources{
		Settings: a.paths.Settings,
		Config:   a.paths.Config,
		ConfigD:  a.paths.ConfigDir,
		Environ:  a.environ,
		Reserved: []string{urlVariable, keyVariable, fingerprintVariable, cacertVariable},
	}
}

func configCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check, show and save settings",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(configCheckCommand(a), configShowCommand(a), configReferenceCommand(a), configSetCommand(a))
	return c
}

func configCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with the settings, with file and line",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, report, err := config.Load(a.sources())
			if err != nil {
				return err
			}
			if err := a.checkParts(c); err != nil {
				return err
			}
			for _, path := range []string{a.paths.Settings, a.paths.Config, a.paths.ConfigDir} {
				fmt.Fprintf(a.out, "%s: %s\n", path, stateOf(path))
			}
			fmt.Fprintln(a.out, "The configuration is right.")
			a.printNotes(report)
			return nil
		},
	}
}

func stateOf(path string) string {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "not there"
	}
	return "read"
}

func (a *app) printNotes(r *config.Report) {
	for _, note := range r.Notes {
		fmt.Fprintln(a.out, "note:", note)
	}
}

func configShowCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Show every setting and where its value comes from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, report, err := config.Load(a.sources())
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(report)
			}
			w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			for _, v := range report.Values {
				fmt.Fprintf(w, "%s\t%s\t%s\n", v.Key, v.Literal(), v.Origin)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			a.printNotes(report)
			return nil
		},
	}
	a.jsonFlag(c)
	return c
}

// jsonFlag gives c the flag --json.
func (a *app) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.jsonOut, "json", a.jsonOut, "print JSON")
}

// printJSON writes v as one indented JSON document.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func configReferenceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Print every setting with its meaning and default, as a file to start from",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return config.Reference(a.out) },
	}
}

func configSetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY VALUE [KEY VALUE]…",
		Short: "Save settings, those that belong together at once",
		Long: "Save settings to settings.toml: " + inForce + ".\n" +
			"What config.toml, config.d or the environment fixes cannot be saved. A list is separated by commas.",
		Example: "  whisper-appliance config set transcription.language de\n" +
			"  whisper-appliance config set tls.certificate mine.pem tls.key mine.key",
		RunE: func(_ *cobra.Command, args []string) error {
			changes, err := pairs(args)
			if err != nil {
				return err
			}
			if err := makeDir(filepath.Dir(a.paths.Settings), 0o711); err != nil {
				return err
			}
			if err := a.wouldWork(changes); err != nil {
				return err
			}
			if err := a.sources().Save(changes); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "saved to %s; %s\n", a.paths.Settings, inForce)
			return nil
		},
		ValidArgsFunction: completeKeys,
	}
}

// inForce says when a saved setting counts: the server looks at settings.toml
// for every request, but makes its doors and its engine once.
const inForce = "[transcription], [models] default, [auth] and [server] max_upload count at once, the rest when the server starts next"

// wouldWork refuses changes with which the server would not start.
func (a *app) wouldWork(changes map[string]string) error {
	from := a.sources()
	for key, text := range changes {
		from.Flags = append(from.Flags, config.Flag{Name: "set", Key: key, Text: text})
	}
	c, _, err := config.Load(from)
	if err != nil {
		return nil // Save has the words for it
	}
	return a.checkParts(c)
}

// makeDir makes a directory that a file is about to be written to.
func makeDir(dir string, perm fs.FileMode) error {
	if err := os.MkdirAll(dir, perm); err != nil {
		return fault.New(fault.Forbidden, "no_directory", "the directory %s cannot be made", dir).Because(err).
			Try("do it as root, or as the user that runs the appliance")
	}
	return nil
}

// pairs reads KEY VALUE KEY VALUE….
func pairs(args []string) (map[string]string, error) {
	if len(args) == 0 || len(args)%2 != 0 {
		return nil, fault.New(fault.BadInput, "usage", "config set takes keys and values in turn; %d words were given", len(args)).
			Try("whisper-appliance config set transcription.language de")
	}
	changes := map[string]string{}
	for i := 0; i < len(args); i += 2 {
		key := strings.TrimSpace(args[i])
		if _, twice := changes[key]; twice {
			return nil, fault.New(fault.BadInput, "usage", "%s was given twice", key).On(key)
		}
		changes[key] = args[i+1]
	}
	return changes, nil
}
