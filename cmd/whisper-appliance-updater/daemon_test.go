package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/trial"
	"whisper-appliance/internal/update"
	"whisper-appliance/internal/updaterd"
)

// wantCode fails where err is no fault with that code; "" is no error.
func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var f *fault.Error
	if code == "" && err != nil || code != "" && (!errors.As(err, &f) || f.Code != code) {
		t.Errorf("%s: error %v, want %q", what, err, code)
	} else if code != "" && fault.Hint(err) == "" {
		t.Errorf("%s: %v has no hint", what, err)
	}
}

// TestOverDBus goes through the methods as root.
func TestOverDBus(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	c, ctx := bus.client(t), t.Context()

	version, err := c.Check(ctx)
	if err != nil || version != "9.1.0" {
		t.Errorf("Check: %q, %v", version, err)
	}
	wantCode(t, "Download", c.Download(ctx, ""), "")
	d.idle(t)
	wantCode(t, "Download of what is not there", c.Download(ctx, "1.2.3"), "no_such_release")
	d.idle(t)
	transaction, err := c.Apply(ctx, "")
	if err != nil || transaction == "" {
		t.Errorf("Apply: %q, %v", transaction, err)
	}
	b.reach(deployment.Trial)
	d.idle(t)
	if s := b.status(); s.Transaction != transaction || s.Door != deployment.DoorDBus {
		t.Errorf("status %+v", s)
	}
	wantCode(t, "Commit", c.Commit(ctx), "")
	b.wants("9.1.0", "9.1.0")
	wantCode(t, "Commit without a trial", c.Commit(ctx), "no_trial")
	id, err := c.Restart(ctx)
	if err != nil || id == "" {
		t.Errorf("Restart: %q, %v", id, err)
	}
	if r, err := deployment.ReadRestart(b.paths.UpdaterRun); err != nil || r.Invocation != id || r.Error != nil || r.Ended.Before(r.Asked) {
		t.Errorf("restart %+v, %v", r, err)
	}
	back, err := c.Rollback(ctx)
	if err != nil || back == "" || back == transaction {
		t.Errorf("Rollback: %q, %v", back, err)
	}
	eventually(t, "its end", func() bool { return b.last().Transaction == back })
	d.idle(t)
	b.wants("9.0.0", "9.0.0")
	if s := b.status(); s.Held != "9.1.0" {
		t.Errorf("held %q", s.Held)
	}
	wantCode(t, "Pin", c.Pin(ctx, "9.0.0"), "")
	wantCode(t, "Unpin", c.Unpin(ctx), "")
	wantCode(t, "Unquarantine", c.Unquarantine(ctx, "9.9.9"), "not_quarantined")
	wantCode(t, "Cancel", c.Cancel(ctx), "nothing_to_cancel")
	wantCode(t, "SetPolicy", c.SetPolicy(ctx, deployment.PolicyChange{Channel: new("nightly")}), "bad_value")
	wantCode(t, "SetPolicy", c.SetPolicy(ctx, deployment.PolicyChange{Automatic: new("download")}), "")

	_, err = c.InstallFile(ctx, "release.wa")
	wantCode(t, "InstallFile", err, "relative_path")
	_, err = c.InstallFile(ctx, b.repo.Dir+"/none.wa")
	wantCode(t, "InstallFile", err, "no_bundle")
	d.idle(t)
	if last := b.last(); last.Reason != "no_bundle" || last.Outcome != deployment.Aborted {
		t.Errorf("record %+v", last)
	}
	if transaction, err = c.InstallFile(ctx, b.bundle("9.1.0")); err != nil || transaction == "" {
		t.Errorf("InstallFile: %q, %v", transaction, err)
	}
	b.reach(deployment.Trial)
}

