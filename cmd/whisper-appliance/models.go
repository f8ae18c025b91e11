package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/transcribe"
)

func modelsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "List, fetch, import, choose, remove and check models",
		Long: `List, fetch, import, choose, remove and check Whisper's models on this machine.

A server that runs sees every change at once.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{
		modelsListCommand(a), modelsPullCommand(a), modelsImportCommand(a), modelsUseCommand(a), modelsRemoveCommand(a), modelsVerifyCommand(a),
	} {
		a.jsonFlag(sub)
		c.AddCommand(sub)
	}
	return c
}

// store is the models on this machine and the settings that concern them.
func (a *app) store() (*model.Store, *config.Config, error) {
	c, _, err := config.Load(a.sources())
	if err != nil {
		return nil, nil, err
	}
	return appliance.Store(a.paths, c), c, nil
}

// listedModel is a model in models list --json.
type listedModel struct {
	model.Listed
	InUse bool `json:"in_use"`
}

func modelsListCommand(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the models that are here, with --all the whole catalogue",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, conf, err := a.store()
			if err != nil {
				return err
			}
			listed, err := s.List()
			if err != nil {
				return err
			}
			return a.printModels(listed, conf.Models.Default, all)
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "models that could be fetched, too")
	return c
}

func (a *app) printModels(listed []model.Listed, current string, all bool) error {
	shown := []listedModel{}
	for _, l := range listed {
		if all || l.State != model.Absent {
			shown = append(shown, listedModel{l, l.Name == current})
		}
	}
	if a.jsonOut {
		return a.printJSON(shown)
	}
	if len(shown) == 0 {
		fmt.Fprintf(a.out, "No model is here yet. `%s models list --all` shows what there is, `%s models pull %s` fetches one.\n", program, program, current)
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tSTATE\tSIZE\tMEMORY\tLANGUAGES\t")
	for _, l := range shown {
		state := string(l.State)
		switch {
		case l.InUse && l.State == model.Installed:
			state += ", in use"
		case l.InUse:
			state += ", chosen"
		}
		if l.Problem != "" {
			state += ": " + l.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", l.Name, state, known(max(l.Size, l.OnDisk)), known(l.MemoryNeeded), languages(l.Entry))
	}
	return w.Flush()
}

// known is a size, or a dash where it is not known.
func known(n int64) string {
	if n == 0 {
		return "-"
	}
	return fault.Bytes(n)
}

func languages(e model.Entry) string {
	switch n := len(e.Languages); n {
	case 0:
		return "-"
	case 1:
		return e.Languages[0]
	default:
		return fmt.Sprint(n)
	}
}

func modelsPullCommand(a *app) *cobra.Command {
	var from []string
	var only bool
	c := &cobra.Command{
		Use:   "pull NAME…",
		Short: "Fetch models; a download that broke off goes on where it was",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			s, conf, err := a.store()
			if err != nil {
				return err
			}
			if conf.Models.Mirror != "" {
				from = append(from, conf.Models.Mirror)
			}
			for _, name := range names {
				m := a.meter(a.jsonOut)
				r, err := s.Pull(c.Context(), name, model.PullOptions{Sources: from, NoUpstream: only, Progress: m.model(name)})
				m.clear()
				if err != nil {
					return err
				}
				if err := a.printResult(r, conf.Models.Default); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.ValidArgsFunction = a.completeModels(isAway)
	c.Flags().StringArrayVar(&from, "from", nil, "`directory` or address to look at first; can be repeated")
	c.Flags().BoolVar(&only, "mirror-only", false, "ask mirrors alone, never the upstream hub")
	return c
}

// model shows the progress of one model's pull, import or check.
func (m *meter) model(name string) func(model.Progress) {
	return func(p model.Progress) {
		if p.Total == 0 {
			m.show("%s  %s  %s", name, p.Phase, fault.Bytes(p.Bytes))
			return
		}
		line := fmt.Sprintf("%s  %s  %d %%  %s of %s", name, p.Phase, 100*p.Bytes/p.Total, fault.Bytes(p.Bytes), fault.Bytes(p.Total))
		if p.Rate > 0 {
			line += fmt.Sprintf("  %s/s", fault.Bytes(int64(p.Rate)))
		}
		if p.Left > 0 {
			line += "  " + clock(p.Left) + " left"
		}
		m.show("%s", line)
	}
}

func (a *app) printResult(r model.Result, current string) error {
	if a.jsonOut {
		return a.printJSON(r)
	}
	if r.Already() {
		fmt.Fprintf(a.out, "%s is here already: %s.\n", r.Name, r.Report.Summary())
	} else {
		fmt.Fprintf(a.out, "%s is installed: %s.\n", r.Name, r.Report.Summary())
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(a.errOut, w)
	}
	if r.Report.Info.Kind == model.Speech && r.Name != current {
		fmt.Fprintf(a.errOut, "The model in use is %s; `%s models use %s` changes that.\n", current, program, r.Name)
	}
	return nil
}

func modelsImportCommand(a *app) *cobra.Command {
	var o model.ImportOptions
	var format string
	c := &cobra.Command{
		Use:   "import PATH",
		Short: "Take in a GGML file, or convert a directory with a Whisper ONNX checkpoint",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, conf, err := a.store()
			if err != nil {
				return err
			}
			switch o.Type = model.Format(format); o.Type {
			case model.F16, model.Q8_0:
			default:
				return usageError{fmt.Errorf("--type %s: it must be f16 or q8_0", format)}
			}
			m := a.meter(a.jsonOut)
			o.Progress = m.model(args[0])
			r, err := s.Import(c.Context(), args[0], o)
			m.clear()
			if err != nil {
				return err
			}
			return a.printResult(r, conf.Models.Default)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "`name` to give it; left out: after the file or the checkpoint")
	c.Flags().StringVar(&format, "type", string(model.F16), "of a conversion: f16 or q8_0")
	c.Flags().BoolVar(&o.Replace, "replace", false, "put it in the place of one that is there")
	return c
}

func modelsUseCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "use NAME",
		Short: "Make a model the one in use",
		Long: `Make a model the one in use: of the server that runs on this machine (or --url),
