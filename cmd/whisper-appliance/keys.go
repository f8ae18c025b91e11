package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/config"
)

func keysCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Add, list and remove API keys",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(keysAddCommand(a), keysListCommand(a), keysRemoveCommand(a))
	return c
}

// keysFile is the file that the settings name, or the one beside config.toml.
func (a *app) keysFile() (string, error) {
	c, _, err := config.Load(a.sources())
	if err != nil {
		return "", err
	}
	return cmp.Or(c.Auth.KeysFile, a.paths.Keys), nil
}

func keysAddCommand(a *app) *cobra.Command {
	var scopes []string
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a key and print it, once",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.addKey(args[0], scopes)
		},
	}
	c.Flags().StringSliceVar(&scopes, "scope", []string{string(auth.Transcribe)}, "what the key is good for: transcribe, admin (which includes transcribe)")
	a.jsonFlag(c)
	return c
}

func (a *app) addKey(name string, scopes []string) error {
	list := make([]auth.Scope, len(scopes))
	for i, s := range scopes {
		list[i] = auth.Scope(s)
	}
	plaintext, key, err := auth.New(name, list, time.Now())
	if err != nil {
		return err
	}
	path, err := a.keysFile()
	if err != nil {
		return err
	}
	if err := makeDir(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := auth.AddFor(a.paths.State, path, key); err != nil {
		return err
	}
	if err := a.printKey(path, key, plaintext); err != nil {
		return err
	}
	return auth.CheckReader(a.paths.State, path)
}

// printKey shows a new key, which was saved and cannot be shown again.
func (a *app) printKey(path string, key auth.Key, plaintext string) error {
	if a.jsonOut {
		return a.printJSON(struct {
			auth.Key
			Plaintext string `json:"key"`
		}{key, plaintext})
	}
	// The key alone on standard output, so that a script can take it.
	fmt.Fprintf(a.errOut, "Saved in %s, as a digest: this is the only time that the key is shown.\n", path)
	_, err := fmt.Fprintln(a.out, plaintext)
	return err
}

func keysListCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the keys there are",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := a.keysFile()
			if err != nil {
				return err
			}
			keys, err := auth.List(path)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(append([]auth.Key{}, keys...))
			}
			return a.printKeys(keys)
		},
	}
	a.jsonFlag(c)
	return c
}

func (a *app) printKeys(keys []auth.Key) error {
	if len(keys) == 0 {
		fmt.Fprintln(a.errOut, "There are no keys.")
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSCOPES\tCREATED")
	for _, k := range keys {
		scopes := make([]string, len(k.Scopes))
		for i, s := range k.Scopes {
			scopes[i] = string(s)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, strings.Join(scopes, ","), k.Created.Local().Format(time.DateTime))
	}
	return w.Flush()
}

func keysRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a key; it is refused within a second",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := a.keysFile()
			if err != nil {
				return err
			}
			if err := auth.Remove(path, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "removed %s\n", args[0])
			return nil
		},
	}
}
