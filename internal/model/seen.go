package model

import (
	"os"
	"sync"
	"time"

	"whisper-appliance/internal/fault"
)

// seen remembers what Inspect found, for lists that are asked for every few
// seconds. The zero value is ready for use; it may be used by several goroutines.
type seen struct {
	mu    sync.Mutex
	files map[string]inspected // by path
}

// inspected is one finding and the file as it was then.
type inspected struct {
	file os.FileInfo
	info Info
	err  error // a fault of kind BadInput, or nil
}

const (
	// mostSeen bounds what is remembered; a directory has a few dozen models.
	mostSeen = 256
	// settled is how long a file must not have been written to: a file system's
	// clock may be too coarse to tell two writes at once apart.
	settled = 2 * time.Second
)

// inspect is Inspect of the file at path, whose state is st; it reads the file
// where that is another than it was.
func (s *seen) inspect(path string, st os.FileInfo) (Info, error) {
	s.mu.Lock()
	was, ok := s.files[path]
	s.mu.Unlock()
	if ok && os.SameFile(was.file, st) && was.file.Size() == st.Size() && was.file.ModTime().Equal(st.ModTime()) {
		return was.info, was.err
	}
	info, err := Inspect(path)
	if lasts := err == nil || fault.KindOf(err) == fault.BadInput; lasts && time.Since(st.ModTime()) > settled {
		s.keep(path, inspected{st, info, err})
	}
	return info, err
}

func (s *seen) keep(path string, found inspected) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil || len(s.files) >= mostSeen {
		s.files = map[string]inspected{}
	}
	s.files[path] = found
}
