// Package inbox keeps recordings that arrive in pieces: what is here of each
// survives a crash and a power cut, and its sender goes on where it broke off.
// It knows no protocol and no jobs; what is to become of a recording is its
// caller's to say, and kept beside it.
//
// It trusts its directory, which several processes and machines may share: who
// writes to an upload holds its lock. It writes two files there for each
// upload, ID with what has come of it and ID.info with what it is, and .lock.
package inbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Inbox is a directory of uploads. Its fields are set before its first use and
// not changed after.
type Inbox struct {
	Dir string
	Log *slog.Logger

	// Keep is how long an upload waits for its next piece, and how long what
	// became of it is told; nil = a day.
	Keep func() time.Duration

	// Free gives the bytes left to us on the file system of a directory; nil =
	// what the kernel says.
	Free func(dir string) (int64, error)

	mu    sync.Mutex
	locks map[string]*holder // by id, those of this process
}

// Upload is a recording that arrives, or has arrived.
type Upload struct {
	ID      string            `json:"id"` // UUIDv7, and the name of its file
	Owner   string            `json:"owner"`
	Size    int64             `json:"size"` // bytes when it is whole; more than 0
	Created time.Time         `json:"created"`
	Fields  map[string]string `json:"fields"` // as they were sent with it
	Wish    json.RawMessage   `json:"wish"`   // what is to become of it
	Job     string            `json:"job"`    // what became of it; "" = nothing yet

	Offset int64     `json:"-"` // bytes that are here
	Active time.Time `json:"-"` // when the last of them came
}

// Whole tells whether all of it is here.
func (u Upload) Whole() bool { return u.Offset >= u.Size }

const (
	defaultKeep = 24 * time.Hour
	infoSuffix  = ".info"
	lockName    = ".lock"
)

func (b *Inbox) keep() time.Duration {
	if b.Keep == nil {
		return defaultKeep
	}
	return b.Keep()
}

// Expires is when an upload is removed if nothing more comes.
func (b *Inbox) Expires(u Upload) time.Time { return u.Active.Add(b.keep()) }

func (b *Inbox) data(id string) string { return filepath.Join(b.Dir, id) }
func (b *Inbox) info(id string) string { return filepath.Join(b.Dir, id+infoSuffix) }

// known refuses an id that is none: it becomes a file's name.
func known(id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil || parsed.String() != id {
		return unknown(id)
	}
	return nil
}

func unknown(id string) error {
	return fault.New(fault.NotFound, "unknown_upload", "there is no upload %s", fault.Short(id)).On("id").
		Try("it may have been removed because nothing came for too long; begin a new one with POST")
}

// NewID is the id of an upload that is yet to be created.
func NewID() (string, error) {
	id, err := uuid.NewV7()
	return id.String(), err
}

// Create begins an upload, of which nothing is here.
func (b *Inbox) Create(u Upload) error {
	if err := known(u.ID); err != nil {
		return err
	}
	// The decoder, a user of its own, opens the recording again through its
	// descriptor: others may read it, and the directory keeps them out.
	f, err := os.OpenFile(b.data(u.ID), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return worded(err)
	}
	if err = errors.Join(f.Chmod(0o644), f.Close()); err == nil {
		err = b.write(u)
	}
	if err != nil {
		os.Remove(b.data(u.ID)) //nolint:errcheck // the sweep finds it
		return worded(err)
	}
	return nil
}

// write writes what an upload is; its directory is synced with it.
func (b *Inbox) write(u Upload) error {
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return durable.WriteFile(b.info(u.ID), text, 0o600)
}

// Get finds an upload. Faults: unknown_upload (NotFound), which one that has
// expired is, too.
func (b *Inbox) Get(id string) (Upload, error) {
	u, err := b.read(id)
	if err == nil && time.Now().After(b.Expires(u)) {
		return Upload{}, unknown(id)
	}
	return u, err
}

// read is Get for one that may have expired.
func (b *Inbox) read(id string) (u Upload, err error) {
	if err := known(id); err != nil {
		return u, err
	}
	text, err := os.ReadFile(b.info(id))
	if errors.Is(err, fs.ErrNotExist) {
		return u, unknown(id)
	}
	if err != nil {
		return u, err
	}
	if err := json.Unmarshal(text, &u); err != nil {
		return Upload{}, fmt.Errorf("what upload %s is: %w", id, err)
	}
	of := b.data(id)
	if u.Job != "" {
		of = b.info(id)
	}
	st, err := os.Stat(of)
	if errors.Is(err, fs.ErrNotExist) {
		return Upload{}, unknown(id)
	}
	if err != nil {
		return Upload{}, err
	}
	u.Active, u.Offset = st.ModTime(), st.Size()
	if u.Job != "" {
		u.Offset = u.Size
	}
	return u, nil
}

// Open opens what is here of an upload, for reading.
func (b *Inbox) Open(id string) (*os.File, error) {
	if err := known(id); err != nil {
		return nil, err
	}
	return os.Open(b.data(id))
}

// Settle notes what became of an upload, whose recording is kept elsewhere now,
// and removes it here. The caller holds its lock.
func (b *Inbox) Settle(id, job string) error {
	u, err := b.read(id)
	if err != nil {
		return err
	}
	u.Job = job
	if err := b.write(u); err != nil {
		return worded(err)
	}
	return gone(os.Remove(b.data(id)))
}

// Remove removes an upload, what is here of it first: what it is tells of what
// is left. The caller holds its lock.
func (b *Inbox) Remove(id string) error {
	if err := known(id); err != nil {
		return err
	}
	return errors.Join(gone(os.Remove(b.data(id))), gone(os.Remove(b.info(id))))
}

// gone is the error of removing what may be gone.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List are the uploads that are here, those that have expired among them. One
// that cannot be read is left out.
func (b *Inbox) List() (all []Upload, err error) {
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, is := strings.CutSuffix(e.Name(), infoSuffix)
		if !is {
			continue
		}
		if u, err := b.read(id); err == nil {
			all = append(all, u)
		}
	}
	return all, nil
}

// Sweep removes uploads that have expired, and files that are no upload's. Those
// that somebody is just writing to are left.
func (b *Inbox) Sweep() error {
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, statErr := e.Info()
		if statErr != nil || !info.Mode().IsRegular() || e.Name() == lockName || time.Since(info.ModTime()) < b.keep() {
			continue
		}
		if id := strings.TrimSuffix(e.Name(), infoSuffix); known(id) == nil {
			err = errors.Join(err, b.expire(id))
			continue
		}
		b.Log.Info("removing a file that is no upload's", "file", e.Name())
		err = errors.Join(err, gone(os.Remove(filepath.Join(b.Dir, e.Name()))))
	}
	return err
}

// expire removes an upload where it has expired, and what is left of one.
func (b *Inbox) expire(id string) error {
	unlock, ok := b.TryLock(id)
	if !ok {
		return nil
	}
	defer unlock()
	if u, err := b.read(id); err == nil && time.Now().Before(b.Expires(u)) {
		return nil
	} else if err == nil && u.Job == "" {
		b.Log.Info("removing an upload that has expired", "upload", id, "owner", u.Owner, "bytes", u.Offset, "of", u.Size)
	}
	return b.Remove(id)
}
