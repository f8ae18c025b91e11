package model

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestTidy(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	at := func(name string) string { return filepath.Join(s.Dir, name) }
	old := time.Now().Add(-30 * 24 * time.Hour)
	for name, age := range map[string]time.Time{
		"ggml-tiny.bin.partial": old, "ggml-tiny.bin.partial.json": old, "ggml-base.bin.partial": time.Now(),
		"ggml-small.bin": old, "ggml-medium.bin.partial": old,
	} {
		if err := os.WriteFile(at(name), make([]byte, 1000), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at(name), age, age); err != nil {
			t.Fatal(err)
		}
	}
	release, err := s.lock("medium") // a download under way
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	removed, bytes, err := s.Tidy(14 * 24 * time.Hour)
	if err != nil || bytes != 1000 || !slices.Equal(removed, []string{"ggml-tiny.bin.partial"}) {
		t.Errorf("%v, %d bytes, %v", removed, bytes, err)
	}
	for name, want := range map[string]bool{"ggml-tiny.bin.partial": false, "ggml-tiny.bin.partial.json": false,
		"ggml-base.bin.partial": true, "ggml-small.bin": true, "ggml-medium.bin.partial": true} {
		if _, err := os.Stat(at(name)); (err == nil) != want {
			t.Errorf("%s is there: %t", name, err == nil)
		}
	}
}
