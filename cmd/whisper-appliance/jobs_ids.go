package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/transcript"
)

const (
	wholeID  = 36    // characters of an id
	fewestID = 4     // of the end of one that names a job
	mostJobs = 20000 // that an end is looked for among
)

// jobs is the server, and the ids of the jobs that args name.
func (a *app) jobs(ctx context.Context, args []string) (*api.Client, []string, error) {
	c, err := a.server(ctx)
	if err != nil {
		return nil, nil, err
	}
	var all []api.Job
	ids := make([]string, len(args))
	for i, given := range args {
		if len(given) >= wholeID {
			ids[i] = given
			continue
		}
		if all == nil {
			if all, err = everyJob(ctx, c); err != nil {
				return nil, nil, err
			}
		}
		if ids[i], err = jobOf(all, given); err != nil {
			return nil, nil, err
		}
	}
	return c, ids, nil
}

// everyJob lists the caller's jobs, for an administrator everybody's.
func everyJob(ctx context.Context, c *api.Client) ([]api.Job, error) {
	jobs, err := jobsUpTo(ctx, c, api.JobsQuery{Limit: mostJobs, All: true})
	if kind := fault.KindOf(err); err != nil && (kind == fault.Forbidden || kind == fault.Unauthorized) {
		return jobsUpTo(ctx, c, api.JobsQuery{Limit: mostJobs})
	}
	return jobs, err
}

// jobOf is the id of the one job whose id ends so. Beginnings will not do: they
// are times, and alike for all of a day.
func jobOf(jobs []api.Job, end string) (string, error) {
	if len(end) < fewestID {
		return "", fault.New(fault.BadInput, "id_too_short", "%q is too short to name a job", end).Try("give the last %d characters of its id at least", fewestID)
	}
	var found []string
	for _, j := range jobs {
		if strings.HasSuffix(j.ID, strings.ToLower(end)) {
			found = append(found, j.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.New(fault.NotFound, "unknown_job", "no job of yours has an id that ends in %s", fault.Short(end)).Try("`whisper-appliance jobs list` shows them")
	case 1:
		return found[0], nil
	}
	return "", fault.New(fault.BadInput, "ambiguous_id", "%d jobs have an id that ends in %s", len(found), end).Try("give more of it: %s", strings.Join(found[:2], " or "))
}

// completeTime is how long the shell waits for the server at most.
const completeTime = time.Second

// completeJobs offers the ids of jobs whose state wanted takes.
func (a *app) completeJobs(wanted func(state string) bool, one bool) completion {
	return func(c *cobra.Command, args []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var err error
		if a.paths, err = paths.Find(paths.System()); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTime)
		defer cancel()
		client, err := a.server(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		jobs, err := client.Jobs(ctx, api.JobsQuery{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, j := range jobs.Jobs {
			if wanted(j.State) {
				ids = append(ids, fmt.Sprintf("%s\t%s %s", shortID(j.ID), j.State, fault.Short(j.Name)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFormats offers the formats of a text.
func completeFormats(*cobra.Command, []string, string) (formats []string, _ cobra.ShellCompDirective) {
	for _, f := range transcript.Formats() {
		formats = append(formats, string(f))
	}
	return formats, cobra.ShellCompDirectiveNoFileComp
}

func jobsWaitCommand(a *app) *cobra.Command {
	quiet := false
	c := &cobra.Command{
		Use:   "wait ID…",
		Short: "Wait until jobs have ended",
		Long: `Wait until jobs have ended. When the server is restarted meanwhile, it is asked
again. The exit code says what came of them: 0 done, 1 failed, 130 cancelled.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, ids, err := a.jobs(c.Context(), args)
			if err != nil {
				return err
			}
			return a.waitJobs(c.Context(), client, args, ids, quiet)
		},
		ValidArgsFunction: a.completeJobs(queuedOrRunning, false),
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	a.jsonFlag(c)
	a.serverFlags(c)
	return c
}

// waitJobs waits for one job after the other, and says how each has ended.
func (a *app) waitJobs(ctx context.Context, c *api.Client, args, ids []string, quiet bool) error {
	var failed []error
	ended := []api.Job{}
	for i, id := range ids {
		j, err := c.Job(ctx, id)
		if err == nil {
			_, err = a.follow(ctx, c, id, j.Name, quiet)
		}
		if ctx.Err() != nil {
			a.goesOn(ids[i:])
			return errors.Join(append(failed, err)...)
		}
		if err != nil {
			failed = append(failed, named(args, i, err))
		}
		if j, err = c.Job(ctx, id); err != nil {
			continue // it was removed meanwhile, or that is what failed
		}
		if ended = append(ended, j.Job); !a.jsonOut {
			fmt.Fprintf(a.out, "%s  %s\n", j.ID, jobState(j.Job))
		}
	}
	if a.jsonOut {
		failed = append(failed, a.printJSON(ended))
	}
	return errors.Join(failed...)
}

// follow waits for a job's text, and shows how it goes.
func (a *app) follow(ctx context.Context, c *api.Client, id, name string, quiet bool) (*transcript.Transcript, error) {
	m := a.meter(quiet)
	defer m.clear()
	return c.FollowJob(ctx, id, api.Follower{
		Job: func(j api.Job) { m.show("%s  %s  %s", name, jobState(j), placeOf(j)) },
		Progress: func(p api.Progress) {
			m.show("%s  %s", name, progressLine(p))
		},
		Away: func(_ error, again time.Duration) {
			m.show("%s  the server does not answer; asking again in %v", name, again)
		},
	})
}

// progressLine is how a job does: while its recording is fetched that is bytes.
func progressLine(p api.Progress) string {
	switch {
	case p.Fetched == 0:
		return phaseLine(p.Phase, seconds(p.Done), seconds(p.Total))
	case p.Size == 0:
		return fmt.Sprintf("%s  %s", p.Phase, fault.Bytes(p.Fetched))
	}
	return fmt.Sprintf("%s  %s of %s", p.Phase, fault.Bytes(p.Fetched), fault.Bytes(p.Size))
}

// goesOn tells somebody who has stopped waiting that the jobs have not stopped.
func (a *app) goesOn(ids []string) {
	if len(ids) == 1 {
		fmt.Fprintf(a.errOut, "The job goes on. To wait for it again: %s jobs wait %s\n", program, ids[0])
		return
	}
	fmt.Fprintf(a.errOut, "The jobs go on. To wait for them again: %s jobs wait %s\n", program, strings.Join(ids, " "))
}