// TestServersUser: the user that faces the network gets what was offered, and
// nothing that is root's.
func TestServersUser(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	c, ctx := bus.server(t), t.Context()
	for _, version := range []string{"", "9.1.0"} {
		_, err := c.Apply(ctx, version)
		wantCode(t, "Apply of what nobody looked for", err, "nothing_offered")
	}
	if version, err := c.Check(ctx); version != "9.1.0" || err != nil {
		t.Errorf("Check: %q, %v", version, err)
	}
	for _, version := range []string{"9.0.0", "9.2.0", "vv9.1.0", "../../x"} {
		_, err := c.Apply(ctx, version)
		wantCode(t, "Apply of "+version, err, "not_offered")
	}
	_, err := c.InstallFile(ctx, b.bundle("9.1.0"))
	wantCode(t, "InstallFile", err, updaterd.CodeDenied)
	for what, err := range map[string]error{"Commit": c.Commit(ctx), "Pin": c.Pin(ctx, ""), "Unpin": c.Unpin(ctx), "Unquarantine": c.Unquarantine(ctx, "")} {
		wantCode(t, what, err, updaterd.CodeDenied)
	}
	transaction, err := c.Apply(ctx, "v9.1.0")
	if err != nil || transaction == "" {
		t.Fatalf("Apply: %q, %v", transaction, err)
	}
	b.reach(deployment.Trial)
	d.idle(t)
	if s := b.status(); s.Door != deployment.DoorHTTP {
		t.Errorf("door %q", s.Door)
	}
	if back, err := c.Rollback(ctx); err != nil || back != transaction {
		t.Errorf("Rollback: %q, %v; want %q", back, err, transaction)
	}
	eventually(t, "the way back", func() bool { return b.last().Outcome == deployment.RolledBack })
	b.wants("9.0.0", "9.0.0")
}

// TestOneAtATime, and what runs can be cancelled.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	c, ctx := bus.client(t), t.Context()
	met := make(chan struct{})
	b.sys.set(func(u *standing) {
		u.meet = func(ctx context.Context, _ string) { close(met); <-ctx.Done() }
	})
	if _, err := c.Apply(ctx, ""); err != nil {
		t.Fatal(err)
	}
	<-met
	_, err := c.Apply(ctx, "")
	wantCode(t, "Apply", err, "updater_busy")
	_, err = c.Rollback(ctx)
	wantCode(t, "Rollback", err, "updater_busy")
	wantCode(t, "Download", c.Download(ctx, ""), "updater_busy")
	wantCode(t, "Commit", c.Commit(ctx), "slots_busy")
	wantCode(t, "Cancel", c.Cancel(ctx), "")
	d.idle(t)
	b.wants("9.0.0", "9.0.0")
	if last := b.last(); last.Outcome != deployment.Canceled {
		t.Errorf("record %+v", last)
	}
}

// TestDownloadGoesOn: who asks for one is told that it has begun, and it can be
// stopped; what fails at once is told as well.
func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("9.1.0", "")
	b.set(func() { b.sources = []string{"https://releases.example/stable"} })
	down := errors.New("the line is down")
	began, ended := make(chan struct{}), make(chan error, 1)
	b.fetch = func(ctx context.Context, o update.Order) error {
		if o.Target == "" {
			return nil
		}
		// The whole of it is a long way off.
		if err := deployment.WriteStatus(b.paths.UpdaterRun, deployment.Status{State: deployment.Downloading, Phase: deployment.Fetch, PID: os.Getpid()}); err != nil {
			return err
		}
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return context.Cause(ctx)
	}
	b.must("deploy")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	c, ctx := bus.client(t), t.Context()
	wantCode(t, "Download", c.Download(ctx, ""), "")
	<-began
	wantCode(t, "Download", c.Download(ctx, ""), "updater_busy")
	wantCode(t, "Cancel", c.Cancel(ctx), "")
	if err := <-ended; fault.KindOf(err) != fault.Canceled {
		t.Errorf("it ended with %v", err)
	}
	d.idle(t)
	b.fetch = nil
	other := newBench(t)
	other.publish("9.1.0", "")
	other.must("deploy")
	other.set(func() { other.sources = []string{"https://releases.example/stable"} })
	other.fetch = func(context.Context, update.Order) error {
		return fault.New(fault.Unavailable, "source_unreachable", "no").Because(down).Try("wait")
	}
	bus = newBus(t)
	other.daemonOn(bus, time.Hour)
	wantCode(t, "Download without a line", bus.client(t).Download(ctx, ""), "source_unreachable")
	if p := other.status().CheckError; p == nil || p.Code != "source_unreachable" {
		t.Errorf("shown %+v", p)
	}
}

