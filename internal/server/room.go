package server

import (
	"context"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/transcribe"
)

// hasRoom refuses a body that the spool cannot hold before any of it is read.
// length is its declared length in bytes, -1 where it has none; then the
// reserve alone counts, and the disk's end is met while writing.
func (s *Server) hasRoom(length int64) error {
	left, err := s.free(s.Spool)
	if err != nil {
		// Whether the spool is there at all, its first file will tell.
		s.Log.Debug("free space unknown", "error", err)
		return nil
	}
	if need := max(length, 0) + transcribe.Reserve; left < need {
		return noRoom("the upload needs %s with its reserve, and %s are free", fault.Bytes(need), fault.Bytes(left))
	}
	return nil
}

func (s *Server) free(dir string) (int64, error) {
	if s.Free != nil {
		return s.Free(dir)
	}
	return durable.Free(dir)
}

// keeping is where a recording goes that is kept for its job, and how much of
// that it may take. The zero value is for one that is not kept.
type keeping struct {
	free  func() (int64, error) // of the directory; nil = it is not kept
	limit int64                 // of all jobs' recordings, in bytes; 0 = none
	field string                // of the recording
}

// keepingOf tells where the recording of a request goes. It refuses a key that
// the job could not have.
func (s *Server) keepingOf(ctx context.Context, f form) (k keeping, err error) {
	key, desk := keyOf(ctx), s.desk()
	if desk == nil || !f.kept && key == "" {
		return keeping{}, nil
	}
	k = keeping{free: func() (int64, error) { return s.free(desk.Dir) }, field: f.file}
	if desk.Limits != nil {
		k.limit = desk.Limits().Bytes
	}
	return k, job.CheckKey(key)
}

// room refuses a body of a declared length, -1 where it has none, that cannot be
// kept, before any of it is read.
func (k keeping) room(length int64) error {
	if k.free == nil {
		return nil
	}
	if err := k.fits(length - maxSlack); err != nil {
		return err
	}
	if left, err := k.free(); err == nil && left < max(length, 1) {
		return fault.New(fault.NoSpace, "disk_full", "the recording is kept where jobs are, and has no room in the %s that are free there", fault.Bytes(left)).
			Try("free some space in the directory of [jobs], or name another one there")
	}
	return nil
}

// fits refuses a recording that has no room however many others go.
func (k keeping) fits(bytes int64) error {
	if k.limit <= 0 || bytes <= k.limit {
		return nil
	}
	return fault.New(fault.TooLarge, "too_large_for_jobs", "the recording has %s or so, and those of all jobs may take %s together",
		fault.Bytes(bytes), fault.Bytes(k.limit)).On(k.field).
		Try("compress it (opus or mp3), or raise [jobs] disk; a request that waits for its text and has no key keeps no recording")
}

func noRoom(format string, args ...any) *fault.Error {
	return fault.New(fault.NoSpace, "disk_full", format, args...).Try("free some space in the state directory")
}
