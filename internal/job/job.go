// Package job keeps the jobs: what was accepted, who works on it, how far it is
// and what came of it. It is three tables, jobs, the windows of them that are
// done and the deliveries by which their ends are told, and nothing else: it
// starts no goroutine, decodes nothing and knows no transport.
//
// # Leases
//
// A job that runs is leased to a worker until a moment that the worker moves
// ahead, with each window that it stores and by a heartbeat between them. A
// worker that dies moves nothing, its lease runs out, and whoever claims next
// goes on at the first window that is not stored. What it stores under a lease
// that has gone to somebody else is refused (ErrLost), so no window is kept
// twice. A worker that is only slow keeps its job until somebody takes it.
//
// In PostgreSQL every time is its server's, so the clocks of the appliances need
// not agree. In a file, leases go by a clock that nobody sets, the others by the
// machine's: a machine that learns the time anew loses no lease.
//
// A delivery is leased likewise, for one attempt to send it. It is stored in the
// transaction that ends its job, so no end goes untold.
//
// # Who is next
//
// The job of the highest class; of several that of the owner for whom the fewest
// run; of several the one that has waited longest. A job that has waited for
// Options.Age counts one class higher, and so on up to the highest, so that
// nothing waits for ever.
//
// # What is trusted
//
// The database, the callers' word for who owns a job and whether they may see
// it, and the clock. The files of recordings are the callers': the store keeps
// their names, and tells which are no longer needed.
package job

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/fault"
)

// Class is how urgent a job is. A higher one is claimed first.
type Class int

// The classes.
const (
	Background Class = iota
	Long             // a recording that takes minutes
	Short            // somebody waits for it
	Live             // somebody speaks
)

// Classes are all of them, in their order.
func Classes() []Class { return []Class{Background, Long, Short, Live} }

// State is where a job is.
type State string

// The states.
const (
	Queued   State = "queued"   // for a worker
	Running  State = "running"  // leased to one
	Done     State = "done"     // Result is there
	Failed   State = "failed"   // Failure is there
	Canceled State = "canceled" // by somebody who may
)

// Ended tells whether nothing more happens to a job of this state by itself.
func (s State) Ended() bool { return s == Done || s == Failed || s == Canceled }

// Job is a job as it is. Times are exact to the millisecond, and zero where
// there is none.
type Job struct {
	ID    string // UUIDv7: later jobs have higher ones
	Owner string // who asked; "" = nobody who has a name
	Class Class
	State State

	Created  time.Time
	Queued   time.Time // since when it waits or has waited; Retry sets it anew
	Started  time.Time // when it was claimed for the first time
	Ended    time.Time
	Deadline time.Time // after which nobody wants it any more

	Key    string // idempotency key; "" = none
	Digest string // of the request that came with the key

	Name        string // the upload's, for people
	Model       string // that is asked for, for people
	Media       string // file of the recording, relative; "" once it was deleted
	MediaSHA256 string
	Source      string // URL that the recording is fetched from; "" = it came with the job
	Webhook     string // URL that the job's end is told to; "" = to none
	Bytes       int64
	Duration    time.Duration // of the recording; 0 = not known yet

	Request  json.RawMessage // what was asked for
	Plan     json.RawMessage // where speech is
	Result   json.RawMessage // of a job that is done
	Language string          // "" = not known yet
	Failure  *Failure        // of a job that failed

	WindowsDone int
	Covered     time.Duration // end of the last window that is stored
	Attempts    int           // how often it was claimed
	Crashes     int           // how often its worker went without a word, since it last came further
	Canceling   bool          // a cancel was asked for, and its worker has yet to see it

	Worker     string // who works on it, or was the last to
	LeaseUntil time.Time
}

// Window is one of a job's windows, decoded.
type Window struct {
	Index      int           // from 0
	Start, End time.Duration // in the recording
	Result     json.RawMessage
	Stored     time.Time // set by the store
}

// Failure is why a job failed, in the words that its caller gets.
type Failure struct {
	Kind    fault.Kind `json:"kind"`
	Code    string     `json:"code"`
	Field   string     `json:"field,omitempty"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// FailureOf is err as a Failure. The cause of a fault stays behind: it is for
// the log.
func FailureOf(err error) Failure {
	var f *fault.Error
	if !errors.As(err, &f) {
		return Failure{Kind: fault.Internal, Code: "internal_error", Message: "something went wrong inside the appliance", Hint: "see its log: journalctl -u whisper-appliance"}
	}
	return Failure{Kind: f.Kind, Code: f.Code, Field: f.Field, Message: f.Message, Hint: fault.Hint(err)}
}

// Fault is the failure as an error.
func (f Failure) Fault() *fault.Error {
	return &fault.Error{Kind: f.Kind, Code: f.Code, Field: f.Field, Message: f.Message, Hint: f.Hint}
}

// Worker is who claims jobs: one process, or a part of one.
type Worker struct {
	Instance string // where it runs, the same after a restart
	ID       string // this run of it, never the same
}

// NewWorker is a new run of an instance, "host" or "host/b", which no other
// process that runs may be.
func NewWorker(instance string) Worker {
	return Worker{Instance: instance, ID: instance + "/" + uuid.NewString()}
}

// ErrLost is what a worker gets that does something to a job it does not hold:
// somebody else has claimed it, or it has ended. It gives the job up.
var ErrLost = errors.New("the job is no longer this worker's")

// ErrStored is what a worker gets that stores a window twice.
var ErrStored = errors.New("the window is stored already")

// Missing is the fault for an id that leads nowhere, or for somebody to a job
// that is not shown to him.
func Missing(id string) error {
	return fault.New(fault.NotFound, "unknown_job", "there is no job %s", fault.Short(id)).On("id").
		Try("it may have been deleted, by somebody or because it was old")
}
