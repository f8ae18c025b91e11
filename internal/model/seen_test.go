package model

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// aged writes a file that was last changed long ago.
func aged(t *testing.T, path string, data []byte, hours int) {
	t.Helper()
	write(t, path, data)
	old := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

func (s *seen) look(t *testing.T, path string) (Info, error) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return s.inspect(path, st)
}

func TestSeenReadsAFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ggml-x.bin")
	aged(t, path, vadFile(), 1)
	var s seen
	if info, err := s.look(t, path); err != nil || info.Kind != VAD {
		t.Fatalf("%+v, %v", info, err)
	}
	// The same size and time again: what was found before is given, which proves that nothing was read.
	st, _ := os.Stat(path)
	os.WriteFile(path, make([]byte, st.Size()), 0o644)
	os.Chtimes(path, st.ModTime(), st.ModTime())
	if _, err := s.look(t, path); err != nil {
		t.Error("it was read again: ", err)
	}
}

func TestSeenNoticesChanges(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "ggml-x.bin"), filepath.Join(dir, "other")
	spoilt := vadFile()
	spoilt[0] ^= 1
	for name, change := range map[string]func(){
		"time":  func() { aged(t, path, spoilt, 2) },
		"size":  func() { aged(t, path, vadFile()[:9000], 1) },
		"inode": func() { aged(t, other, spoilt, 1); os.Rename(other, path) },
	} {
		var s seen
		aged(t, path, vadFile(), 1)
		if _, err := s.look(t, path); err != nil {
			t.Fatal(err)
		}
		change()
		for range 2 { // the second time the finding is a kept one
			_, err := s.look(t, path)
			if fault.KindOf(err) != fault.BadInput {
				t.Errorf("%s: %v", name, err)
			}
		}
		aged(t, path, vadFile(), 3)
		if _, err := s.look(t, path); err != nil {
			t.Errorf("%s, mended: %v", name, err)
		}
	}
}

func TestSeenForgetsFreshFilesAndIsBounded(t *testing.T) {
	dir := t.TempDir()
	var s seen
	fresh := write(t, filepath.Join(dir, "ggml-fresh.bin"), vadFile())
	if _, err := s.look(t, fresh); err != nil || len(s.files) != 0 {
		t.Errorf("%v; %d are kept of a file that may still change", err, len(s.files))
	}
	var all sync.WaitGroup
	for i := range 2*mostSeen + 7 {
		path := filepath.Join(dir, fmt.Sprintf("ggml-%d.bin", i))
		aged(t, path, []byte("x"), 1)
		all.Go(func() {
			if _, err := s.look(t, path); err == nil {
				t.Error("one byte is a model")
			}
		})
	}
	all.Wait()
	if len(s.files) > mostSeen {
		t.Errorf("%d are kept", len(s.files))
	}
}

// TestListKeepsWhatItFound: a second list reads no file again.
func TestListKeepsWhatItFound(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	aged(t, filepath.Join(s.Dir, "ggml-mine.bin"), vadFile(), 1)
	for range 3 {
		if _, err := s.List(); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.seen.files) != 1 {
		t.Errorf("%d are kept", len(s.seen.files))
	}
}
