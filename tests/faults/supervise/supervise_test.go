//go:build e2e

package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/slot"
	"whisper-appliance/internal/smoke"
)

// TestSwitchUnderLoad: the real switch, over the socket as from another process
// too, refuses no connection and fails no request.
func TestSwitchUnderLoad(t *testing.T) {
	r := newRig(t, "good", "good", Config{})
	must(t, r.Start(t.Context(), Service), r.Serve(filepath.Join(r.home, "u")))
	client, err := Dial(filepath.Join(r.home, "u"))
	must(t, err)
	end := Traffic{Address: r.Address(), Kept: 2, Fresh: 2, Uploads: 2}.Begin()
	local := Traffic{Socket: r.Path("api.sock"), Fresh: 1}.Begin()
	began := time.Now()
	for i, units := range []slot.Units{r, client, r, client} {
		to := []string{slot.B, slot.A}[i%2]
		out, err := r.swap(units).To(t.Context(), to)
		if err != nil || !out.Overlapped {
			t.Fatalf("%+v, %v", out, err)
		}
		if want := []string{"2.0.0", "1.0.0"}[i%2]; !r.serves(want) {
			t.Errorf("after a switch to %s another version serves", to)
		}
	}
	t.Logf("a switch takes %v", time.Since(began)/4)
	for _, tally := range []Tally{end(), local()} {
		t.Log(tally)
		if tally.Failed+tally.Refused > 0 || tally.Asked < 50 {
			t.Errorf("%v: %q", tally, tally.First)
		}
	}
	if next, _ := Next(slot.B); r.unit(next).Active != "inactive" {
		t.Errorf("%+v", r.unit(next))
	}
}

// TestBadCandidates: what fails before it is switched to leaves everything.
func TestBadCandidates(t *testing.T) {
	for _, mode := range []string{"crash", "hang", "not-ready"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "good", mode, Config{StartTimeout: 300 * time.Millisecond, StopTimeout: 200 * time.Millisecond})
			must(t, r.Start(t.Context(), Service))
			before := r.unit(Service)
			end := Traffic{Address: r.Address(), Fresh: 2}.Begin()
			_, err := r.swap(r).To(t.Context(), slot.B)
			var f *fault.Error
			if !errors.As(err, &f) || f.Code != slot.CandidateFailed {
				t.Errorf("%v", err)
			}
			if tally := end(); tally.Failed > 0 || r.unit(Service).Invocation != before.Invocation || !r.serves("1.0.0") {
				t.Errorf("%v, %+v", tally, r.unit(Service))
			}
		})
	}
}

// TestGateTakesBack: a server on trial that fails three times, however, is
// replaced by the one before, and nobody is refused meanwhile.
func TestGateTakesBack(t *testing.T) {
	for mode, how := range map[string]string{"crash": "exit-code exited 1", "crash-after 100ms": "exit-code exited 1", "hang": "timeout killed KILL", "no-watchdog": "watchdog exited 2"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := withGate(t, "good", mode)
			must(t, r.Start(t.Context(), Service))
			end := Traffic{Address: r.Address(), Fresh: 2, Limit: 5 * time.Second}.Begin()
			must(t, r.slots.Activate(slot.B))
			began := time.Now()
			r.Restart(t.Context(), Service) //nolint:errcheck // whether it hangs or crashes
			eventually(t, "1.0.0 serves again", func() bool { return r.serves("1.0.0") })
			t.Logf("back after %v", time.Since(began))
			eventually(t, "it is up", func() bool { return r.unit(Service).Active == "active" })
			tally := end()
			if tally.Refused > 0 || tally.Lost() > 0 {
				t.Errorf("%v: %q", tally, tally.First)
			}
			serving, err := r.slots.Serving()
			if u := r.unit(Service); err != nil || serving != slot.A || u.Restarts != 3 {
				t.Errorf("slot %s, %v, %+v", serving, err, u)
			}
			if !strings.Contains(r.Journal(Service), "slots/a serves again") {
				t.Error("the gate did not say so")
			}
			noted, err := os.ReadFile(filepath.Join(r.Path(gateDir), "whisper-appliance.ends"))
			if lines := strings.Split(strings.TrimSpace(string(noted)), "\n"); err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], "slots/b "+how+" ") {
				t.Errorf("the gate has noted %q, %v; want %q", lines, err, how)
			}
		})
	}
}