or where none runs, of the next one that starts here.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := a.useModel(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(map[string]string{"model": name})
			}
			_, err = fmt.Fprintf(a.out, "%s is the model in use.\n", name)
			return err
		},
	}
	a.serverFlags(c)
	c.ValidArgsFunction = a.completeModels(isHere)
	return c
}

// useModel asks the server, which knows its own models and what its settings
// fix; without one it saves the setting.
func (a *app) useModel(ctx context.Context, name string) (string, error) {
	if client, ok, err := a.client(ctx); err != nil {
		return "", err
	} else if ok {
		return client.UseModel(ctx, name)
	}
	s, _, err := a.store()
	if err != nil {
		return "", err
	}
	m, err := transcribe.FindModel(s, name)
	if err != nil {
		return "", err
	}
	if err := makeDir(filepath.Dir(a.paths.Settings), 0o711); err != nil {
		return "", err
	}
	return m.Name, a.sources().Save(map[string]string{"models.default": m.Name})
}

// inUse is the model of the server that runs on this machine, or else the one
// that the settings name.
func (a *app) inUse(ctx context.Context, c *config.Config) string {
	client, ok, err := a.localServer(ctx)
	if err != nil || !ok {
		return c.Models.Default
	}
	var s serverStatus
	health, err := client.Health(ctx)
	if err != nil || json.Unmarshal(health, &s) != nil {
		return c.Models.Default
	}
	return cmp.Or(s.Model.Name, c.Models.Default)
}

func modelsRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME…",
		Aliases: []string{"remove"},
		Short:   "Delete models, and what is left of broken downloads",
		Args:    cobra.MinimumNArgs(1),

		ValidArgsFunction: a.completeModels(isHere),
		RunE: func(c *cobra.Command, names []string) error {
			s, conf, err := a.store()
			if err != nil {
				return err
			}
			current := a.inUse(c.Context(), conf)
			for _, name := range names {
				if err := s.Remove(name, current); err != nil {
					return err
				}
				if a.jsonOut {
					err = a.printJSON(map[string]string{"removed": name})
				} else {
					_, err = fmt.Fprintf(a.out, "%s is removed.\n", name)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func modelsVerifyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME…]",
		Short: "Check model files, all that are here where none is named",

		ValidArgsFunction: a.completeModels(isHere),
		RunE: func(c *cobra.Command, names []string) error {
			s, _, err := a.store()
			if err != nil {
				return err
			}
			if len(names) == 0 {
				if names, err = here(s); err != nil {
					return err
				}
			}
			for _, name := range names {
				if err := a.verify(c.Context(), s, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// here names the models that are here, damaged ones included.
func here(s *model.Store) ([]string, error) {
	all, err := s.List()
	var names []string
	for _, l := range all {
		if l.State == model.Installed || l.State == model.Damaged {
			names = append(names, l.Name)
		}
	}
	return names, err
}

func (a *app) verify(ctx context.Context, s *model.Store, name string) error {
	m := a.meter(a.jsonOut)
	r, err := s.Verify(ctx, name, m.model(name))
	m.clear()
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(r)
	}
	_, err = fmt.Fprintf(a.out, "%s: %s.\n", r.Name, r.Summary())
	return err
}
