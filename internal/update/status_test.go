package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
)

// TestStatus is what everybody sees while a release is installed.
func TestStatus(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	seen := func(want deployment.State, phase deployment.Phase) deployment.Status {
		t.Helper()
		s, err := deployment.ReadStatus(w.u.Run)
		if err != nil || s.State != want || s.Phase != phase || s.Message == "" || s.Current.Version == "" {
			t.Errorf("%s in phase %q, %+v, %v; want %s, %q", s.State, s.Phase, s.Current, err, want, phase)
		}
		return s
	}
	repo := w.repo()
	w.u.Fetch = func(_ context.Context, o Order, progress func(int64)) error {
		if progress != nil {
			progress(7)
			if s := seen(deployment.Updating, deployment.Fetch); s.Progress.Done != 7 || s.Progress.Total < 100 || s.PID != os.Getpid() || s.Transaction == "" {
				t.Errorf("%+v", s)
			}
		} else {
			seen(deployment.Updating, deployment.Plan)
		}
		must(t, os.RemoveAll(w.u.Fetched))
		return os.CopyFS(w.u.Fetched, os.DirFS(repo))
	}
	w.set.Sources = []string{"https://releases.example"}
	w.u.Site.Rehearse = func(context.Context, string, slot.Manifest) (trial.Finding, error) {
		if s := seen(deployment.Updating, deployment.Preflight); s.To.Version != "1.1.0" || s.From.Version != "1.0.0" {
			t.Errorf("%+v", s)
		}
		return trial.Finding{}, nil
	}
	w.u.Site.Baseline = func(context.Context) (trial.Baseline, error) {
		seen(deployment.Updating, deployment.Arm)
		return trial.Baseline{}, errors.New("nobody knows")
	}
	w.m.after = func(verb, unit string) {
		switch verb + " " + unit {
		case "start next-b":
			seen(deployment.Updating, deployment.Overlap)
		case "restart " + server:
			seen(deployment.Updating, deployment.TakeOver)
		}
	}
	w.u.Site.Watch = func(context.Context) error {
		if s := seen(deployment.Trial, deployment.OnTrial); s.Trial == nil || s.Trial.TriesLeft != tries {
			t.Errorf("%+v", s.Trial)
		}
		return nil
	}
	w.apply(Want{Door: deployment.DoorCLI, Trial: true}, OnTrial)
	w.m.after = nil
	w.proves()
	if s := seen(deployment.Idle, ""); s.PID != 0 || s.Last == nil || s.Last.Outcome != deployment.Committed || s.Stable.Version != "1.1.0" || s.Floor != "1.1.0" {
		t.Errorf("%+v", s)
	}
	var phases []deployment.Phase
	for _, p := range w.last(1).Phases {
		phases = append(phases, p.Phase)
	}
	for _, p := range deployment.Phases() {
		if !slices.Contains(phases, p) && p != deployment.Commit && p != deployment.Clean {
			t.Errorf("%s is not in the record: %v", p, phases)
		}
	}
	if e := w.last(1).Evidence; len(e) < 2 {
		t.Errorf("evidence %v", e)
	}
}

// TestStatusOfTheDead: what a killed process has shown is not believed.
func TestStatusOfTheDead(t *testing.T) {
	w := newWorld(t)
	c := exec.Command(os.Args[0], "-test.run=^$")
	must(t, c.Run())
	must(t, deployment.WriteStatus(w.u.Run, deployment.Status{State: deployment.Updating, Phase: deployment.Stage, PID: c.ProcessState.Pid()}))
	if s, err := w.u.Status(); err != nil || s.State != deployment.Idle || s.Current.Version != "1.0.0" {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestOneAtATime: of eight that come at once, in processes and in one, one gets
// through, and the others are told who it is in under a second.
func TestOneAtATime(t *testing.T) {
	const home = "UPDATE_TEST_RACE"
	if dir := os.Getenv(home); dir != "" {
		os.Exit(race(t, dir))
	}
	w := newWorld(t)
	w.tree("1.1.0")
	codes := make(chan int)
	for n := range 8 {
		go func() {
			if n%2 == 0 {
				codes <- race(t, w.home)
				return
			}
			c := exec.Command(os.Args[0], "-test.run=^TestOneAtATime$")
			c.Env = append(os.Environ(), home+"="+w.home)
			if err := c.Run(); c.ProcessState == nil {
				t.Error(err)
			}
			codes <- c.ProcessState.ExitCode()
		}()
	}
	got := map[int]int{}
	for n := range 8 {
		if n == 7 { // all others are told: the one may go on
			must(t, os.WriteFile(filepath.Join(w.home, "go on"), nil, 0o600))
		}
		got[<-codes]++
	}
	if got[0] != 1 || got[75] != 7 {
		t.Errorf("exit codes and how often: %v", got)
	}
	after := openWorld(t, w.home)
	after.stands(slot.B, slot.A, slot.B)
	if st := after.state(); st.Step != onTrial || st.Queued != nil {
		t.Errorf("%s, queued %+v", st.Step, st.Queued)
	}
}

// race is one of those that come at once, and its exit code. The one that gets
// through goes on when the others were told.
func race(t *testing.T, home string) int {
	w := openWorld(t, home)
	w.u.Site.Rehearse = func(ctx context.Context, _ string, _ slot.Manifest) (trial.Finding, error) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; n < 4000; n++ { // nobody waits for ever, whatever became of the others
			<-tick.C
			if _, err := os.Stat(filepath.Join(home, "go on")); err == nil {
				break
			}
		}
		return trial.Finding{}, nil
	}
	begun := time.Now()
	res, err := w.u.Apply(context.Background(), w.deploy("1.1.0"))
	switch {
	case err == nil && res.Outcome == OnTrial:
		return 0
	case fault.KindOf(err) == fault.Busy && time.Since(begun) < time.Second && fault.Hint(err) != "":
		return 75
	}
	fmt.Println(res.Outcome, err, time.Since(begun))
	return 1
}

// TestOfferThatServes is none, though the last look has found it.
func TestOfferThatServes(t *testing.T) {
	w := newWorld(t)
	w.offers("1.1.0")
	if _, err := w.u.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	available := func() string {
		s, err := w.u.Status()
		must(t, err)
		if s.Available == nil {
			return ""
		}
		return s.Available.Version
	}
	if got := available(); got != "1.1.0" {
		t.Errorf("%q is available", got)
	}
	w.apply(Want{Trial: true}, OnTrial)
	if got := available(); got != "" {
		t.Errorf("%q is available, and serves", got)
	}
	w.fails()
	if s, err := w.u.Status(); err != nil || s.Current.Version != "1.0.0" || s.Available == nil {
		t.Errorf("after the way back %+v, %v", s, err)
	}
}
