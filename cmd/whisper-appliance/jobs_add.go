package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcript"
)

// newJobs is what `jobs add` asks for.
type newJobs struct {
	order
	priority, deadline, key, task, webhook string

	wait      bool
	resumable *bool // nil = by the recording's size
}

// resumableFrom is the size from which recordings are sent in pieces, in bytes.
const resumableFrom = 64 << 20

func jobsAddCommand(a *app) *cobra.Command {
	var n newJobs
	resumable := false
	c := &cobra.Command{
		Use:   "add FILE|URL…",
		Short: "Give recordings to the server, and print the ids of their jobs",
		Long: `Give recordings to the server, and print the ids of their jobs.

Large recordings are sent in pieces: where the connection breaks it goes on by
itself, and after Ctrl-C the same command goes on. A FILE of - is standard input.

A recording that begins with https:// or http:// is fetched by the server, from
hosts that its administrator has named (recordings in [outbound]).`,
		Example: `  whisper-appliance jobs add --language de *.mp3
  whisper-appliance jobs add --wait --format srt --output subtitles/ *.mp4
  whisper-appliance jobs add --webhook https://hooks.example.org/done https://files.example.org/talk.mp3`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			if c.Flags().Changed("resumable") {
				n.resumable = &resumable
			}
			return a.addJobs(c.Context(), n, files)
		},
	}
	f := c.Flags()
	f.StringVarP(&n.Model, "model", "m", "", "`name` of an installed model; left out: the one in use")
	f.StringVarP(&n.Language, "language", "l", "", "language spoken (de or german); left out: detected")
	f.StringVar(&n.Prompt, "prompt", "", "`text` that names words and spellings to expect")
	f.StringVar(&n.task, "task", "", "transcribe, or translate into English")
	f.BoolVar(&n.Words, "words", false, "each word with its own times")
	f.StringVar(&n.priority, "priority", "", "normal, or background: after everything else")
	f.StringVar(&n.deadline, "deadline", "", "`when` nobody wants the text any more: 2026-01-02T15:04:05Z, or 90m from now")
	f.StringVar(&n.key, "idempotency-key", "", "idempotency `key`: the same recording with the same key is one job")
	f.StringVar(&n.webhook, "webhook", "", "`address` that the server tells when the job has ended (webhooks in [outbound])")
	f.BoolVar(&resumable, "resumable", false, "send in pieces; left out: from "+fault.Bytes(resumableFrom)+" on")
	f.BoolVarP(&n.wait, "wait", "w", false, "wait for the texts")
	f.StringVarP(&n.format, "format", "f", "txt", "with --wait: txt, json, verbose_json, srt, vtt, tsv, words or lrc")
	f.StringVarP(&n.output, "output", "o", "", "with --wait: `file`, or directory for one file each; left out: standard output")
	f.BoolVar(&n.force, "force", false, "overwrite files that are there")
	f.BoolVarP(&n.quiet, "quiet", "q", false, "no progress, no notes")
	a.jsonFlag(c)
	a.serverFlags(c)
	a.completeTranscribe(c)
	for flag, values := range map[string][]string{"task": {"transcribe", "translate"}, "priority": {"normal", "background"}} {
		c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // the flags are there
	}
	return c
}

// addJobs sends all recordings before it waits for any.
func (a *app) addJobs(ctx context.Context, n newJobs, files []string) error {
	format, err := transcript.ParseFormat(n.format)
	if err != nil {
		return onFlag(err, "--format")
	}
	if n.key != "" && len(files) > 1 {
		return usageError{fmt.Errorf("--idempotency-key names one job, and there are %d recordings", len(files))}
	}
	if !n.wait && n.output != "" {
		return usageError{errors.New("--output needs --wait")}
	}
	n.Task = transcript.Task(n.task)
	n.Words = n.Words || n.wait && (format.NeedsWords() || format == transcript.VerboseJSON)
	targets, err := n.targets(namesOf(files), format)
	if err != nil {
		return err
	}
	for i, file := range files {
		if err := n.refuse(file, targets[i]); err != nil {
			return err
		}
	}
	c, err := a.server(ctx)
	if err != nil {
		return err
	}
	jobs, err := a.sendJobs(ctx, c, n, files)
	if n.wait && ctx.Err() == nil {
		return errors.Join(err, a.fetchTexts(ctx, c, n, format, jobs, targets, files))
	}
	if a.jsonOut {
		return errors.Join(err, a.printJSON(jobs.all))
	}
	if n.wait && len(jobs.all) > 0 {
		a.goesOn(jobs.ids(0))
	}
	return err
}

// ids are those from the i-th job on.
func (s sentJobs) ids(i int) (ids []string) {
	for _, j := range s.all[i:] {
		ids = append(ids, j.ID)
	}
	return ids
}

