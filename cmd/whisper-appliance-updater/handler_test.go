package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
)

// TestNothingBegins where there is nothing to be done, or something stands
// against it: the call itself says so, and no transaction is named.
func TestNothingBegins(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	b.publish("9.0.0", "")
	bus := newBus(t)
	d := b.daemonOn(bus, time.Hour)
	c, ctx := bus.client(t), t.Context()
	for _, tt := range []struct{ version, code string }{{"", "nothing_offered"}, {"9.9.9", "no_such_release"}, {"nonsense", "bad_version"}} {
		transaction, err := c.Apply(ctx, tt.version)
		wantCode(t, "Apply of "+tt.version, err, tt.code)
		if transaction != "" {
			t.Errorf("Apply of %q is %s", tt.version, transaction)
		}
		d.idle(t)
	}
	wantCode(t, "Download", c.Download(ctx, ""), "nothing_offered")
	d.idle(t)
	_, err := c.InstallFile(ctx, b.bundle("9.0.0"))
	wantCode(t, "InstallFile of what serves", err, "nothing_offered")
}

// TestNothingNewerForTheServer: a conflict, not a prohibition.
func TestNothingNewerForTheServer(t *testing.T) {
	t.Parallel()
	at := func(version string) deployment.Status {
		s := deployment.Status{Current: deployment.Release{Version: "9.0.0"}}
		if version != "" {
			s.Available = &deployment.Offer{Version: version}
		}
		return s
	}
	for _, tt := range []struct {
		offer, wanted, code string
		kind                fault.Kind
	}{
		{"", "", "nothing_offered", fault.Conflict},
		{"", "9.1.0", "nothing_offered", fault.Conflict},
		{"9.1.0", "9.2.0", "not_offered", fault.Forbidden},
		{"9.1.0", "9.1.0", "", 0},
		{"9.1.0", "", "", 0},
	} {
		err := offered(at(tt.offer), tt.wanted)
		wantCode(t, tt.wanted+" of "+tt.offer, err, tt.code)
		if tt.code != "" && fault.KindOf(err) != tt.kind {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// TestBegunLate: a source that is slow to answer does not keep whoever asks.
func TestBegunLate(t *testing.T) {
	t.Parallel()
	soon, late := begunLate(time.Now().Add(time.Hour)), begunLate(time.Now())
	for _, tt := range []struct {
		status     deployment.Status
		soon, late bool
	}{
		{deployment.Status{State: deployment.Idle}, false, false},
		{deployment.Status{State: deployment.Updating}, false, false},
		{deployment.Status{State: deployment.Updating, Transaction: "t"}, false, true},
		{deployment.Status{State: deployment.Trial, Transaction: "t"}, false, false},
		{deployment.Status{State: deployment.Downloading}, true, true},
		{deployment.Status{State: deployment.Trial, Phase: deployment.Fetch, Transaction: "t"}, true, true},
	} {
		_, first := soon(tt.status)
		transaction, second := late(tt.status)
		if first != tt.soon || second != tt.late {
			t.Errorf("%+v: %v, %v", tt.status, first, second)
		}
		if second && transaction != "" && tt.status.State == deployment.Trial {
			t.Errorf("%s: the trial's transaction is another's", transaction)
		}
	}
}

// TestRestartsAreKept: how one ended can be read after whoever asked is gone; a
// refusal was none.
func TestRestartsAreKept(t *testing.T) {
	t.Parallel()
	b := newBench(t).live()
	bus := newBus(t)
	b.daemonOn(bus, time.Hour)
	c, ctx := bus.server(t), t.Context()
	if _, err := deployment.ReadRestart(b.paths.UpdaterRun); fault.KindOf(err) != fault.NotFound {
		t.Errorf("before the first: %v", err)
	}
	unlock, err := slot.Lock(b.paths.Updater+"/lock", "something else")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Restart(ctx)
	wantCode(t, "Restart of a busy updater", err, "slots_busy")
	unlock()
	if _, err := deployment.ReadRestart(b.paths.UpdaterRun); fault.KindOf(err) != fault.NotFound {
		t.Errorf("after a refusal: %v", err)
	}
	gone, leave := context.WithCancel(ctx)
	b.sys.set(func(u *standing) {
		u.fail = "server"
		u.meet = func(context.Context, string) { leave() } // as a server that asks for itself
	})
	if _, err := c.Restart(gone); err == nil || !errors.Is(gone.Err(), context.Canceled) {
		t.Errorf("Restart: %v", err)
	}
	eventually(t, "its end", func() bool {
		r, err := deployment.ReadRestart(b.paths.UpdaterRun)
		return err == nil && r.Invocation == "" && r.Error != nil && r.Error.Code == "not_restarted" && r.Error.Hint != "" && !r.Ended.IsZero()
	})
}
