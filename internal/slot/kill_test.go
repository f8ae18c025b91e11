//go:build faults

package slot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestKilledAtEveryStep kills a run at each of its steps: what serves is whole
// at once, and the next run ends what the killed one began.
func TestKilledAtEveryStep(t *testing.T) {
	if home := os.Getenv("SLOT_TEST_HOME"); home != "" {
		child(t, home)
		return
	}
	for _, step := range []string{"slot.copied", "slot.read_back", "slot.cleared", "slot.placed", "slot.activated", "slot.committed"} {
		t.Run(step, func(t *testing.T) {
			s := twoSlots(t)
			from := newer(t)
			faults := filepath.Join(t.TempDir(), "faults")
			write(t, faults, step+" crash\n", 0o600)
			run := func() error {
				c := exec.Command(os.Args[0], "-test.run=^TestKilledAtEveryStep$")
				c.Env = append(os.Environ(), "WHISPER_APPLIANCE_FAULTS="+faults, "SLOT_TEST_HOME="+filepath.Dir(s.Dir), "SLOT_TEST_FROM="+from)
				return c.Run()
			}
			var exit *exec.ExitError
			if err := run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the run was not killed: %v", err)
			}
			current, stable := serving(t, s)
			for _, name := range []string{current, stable} {
				if diffs, _, err := Verify(t.Context(), s.Path(name), Check{}); err != nil || len(diffs) > 0 {
					t.Errorf("slot %s, which a link names: %v, %v", name, diffs, err)
				}
			}
			if err := run(); err != nil {
				t.Fatalf("the run after it: %v", err)
			}
			sound(t, s, B, "9.2.0+dev")
			sound(t, s, A, "9.0.0+dev")
			if current, stable := serving(t, s); current != B || stable != B {
				t.Errorf("current %s, stable %s", current, stable)
			}
			nothingLeft(t, s)
		})
	}
}

func child(t *testing.T, home string) {
	s := &Slots{Dir: filepath.Join(home, "slots"), Current: filepath.Join(home, "current"), Stable: filepath.Join(home, "stable")}
	if current, _ := serving(t, s); current == A {
		_, err := s.Place(t.Context(), os.Getenv("SLOT_TEST_FROM"), B, nil)
		must(t, err)
	}
	must(t, s.Activate(B))
	must(t, s.Commit(B))
}
