//go:build e2e

package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"whisper-appliance/internal/durable"
	"whisper-appliance/tests/faults/cut"
)

// TestCutAtEachCall: a file that is replaced durably is whole, the old or the
// new one, whichever call the power goes at; one that is written in place is not, or
// these cuts would prove nothing.
func TestCutAtEachCall(t *testing.T) {
	const job, name = "DISK_TEST_WRITE", "DISK_TEST_FILE"
	if how := os.Getenv(job); how != "" {
		if how == "durable" {
			must(t, durable.WriteFile(os.Getenv(name), []byte("new"), 0o644))
		} else {
			f, err := os.Create(os.Getenv(name))
			must(t, err)
			dir, err := os.Open(filepath.Dir(os.Getenv(name)))
			must(t, err, dir.Sync())
			_, err = f.WriteString("new")
			must(t, err, f.Sync())
		}
		return
	}
	d := New(t, 16<<20)
	file := filepath.Join(d.Dir, "f")
	must(t, durable.WriteFile(file, []byte("old"), 0o644), d.Save())
	for how, wantHalves := range map[string]bool{"durable": false, "in place": true} {
		c := cut.Command{Args: []string{os.Args[0], "-test.run=^TestCutAtEachCall$"}, Env: append(os.Environ(), job+"="+how, name+"="+file), Watch: []string{d.Dir}}
		counted, err := cut.Run(t.Context(), c)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		seen := map[string]int{}
		for c.At = 1; c.At <= counted.Calls+1; c.At++ { // at last after all of them
			must(t, d.Back())
			c.Hook = func() { err = d.Cut() }
			r, runErr := cut.Run(t.Context(), c)
			must(t, runErr, err)
			if r.Cut != (c.At <= counted.Calls) {
				t.Fatalf("call %d: %+v", c.At, r)
			}
			must(t, d.Cut(), d.Revive())
			data, err := os.ReadFile(file)
			must(t, err)
			seen[string(data)]++
		}
		t.Logf("%s: cut at each of %d calls left %v", how, counted.Calls, seen)
		if seen[""] > 0 != wantHalves || seen["old"] == 0 || seen["new"] == 0 {
			t.Errorf("%s: %v", how, seen)
		}
	}
	must(t, d.Check())
}
