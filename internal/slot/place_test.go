package slot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"whisper-appliance/internal/fault"
)

// newer makes a sealed release 9.2.0 outside the slots.
func newer(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "release")
	release(t, dir, "9.2.0+dev")
	return dir
}

func TestPlace(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := twoSlots(t)
	var done, total int64
	m, err := s.Place(t.Context(), newer(t), B, func(d, n int64) {
		if d < done {
			t.Errorf("progress went back from %d to %d", done, d)
		}
		done, total = d, n
	})
	must(t, err)
	if m.Version != "9.2.0+dev" || done != total || total != 2*m.Size() {
		t.Errorf("placed %s, %d of %d", m.Version, done, total)
	}
	sound(t, s, B, "9.2.0+dev")
	sound(t, s, A, "9.0.0+dev")
	nothingLeft(t, s)
}

func TestPlaceRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, s *Slots, from string) string // gives the slot to place in
		code  string
	}{
		{"the serving slot", func(*testing.T, *Slots, string) string { return A }, "slot_in_use"},
		{"the way back", func(t *testing.T, s *Slots, _ string) string { must(t, s.Activate(B)); return A }, "slot_in_use"},
		{"the slot on trial", func(t *testing.T, s *Slots, _ string) string { must(t, s.Activate(B)); return B }, "slot_in_use"},
		{"golden", func(*testing.T, *Slots, string) string { return Golden }, "unknown_slot"},
		{"no slot", func(*testing.T, *Slots, string) string { return "../x" }, "unknown_slot"},
		{"no manifest", func(t *testing.T, _ *Slots, from string) string {
			must(t, os.Remove(filepath.Join(from, ManifestName)))
			return B
		}, "no_manifest"},
		{"a file too many", func(t *testing.T, _ *Slots, from string) string {
			write(t, filepath.Join(from, "bin/x"), "", 0o755)
			return B
		}, "damaged_release"},
		{"a wrong byte", func(t *testing.T, _ *Slots, from string) string {
			write(t, filepath.Join(from, "lib/engine/ld.so"), "LOADER", 0o755)
			return B
		}, "damaged_release"},
		{"another machine's", func(t *testing.T, _ *Slots, from string) string {
			_, err := Seal(t.Context(), from, Info{"9.2.0", "c", "z80", Contract})
			must(t, err)
			return B
		}, "wrong_arch"},
		{"a full disk", func(_ *testing.T, s *Slots, _ string) string { s.Room = 1 << 60; return B }, "disk_full"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, from := twoSlots(t), newer(t)
			name := tt.spoil(t, s, from)
			_, err := s.Place(t.Context(), from, name, nil)
			wantCode(t, err, tt.code)
			sound(t, s, A, "9.0.0+dev")
			sound(t, s, B, "9.1.0+dev")
			nothingLeft(t, s)
		})
	}
}

func TestPlaceSaysHowManyBytesAreMissing(t *testing.T) {
	s := twoSlots(t)
	s.Room = 1 << 60
	_, err := s.Place(t.Context(), newer(t), B, nil)
	if fault.KindOf(err) != fault.NoSpace || !regexp.MustCompile(`^\d{15,} bytes \(.* TiB\) are missing`).MatchString(err.Error()) {
		t.Errorf("error %v", err)
	}
}

// TestPlaceMendsADanglingLink: where the slot that a link names is gone,
// nothing is overwritten.
func TestPlaceMendsADanglingLink(t *testing.T) {
	s := twoSlots(t)
	must(t, os.RemoveAll(s.Path(A)))
	_, err := s.Place(t.Context(), newer(t), A, nil)
	must(t, err)
	sound(t, s, A, "9.2.0+dev")
}

func TestPlaceCanceled(t *testing.T) {
	s, from := twoSlots(t), newer(t)
	for _, at := range []int64{1, 6} { // while copying, while reading back
		ctx, cancel := context.WithCancel(t.Context())
		calls := int64(0)
		_, err := s.Place(ctx, from, B, func(_, _ int64) {
			if calls++; calls == at {
				cancel()
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at call %d: %v", at, err)
		}
		sound(t, s, B, "9.1.0+dev")
		nothingLeft(t, s)
	}
}

// TestPlaceSweeps: what a killed run left, at whatever step, is gone after the next.
func TestPlaceSweeps(t *testing.T) {
	s, from := twoSlots(t), newer(t)
	write(t, filepath.Join(s.staging(), "b-123", "bin/half"), "x", 0o755)
	write(t, filepath.Join(s.trash(), "b-124", ManifestName), "{}", 0o644)
	write(t, filepath.Join(s.trash(), "b-124", "bin/old"), "x", 0o755)
	must(t, os.RemoveAll(s.Path(B))) // as between the two renames
	_, err := s.Place(t.Context(), from, B, nil)
	must(t, err)
	sound(t, s, B, "9.2.0+dev")
	nothingLeft(t, s)
}

// TestPlaceReadsBack: what comes back from the disk is what counts.
func TestPlaceReadsBack(t *testing.T) {
	s, from := twoSlots(t), newer(t)
	calls := 0
	files := 5
	_, err := s.Place(t.Context(), from, B, func(_, _ int64) {
		if calls++; calls != files {
			return
		}
		staged, err := filepath.Glob(filepath.Join(s.staging(), "b-*", ServerPath))
		if err != nil || len(staged) != 1 {
			t.Fatalf("staged %v, %v", staged, err)
		}
		write(t, staged[0], "sErver 9.2.0+dev", 0o755) // copied already
	})
	wantCode(t, err, "damaged_release")
	sound(t, s, B, "9.1.0+dev")
	nothingLeft(t, s)
}

// TestPublishTakesBack: a rename that fails leaves the slot as it was.
func TestPublishTakesBack(t *testing.T) {
	s := twoSlots(t)
	if err := s.publish(filepath.Join(s.staging(), "none"), B); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	sound(t, s, B, "9.1.0+dev")
	nothingLeft(t, s)
}

func TestNeeds(t *testing.T) {
	m := Manifest{Files: []File{{Path: "a/b/x", Size: 1}, {Path: "a/y", Size: 4096}, {Path: "z", Size: 4097}, {Path: "empty"}}}
	own := int64(len(m.encode()))
	bytes, inodes := needs(m)
	if bytes != 4*4096+own+4*4096 || inodes != 4+2+2 {
		t.Errorf("needs %d bytes (manifest %d) and %d inodes", bytes, own, inodes)
	}
}
