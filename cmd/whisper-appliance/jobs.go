package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

func jobsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "jobs",
		Short: "Have recordings transcribed while nobody waits",
		Long: `Have recordings transcribed while nobody waits: the server keeps them and goes on
with them after a restart, an update or a power cut.

A job is named by its id, or by the end of it where that is unique, as
"jobs list" shows it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(jobsAddCommand(a), jobsListCommand(a), jobsShowCommand(a), jobsWaitCommand(a), jobsTextCommand(a),
		jobsEachCommand(a, "cancel", "Stop jobs", queuedOrRunning, cancelJob), jobsEachCommand(a, "retry", "Go on with jobs that failed or were cancelled", stopped, retryJob),
		jobsEachCommand(a, "rm", "Remove jobs, with their texts and recordings", anyJob, removeJob))
	return c
}

// server is the server that was named or the one that runs on this machine.
func (a *app) server(ctx context.Context) (*api.Client, error) {
	c, ok, err := a.client(ctx)
	if err == nil && !ok {
		err = fault.New(fault.Unavailable, "no_server", "no server runs on this machine (%s)", a.paths.APISocket).
			Try("`systemctl start whisper-appliance`, or --url for one elsewhere")
	}
	return c, err
}

func jobsListCommand(a *app) *cobra.Command {
	var q api.JobsQuery
	c := &cobra.Command{
		Use:   "list",
		Short: "List jobs, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.State != "" && !slices.Contains(jobStates(), q.State) {
				return fault.New(fault.BadInput, "invalid_value", "--state is %q", q.State).On("--state").Try("it may be %s", strings.Join(jobStates(), ", "))
			}
			client, err := a.server(c.Context())
			if err != nil {
				return err
			}
			jobs, err := jobsUpTo(c.Context(), client, q)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(jobs)
			}
			if len(jobs) == 0 && !q.All {
				fmt.Fprintln(a.errOut, "There are no such jobs of yours. --all shows everybody's, to administrators.")
				return nil
			}
			return a.printJobs(jobs, time.Now())
		},
	}
	f := c.Flags()
	f.StringVar(&q.State, "state", "", "only those that are queued, running, done, failed or canceled")
	f.BoolVar(&q.All, "all", false, "everybody's; for administrators")
	f.IntVar(&q.Limit, "limit", 100, "how many at most")
	c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(jobStates(), cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // the flag is there
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

func jobStates() []string { return []string{"queued", "running", "done", "failed", "canceled"} }

// mostOnPage is how many jobs the server gives at once.
const mostOnPage = 1000

// jobsUpTo lists as many jobs as q.Limit says, page by page.
func jobsUpTo(ctx context.Context, c *api.Client, q api.JobsQuery) ([]api.Job, error) {
	if q.Limit < 1 {
		return nil, usageError{fmt.Errorf("--limit is %d; it must be 1 or more", q.Limit)}
	}
	all := []api.Job{}
	for most := q.Limit; ; {
		q.Limit = min(most-len(all), mostOnPage)
		page, err := c.Jobs(ctx, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Jobs...)
		if q.Before = page.Next; q.Before == "" || len(all) >= most {
			return all, nil
		}
	}
}

func (a *app) printJobs(jobs []api.Job, now time.Time) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tDONE\tPLACE OR TIME\tAGE\tNAME")
	for _, j := range jobs {
		fmt.Fprintf(w, "%s\t%s\t%d %%\t%s\t%s\t%s\n", shortID(j.ID), jobState(j), j.Percent, placeOf(j), age(now.Sub(j.Created)), fault.Short(j.Name))
	}
	return w.Flush()
}

// shownID is how much of an id is shown: its end, as the beginnings are alike.
const shownID = 12

func shortID(id string) string { return id[max(0, len(id)-shownID):] }

func jobState(j api.Job) string {
	if j.Canceling {
		return "canceling"
	}
	return j.State
}

// placeOf is where a job is in the queue, how long it takes still, or took.
func placeOf(j api.Job) string {
	switch {
	case j.Ahead != nil && *j.Ahead == 0:
		return "next"
	case j.Ahead != nil:
		return fmt.Sprintf("%d before it", *j.Ahead)
	case j.Left != nil:
		return clock(seconds(*j.Left)) + " left"
	case j.Error != nil:
		return j.Error.Code
	case !j.Ended.IsZero() && !j.Started.IsZero():
		return "took " + clock(j.Ended.Sub(j.Started))
	}
	return j.Phase
}

// age is d in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func jobsShowCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a job, with its text as far as there is any",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, ids, err := a.jobs(c.Context(), args)
			if err != nil {
				return err
			}
			j, err := client.Job(c.Context(), ids[0])
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(j)
			}
			return a.printJob(j)
		},
		ValidArgsFunction: a.completeJobs(anyJob, true),
	}
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

func (a *app) printJob(j api.JobDetail) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Local().Format(time.DateTime)
	}
	row("id", j.ID)
	row("state", strings.TrimSpace(fmt.Sprintf("%s, %d %% %s", jobState(j.Job), j.Percent, placeOf(j.Job))))
	row("name", fault.Short(j.Name))
	row("from", fault.Short(j.URL))
	row("size", fault.Bytes(j.Bytes))
	if j.Duration > 0 {
		row("length", clock(seconds(j.Duration)))
	}
	row("model", j.Model)
	row("language", j.Language)
	row("priority", j.Priority)
	row("owner", j.Owner)
	row("created", moment(j.Created))
	row("started", moment(j.Started))
	row("ended", moment(j.Ended))
	if j.Attempts > 1 {
		row("attempts", fmt.Sprint(j.Attempts))
	}
	if w := j.Webhook; w != nil {
		row("webhook", strings.TrimSpace(fmt.Sprintf("%s, %s %s", w.State, fault.Short(w.URL), fault.Plain(w.Error, 200))))
	}
	if j.Error != nil {
		row("error", fault.PlainLines(j.Error.Error, "  "))
		row("try", fault.PlainLines(j.Error.Hint, "  "))
	}
	for _, note := range j.Notes {
		row("note", note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if j.Text != "" {
		_, err := fmt.Fprintf(a.out, "\n%s\n", j.Text)
		return err
	}
	return nil
}

func jobsTextCommand(a *app) *cobra.Command {
	format := "txt"
	c := &cobra.Command{
		Use:   "text ID",
		Short: "Print the text of a job that is done",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			as, err := transcript.ParseFormat(format)
			if err != nil {
				return onFlag(err, "--format")
			}
			client, ids, err := a.jobs(c.Context(), args)
			if err != nil {
				return err
			}
			return client.JobText(c.Context(), ids[0], as, a.out)
		},
		ValidArgsFunction: a.completeJobs(func(state string) bool { return state == "done" }, true),
	}
	c.Flags().StringVarP(&format, "format", "f", "txt", "txt, json, verbose_json, srt, vtt, tsv, words or lrc")
	c.RegisterFlagCompletionFunc("format", completeFormats) //nolint:errcheck // the flag is there
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

func anyJob(string) bool                { return true }
func queuedOrRunning(state string) bool { return state == "queued" || state == "running" }
func stopped(state string) bool         { return state == "failed" || state == "canceled" }

func cancelJob(ctx context.Context, c *api.Client, id string) (api.Job, error) {
	return c.CancelJob(ctx, id)
}
func retryJob(ctx context.Context, c *api.Client, id string) (api.Job, error) {
	return c.RetryJob(ctx, id)
}

// removeJob stops a job that is being done first, and waits until it has stopped.
func removeJob(ctx context.Context, c *api.Client, id string) (api.Job, error) {
	gone := api.Job{ID: id, State: "removed"}
	err := c.DeleteJob(ctx, id)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != "job_running" {
		return gone, err
	}
	if _, err := c.CancelJob(ctx, id); err != nil {
		return gone, err
	}
	if _, err := c.FollowJob(ctx, id, api.Follower{}); err != nil && fault.KindOf(err) != fault.Canceled {
		return gone, err
	}
	return gone, c.DeleteJob(ctx, id)
}

// jobsEachCommand does the same with each of some jobs.
func jobsEachCommand(a *app, name, short string, may func(state string) bool, do func(context.Context, *api.Client, string) (api.Job, error)) *cobra.Command {
	c := &cobra.Command{
		Use:   name + " ID…",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, ids, err := a.jobs(c.Context(), args)
			if err != nil {
				return err
			}
			var failed []error
			changed := []api.Job{}
			for i, id := range ids {
				j, err := do(c.Context(), client, id)
				if err != nil {
					failed = append(failed, named(args, i, err))
					continue
				}
				if changed = append(changed, j); !a.jsonOut {
					fmt.Fprintf(a.out, "%s  %s\n", j.ID, jobState(j))
				}
			}
			if a.jsonOut {
				failed = append(failed, a.printJSON(changed))
			}
			return errors.Join(failed...)
		},
		ValidArgsFunction: a.completeJobs(may, false),
	}
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

// named says which of several an error is about.
func named(args []string, i int, err error) error {
	if len(args) == 1 {
		return err
	}
	return fmt.Errorf("%s: %w", args[i], err)
}
