package systemd

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

func codeOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

// both runs a test at systemd's private socket and through a bus.
func both(t *testing.T, test func(t *testing.T, f *fakeSystemd)) {
	t.Run("private", func(t *testing.T) { test(t, newFake(t, false)) })
	t.Run("bus", func(t *testing.T) { test(t, newFake(t, true)) })
}

func TestUnits(t *testing.T) {
	both(t, func(t *testing.T, f *fakeSystemd) {
		since := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
		beat := time.Since(clockOffset()) - 3*time.Second
		f.add(Service, map[string]any{
			"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success",
			"MainPID": uint32(42), "NRestarts": uint32(3), "StateChangeTimestamp": uint64(since.UnixMicro()),
			"WatchdogUSec": uint64(30_000_000), "WatchdogTimestampMonotonic": uint64(beat.Microseconds()),
			"MemoryCurrent": uint64(1 << 20), "TasksCurrent": uint64(math.MaxUint64), "CPUUsageNSec": uint64(5e9),
			"ControlGroup": "/whisper.slice/x", "InvocationID": []byte("0123456789abcdef"),
			"Description": "Speech to text", "FragmentPath": "f", "DropInPaths": []string{"d"},
			"Type": "notify", "User": "somebody", "NoNewPrivileges": true, "ProtectSystem": "strict",
		})
		f.add("whisper-appliance-decode@2.service", map[string]any{"WatchdogUSec": uint64(math.MaxUint64), "InvocationID": make([]byte, 16)})
		f.add("whisper-appliance-decode@1.service", nil)
		units, err := f.dial().Units(t.Context(), Service, Target, DecodeInstances, JournalInstances)
		if err != nil || len(units) != 4 {
			t.Fatalf("%v, %v", units, err)
		}
		u := units[0]
		if age := time.Since(u.WatchdogAt); age < 2*time.Second || age > 5*time.Second {
			t.Errorf("the watchdog was fed %v ago, want 3s", age)
		}
		u.WatchdogAt = time.Time{}
		memory, cpu := uint64(1<<20), 5*time.Second
		want := Unit{Name: Service, Load: "loaded", Active: "active", Sub: "running", Result: "success", MainPID: 42, Restarts: 3,
			Since: u.Since, Watchdog: 30 * time.Second, Memory: &memory, CPU: &cpu, ControlGroup: "/whisper.slice/x",
			Invocation: "30313233343536373839616263646566", Description: "Speech to text", Fragment: "f", DropIns: []string{"d"},
			Run: &Run{Type: "notify", User: "somebody", NoNewPrivileges: true, ProtectSystem: "strict"}}
		if !u.Since.Equal(since) || !reflect.DeepEqual(u, want) {
			t.Errorf("%+v\nwant %+v", u, want)
		}
		if units[1].Load != "not-found" || units[1].Name != Target || units[1].String() != Target+" not-found" {
			t.Errorf("a unit that is not there: %+v", units[1])
		}
		if units[2].Name != "whisper-appliance-decode@1.service" || units[3].Watchdog != 0 || units[3].Invocation != "" || units[3].Memory != nil || units[3].Run != nil {
			t.Errorf("a pattern: %+v", units[2:])
		}
	})
}