// sentJobs are the jobs that recordings have become.
type sentJobs struct {
	all  []api.Job
	file []int // of each, the recording's index
}

// sendJobs sends recordings, and prints the ids of their jobs.
func (a *app) sendJobs(ctx context.Context, c *api.Client, n newJobs, files []string) (sent sentJobs, err error) {
	sent.all = []api.Job{}
	var failed []error
	for i, file := range files {
		j, err := a.sendJob(ctx, c, n, file)
		if err != nil {
			failed = append(failed, named(files, i, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		sent.all, sent.file = append(sent.all, j), append(sent.file, i)
		if !n.wait && !a.jsonOut {
			fmt.Fprintln(a.out, j.ID)
		}
	}
	return sent, errors.Join(failed...)
}

// isURL tells whether a recording is for the server to fetch.
func isURL(file string) bool {
	return strings.HasPrefix(file, "https://") || strings.HasPrefix(file, "http://")
}

// namesOf are the names of recordings; those of the ones to be fetched are in the
// path of their addresses.
func namesOf(files []string) []string {
	names := slices.Clone(files)
	for i, file := range names {
		if u, err := url.Parse(file); err == nil && isURL(file) {
			names[i] = cmp.Or(strings.Trim(path.Base(u.Path), "/."), u.Host)
		}
	}
	return names
}

// sendJob sends one recording, or has the server fetch it.
func (a *app) sendJob(ctx context.Context, c *api.Client, n newJobs, file string) (api.Job, error) {
	q := api.NewJob{Request: n.Request, Priority: n.priority, Deadline: n.deadline, Key: n.key, Webhook: n.webhook}
	if isURL(file) {
		q.URL = file
		return c.AddJobFrom(ctx, q)
	}
	q.Path = file
	if file == "-" {
		q.Name = "stdin"
		spooled, err := spoolInput(a.in)
		if err != nil {
			return api.Job{}, err
		}
		defer os.Remove(spooled)
		q.Path = spooled
	}
	m := a.meter(n.quiet)
	defer m.clear()
	show := func(done, size int64) {
		m.show("%s  sending %s of %s", filepath.Base(file), fault.Bytes(done), fault.Bytes(size))
	}
	st, err := os.Stat(q.Path)
	inPieces := err == nil && st.Mode().IsRegular() && st.Size() > 0 && st.Size() >= resumableFrom
	if n.resumable != nil {
		inPieces = *n.resumable
	}
	if !inPieces {
		return c.AddJob(ctx, q, show)
	}
	id, err := a.sendPieces(ctx, c, q, api.Sending{Sent: show, Away: func(_ error, again time.Duration) {
		m.show("%s  the connection broke; trying again in %v", filepath.Base(file), again)
	}})
	if err != nil {
		return api.Job{}, err
	}
	j, err := c.Job(ctx, id)
	return j.Job, err
}

// fetchTexts waits for the texts of jobs and writes them, in the recordings'
// order. As JSON they are in the jobs.
func (a *app) fetchTexts(ctx context.Context, c *api.Client, n newJobs, format transcript.Format, jobs sentJobs, targets, files []string) error {
	var failed []error
	ended := []api.JobDetail{}
	for i, j := range jobs.all {
		t, err := a.follow(ctx, c, j.ID, j.Name, n.quiet)
		if ctx.Err() != nil {
			a.goesOn(jobs.ids(i))
			return context.Cause(ctx)
		}
		from := jobs.file[i]
		if err == nil && (targets[from] != "" || !a.jsonOut) {
			err = a.writeText(n, format, t, targets[from], files[from], len(files) > 1, i > 0)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("job %s: %w", j.ID, err))
		}
		if a.jsonOut {
			if shown, err := c.Job(ctx, j.ID); err == nil {
				ended = append(ended, shown)
			}
		}
	}
	if a.jsonOut {
		failed = append(failed, a.printJSON(ended))
	}
	return errors.Join(failed...)
}

// writeText writes the text of a file: one of many has a heading, and one that is
// not the first a line between.
func (a *app) writeText(n newJobs, format transcript.Format, t *transcript.Transcript, target, file string, many, later bool) error {
	if !n.quiet {
		for _, note := range t.Notes {
			fmt.Fprintf(a.errOut, "%s: %s\n", file, note)
		}
	}
	render := func(w io.Writer) error {
		return transcript.Render(w, format, t, transcript.Options{Words: true, Segments: true})
	}
	if target != "" {
		return write(target, render)
	}
	if many && format == transcript.Txt {
		if later {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "==> %s <==\n", file)
	}
	return render(a.out)
}
