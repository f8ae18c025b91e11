package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// begunUpload is what is remembered of an upload, so that the same command goes
// on with it.
type begunUpload struct {
	ID     string    `json:"id"`
	Server string    `json:"server"`
	File   string    `json:"file"`
	Begun  time.Time `json:"begun"`
}

// forgotten is how old a note is that no server has an upload for any more.
const forgotten = 31 * 24 * time.Hour

// sendPieces sends a recording in pieces, or what is left of it where the same
// was begun before.
func (a *app) sendPieces(ctx context.Context, c *api.Client, q api.NewJob, s api.Sending) (job string, err error) {
	f, err := os.Open(q.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fault.New(fault.BadInput, "not_a_file", "%s is no file, and cannot be sent in pieces", q.Path).On("--resumable").Try("leave --resumable out")
	}
	s.From = f
	note := a.uploadNote(c, q, st)
	id := remembered(note)
	if id != "" {
		if _, err := c.Upload(ctx, id); fault.KindOf(err) == fault.NotFound {
			id = ""
		} else if err != nil {
			return "", err
		}
	}
	if id == "" {
		u, err := c.CreateUpload(ctx, q, st.Size())
		if err != nil {
			return "", err
		}
		id = u.ID
		remember(note, begunUpload{ID: id, Server: c.Base, File: q.Path, Begun: time.Now()})
	}
	job, err = c.Send(ctx, id, s)
	if err == nil {
		return job, errors.Join(unchanged(f, st), forget(note))
	}
	if ctx.Err() != nil && note != "" {
		fmt.Fprintf(a.errOut, "What was sent of %s is kept for a while. The same command goes on.\n", q.Path)
	}
	return "", err
}

// unchanged refuses a recording that was written to while it was sent.
func unchanged(f *os.File, before fs.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if now.Size() != before.Size() || !now.ModTime().Equal(before.ModTime()) {
		return fault.New(fault.Conflict, "file_changed", "%s changed while it was sent", f.Name()).Try("send it again when nothing writes to it; the job that it became may hold a mixture")
	}
	return nil
}

// uploadNote is the file in which the upload of a recording is remembered, "" where
// nothing can be: its name is made from all that makes another upload of it.
func (a *app) uploadNote(c *api.Client, q api.NewJob, st fs.FileInfo) string {
	path, err := filepath.Abs(q.Path)
	if err != nil {
		return ""
	}
	dir := a.notesDir()
	if dir == "" {
		return ""
	}
	q.Path = path
	of, err := json.Marshal([]any{c.Base, a.paths.APISocket, q, st.Size(), st.ModTime().UnixNano()})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(of)
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+".json")
}

// notesDir is where uploads are remembered: in the appliance's cache, or where
// that is not ours to write to in the user's. Notes that no server will know any
// more are removed.
func (a *app) notesDir() string {
	dirs := []string{a.paths.Cache}
	if user, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(user, program))
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, "uploads")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			continue
		}
		entries, err := os.ReadDir(dir)
		probe, probeErr := os.CreateTemp(dir, ".probe-*")
		if err != nil || probeErr != nil {
			continue
		}
		probe.Close()
		os.Remove(probe.Name()) //nolint:errcheck // an empty file at worst
		for _, e := range entries {
			if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".json") && time.Since(info.ModTime()) > forgotten {
				os.Remove(filepath.Join(dir, e.Name())) //nolint:errcheck // the next time
			}
		}
		return dir
	}
	return ""
}

// remembered is the id of the upload in a note, "" where there is none.
func remembered(note string) string {
	var u begunUpload
	text, err := os.ReadFile(note)
	if err != nil || json.Unmarshal(text, &u) != nil {
		return ""
	}
	return u.ID
}

// remember notes an upload. Without the note it would begin anew another time,
// which is no reason to fail now.
func remember(note string, u begunUpload) {
	if note == "" {
		return
	}
	text, err := json.Marshal(u)
	if err == nil {
		durable.WriteFile(note, text, 0o600) //nolint:errcheck // see above
	}
}

func forget(note string) error {
	if note == "" {
		return nil
	}
	if err := os.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