// TestAnUpdateYields while it waits for its source to what needs none, as it does
// for root's command line, and to nothing else.
func TestAnUpdateYields(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ask  func(t *testing.T, b *bench, c *updaterd.Client) error
		code string
		ends bool
	}{
		"a rollback": {func(t *testing.T, _ *bench, c *updaterd.Client) error { _, err := c.Rollback(t.Context()); return err }, "nothing_before", true},
		"an installation": {func(t *testing.T, b *bench, c *updaterd.Client) error {
			_, err := c.InstallFile(t.Context(), b.bundle("9.1.0"))
			return err
		}, "", true},
		"another update": {func(t *testing.T, _ *bench, c *updaterd.Client) error { _, err := c.Apply(t.Context(), ""); return err }, "updater_busy", false},
		"a download":     {func(t *testing.T, _ *bench, c *updaterd.Client) error { return c.Download(t.Context(), "") }, "updater_busy", false},
		"a restart":      {func(t *testing.T, _ *bench, c *updaterd.Client) error { _, err := c.Restart(t.Context()); return err }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t).live()
			b.must("deploy")
			b.publish("9.1.0", "")
			b.set(func() { b.sources = []string{"https://releases.example/stable"} })
			waits, ended := make(chan struct{}), make(chan error, 1)
			b.fetch = func(ctx context.Context, o update.Order) error {
				if o.Target == "" {
					return nil
				}
				close(waits)
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return context.Cause(ctx)
			}
			bus := newBus(t)
			d := b.daemonOn(bus, time.Hour)
			c := bus.client(t)
			if _, err := c.Apply(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			<-waits
			wantCode(t, name, tt.ask(t, b, c), tt.code)
			if !tt.ends {
				if len(ended) > 0 {
					t.Errorf("it ended by %v", <-ended)
				}
				wantCode(t, "Cancel", c.Cancel(t.Context()), "")
			}
			if err := <-ended; errors.Is(err, update.Yielded()) != tt.ends {
				t.Errorf("it ended by %v", err)
			}
			d.idle(t)
			records, err := deployment.Records(b.paths.Updater, 0)
			if err != nil || !slices.ContainsFunc(records, func(r deployment.Record) bool {
				return r.Outcome == deployment.Canceled && r.At == deployment.Fetch && r.Blame == deployment.Operator && (r.Reason == "yielded") == tt.ends
			}) {
				t.Errorf("records %+v, %v", records, err)
			}
		})
	}
}

// TestATrialIsWatched by the daemon that finds it, beside all that it is asked
// for meanwhile.
func TestATrialIsWatched(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	b.must("apply")
	b.set(func() { b.trial = 10 * time.Second })
	bus := newBus(t)
	d := b.daemonOn(bus, 0) // it stays though nobody has work for it
	eventually(t, "a look", func() bool { return b.seen() > 0 })
	c, ctx := bus.client(t), t.Context()
	b.publish("9.2.0", "")
	if transaction, err := c.Apply(ctx, ""); err != nil || transaction != "" {
		t.Errorf("Apply during the trial: %q, %v", transaction, err)
	}
	d.idle(t)
	if q := b.status().Queued; q == nil || q.Version != "9.2.0" {
		t.Errorf("queued %+v", q)
	}
	wantCode(t, "Cancel", c.Cancel(ctx), "")
	seen := b.seen()
	eventually(t, "the next look", func() bool { return b.seen() > seen })
	b.set(func() { b.smoke = trial.Smoke{Failed: []string{"answers"}, Says: "it is dumb"} })
	eventually(t, "the verdict", func() bool { return b.last().Outcome == deployment.RolledBack })
	b.wants("9.0.0", "9.0.0")
	if last := b.last(); last.Blame != deployment.Candidate {
		t.Errorf("record %+v", last)
	}
	<-d.over
	if *d.err != nil {
		t.Errorf("it ended with %v", *d.err)
	}
}

// TestARollbackEndsTheWatch, and one that goes on says nothing against it.
func TestARollbackEndsTheWatch(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	b.must("apply")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	eventually(t, "a look", func() bool { return b.seen() > 0 })
	transaction := b.status().Transaction
	if back, err := bus.client(t).Rollback(t.Context()); err != nil || back != transaction {
		t.Errorf("Rollback: %q, %v; want %q", back, err, transaction)
	}
	d.idle(t)
	b.wants("9.0.0", "9.0.0")
	if last := b.last(); last.Blame != deployment.Operator || last.Transaction != transaction {
		t.Errorf("record %+v", last)
	}
}

// TestACancelDoesNotWait for the way back from a trial: the server that asked for
// it is stopped by it.
func TestACancelDoesNotWait(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	b.must("apply")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	eventually(t, "a look", func() bool { return b.seen() > 0 })
	on := make(chan struct{})
	b.sys.set(func(u *standing) { u.meet = func(context.Context, string) { <-on } })
	wantCode(t, "Cancel", bus.client(t).Cancel(t.Context()), "")
	close(on)
	d.idle(t)
	b.wants("9.0.0", "9.0.0")
	if last := b.last(); last.Blame != deployment.Operator || last.Outcome != deployment.RolledBack {
		t.Errorf("record %+v", last)
	}
}

