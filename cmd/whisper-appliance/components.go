package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/fault"
)

func componentsCommand(a *app) *cobra.Command {
	graph, page := "", false
	c := &cobra.Command{
		Use:   "components",
		Short: "Show the appliance's parts, how each is and what it needs",
		Long: "Show the appliance's parts as the server knows them: how each is, since when, and why not better.\n" +
			"With --graph what each needs, which asks no server.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			declared := appliance.Parts{}.Components()
			switch {
			case page:
				_, err := fmt.Fprint(a.out, component.Page(declared))
				return err
			case graph != "":
				text, err := component.Graph(declared, graph)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(a.out, text)
				return err
			}
			return a.componentStates(c)
		},
	}
	c.Flags().StringVar(&graph, "graph", "", "print what needs what: `format` "+strings.Join(component.Formats(), ", "))
	c.Flags().BoolVar(&page, "page", false, "print the page of the documentation")
	c.Flags().MarkHidden("page")                                                                                           //nolint:errcheck // it is there
	c.RegisterFlagCompletionFunc("graph", cobra.FixedCompletions(component.Formats(), cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // it is there
	c.MarkFlagsMutuallyExclusive("graph", "page")
	a.serverFlags(c)
	a.jsonFlag(c)
	return c
}

// componentStates asks the server.
func (a *app) componentStates(c *cobra.Command) error {
	client, ok, err := a.client(c.Context())
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Unavailable, "no_server", "no server runs on this machine").
			Try("systemctl start whisper-appliance; --graph shows the parts without one")
	}
	var answer struct {
		Components []component.State `json:"components"`
	}
	if err := client.Get(c.Context(), "/api/v1/components", &answer); err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(answer)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tSTATUS\tSINCE\tSTART\tSAYS")
	for _, s := range answer.Components {
		says := s.Note
		if s.Status != component.OK {
			says = s.Error
		}
		status := string(s.Status)
		if s.Critical {
			status += " (critical)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, status, s.Since.Local().Format("15:04:05"), s.Took.Round(time.Millisecond), says)
		if s.Hint != "" && s.Status == component.Failed {
			fmt.Fprintf(w, "\t\t\t\ttry: %s\n", s.Hint)
		}
	}
	return w.Flush()
}