// TestLife: what State says through starts, restarts, failures and stops.
func TestLife(t *testing.T) {
	r := newRig(t, "crash-after 200ms", "good", Config{RestartPause: 300 * time.Millisecond})
	ctx := t.Context()
	if u := r.unit(Service); u.Active != "inactive" || u.PID != 0 || u.Invocation != "" {
		t.Errorf("before: %+v", u)
	}
	must(t, r.Start(ctx, Service), r.Start(ctx, Service))
	first := r.unit(Service)
	if first.Active != "active" || first.PID == 0 || len(first.Invocation) != 32 || first.Status != "serving version 1.0.0" {
		t.Errorf("started: %+v", first)
	}
	eventually(t, "it waits for its restart", func() bool { return r.unit(Service).Sub == "auto-restart" })
	if u := r.unit(Service); u.Active != "activating" || u.Result != "exit-code" || u.Exit != 1 || u.PID != 0 {
		t.Errorf("crashed: %+v", u)
	}
	must(t, r.Start(ctx, Service)) // need not wait for it
	if u := r.unit(Service); u.Active != "active" || u.Restarts != 1 || u.Invocation == first.Invocation || u.PID == first.PID {
		t.Errorf("started again: %+v", u)
	}
	must(t, r.Restart(ctx, Service))
	if u := r.unit(Service); u.Restarts != 0 || u.Stopped {
		t.Errorf("restarted by hand: %+v", u)
	}
	must(t, r.Stop(ctx, Service), r.Stop(ctx, Service))
	if u := r.unit(Service); u.Active != "inactive" || !u.Stopped || u.Result != "success" {
		t.Errorf("stopped: %+v", u)
	}
	next, door := Next(slot.B)
	must(t, r.Start(ctx, next))
	if status, _ := r.ask("next-b.sock", "/livez"); status != 200 || r.unit(door).Active != "active" {
		t.Errorf("status %d at the candidate's door, %+v", status, r.unit(door))
	}
	must(t, r.Stop(ctx, door))
	if r.unit(next).Active != "inactive" || r.unit(door).Active != "inactive" {
		t.Errorf("a door takes its service along: %+v", r.unit(next))
	}
	if _, err := os.Stat(r.Path("next-b.sock")); !os.IsNotExist(err) {
		t.Errorf("its file is still there: %v", err)
	}
	if err := r.Start(ctx, "other.service"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an unknown unit: %v", err)
	}
}

// TestRehearsal: the candidate in the dark has a socket of its own alone, which
// goes when it ends.
func TestRehearsal(t *testing.T) {
	r := newRig(t, "good", "crash-after 300ms", Config{})
	service, socket := Preflight(slot.B)
	must(t, r.Start(t.Context(), service))
	if status, body := r.ask("preflight-b.sock", "/health"); status != 200 || !strings.Contains(body, "2.0.0") {
		t.Errorf("%d %s", status, body)
	}
	eventually(t, "it has crashed", func() bool { return r.unit(service).Active == "failed" })
	eventually(t, "its socket has gone", func() bool { return r.unit(socket).Active == "inactive" })
	must(t, r.ResetFailed(t.Context(), service))
	if u := r.unit(service); u.Active != "inactive" {
		t.Errorf("%+v", u)
	}
	engine := Engine(slot.B)
	must(t, r.Start(t.Context(), engine))
	if u := r.unit(engine); u.Active != "active" || u.PID != 0 {
		t.Errorf("%+v", u)
	}
	must(t, r.Stop(t.Context(), engine))
	if u := r.unit(engine); u.Active != "inactive" {
		t.Errorf("%+v", u)
	}
}

// TestActivation: who connects to a stopped server starts it.
func TestActivation(t *testing.T) {
	r := newRig(t, "good", "good", Config{})
	if !r.serves("1.0.0") {
		t.Fatal("nobody answers")
	}
	must(t, r.Stop(t.Context(), Service))
	if !r.serves("1.0.0") || r.unit(Service).Stopped {
		t.Errorf("%+v", r.unit(Service))
	}
}

// TestModes: each mode of the fake server shows as it should.
func TestModes(t *testing.T) {
	for mode, see := range effects() {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			see(t, newRig(t, mode, "good", Config{StartTimeout: 400 * time.Millisecond, StopTimeout: 500 * time.Millisecond, Watchdog: 400 * time.Millisecond}))
		})
	}
}

func fails(t *testing.T, r *rig, result string) {
	t.Helper()
	if err := r.Start(t.Context(), Service); err == nil {
		t.Error("the start did not fail")
	}
	eventually(t, result, func() bool { return r.unit(Service).Result == result })
}

func up(t *testing.T, r *rig) {
	t.Helper()
	must(t, r.Start(t.Context(), Service))
}

// upload sends n recordings, one after the other.
func upload(r *rig, n int) Tally {
	tr, c := Traffic{Address: r.Address()}, &counting{}
	for range n {
		tr.one(c, httpClient(), tr.upload, false)
	}
	return c.tally
}

