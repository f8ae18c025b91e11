package server

import (
	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/transcribe"
)

// hasRoom refuses a body that the spool cannot hold before any of it is read.
// length is its declared length in bytes, -1 where it has none; then the
// reserve alone counts, and the disk's end is met while writing.
func (s *Server) hasRoom(length int64) error {
	free := s.Free
	if free == nil {
		free = durable.Free
	}
	left, err := free(s.Spool)
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

func noRoom(format string, args ...any) *fault.Error {
	return fault.New(fault.NoSpace, "disk_full", format, args...).Try("free some space in the state directory")
}
