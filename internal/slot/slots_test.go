package slot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func TestLinks(t *testing.T) {
	s := testSlots(t)
	if current, stable := serving(t, s); current != "" || stable != "" {
		t.Errorf("before anything was placed: %q and %q", current, stable)
	}
	wantCode(t, s.Activate(A), "no_manifest")
	wantCode(t, s.Activate("c"), "unknown_slot")
	s = twoSlots(t)
	for _, step := range []struct {
		do              func(string) error
		name            string
		current, stable string
	}{
		{s.Activate, B, B, A}, {s.Activate, B, B, A}, {s.Commit, B, B, B}, {s.Activate, A, A, B}, {s.Activate, Golden, Golden, B}, {s.Activate, B, B, B},
	} {
		if err := step.do(step.name); err != nil {
			t.Fatal(err)
		}
		if current, stable := serving(t, s); current != step.current || stable != step.stable {
			t.Errorf("current %q, stable %q; want %q and %q", current, stable, step.current, step.stable)
		}
	}
	if target, err := os.Readlink(s.Current); err != nil || target != "slots/b" {
		t.Errorf("current -> %q, %v; want a relative link", target, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.Current), ".*.new"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary links were left: %v, %v", left, err)
	}
}

// TestALeftoverLinkIsNoObstacle: a run that was killed between the new link and
// its rename leaves the new one.
func TestALeftoverLinkIsNoObstacle(t *testing.T) {
	s := twoSlots(t)
	must(t, os.Symlink("slots/nowhere", filepath.Join(filepath.Dir(s.Current), ".current.new")))
	must(t, s.Activate(B))
	if current, _ := serving(t, s); current != B {
		t.Errorf("current %q", current)
	}
}

func TestForeignLinks(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, link string){
		"elsewhere": func(t *testing.T, link string) { must(t, os.Symlink("/nowhere", link)) },
		"file":      func(t *testing.T, link string) { write(t, link, "", 0o644) },
		"slot c":    func(t *testing.T, link string) { must(t, os.Symlink("slots/c", link)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := twoSlots(t)
			must(t, os.Remove(s.Current))
			spoil(t, s.Current)
			_, err := s.Serving()
			wantCode(t, err, "bad_link")
			_, err = s.Idle()
			wantCode(t, err, "bad_link")
			_, err = s.List(t.Context())
			wantCode(t, err, "bad_link")
		})
	}
	s := twoSlots(t)
	must(t, os.Remove(s.Current))
	must(t, os.Symlink(s.Path(B), s.Current))
	if current, _ := serving(t, s); current != B {
		t.Errorf("an absolute link to a slot names %q", current)
	}
}

func TestIdle(t *testing.T) {
	for _, tt := range []struct{ current, stable, want string }{
		{A, A, B}, {B, B, A}, {Golden, A, B}, {Golden, Golden, A}, {"", A, B}, {"", "", A}, {A, "", B},
	} {
		s := twoSlots(t)
		must(t, os.Remove(s.Current))
		must(t, os.Remove(s.Stable))
		if tt.current != "" {
			must(t, s.Activate(tt.current))
		}
		if tt.stable != "" {
			must(t, s.Commit(tt.stable))
		}
		if got, err := s.Idle(); err != nil || got != tt.want {
			t.Errorf("idle beside %q and %q is %q, %v; want %q", tt.current, tt.stable, got, err, tt.want)
		}
	}
	s := twoSlots(t)
	must(t, s.Activate(B))
	_, err := s.Idle()
	wantCode(t, err, "trial_running")
	if fault.KindOf(err) != fault.Busy {
		t.Errorf("kind %v, want Busy", fault.KindOf(err))
	}
}

func TestPrepareMendsTheGoldenLink(t *testing.T) {
	s := testSlots(t)
	link := s.Path(Golden)
	must(t, os.Remove(link))
	must(t, os.Symlink("/elsewhere", link))
	for range 2 {
		must(t, s.Prepare())
		if target, err := os.Readlink(link); err != nil || target != s.Golden {
			t.Errorf("golden -> %q, %v", target, err)
		}
	}
}

func TestList(t *testing.T) {
	s := twoSlots(t)
	list := func() string {
		entries, err := s.List(t.Context())
		must(t, err)
		var words []string
		for _, e := range entries {
			w := e.Name + " " + e.State + " " + e.Version
			if e.Serving {
				w += " serving"
			}
			if e.Stable {
				w += " stable"
			}
			words = append(words, strings.TrimSpace(w))
		}
		return strings.Join(words, ", ")
	}
	if got, want := list(), "a ready 9.0.0+dev serving stable, b ready 9.1.0+dev, golden ready 9.0.0+dev"; got != want {
		t.Errorf("list %s, want %s", got, want)
	}
	must(t, os.Truncate(filepath.Join(s.Path(B), ServerPath), 0))
	must(t, os.RemoveAll(s.Path(A)))
	must(t, os.Remove(filepath.Join(s.Golden, ManifestName)))
	if got, want := list(), "a empty  serving stable, b broken 9.1.0+dev, golden broken"; got != want {
		t.Errorf("list %s, want %s", got, want)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "updater", "lock")
	release, err := Lock(path, "deploy of 9.1.0")
	must(t, err)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the lock's file: %v, %v", st, err)
	}
	_, err = Lock(path, "another")
	wantCode(t, err, "slots_busy")
	if fault.KindOf(err) != fault.Busy || !strings.Contains(err.Error(), "deploy of 9.1.0, process ") {
		t.Errorf("error %v does not name the holder", err)
	}
	release()
	release, err = Lock(path, "another")
	must(t, err)
	release()
}