// effects are what to see of each mode.
func effects() map[string]func(t *testing.T, r *rig) {
	return map[string]func(t *testing.T, r *rig){
		"crash": func(t *testing.T, r *rig) { fails(t, r, "exit-code") },
		"hang":  func(t *testing.T, r *rig) { fails(t, r, "timeout") },
		"crash-after 50ms": func(t *testing.T, r *rig) {
			up(t, r)
			eventually(t, "restarts", func() bool { return r.unit(Service).Restarts >= 1 })
		},
		"no-watchdog": func(t *testing.T, r *rig) {
			up(t, r)
			if status, _ := r.ask("api.sock", "/livez"); status != 0 {
				t.Errorf("status %d", status)
			}
			eventually(t, "a kill by the watchdog", func() bool { u := r.unit(Service); return u.Kills >= 1 && u.Restarts >= 1 })
		},
		"wedge-after 150ms": func(t *testing.T, r *rig) {
			up(t, r)
			if status, _ := r.ask("api.sock", "/livez"); status != 200 {
				t.Errorf("status %d", status)
			}
			eventually(t, "a kill by the watchdog", func() bool { return r.unit(Service).Kills >= 1 })
		},
		"not-ready": func(t *testing.T, r *rig) {
			up(t, r)
			for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/health": 503, "/health/detailed": 503, "/api/v1/components": 200} {
				if status, body := r.ask("api.sock", path); status != want {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
			if _, body := r.ask("api.sock", "/api/v1/components"); !strings.Contains(body, `"status":"failed"`) {
				t.Error(body)
			}
		},
		"degrade-after 150ms not-ready": func(t *testing.T, r *rig) {
			up(t, r)
			if status, _ := r.ask("api.sock", "/readyz"); status != 200 {
				t.Errorf("status %d at first", status)
			}
			eventually(t, "it is not ready", func() bool { status, _ := r.ask("api.sock", "/readyz"); return status == 503 })
		},
		"errors 30": func(t *testing.T, r *rig) {
			up(t, r)
			if tally := upload(r, 20); tally.Failed != 6 {
				t.Errorf("%v, want 6", tally)
			}
			_, body := r.ask("api.sock", "/metrics")
			for _, want := range []string{`_http_requests_total{code="200",method="POST",route="/v1/audio/transcriptions"} 14`,
				`_http_requests_total{code="500",method="POST",route="/v1/audio/transcriptions"} 6`} {
				if !strings.Contains(body, want) {
					t.Errorf("%s is not in\n%s", want, body)
				}
			}
		},
		"slow 20": func(t *testing.T, r *rig) { // of 5 ms
			up(t, r)
			if tally := upload(r, 1); tally.Slowest < 100*time.Millisecond || tally.Failed > 0 {
				t.Errorf("%v", tally)
			}
		},
		"leak 100": func(t *testing.T, r *rig) {
			up(t, r)
			before := memory(t, r)
			eventually(t, "40 MiB more", func() bool { return memory(t, r) > before+40<<20 })
		},
		"exit-on-stop-slow 200ms": func(t *testing.T, r *rig) {
			up(t, r)
			began := time.Now()
			must(t, r.Stop(t.Context(), Service))
			if took := time.Since(began); took < 200*time.Millisecond || r.unit(Service).Result != "success" {
				t.Errorf("after %v: %+v", took, r.unit(Service))
			}
		},
		"exit-on-stop-slow 1h": func(t *testing.T, r *rig) {
			up(t, r)
			must(t, r.Stop(t.Context(), Service))
			if u := r.unit(Service); u.Result != "timeout" || u.Active != "failed" || u.Exit != int(syscall.SIGKILL) {
				t.Errorf("%+v", u)
			}
		},
		"nonsense": func(t *testing.T, r *rig) { // EX_CONFIG is not tried again
			fails(t, r, "exit-code")
			if u := r.unit(Service); u.Active != "failed" || u.Exit != 78 {
				t.Errorf("%+v", u)
			}
		},
	}
}

// memory is what the server says that it holds.
func memory(t *testing.T, r *rig) float64 {
	t.Helper()
	_, body := r.ask("api.sock", "/metrics")
	for line := range strings.Lines(body) {
		if words := strings.Fields(line); len(words) == 2 && words[0] == "process_resident_memory_bytes" {
			v, err := strconv.ParseFloat(words[1], 64)
			must(t, err)
			return v
		}
	}
	t.Fatalf("no memory in %s", body)
	return 0
}

// TestSmoke: the real smoke test takes the fake server for a well one.
func TestSmoke(t *testing.T) {
	r := newRig(t, "good", "not-ready", Config{})
	must(t, r.Start(t.Context(), Service))
	report := smoke.Check{Socket: r.Path("api.sock"), Version: "1.0.0"}.Run(t.Context())
	if report.Verdict != smoke.Passed || report.Slot != slot.A {
		t.Errorf("%+v", report)
	}
	next, _ := Next(slot.B)
	must(t, r.Start(t.Context(), next))
	report = smoke.Check{Socket: r.Path("next-b.sock"), Version: "2.0.0"}.Run(t.Context())
	failed := slices.IndexFunc(report.Results, func(s smoke.Result) bool { return s.Name == "components" && s.Verdict == smoke.Failed })
	if report.Verdict != smoke.Failed || failed < 0 {
		t.Errorf("%+v", report)
	}
}

// TestPower: a power cut kills whatever runs at once, an order under way comes to
// nothing, and after it the same port serves again.
func TestPower(t *testing.T) {
	r := withGate(t, "exit-on-stop-slow 1h", "good")
	must(t, r.Start(t.Context(), Service))
	next, _ := Next(slot.B)
	must(t, r.Start(t.Context(), next))
	pid, address := r.unit(Service).PID, r.Address()
	restarted := make(chan error, 1)
	go func() { restarted <- r.Restart(t.Context(), Service) }()
	eventually(t, "it stops", func() bool { return r.unit(Service).Active == "deactivating" })
	r.PowerOff()
	if err := <-restarted; err == nil {
		t.Error("a restart went through a power cut")
	}
	if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || r.unit(next).PID != 0 {
		t.Errorf("somebody is left: %+v, %+v", r.unit(Service), r.unit(next))
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the port is open")
	}
	must(t, r.PowerOn())
	if u := r.unit(Service); u.Active != "inactive" || u.Invocation != "" || u.Stopped {
		t.Errorf("after the boot: %+v", u)
	}
	must(t, r.Start(t.Context(), Service))
	if tally := counted(t, Traffic{Address: address}); tally.Failed > 0 {
		t.Errorf("%v: %q", tally, tally.First)
	}
}

// counted is one request.
func counted(t *testing.T, tr Traffic) Tally {
	t.Helper()
	c := &counting{}
	tr.one(c, httpClient(), tr.get, false)
	return c.tally
}

// TestRemoteIsKilled: what a process has asked for is done though it be killed.
func TestRemoteIsKilled(t *testing.T) {
	r := newRig(t, "exit-on-stop-slow 500ms", "good", Config{})
	must(t, r.Start(t.Context(), Service), r.Serve(filepath.Join(r.home, "u")))
	before := r.unit(Service).Invocation
	cmd, _ := other(t, "restart", filepath.Join(r.home, "u"))
	eventually(t, "it stops", func() bool { return r.unit(Service).Active == "deactivating" })
	must(t, cmd.Process.Kill())
	eventually(t, "it runs anew", func() bool { u := r.unit(Service); return u.Active == "active" && u.Invocation != before })
	c, err := Dial(filepath.Join(r.home, "u"))
	must(t, err)
	if err := c.Start(t.Context(), "other.service"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an unknown unit: %v", err)
	}
	st, err := c.State(t.Context(), Service)
	if err != nil || st != r.unit(Service).state() {
		t.Errorf("%+v, %v", st, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Restart(ctx, Service); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a restart that takes longer: %v", err)
	}
	if _, err := Dial(filepath.Join(r.home, "none")); err == nil {
		t.Error("there is nobody")
	}
}

// TestNothingIsLeft: neither after Close, in the middle of whatever goes on, nor
// after the supervisor was killed.
func TestNothingIsLeft(t *testing.T) {
	var home string
	var pids []int
	t.Run("closed", func(t *testing.T) {
		for _, mode := range []string{"good", "hang", "wedge-after 0s"} {
			r := newRig(t, mode, "good", Config{StartTimeout: time.Minute, Watchdog: time.Minute, StopTimeout: time.Minute})
			home = r.home
			go r.Start(context.Background(), Service) //nolint:errcheck // it need not end
			eventually(t, "a process", func() bool { return r.unit(Service).PID != 0 })
			pids = append(pids, r.unit(Service).PID)
		}
	})
	if _, err := os.Stat(filepath.Join(home, "r")); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
	r := newRig(t, "good", "good", Config{})
	cmd, line := other(t, "supervise", filepath.Dir(r.slots.Current))
	pid, err := strconv.Atoi(line)
	must(t, err, cmd.Process.Kill())
	for _, pid := range append(pids, pid) {
		eventually(t, fmt.Sprintf("process %d has gone", pid), func() bool { return gone(pid) })
	}
}

// gone: it has ended, though nobody may have asked how yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
