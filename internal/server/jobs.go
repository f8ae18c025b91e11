package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/schedule"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/work"
)

// jobForm is a recording for which nobody waits at the door.
var jobForm = form{file: "file", fields: []string{"model", "language", "prompt", "temperature", "task", "words", "priority", "deadline", "webhook", "url"},
	kept: true, instead: "url"}

// jobsDesk is the desk, or the fault that there is none.
func (s *Server) jobsDesk() (*work.Desk, error) {
	if desk := s.desk(); desk != nil {
		return desk, nil
	}
	if f := s.outage("database"); f != nil {
		return nil, f
	}
	return nil, fault.New(fault.Unavailable, "no_database", "jobs cannot be kept: there is no database").
		Try("send the recording to /v1/audio/transcriptions, which waits for its text")
}

// submitJob takes a recording, and answers when it is safe.
func (s *Server) submitJob(w http.ResponseWriter, r *http.Request) error {
	desk, err := s.jobsDesk()
	if err != nil {
		return unreadBody{err}
	}
	u, err := s.receive(w, r, jobForm)
	if err != nil {
		return err
	}
	defer u.Close()
	wish, err := s.wish(u)
	if err != nil {
		return err
	}
	wish.Key = keyOf(r.Context())
	j, joined, err := desk.Submit(r.Context(), wish)
	if err != nil {
		return err
	}
	s.logOf(r.Context()).Info("job accepted", "job", j.ID, "bytes", j.Bytes, "joined", joined)
	shown, err := s.show(r.Context(), desk, j)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/v1/jobs/"+j.ID)
	writeJSON(w, http.StatusAccepted, shown)
	return nil
}

// wish reads the form of a job.
func (s *Server) wish(u *upload) (work.Wish, error) {
	task, err := taskOf(u.get("task"))
	if err != nil {
		return work.Wish{}, err
	}
	words, err := u.flag("words")
	if err != nil {
		return work.Wish{}, err
	}
	t, err := s.job(u.request(task, words))
	if err != nil {
		return work.Wish{}, err
	}
	u.give(&t)
	if t.Class, err = priority(u.get("priority")); err != nil {
		return work.Wish{}, err
	}
	wish := work.Wish{Job: t, URL: u.get("url"), Webhook: u.get("webhook")}
	if wish.URL != "" {
		wish.Job.Name = shortName(work.NameOf(wish.URL))
	}
	wish.Deadline, err = deadline(u.get("deadline"))
	return wish, err
}

func priority(s string) (schedule.Class, error) {
	switch s {
	case "", "normal":
		return schedule.Long, nil
	case "background":
		return schedule.Background, nil
	}
	return 0, fault.New(fault.BadInput, "invalid_value", "priority is %s; it must be normal or background", quoted(s)).On("priority")
}

// deadline is a moment, or how long from now.
func deadline(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if d, notDuration := time.ParseDuration(s); notDuration == nil {
		at, err = time.Now().Add(d), nil
	}
	if err != nil || time.Until(at) <= 0 {
		return time.Time{}, fault.New(fault.BadInput, "invalid_value", "deadline is %s; it must be a moment to come, as 2026-01-02T15:04:05Z, or how long from now, as 90m", quoted(s)).On("deadline")
	}
	return at, nil
}

// jobID is in the path of what concerns one job.
type jobID struct {
	ID string `path:"id" doc:"Of the job, as it was given when it was accepted."`
}

// mine finds a job of the caller's. Those of others are for administrators; to
// the rest they are not there, in the same words.
func (s *Server) mine(ctx context.Context, id string) (*work.Desk, job.Job, error) {
	desk, err := s.jobsDesk()
	if err != nil {
		return nil, job.Job{}, err
	}
	j, err := desk.Store.Get(ctx, id)
	if err != nil {
		return nil, job.Job{}, err
	}
	if access := accessOf(ctx); j.Owner != access.Owner() && !access.Admin {
		return nil, job.Job{}, job.Missing(id)
	}
	return desk, j, nil
}