// TestReconnects: what comes after a restart of the bus finds its way.
func TestReconnects(t *testing.T) {
	both(t, func(t *testing.T, f *fakeSystemd) {
		f.add(Service, nil)
		b := f.dial()
		for range 3 {
			if _, err := b.Units(t.Context(), Service); err != nil {
				t.Fatal(err)
			}
			f.breakAll()
		}
		if err := b.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
		if _, err := b.Units(t.Context(), Service); err != nil {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestUnitsAtOnce(t *testing.T) {
	f := newFake(t, false)
	f.add(Service, nil)
	b := f.dial()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := b.Units(t.Context(), Service); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestJobs(t *testing.T) {
	both(t, func(t *testing.T, f *fakeSystemd) {
		b := f.dial()
		for member, do := range map[string]func(context.Context, ...string) error{
			"StartUnit": b.Start, "StopUnit": b.Stop, "RestartUnit": b.Restart, "ReloadUnit": b.Reload, "ResetFailedUnit": b.ResetFailed,
		} {
			if err := do(t.Context(), Service, Socket); err != nil {
				t.Errorf("%s: %v", member, err)
			}
			if n := f.count(member); n != 2 {
				t.Errorf("%d calls of %s", n, member)
			}
		}
		if err := b.DaemonReload(t.Context()); err != nil || f.count("Reload") != 1 {
			t.Errorf("daemon-reload: %v", err)
		}
		if f.count("Subscribe") == 0 || (f.count("AddMatch") > 0) != f.bus {
			t.Errorf("it did not listen as this door wants it: %v", f.calls)
		}
	})
}

func TestUnhappyJobs(t *testing.T) {
	f := newFake(t, true)
	b := f.dial()
	f.results = map[string]string{"bad.service": "failed", "slow.service": "timeout", "odd.service": "frozen", "gone.service": "canceled"}
	f.refuse = map[string]string{"none.service": "org.freedesktop.systemd1.NoSuchUnit", "masked.service": "org.freedesktop.systemd1.UnitMasked",
		"foreign.service": "org.freedesktop.DBus.Error.AccessDenied", "strange.service": "org.freedesktop.DBus.Error.LimitsExceeded"}
	for _, c := range []struct{ unit, code, says, hint string }{
		{"bad.service", "job_failed", "start bad.service: it failed", "journalctl -u bad.service"},
		{"slow.service", "job_failed", "too long", "journalctl"},
		{"odd.service", "job_failed", "frozen", "journalctl"},
		{"gone.service", "job_canceled", "another job", "journalctl"},
		{"none.service", "no_unit", "no such unit", "daemon-reload"},
		{"masked.service", "unit_masked", "masked", "unmask"},
		{"foreign.service", "not_allowed", "not allow", "root"},
		{"strange.service", "job_failed", "refuses", "status"},
	} {
		err := b.Start(t.Context(), c.unit)
		if codeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.Hint(err), c.hint) {
			t.Errorf("%s: %v (%s), try %s", c.unit, err, codeOf(err), fault.Hint(err))
		}
	}
	err := b.Start(t.Context(), "good.service", "bad.service", "none.service")
	if err == nil || strings.Contains(err.Error(), "good") || !strings.Contains(err.Error(), "bad.service") || !strings.Contains(err.Error(), "none.service") {
		t.Errorf("of three: %v", err)
	}
}

func TestUnfinishedJobs(t *testing.T) {
	f := newFake(t, false)
	f.mute = true
	b := f.dial()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := b.Start(ctx, Service)
	if codeOf(err) != "job_unfinished" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a job without an end: %v", err)
	}
	done := make(chan error, 1)
	before := f.count("StartUnit")
	go func() { done <- b.Start(t.Context(), Service) }()
	for f.count("StartUnit") == before {
		time.Sleep(time.Millisecond) // until the call has arrived
	}
	f.breakAll()
	if err := <-done; codeOf(err) != "no_systemd" || fault.Hint(err) == "" {
		t.Errorf("a connection that broke: %v", err)
	}
}

func TestManager(t *testing.T) {
	f := newFake(t, true)
	f.mu.Lock()
	f.units[managerPath] = nil
	f.mu.Unlock()
	f.add("x", map[string]any{"Version": "252.1", "Virtualization": "lxc", "SystemState": "degraded", "NFailedUnits": uint32(2),
		"UserspaceTimestamp": uint64(1e15), "FinishTimestamp": uint64(0)})
	f.units[managerPath] = f.units[unitPath("x")]
	m, err := f.dial().Manager(t.Context())
	want := Manager{Version: "252.1", Virtualization: "lxc", State: "degraded", FailedUnits: 2, Started: time.UnixMicro(1e15)}
	if err != nil || m != want {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestDialChoosesDoor(t *testing.T) {
	private, bus := newFake(t, false), newFake(t, true)
	m := paths.Machine{SystemdPrivate: private.path, SystemBus: bus.path}
	for _, c := range []struct {
		name  string
		m     paths.Machine
		euid  int
		hello int
	}{
		{"root", m, 0, 0},
		{"user", m, 1000, 1},
		{"root, no private socket", paths.Machine{SystemdPrivate: private.path + "-", SystemBus: bus.path}, 0, 2},
	} {
		b, err := newBus(c.m, c.euid).dialed(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		b.Close()
		if n := bus.count("Hello"); n != c.hello {
			t.Errorf("%s: the bus was greeted %d times, want %d", c.name, n, c.hello)
		}
	}
	gone := filepath.Join(t.TempDir(), "none")
	_, err := newBus(paths.Machine{SystemdPrivate: gone, SystemBus: gone}, 0).dialed(t.Context())
	if codeOf(err) != "no_systemd" || fault.KindOf(err) != fault.Unavailable || fault.Hint(err) == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no systemd: %v", err)
	}
}

// TestUnit: one unit is the first and only of Units, by its exact name.
func TestUnit(t *testing.T) {
	f := newFake(t, false)
	b, err := (&Bus{doors: []door{f.door()}}).dialed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // the test ends
	u, err := b.Unit(t.Context(), "nobody.service")
	if err != nil || u.Name != "nobody.service" || u.Load != "not-found" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := b.Unit(t.Context(), "whisper-nobody@*.service"); err == nil {
		t.Error("a pattern that fits nothing gave a unit")
	}
}

// TestDialIsBounded: what listens and never answers holds nobody up.
func TestDialIsBounded(t *testing.T) {
	f := newFake(t, true)
	f.refuse["Hello"] = "org.freedesktop.DBus.Error.LimitsExceeded"
	if _, err := (&Bus{doors: []door{f.door()}}).dialed(t.Context()); codeOf(err) != "no_systemd" {
		t.Errorf("a bus that is full: %v", err)
	}
	l := silent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := (&Bus{doors: []door{{l, true}}}).dialed(ctx); codeOf(err) != "no_systemd" {
		t.Errorf("a door that is silent: %v", err)
	}
}

func TestBooted(t *testing.T) {
	root := t.TempDir()
	if Booted(root) {
		t.Error("an empty machine is run by systemd")
	}
	if err := os.MkdirAll(paths.MachineAt(root).SystemdBooted, 0o755); err != nil {
		t.Fatal(err)
	}
	if !Booted(root) {
		t.Error("systemd was not seen")
	}
}

func TestOurs(t *testing.T) {
	all := Ours()
	for _, name := range []string{Target, Socket, Service, Path, Slice, "whisper-appliance-next@a.service", "whisper-appliance-next@b.socket",
		"whisper-appliance-engine@golden.socket", "whisper-appliance-engine@b.service", DecodeSocket, DecodeInstances, HousekeepingTimer} {
		if !slices.Contains(all, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if slices.Contains(all, Next("golden")) {
		t.Error("golden never takes over by a switch")
	}
	if b := Ours("b"); slices.Contains(b, Next("a")) || !slices.Contains(b, EngineSocket("b")) || !slices.Contains(b, Service) {
		t.Errorf("slot b's: %v", b)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(all))); len(sorted) != len(all) {
		t.Error("a unit is listed twice")
	}
}
