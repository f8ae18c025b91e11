package measure

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"whisper-appliance/internal/trial"
)

// Compare has both servers transcribe the reference clip by turns, each once
// beforehand so that its engine holds the model, and holds the candidate against
// the incumbent. Each waits for the users of the other. A machine that cannot
// hold both engines is not made to. The error is that ctx has ended.
func Compare(ctx context.Context, incumbent, candidate Server) (trial.Finding, error) {
	incumbent.Beside = append([]string{candidate.Socket}, incumbent.Beside...)
	candidate.Beside = append([]string{incumbent.Socket}, candidate.Beside...)
	var m trial.Memory
	warm := incumbent.Runs(ctx, 1, nil)
	m.Incumbent = incumbent.Resident(ctx)
	m.Needed, m.Available = m.Incumbent, available(incumbent.Proc)
	if scarce(m) || unmade(warm) {
		return trial.Compare(warm, warm, m), context.Cause(ctx)
	}
	was, is := warm, candidate.Runs(ctx, 1, nil)
	if !unmade(is) {
		was, is = pairs(ctx, incumbent, candidate)
	}
	m.Incumbent, m.Candidate = incumbent.Resident(ctx), candidate.Resident(ctx)
	return trial.Compare(was, is, m), context.Cause(ctx)
}

// pairs makes the runs that are compared, until one cannot be made.
func pairs(ctx context.Context, incumbent, candidate Server) (was, is []trial.Run) {
	for range trial.Pairs {
		a, b := incumbent.Runs(ctx, 1, nil), candidate.Runs(ctx, 1, nil)
		was, is = append(was, a...), append(is, b...)
		if unmade(a) || unmade(b) {
			break
		}
	}
	return was, is
}

func scarce(m trial.Memory) bool { return m.Available > 0 && m.Available < m.Needed }

// unmade reports whether there is no use in more runs: one could not be made,
// or the server ended over it.
func unmade(runs []trial.Run) bool {
	return len(runs) == 0 || hopeless(runs[0].Problem) || runs[0].Problem == trial.Crashed
}

// hopeless are the problems of runs that could not be made.
func hopeless(problem string) bool {
	return problem == trial.Busy || problem == trial.LowMemory || problem == trial.NoModel
}

// Resident is what the server and its engine hold now, 0 where that is not
// known.
func (s Server) Resident(ctx context.Context) int64 {
	c := s.client()
	defer c.close()
	d, err := c.detail(ctx)
	if err != nil {
		return 0
	}
	n, _ := c.memory(ctx, d) // 0 where it is not known
	return n
}

// available is what the machine could still give to a process, 0 where that is
// not known.
func available(proc string) int64 {
	data, err := os.ReadFile(filepath.Join(proc, "meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "MemAvailable:" {
			kib, _ := strconv.ParseInt(words[1], 10, 64) // 0 = not known
			return kib << 10
		}
	}
	return 0
}