type jobAnswer struct{ Body api.Job }

type jobDetailAnswer struct{ Body api.JobDetail }

func (s *Server) getJob(ctx context.Context, in *jobID) (*jobDetailAnswer, error) {
	desk, j, err := s.mine(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	t, err := soFar(ctx, desk, j)
	if err != nil {
		return nil, err
	}
	shown, err := s.show(ctx, desk, j)
	out := &jobDetailAnswer{api.JobDetail{Job: shown, Text: t.Text(), Segments: append([]transcript.Segment{}, t.Segments...), Notes: t.Notes}}
	return out, err
}

// soFar is the transcript of a job, as far as there is one.
func soFar(ctx context.Context, desk *work.Desk, j job.Job) (*transcript.Transcript, error) {
	t := &transcript.Transcript{Language: j.Language, Duration: j.Duration}
	if len(j.Result) > 0 {
		return t, json.Unmarshal(j.Result, t)
	}
	windows, err := desk.Finished(ctx, j.ID, 0)
	for _, w := range windows {
		t.Segments = append(t.Segments, w.Segments...)
	}
	return t, err
}

type jobQuery struct {
	State  string `query:"state" enum:"queued,running,done,failed,canceled" doc:"Only jobs of this state."`
	Before string `query:"before" doc:"Only jobs before this one: next of the page before."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Jobs on a page."`
	All    bool   `query:"all" doc:"Everybody's; for administrators."`
}

type jobListAnswer struct{ Body api.JobList }

func (s *Server) listJobs(ctx context.Context, in *jobQuery) (*jobListAnswer, error) {
	desk, err := s.jobsDesk()
	if err != nil {
		return nil, err
	}
	filter := job.Filter{State: job.State(in.State), Before: in.Before, Limit: in.Limit + 1, Everyone: in.All}
	access := accessOf(ctx)
	if filter.Owner = access.Owner(); in.All && !access.Admin {
		return nil, fault.New(fault.Forbidden, "insufficient_scope", "the jobs of others are for administrators").On("all").
			Try("leave all out, or use a key with the scope admin")
	}
	jobs, err := desk.Store.List(ctx, filter)
	if err != nil {
		return nil, err
	}
	out := &jobListAnswer{api.JobList{Jobs: []api.Job{}}}
	if len(jobs) > in.Limit {
		jobs = jobs[:in.Limit]
		out.Body.Next = jobs[in.Limit-1].ID
	}
	placed := 0
	for _, j := range jobs {
		shown := outline(desk, j)
		if j.State == job.Queued && placed < mostPlaced {
			placed++
			if shown, err = s.show(ctx, desk, j); err != nil {
				return nil, err
			}
		}
		out.Body.Jobs = append(out.Body.Jobs, shown)
	}
	return out, told(ctx, desk, out.Body.Jobs)
}

// mostPlaced is of how many jobs on a page the place in line is told: each is
// counted by itself.
const mostPlaced = 20

// show is a job as its owner sees it.
func (s *Server) show(ctx context.Context, desk *work.Desk, j job.Job) (api.Job, error) {
	out := []api.Job{outline(desk, j)}
	if err := told(ctx, desk, out); err != nil || j.State != job.Queued {
		return out[0], err
	}
	ahead, err := desk.Store.Ahead(ctx, j.ID)
	out[0].Ahead = &ahead
	return out[0], err
}

// outline is a job without its place in line.
func outline(desk *work.Desk, j job.Job) api.Job {
	out := api.Job{
		ID: j.ID, State: string(j.State), Priority: "normal", Owner: j.Owner, Name: j.Name, Model: j.Model, Deadline: j.Deadline,
		Created: j.Created, Started: j.Started, Ended: j.Ended, Bytes: j.Bytes, Duration: j.Duration.Seconds(), Done: j.Covered.Seconds(),
		Language: j.Language, Attempts: j.Attempts, Canceling: j.Canceling, URL: outbound.Shown(j.Source),
	}
	if j.Webhook != "" {
		out.Webhook = &api.Webhook{URL: outbound.Shown(j.Webhook), State: "waiting"}
	}
	if j.Class == job.Background {
		out.Priority = "background"
	}
	switch {
	case j.Failure != nil:
		f := j.Failure.Fault()
		shown := plainBody(f)
		out.Error = &shown
	case j.State == job.Done:
		out.Done = out.Duration
	case j.State == job.Running:
		running(&out, desk)
	}
	if out.Duration > 0 {
		out.Percent = int(100 * out.Done / out.Duration)
	}
	return out
}

// running adds what only the appliance knows that does the job.
func running(out *api.Job, desk *work.Desk) {
	p, here := desk.Progress(out.ID)
	if !here {
		return
	}
	out.Phase, out.Held = string(p.Update.Phase), p.Held
	if p.Update.Phase == work.Fetching {
		out.Fetched, out.Bytes = p.Fetched, max(out.Bytes, p.Size)
	}
	out.Done = max(out.Done, p.Update.Done.Seconds())
	if p.Update.Phase == transcribe.Decoding || p.Update.Phase == transcribe.Detecting {
		out.Done = 0
	}
	if left, ok := p.Left(); ok {
		seconds := left.Seconds()
		out.Left = &seconds
	}
}

func (s *Server) cancelJob(ctx context.Context, in *jobID) (*jobAnswer, error) {
	return s.change(ctx, in, (*work.Desk).Cancel)
}

func (s *Server) retryJob(ctx context.Context, in *jobID) (*jobAnswer, error) {
	return s.change(ctx, in, (*work.Desk).Retry)
}

func (s *Server) change(ctx context.Context, in *jobID, how func(*work.Desk, context.Context, string) (job.Job, error)) (*jobAnswer, error) {
	desk, j, err := s.mine(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if j, err = how(desk, ctx, j.ID); err != nil {
		return nil, err
	}
	shown, err := s.show(ctx, desk, j)
	return &jobAnswer{shown}, err
}

func (s *Server) deleteJob(ctx context.Context, in *jobID) (*struct{}, error) {
	desk, j, err := s.mine(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, desk.Delete(ctx, j.ID)
}

// jobTranscript is the text of a job that is done, in any format. Subtitles are
// laid out unless the query says otherwise; their times are as exact as the
// words' where the job was given words.
func (s *Server) jobTranscript(w http.ResponseWriter, r *http.Request) error {
	format := transcript.Txt
	if asked := r.URL.Query().Get("format"); asked != "" {
		var err error
		if format, err = transcript.ParseFormat(asked); err != nil {
			var f *fault.Error
			if errors.As(err, &f) {
				f.Field = "format" // which the other doors call otherwise
			}
			return err
		}
	}
	layout, err := transcript.ChooseLayout(format, transcript.Broadcast, s.Config().Subtitles.Layout(), r.URL.Query().Get)
	if err != nil {
		return err
	}
	_, j, err := s.mine(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := isDone(j); err != nil {
		return err
	}
	t := &transcript.Transcript{}
	if err := json.Unmarshal(j.Result, t); err != nil {
		return fmt.Errorf("result of job %s: %w", j.ID, err)
	}
	return writeWhole(w, renderer{contentType: transcript.ContentType(format), whole: func(w io.Writer, t *transcript.Transcript) error {
		return transcript.Render(w, format, t, transcript.Options{Words: true, Segments: true, Layout: layout})
	}}, t)
}

// isDone refuses a job that has no transcript, or none yet.
func isDone(j job.Job) error {
	f := fault.New(fault.Conflict, "job_not_done", "the job is %s", j.State).On("id")
	switch {
	case j.State == job.Done:
		return nil
	case j.State.Ended():
		return f.Try("GET /api/v1/jobs/%s shows why, and what text there is; POST /api/v1/jobs/%s/retry goes on with it", j.ID, j.ID)
	}
	return f.Try("wait for it: GET /api/v1/jobs/%s/events tells when it is done", j.ID)
}
