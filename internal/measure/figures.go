package measure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trial"
)

// healths is how often /health is asked for its latency.
const healths = 100

// Figures measures the server, for others to be compared with: it makes ten
// runs where nobody wants the engine. What could not be measured is 0; an error
// is that it does not answer, or that ctx has ended.
func (s Server) Figures(ctx context.Context) (deployment.Figures, error) {
	f, _, err := s.Measure(ctx, enoughRuns, nil)
	return f, err
}

// Measure is Figures for n runs, which it gives, too. tell is told each as it
// ends and may be nil.
func (s Server) Measure(ctx context.Context, n int, tell func(trial.Run)) (deployment.Figures, []trial.Run, error) {
	c := s.client()
	defer c.close()
	d, err := c.detail(ctx)
	if err != nil {
		return deployment.Figures{}, nil, err
	}
	f := deployment.Figures{StartSeconds: d.Startup.ReadyMS / 1000}
	if _, p99, err := s.Health(ctx, healths); err == nil {
		f.HealthSeconds = p99.Seconds()
	}
	runs := s.Runs(ctx, n, tell)
	if len(runs) > 0 && runs[0].Cold && runs[0].Right {
		f.FirstSeconds = runs[0].Seconds
	}
	f.RealTime, f.Runs = trial.RealTime(runs)
	m, err := c.metrics(ctx)
	if err != nil {
		return f, runs, errors.Join(err, context.Cause(ctx))
	}
	if n := m.counters(); n.Answered > 0 {
		f.ErrorRatio = float64(n.Failed) / float64(n.Answered)
	}
	if slices.ContainsFunc(runs, func(r trial.Run) bool { return r.Problem == "" }) || m.loaded() {
		f.MemoryBytes, _ = c.memory(ctx, d) // 0 where it is not known
	}
	return f, runs, context.Cause(ctx)
}

// Baseline is how the server does before it is replaced: its figures, and what
// fails of it. The counts of restarts are those of the server after it, and not
// in it.
func (s Server) Baseline(ctx context.Context) (trial.Baseline, error) {
	f, err := s.Figures(ctx)
	if err != nil {
		return trial.Baseline{}, err
	}
	sample, err := s.Look(ctx, true)
	if err != nil {
		return trial.Baseline{}, err
	}
	b := trial.Baseline{Figures: f}
	for _, failing := range sample.Failing {
		b.Components = append(b.Components, failing.Name)
	}
	if sample.Smoke != nil {
		b.Checks = sample.Smoke.Failed
	}
	return b, nil
}

// Health asks /health n times and gives the median and the 99th percentile of
// the time that the answers took.
func (s Server) Health(ctx context.Context, n int) (p50, p99 time.Duration, err error) {
	c := s.client()
	defer c.close()
	took := make([]time.Duration, 0, n)
	ctx, cancel := context.WithTimeout(ctx, 3*askLimit)
	defer cancel()
	for range n {
		began := time.Now()
		if _, err := c.Health(ctx); err != nil {
			return 0, 0, err
		}
		took = append(took, time.Since(began))
	}
	if n == 0 {
		return 0, 0, nil
	}
	slices.Sort(took)
	at := func(share float64) time.Duration { return took[int(math.Ceil(share*float64(n)))-1] }
	return at(0.5), at(0.99), nil
}

// memory is what server and engine hold, by what the kernel shares out to each
// of them.
func (c client) memory(ctx context.Context, d detail) (int64, error) {
	if c.s.Proc == "" {
		return 0, fault.New(fault.Unavailable, "not_measured", "nobody said where processes are shown")
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	pids := c.s.PIDs
	if pids == nil {
		pids = func(ctx context.Context) ([]int, error) { return c.pids(ctx, d), nil }
	}
	of, err := pids(ctx)
	if err != nil {
		return 0, err
	}
	return Resident(c.s.Proc, of)
}

// pids are those of the server and of its slot's engine, as systemd tells them;
// none where it does not run them.
func (c client) pids(ctx context.Context, d detail) []int {
	server := d.pid("whisper-appliance.service")
	if c.s.Unit != nil {
		server = 0
		if u, err := c.s.Unit(ctx); err == nil {
			server = u.PID
		}
	}
	engine := d.pid("whisper-appliance-engine@" + d.Environment.Slot + ".service")
	return slices.DeleteFunc([]int{server, engine}, func(pid int) bool { return pid <= 0 })
}

// pid is the process of a unit, as systemd told the server; 0 where none runs.
func (d detail) pid(unit string) int {
	for _, u := range d.Units {
		if u.Name == unit {
			return u.PID
		}
	}
	return 0
}

// Resident is the memory of processes in bytes: of what several of them share
// each has its part (Pss in smaps_rollup). One that has ended holds none. The
// error is that none is there, or that the caller may not look.
func Resident(proc string, pids []int) (int64, error) {
	total, seen := int64(0), false
	for _, pid := range pids {
		n, err := resident(filepath.Join(proc, strconv.Itoa(pid), "smaps_rollup"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		total, seen = total+n, true
	}
	if !seen {
		return 0, fault.New(fault.NotFound, "no_process", "no process of the server is known")
	}
	return total, nil
}

func resident(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "Pss:" {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no Pss", path)
}
