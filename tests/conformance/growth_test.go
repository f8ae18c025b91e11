//go:build e2e

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// process is the server's id. Its files are those of Linux's /proc.
type process string

// usage is what the process holds.
type usage struct {
	descriptors int
	resident    int // KiB
	zombies     []string
}

const (
	slackDescriptors = 4        // connections that idle for a while
	slackResident    = 32 << 10 // KiB: a garbage collector's breath
	settle           = 15 * time.Second
)

// measure reads what the process holds now.
func (p process) measure(t *testing.T) usage {
	t.Helper()
	fds, err := os.ReadDir(filepath.Join("/proc", string(p), "fd"))
	if err != nil {
		t.Fatalf("WA_PID: %v", err)
	}
	u := usage{descriptors: len(fds), zombies: p.zombies(t)}
	status, err := os.ReadFile(filepath.Join("/proc", string(p), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(rest, &u.resident)
		}
	}
	if u.resident == 0 {
		t.Fatal("no VmRSS in the process's status")
	}
	return u
}

// zombies lists dead children that nobody waited for.
func (p process) zombies(t *testing.T) (found []string) {
	t.Helper()
	stats, err := filepath.Glob(filepath.Join("/proc", "[0-9]*", "stat"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …; the name may hold anything.
		line := string(data)
		end := strings.LastIndexByte(line, ')')
		fields := strings.Fields(line[end+1:])
		if end > 0 && len(fields) > 1 && fields[0] == "Z" && fields[1] == string(p) {
			found = append(found, line[:end+1])
		}
	}
	return found
}

// wantNoGrowth gives the process a little time to tidy up, then compares.
func (p process) wantNoGrowth(t *testing.T, before usage) {
	t.Helper()
	grown := func(u usage) bool {
		return len(u.zombies) > 0 || u.descriptors > before.descriptors+slackDescriptors || u.resident > before.resident+slackResident
	}
	now := p.measure(t)
	for deadline := time.Now().Add(settle); grown(now) && time.Now().Before(deadline); now = p.measure(t) {
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("descriptors %d, then %d; resident %d KiB, then %d KiB", before.descriptors, now.descriptors, before.resident, now.resident)
	if grown(now) {
		t.Errorf("it grew: %+v, before %+v", now, before)
	}
}
