package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/database"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/inbox"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/paths"
	"whisper-appliance/internal/transcribe"
	"whisper-appliance/internal/transcript"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/webhook"
	"whisper-appliance/internal/work"
)

// Jobs are the desk and its database, which may come later than the server, or
// not at all: recordings are transcribed all the same then.
type Jobs struct {
	Paths   paths.Paths
	Config  func() *config.Config
	Service *transcribe.Service
	Role    string // of this server among those of the machine that may run at once
	Standby bool   // another one is the server: only what requests bring is done

	// Ended is told of each job that is done or has failed; nil = nobody.
	Ended func(t transcribe.Job, took time.Duration, result *transcript.Transcript, err error)

	// Event is what a webhook is sent of a job, and Told is told of each attempt;
	// see work.Desk. They are set before Run; nil = no job's end is told.
	Event func(job.Job) ([]byte, error)
	Told  func(state string)

	Log *slog.Logger

	opening sync.Mutex
	db      *database.DB // set once
	desk    atomic.Pointer[work.Desk]
}

// Desk is where jobs are done, nil as long as there is no database.
func (j *Jobs) Desk() *work.Desk { return j.desk.Load() }

// Open opens the database, where that has not been done. The error is a fault.
func (j *Jobs) Open(ctx context.Context) error {
	j.opening.Lock()
	defer j.opening.Unlock()
	if j.db != nil {
		return nil
	}
	c := j.Config()
	recordings := cmp.Or(c.Jobs.Directory, j.Paths.Jobs)
	info, err := os.Stat(recordings)
	if err != nil || !info.IsDir() {
		return fault.New(fault.Unavailable, "no_directory", "%s is no directory for recordings", recordings).On("jobs.directory").Because(err).
			Try("make it, for the server's user to write to")
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fault.New(fault.Unavailable, "directory_open", "everybody on this machine could read the recordings in %s", recordings).On("jobs.directory").
			Try("chmod o-rwx %s", recordings)
	}
	uploads, err := j.inbox(c.Jobs.Directory)
	if err != nil {
		return err
	}
	self, err := j.worker()
	if err != nil {
		return err
	}
	db, err := database.Open(ctx, database.Options{File: j.Paths.Database, URL: c.Database.URL, Log: j.Log})
	if err != nil {
		return err
	}
	j.db = db
	j.desk.Store(&work.Desk{
		Store: job.NewStore(db, job.Options{}), Service: j.Service, Self: self,
		Dir: recordings, Proc: j.Paths.Proc, Lock: filepath.Join(j.Paths.State, "jobs.lock"), Log: j.Log, Inbox: uploads,
		Standby: j.Standby,
		Ended: func(t transcribe.Job, took time.Duration, result *transcript.Transcript, err error) {
			if j.Ended != nil {
				j.Ended(t, took, result, err)
			}
		},
		AtOnce: func() int { return j.Config().Jobs.AtOnce },
		Most:   func() int { return j.Config().Jobs.Most },
		Limits: func() job.Limits {
			c := j.Config().Jobs
			return job.Limits{Age: c.Keep, Jobs: c.KeepMost, Bytes: int64(c.Disk)}
		},
		From:     j.places("url", "recordings", 5, func(o config.Outbound) []string { return o.Recordings }),
		Largest:  func() int64 { return int64(j.Config().Server.MaxUpload) },
		Webhooks: j.webhooks(),
		Event: func(of job.Job) ([]byte, error) {
			if j.Event == nil {
				return nil, fault.New(fault.Unavailable, "starting", "the server is starting")
			}
			return j.Event(of)
		},
		Told: func(state string) {
			if j.Told != nil {
				j.Told(state)
			}
		},
	})
	return nil
}

// places are the hosts of [outbound] for one purpose. Redirects are followed up to
// a number.
func (j *Jobs) places(field, setting string, redirects int, hosts func(config.Outbound) []string) *outbound.Places {
	return &outbound.Places{
		Field: field, Setting: setting + " in [outbound]", Redirects: redirects, Agent: "whisper-appliance/" + version.Build().Version,
		Hosts:    func() []string { return hosts(j.Config().Outbound) },
		Networks: func() []netip.Prefix { return j.Config().Outbound.Networks },
	}
}

// webhooks sends what is told of jobs. A receiver that redirects is not followed:
// what it is sent is for it alone.
func (j *Jobs) webhooks() *webhook.Sender {
	beside := filepath.Join(filepath.Dir(j.Paths.Config), "webhook-secret")
	return &webhook.Sender{
		Places: j.places("webhook", "webhooks", 0, func(o config.Outbound) []string { return o.Webhooks }),
		Secret: func() string { return cmp.Or(j.Config().Outbound.SecretFile, beside) },
	}
}

// inbox is where recordings arrive in pieces: among those of jobs where they have
// a directory of their own, so that both are on one file system and shared alike.
func (j *Jobs) inbox(shared string) (*inbox.Inbox, error) {
	dir := j.Paths.Uploads
	if shared != "" {
		dir = filepath.Join(shared, "uploads")
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.New(fault.Unavailable, "no_directory", "the directory for uploads, %s, cannot be made", dir).On("jobs.directory").Because(err).
			Try("let the server's user write to %s", filepath.Dir(dir))
	}
	return &inbox.Inbox{Dir: dir, Log: j.Log, Keep: func() time.Duration { return j.Config().Jobs.UploadKeep }}, nil
}

// worker names this server: the machine, which keeps a name of its own beside
// the one that people gave it, and the server's role on it.
func (j *Jobs) worker() (job.Worker, error) {
	host, err := os.Hostname()
	if err != nil {
		return job.Worker{}, fmt.Errorf("name of the machine: %w", err)
	}
	id, err := ownName(filepath.Join(j.Paths.State, "instance"))
	if err != nil {
		return job.Worker{}, err
	}
	return job.NewWorker(host + "/" + id + "/" + j.Role), nil
}

// Check tells whether the database answers, and opens it where it is not open.
func (j *Jobs) Check(ctx context.Context) (string, error) {
	if err := j.Open(ctx); err != nil {
		return "", err
	}
	if err := j.db.Check(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("schema %d", j.db.Schema()), nil
}

// Run does jobs until ctx ends, from when the database is there.
func (j *Jobs) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if desk := j.Desk(); desk != nil {
			if err := desk.Run(ctx); err != nil {
				j.Log.Error("jobs are not done", "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // the component opens it
		}
	}
}

// Stop has no more jobs begun; see work.Desk.Stop.
func (j *Jobs) Stop() {
	if desk := j.Desk(); desk != nil {
		desk.Stop()
	}
}

// Close closes the database. Nobody may use the desk any more.
func (j *Jobs) Close() error {
	j.opening.Lock()
	defer j.opening.Unlock()
	if j.db == nil {
		return nil
	}
	return j.db.Close()
}
