package work

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
)

// open opens a job's recording.
func (d *Desk) open(j job.Job) (*os.File, error) {
	f, err := os.Open(filepath.Join(d.Dir, filepath.Base(j.Media)))
	if errors.Is(err, fs.ErrNotExist) || j.Media == "" {
		return nil, fault.New(fault.Internal, "recording_gone", "the recording of the job is no longer there").Because(err).
			Try("send it again")
	}
	return f, err
}

// keep gives a recording that lies in a file without a name one in the
// directory, which it returns. From then on it survives a power cut.
func (d *Desk) keep(f *os.File) (name string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return id.String(), d.link(f, id.String())
}

// link gives a recording a name in the directory, unless an attempt that was
// interrupted has.
func (d *Desk) link(f *os.File, name string) error {
	err := durable.Keep(d.Proc, f, filepath.Join(d.Dir, name))
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return keepFault(err)
}

// keepFault gives a full disk its words.
func keepFault(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.NoSpace, "disk_full", "there is no room left for the recording where jobs are kept").Because(err).
			Try("free some space in the directory of [jobs], or name another one there")
	}
	return fmt.Errorf("keep the recording: %w", err)
}

// remove removes a recording that no job has any more.
func (d *Desk) remove(name string) error {
	if name == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(d.Dir, filepath.Base(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a recording: %w", err)
	}
	return nil
}

// orphaned is how old a recording without a job must be to belong to none. Its
// job is stored soon after it; more is for a database that was put aside.
const orphaned = 6 * time.Hour

// sweepAll removes recordings without a job; other files are none of ours.
func (d *Desk) sweepAll(ctx context.Context) error {
	known, err := d.Store.Media(ctx)
	if err != nil {
		return err
	}
	return d.sweep(ctx, known)
}

// sweep removes the recordings that are not among those known. One that is linked
// from an upload is as old as that, so its job may come just now.
func (d *Desk) sweep(ctx context.Context, known []string) error {
	has := map[string]bool{}
	for _, name := range known {
		has[name] = true
	}
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, statErr := e.Info()
		if statErr != nil || uuid.Validate(e.Name()) != nil || has[e.Name()] || !info.Mode().IsRegular() || time.Since(info.ModTime()) < orphaned {
			continue
		}
		unlock, free := d.unclaimed(ctx, e.Name())
		if !free {
			continue
		}
		d.Log.Info("removing a recording without a job", "file", e.Name(), "bytes", info.Size())
		err = errors.Join(err, d.remove(e.Name()))
		unlock()
	}
	return err
}

// unclaimed tells whether no upload of this name is becoming a job, or has become
// one that needs it: that has its id. Until unlock none does.
func (d *Desk) unclaimed(ctx context.Context, name string) (unlock func(), free bool) {
	if d.Inbox == nil {
		return func() {}, true
	}
	unlock, ok := d.Inbox.TryLock(name)
	if !ok {
		return nil, false
	}
	j, err := d.Store.Glance(ctx, name)
	if spent := err == nil && j.Media != name; !spent && fault.KindOf(err) != fault.NotFound {
		unlock()
		return nil, false
	}
	return unlock, true
}
