package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
)

// fakeUpdates is an updater and its files.
type fakeUpdates struct {
	mu       sync.Mutex
	status   deployment.Status
	unread   error // why the files cannot be read
	records  []deployment.Record
	releases []KeptRelease
	restart  deployment.Restart
	refuses  error                     // every order
	asleep   error                     // why it does not say how it is
	waits    bool                      // a trial runs: nothing begins at once
	during   func(ctx context.Context) // every order, before its answer; nil = nothing
	asked    []string
}

func (f *fakeUpdates) Status() (deployment.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, f.unread
}

func (f *fakeUpdates) Records(most int) ([]deployment.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if most == 0 {
		most = len(f.records)
	}
	return f.records[:min(most, len(f.records))], f.unread
}

func (f *fakeUpdates) Releases() ([]KeptRelease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.releases, f.unread
}

func (f *fakeUpdates) LastRestart() (deployment.Restart, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restart, f.unread
}

// Now has it show its status, as an updater that starts does.
func (f *fakeUpdates) Now(context.Context) (deployment.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asleep == nil && silent(f.unread) {
		f.unread = nil
	}
	return f.status, f.asleep
}

func (f *fakeUpdates) order(ctx context.Context, what string) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	refuses, during := f.refuses, f.during
	f.mu.Unlock()
	if during != nil {
		during(ctx)
	}
	return refuses
}

func (f *fakeUpdates) Check(ctx context.Context) (string, error) {
	err := f.order(ctx, "check")
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && silent(f.unread) {
		f.unread = nil
	}
	if err != nil || f.status.Available == nil {
		return "", err
	}
	f.status.Checked = time.Now()
	return f.status.Available.Version, nil
}
func (f *fakeUpdates) Download(ctx context.Context, v string) error {
	return f.order(ctx, "download "+v)
}
func (f *fakeUpdates) Apply(ctx context.Context, v string) (string, error) {
	err := f.order(ctx, "apply "+v)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waits {
		return "", err
	}
	return "tx9", err
}
func (f *fakeUpdates) Rollback(ctx context.Context) (string, error) {
	return "tx9", f.order(ctx, "rollback")
}
func (f *fakeUpdates) Cancel(ctx context.Context) error { return f.order(ctx, "cancel") }
func (f *fakeUpdates) Restart(ctx context.Context) (string, error) {
	return "id", f.order(ctx, "restart")
}
func (f *fakeUpdates) SetPolicy(ctx context.Context, c deployment.PolicyChange) error {
	return f.order(ctx, fmt.Sprintf("policy %v %v", c.Channel != nil && *c.Channel == "beta", c.Days))
}

// set changes the fake while it is asked.
func (f *fakeUpdates) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeUpdates) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, ", ")
}

// updating is a rig in slot a with an updater that has something to offer.
func updating(t *testing.T) (*rig, *fakeUpdates) {
	t.Helper()
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &fakeUpdates{
		status: deployment.Status{
			State: deployment.Idle, Message: "nothing to do", Current: deployment.Release{Version: "1.0.0", Slot: "a", Commit: "0123456789"},
			Stable:    deployment.Release{Version: "1.0.0", Slot: "a"},
			Available: &deployment.Offer{Version: "1.1.0", Channel: "stable", Notes: strings.Repeat("ü", 600), Published: began},
			Policy:    deployment.Policy{Channel: "stable", Automatic: "download"},
		},
		records: []deployment.Record{
			{Transaction: "tx2", Door: deployment.DoorHTTP, Kind: "update", From: deployment.Release{Version: "1.0.0"}, To: deployment.Release{Version: "1.0.1", Commit: "abcdef0123"},
				Started: began, Ended: began.Add(time.Hour), Outcome: deployment.RolledBack, At: deployment.OnTrial, Reason: "smoke_failed", Says: "three smokes failed", Blame: deployment.Candidate},
			{Transaction: "tx1", Door: deployment.DoorDpkg, Kind: "update", To: deployment.Release{Version: "1.0.0"}, Started: began, Ended: began.Add(time.Minute), Outcome: deployment.Committed},
		},
		restart:  deployment.Restart{Asked: began, Ended: began.Add(time.Second), Invocation: "0123"},
		releases: []KeptRelease{{"a", "1.0.0", "slots/a", began, 10}, {"b", "0.9.0", "slots/b", began, 9}, {"golden", "1.0.0", "package/golden", time.Time{}, 8}},
	}
	r := oneOfMany(t, talks)
	r.Updates, r.Slot = f, "a"
	r.Environment = Surroundings{AppRoot: "slots/a"}
	return r, f
}
