package api

import (
	"time"

	"whisper-appliance/internal/transcript"
)

// Names of the server-sent events of a job, beside those of a transcription.
const (
	EventJob = "job" // a Job, at first and whenever its state changes
)

// Job is a job as its owner sees it.
type Job struct {
	ID        string    `json:"id"`
	State     string    `json:"state" enum:"queued,running,done,failed,canceled"`
	Priority  string    `json:"priority" enum:"normal,background"`
	Owner     string    `json:"owner" doc:"key:NAME, addr:ADDRESS or user:UID"`
	Name      string    `json:"name" doc:"Of the file that was sent."`
	Model     string    `json:"model,omitempty"`
	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Deadline  time.Time `json:"deadline,omitzero" doc:"When nobody wants the text any more."`
	Bytes     int64     `json:"bytes" doc:"Of the recording."`
	Duration  float64   `json:"duration" doc:"Seconds of the recording; 0 until it is known."`
	Done      float64   `json:"done" doc:"Seconds of the recording that are recognised."`
	Percent   int       `json:"percent"`
	URL       string    `json:"url,omitempty" doc:"Where the recording is fetched from, without what follows a question mark."`
	Fetched   int64     `json:"fetched,omitempty" doc:"Bytes that are here of a recording that is being fetched."`
	Phase     string    `json:"phase,omitempty" doc:"Of a running job: fetching, decoding, detecting, waiting, loading or recognising; only where it runs on this appliance."`
	Held      string    `json:"held,omitempty" doc:"Of a running job: why it is not getting on just now."`
	Ahead     *int      `json:"ahead,omitempty" doc:"Of a queued job: about how many are done before it."`
	Left      *float64  `json:"seconds_left,omitempty" doc:"Of a running job: about how long it will take still."`
	Language  string    `json:"language,omitempty"`
	Attempts  int       `json:"attempts" doc:"How often it was begun: more than once after an interruption."`
	Canceling bool      `json:"canceling,omitempty" doc:"A cancel was asked for, and its worker has yet to stop."`
	Error     *Error    `json:"error,omitempty"`
	Webhook   *Webhook  `json:"webhook,omitempty" doc:"Of a job whose end is told to a URL."`
}

// Webhook is how a job's end is told, or will be.
type Webhook struct {
	URL      string    `json:"url" doc:"Who is told, without what follows a question mark."`
	State    string    `json:"state" enum:"waiting,sending,delivered,given_up" doc:"waiting: for the job's end."`
	ID       string    `json:"id,omitempty" doc:"webhook-id of the message: the same at each attempt."`
	Attempts int       `json:"attempts" doc:"How often it was sent."`
	Next     time.Time `json:"next,omitzero" doc:"Of one that is being sent: not again before then."`
	Error    string    `json:"error,omitempty" doc:"What the last attempt came to."`
}

// Event is what a webhook is sent.
type Event struct {
	Type      string    `json:"type" enum:"job.done,job.failed,job.canceled"`
	Timestamp time.Time `json:"timestamp" doc:"When the job ended."`
	Data      EndedJob  `json:"data"`
}

// EndedJob is a job as GET /api/v1/jobs/{id} shows it, with a link in place of its
// text. URL and Name of one from a URL are its host alone.
type EndedJob struct {
	Job
	Transcript string `json:"transcript,omitempty" doc:"Path on the appliance at which the text of a job that is done is."`
}

// JobDetail is a job with its text, as far as there is any.
type JobDetail struct {
	Job
	Text     string               `json:"text" doc:"Of a job that is not done: of the windows that are."`
	Segments []transcript.Segment `json:"segments"`
	Notes    []string             `json:"notes,omitempty"`
}

// JobList is a page of jobs, the newest first.
type JobList struct {
	Jobs []Job  `json:"jobs"`
	Next string `json:"next,omitempty" doc:"What to send as before for the next page; left out on the last."`
}
