package model

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Tidy removes the downloads that were begun and not touched for longer than
// age. It gives their files' names and how many bytes they took. One that is
// being worked on is left alone.
func (s *Store) Tidy(age time.Duration) (removed []string, bytes int64, err error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, "ggml-*.bin"+partialSuffix))
	if err != nil {
		return nil, 0, err
	}
	for _, file := range files {
		st, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, bytes, err
		}
		if time.Since(st.ModTime()) < age {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "ggml-"), ".bin"+partialSuffix)
		release, err := s.lock(name)
		if err != nil {
			continue // somebody goes on with it
		}
		s.dropPartial(name)
		release()
		removed, bytes = append(removed, filepath.Base(file)), bytes+st.Size()
	}
	return removed, bytes, nil
}
