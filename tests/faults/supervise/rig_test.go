//go:build e2e

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/slot"
	"whisper-appliance/tests/faults/fakerelease"
)

// compiled is the maker of all releases of these tests.
var compiled = sync.OnceValues(func() (*fakerelease.Maker, error) {
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return fakerelease.Compile(context.Background(), dir)
})

// job is the variable that makes this program another process of a test.
const job = "SUPERVISE_TEST_JOB"

func TestMain(m *testing.M) {
	if what := os.Getenv(job); what != "" {
		if err := jobs(what); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// jobs are what the other process does.
func jobs(what string) error {
	switch what {
	case "restart":
		c, err := Dial(os.Getenv("SUPERVISE_TEST_AT"))
		if err != nil {
			return err
		}
		fmt.Println("asking")
		return c.Restart(context.Background(), Service)
	case "supervise":
		s, err := Open(Config{Home: os.Getenv("SUPERVISE_TEST_AT"), Run: filepath.Join(os.Getenv("SUPERVISE_TEST_AT"), "r")})
		if err != nil {
			return err
		}
		if err := s.Start(context.Background(), Service); err != nil {
			return err
		}
		u, err := s.Unit(context.Background(), Service)
		fmt.Println(u.PID)
		if err == nil {
			select {} // until it is killed
		}
		return err
	}
	return errors.New("no such job")
}

// other starts this program for a job; its first line comes with it.
func other(t *testing.T, what, at string) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), job+"="+what, "SUPERVISE_TEST_AT="+at)
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	b := make([]byte, 100)
	n, err := out.Read(b)
	must(t, err)
	return cmd, strings.TrimSpace(string(b[:n]))
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what happens by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

const grace = 50 * time.Millisecond

// rig is an appliance with release 1.0.0 in slot a, which serves, and 2.0.0 in b.
type rig struct {
	t     *testing.T
	home  string
	slots *slot.Slots
	*Supervisor
}

func newRig(t *testing.T, modeA, modeB string, c Config) *rig {
	t.Helper()
	maker, err := compiled()
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "wa")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, home: dir, slots: slot.Of(filepath.Join(dir, "slots"), filepath.Join(dir, "current"), filepath.Join(dir, "stable"), filepath.Join(dir, "golden"))}
	r.slots.Owned = false
	reference := map[string]string{}
	if wav, err := os.ReadFile("../../testdata/reference.wav"); err == nil {
		text, err := os.ReadFile("../../testdata/reference.txt")
		must(t, err)
		reference[string(wav)] = strings.TrimSpace(string(text))
	}
	for name, mode := range map[string]string{"slots/a": modeA, "slots/b": modeB, "golden": "good"} {
		version := map[string]string{"slots/a": "1.0.0", "slots/b": "2.0.0", "golden": "0.9.0"}[name]
		_, err := maker.Make(t.Context(), filepath.Join(dir, name), fakerelease.Release{Version: version, Mode: mode, Grace: grace, Known: reference})
		must(t, err)
	}
	must(t, r.slots.Prepare(), r.slots.Activate(slot.A), r.slots.Commit(slot.A))
	c.Home, c.Run = dir, filepath.Join(dir, "r")
	r.Supervisor = New(t, c)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("journal:\n%s", r.Journal(Service))
		}
	})
	return r
}

// withGate is a rig whose gate is the project's own.
func withGate(t *testing.T, modeA, modeB string) *rig {
	t.Helper()
	gate, err := filepath.Abs("../../../units/gate")
	must(t, err)
	tools := t.TempDir() // in which a second is short
	must(t, os.WriteFile(filepath.Join(tools, "sleep"), []byte("#!/bin/sh\nexec /bin/sleep 0.1\n"), 0o755))
	return newRig(t, modeA, modeB, Config{Gate: gate, Path: tools + ":" + os.Getenv("PATH"), StartTimeout: 300 * time.Millisecond, Watchdog: 300 * time.Millisecond, StopTimeout: 150 * time.Millisecond, RestartPause: 20 * time.Millisecond})
}

func (r *rig) unit(name string) Unit {
	r.t.Helper()
	u, err := r.Unit(r.t.Context(), name)
	must(r.t, err)
	return u
}

// ask is a request at one of the sockets; status 0 where it is not answered.
func (r *rig) ask(socket, path string) (status int, body string) {
	r.t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.Path(socket))
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 500 * time.Millisecond}
	res, err := c.Get("http://x" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(r.t, err)
	return res.StatusCode, string(data)
}

func (r *rig) serves(version string) bool {
	_, body := r.ask("api.sock", "/api/status")
	return strings.Contains(body, `"version":"`+version+`"`)
}

// swap is the switch of the real code.
func (r *rig) swap(units slot.Units) *slot.Switch {
	return &slot.Switch{Slots: r.slots, Units: units, Service: Service, Next: Next, Engine: Engine, Run: r.config.Run, Socket: r.Path("api.sock"), Proc: "/proc",
		Smoke: func(_ context.Context, socket string) error {
			if status, body := r.ask(filepath.Base(socket), "/readyz"); status != http.StatusOK {
				return fmt.Errorf("status %d: %s", status, body)
			}
			return nil
		}}
}
