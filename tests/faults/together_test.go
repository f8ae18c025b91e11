//go:build e2e

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/faults/cut"
	"whisper-appliance/tests/faults/disk"
	"whisper-appliance/tests/faults/fakerelease"
	"whisper-appliance/tests/faults/supervise"
)

// The variables that make this program the one that changes slots.
const (
	job      = "FAULTS_TEST_JOB"
	homeIs   = "FAULTS_TEST_HOME"
	fromIs   = "FAULTS_TEST_FROM"   // release to place
	socketIs = "FAULTS_TEST_SOCKET" // of the supervisor
	runIs    = "FAULTS_TEST_RUN"
)

func TestMain(m *testing.M) {
	what := os.Getenv(job)
	if what == "" {
		os.Exit(m.Run())
	}
	if err := jobs(context.Background(), what); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// jobs are the real code's.
func jobs(ctx context.Context, what string) error {
	s := slotsIn(os.Getenv(homeIs))
	if what == "place" {
		_, err := s.Place(ctx, os.Getenv(fromIs), slot.B, nil)
		return err
	}
	units, err := supervise.Dial(os.Getenv(socketIs))
	if err != nil {
		return err
	}
	run := os.Getenv(runIs)
	_, err = (&slot.Switch{Slots: s, Units: units, Service: supervise.Service, Next: supervise.Next, Engine: supervise.Engine,
		Run: run, Socket: filepath.Join(run, "api.sock"), Proc: "/proc", Smoke: ready}).To(ctx, slot.B)
	return err
}

func slotsIn(home string) *slot.Slots {
	s := slot.Of(filepath.Join(home, "slots"), filepath.Join(home, "current"), filepath.Join(home, "stable"), filepath.Join(home, "golden"))
	s.Owned, s.Room = false, 1
	return s
}

// get asks the server behind a socket.
func get(ctx context.Context, socket, path string) (string, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(body), err
}

func ready(ctx context.Context, socket string) error {
	_, err := get(ctx, socket, "/readyz")
	return err
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// appliance puts 1.0.0 into slot a of a disk, which serves, and what b holds
// into b, "" for nothing; and gives where 2.0.0 lies.
func appliance(t *testing.T, b string) (d *disk.Disk, s *slot.Slots, next string) {
	t.Helper()
	d = disk.New(t, 96<<20)
	maker := fakerelease.New(t)
	s = slotsIn(d.Dir)
	grace := 30 * time.Millisecond
	for dir, version := range map[string]string{s.Golden: "0.9.0", s.Path(slot.A): "1.0.0", s.Path(slot.B): b} {
		if version != "" {
			_, err := maker.Make(t.Context(), dir, fakerelease.Release{Version: version, Grace: grace})
			must(t, err)
		}
	}
	next, _ = maker.In(t, fakerelease.Release{Version: "2.0.0", Grace: grace})
	must(t, s.Prepare(), s.Activate(slot.A), s.Commit(slot.A))
	return d, s, next
}

// cutEach runs this program for a job, and then once for each of its changes of
// the disk that matters, where the power goes; after is called with the power back.
func cutEach(t *testing.T, d *disk.Disk, what string, env []string, before, off, on func(), after func(at int)) {
	t.Helper()
	c := cut.Command{Args: []string{os.Args[0]}, Env: append(os.Environ(), append(env, job+"="+what, homeIs+"="+d.Dir)...), Watch: []string{d.Dir}}
	run := func() cut.Result {
		t.Helper()
		before()
		r, err := cut.Run(t.Context(), c)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		must(t, err)
		return r
	}
	all := run()
	if all.ExitCode != 0 {
		t.Fatalf("uncut it ends with %d: %s", all.ExitCode, all.Output)
	}
	var failed error
	c.Hook = func() {
		failed = d.Cut()
		off()
	}
	began := time.Now()
	for _, c.At = range all.Points() {
		off()
		must(t, d.Back())
		on()
		r := run()
		must(t, failed)
		if !r.Cut {
			t.Fatalf("call %d of %d was not reached: exit %d, %s\n%s", c.At, all.Calls, r.ExitCode, r.Output, strings.Join(r.Log, "\n"))
		}
		must(t, d.Revive())
		on()
		after(c.At)
		if t.Failed() {
			t.Fatalf("after a cut at call %d, %s", c.At, r.Log[len(r.Log)-1])
		}
	}
	t.Logf("%d cuts at %d calls, %v each", len(all.Points()), all.Calls, time.Since(began)/time.Duration(len(all.Points())))
	off()
	must(t, d.Check())
}

func nothing() {}

// TestPlaceIsCut: a slot is whole or has no release, at whatever change of the
// disk the power goes while one is placed there; the other one is as it was.
func TestPlaceIsCut(t *testing.T) {
	d, s, next := appliance(t, "1.5.0")
	must(t, d.Save())
	seen := map[string]int{}
	cutEach(t, d, "place", []string{fromIs + "=" + next}, nothing, nothing, nothing, func(int) {
		for _, name := range []string{slot.A, slot.B} {
			diffs, m, err := slot.Verify(t.Context(), s.Path(name), slot.Check{})
			if name == slot.B && err != nil {
				m.Version, err = "none", nil
			}
			if err != nil || len(diffs) > 0 {
				t.Errorf("slot %s: %v, %v", name, diffs, err)
			}
			seen[name+" "+m.Version]++
		}
		if serving, err := s.Serving(); serving != slot.A {
			t.Errorf("slot %q serves, %v", serving, err)
		}
	})
	t.Log(seen)
	if seen["b 1.5.0"] == 0 || seen["b 2.0.0"] == 0 {
		t.Errorf("the cuts did not see both: %v", seen)
	}
}

// TestSwitchIsCut: the power goes at each change of the disk that a switch
// makes, under servers that run; after the boot the link's slot serves.
func TestSwitchIsCut(t *testing.T) {
	d, s, _ := appliance(t, "2.0.0")
	must(t, d.Save())
	run, err := os.MkdirTemp("", "wa")
	must(t, err)
	defer os.RemoveAll(run)
	sup := supervise.New(t, supervise.Config{Home: d.Dir, Run: run})
	must(t, sup.Serve(filepath.Join(run, "u")))
	on := func() { must(t, sup.PowerOn(), sup.Start(t.Context(), supervise.Service)) }
	on()
	seen := map[string]int{}
	cutEach(t, d, "switch", []string{socketIs + "=" + filepath.Join(run, "u"), runIs + "=" + run}, nothing, sup.PowerOff, on, func(int) {
		serving, err := s.Serving()
		must(t, err)
		body, err := get(t.Context(), sup.Path("api.sock"), "/api/status")
		if want := map[string]string{slot.A: "1.0.0", slot.B: "2.0.0"}[serving]; err != nil || !strings.Contains(body, `"version":"`+want+`"`) {
			t.Errorf("slot %s should serve: %s %v", serving, body, err)
		}
		seen[serving]++
	})
	t.Log(seen)
}