// TestItEndsWithoutWork, and not before.
func TestItEndsWithoutWork(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	d := b.daemonOn(newBus(t), 100*time.Millisecond)
	select {
	case <-d.over:
	case <-time.After(10 * time.Second):
		t.Fatal("it stays")
	}
	if *d.err != nil {
		t.Errorf("it ended with %v", *d.err)
	}
	err := d.begin("work", func(context.Context) error { return nil })
	wantCode(t, "work for one that has ended", err, "updater_ends")
}

// TestLeave: a trial that came up while the daemon was ending is not left alone.
func TestLeave(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	d := newDaemon(b.updater(), b.updater().Log, "", nil)
	if err := d.leave(t.Context()); err != nil {
		t.Errorf("without a trial: %v", err)
	}
	b.publish("9.1.0", "")
	b.must("apply")
	wantCode(t, "with a trial", d.leave(t.Context()), "nobody_watches")
	told, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.leave(told); err != nil {
		t.Errorf("told to end: %v", err)
	}
}

// TestToldToEnd in the middle of a transaction: before the link moves all is
// taken back; after that it goes through, and the trial is another's.
func TestToldToEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, unit, serving, outcome string }{
		{"before the link moves", "next-b", "9.0.0", deployment.Canceled},
		{"after it has", "server", "9.1.0", update.OnTrial},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t).live()
			b.publish("9.1.0", "")
			bus := newBus(t)
			d := b.daemonOn(bus, time.Hour)
			met, told := make(chan struct{}), make(chan struct{})
			b.sys.set(func(u *standing) {
				u.meet = func(_ context.Context, unit string) {
					if unit == tt.unit {
						close(met)
						<-told
						u.set(func(u *standing) { u.meet = nil })
					}
				}
			})
			if _, err := bus.client(t).Apply(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			<-met
			ended := make(chan error)
			go func() { ended <- d.stop() }()
			eventually(t, "the end's beginning", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.ending
			})
			close(told)
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
			b.wants(tt.serving, "9.0.0")
			if tt.outcome == update.OnTrial {
				if s := b.status(); s.State != deployment.Trial {
					t.Errorf("status %+v", s)
				}
				b.daemonOn(bus, time.Hour)
				eventually(t, "a look of the next daemon", func() bool { return b.seen() > 0 })
				return
			}
			if last := b.last(); last.Outcome != tt.outcome {
				t.Errorf("record %+v", last)
			}
		})
	}
}

// TestItSettlesFirst: what a killed run has left is settled before anybody can
// ask.
func TestItSettlesFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	b.must("apply")
	if err := b.slots.Activate(slot.A); err != nil { // as the gate does
		t.Fatal(err)
	}
	bus := newBus(t)
	b.daemonOn(bus, time.Hour)
	s, err := bus.client(t).Status(t.Context())
	if err != nil || s.State == deployment.Trial || s.Last == nil || s.Last.Reason != "gate" {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestPropertiesFollow what everybody is shown, also over a bus that was
// restarted.
func TestPropertiesFollow(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.1.0", "")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	changes := make(chan deployment.Status, 100)
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		(&updaterd.Client{Socket: bus.socket}).Watch(ctx, func(s deployment.Status) { changes <- s }) //nolint:errcheck // ends with the test
	}()
	defer func() { cancel(); <-followed }()
	until := func(what string, ok func(deployment.Status) bool) {
		t.Helper()
		limit := time.After(15 * time.Second)
		for {
			select {
			case s := <-changes:
				if ok(s) {
					return
				}
			case <-limit:
				t.Fatalf("%s was never told", what)
			}
		}
	}
	until("what serves", func(s deployment.Status) bool { return s.Current.Version == "9.0.0" })
	b.must("check") // another process
	until("the offer", func(s deployment.Status) bool { return s.Available != nil && s.Available.Version == "9.1.0" })
	bus.stop()
	b.must("apply")
	eventually(t, "the trial", func() bool { return b.seen() > 0 })
	bus.start(t)
	until("the trial", func(s deployment.Status) bool { return s.State == deployment.Trial })
	eventually(t, "the name", d.bus.Owned)
	if _, err := bus.client(t).Rollback(t.Context()); err != nil {
		t.Errorf("Rollback: %v", err)
	}
	until("the way back", func(s deployment.Status) bool { return s.Last != nil && s.Last.Outcome == deployment.RolledBack })
}
