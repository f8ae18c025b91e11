package model

import (
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"whisper-appliance/internal/fault"
)

// lock keeps other processes and goroutines from writing the same model. It
// does not wait: two downloads of one file are a mistake to tell of. The lock's
// file is removed with the lock, so that nothing stays behind.
func (s *Store) lock(name string) (release func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, s.cannotWrite(err)
	}
	path := filepath.Join(s.Dir, "."+filePrefix+name+".lock")
	for {
		l := flock.New(path)
		ok, err := l.TryLock()
		if err != nil {
			return nil, s.cannotWrite(err)
		}
		if !ok {
			return nil, fault.New(fault.Conflict, "model_busy",
				"%s is being fetched, imported or removed at this moment", name).On("model").
				Try("wait until that has ended; `whisper-appliance models list` shows it")
		}
		if stillThere(l, path) {
			return func() {
				os.Remove(path)
				l.Close()
			}, nil
		}
		l.Close()
	}
}

// stillThere tells whether the file that was locked is the one at path: its
// last holder may have removed it between our opening and our locking it.
func stillThere(l *flock.Flock, path string) bool {
	held, err := l.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}
