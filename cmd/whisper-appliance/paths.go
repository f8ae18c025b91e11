package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

func pathsCommand(a *app) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "paths",
		Short: "Show where everything is, and check it",
		Long: "Show where everything is and what decided it. With --check each path is looked at with the rights of the\n" +
			"server's user: whether it is there, whose it is, its mode, the free space, and what to do where something is wrong.\n" +
			"Exit code 1 tells of a problem that keeps the appliance from working.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if check {
				return a.checkPaths()
			}
			return a.listPaths()
		},
	}
	c.Flags().BoolVar(&check, "check", false, "look at each path")
	a.jsonFlag(c)
	return c
}

func (a *app) listPaths() error {
	if a.jsonOut {
		return a.printJSON(a.paths.List())
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, e := range a.paths.List() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Name, orDash(e.Path), e.Origin)
	}
	return w.Flush()
}

// pathsUser is whose rights count: the server's where it is installed.
func (a *app) pathsUser() paths.User {
	if u, ok := paths.ServiceUser(); ok && a.paths.Kind == paths.Installed {
		return u
	}
	return paths.Me()
}

func (a *app) checkPaths() error {
	user := a.pathsUser()
	findings := a.paths.Check(user)
	if a.jsonOut {
		if err := a.printJSON(findings); err != nil {
			return err
		}
	} else if err := printFindings(a.out, user.Name, findings); err != nil {
		return err
	}
	n := 0
	for _, f := range findings {
		if f.Verdict == paths.Problem {
			n++
		}
	}
	if n > 0 {
		return fault.New(fault.Internal, "bad_paths", "%d of %d paths have a problem", n, len(findings))
	}
	return nil
}

func printFindings(w io.Writer, user string, findings []paths.Finding) error {
	fmt.Fprintf(w, "Checked for the user %s.\n", user)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPATH\tORIGIN\tOWNER\tMODE\tFREE\tVERDICT")
	for _, f := range findings {
		free := ""
		if f.FreeBytes != nil {
			free = fault.Bytes(int64(*f.FreeBytes))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, orDash(f.Path), f.Origin, orDash(f.Owner), orDash(f.Mode), orDash(free), f.Verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Verdict == paths.OK {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s %s: %s\n  try: %s\n", f.Verdict, f.Name, f.Path, f.What, f.Hint); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
