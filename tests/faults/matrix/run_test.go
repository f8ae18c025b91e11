//go:build e2e && faults

package matrix

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/tests/faults/supervise"
)

// running is an updater at work.
type running struct {
	w      *world
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
	began  time.Time
	killed bool // a fault point, or the test, has killed it
}

// begin starts a job, with faults as package faultpoint words them.
func (w *world) begin(what string, fault ...string) *running {
	w.Helper()
	r := &running{w: w, cmd: exec.Command(os.Args[0]), ended: make(chan struct{}), began: time.Now()}
	r.cmd.Env = w.env(what, fault...)
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	must(w, r.cmd.Start())
	go func() {
		defer close(r.ended)
		r.cmd.Wait() //nolint:errcheck // ProcessState has it
	}()
	return r
}

// end waits for its end.
func (r *running) end() (exit int, output string) {
	r.w.Helper()
	select {
	case <-r.ended:
	case <-time.After(jobLimit):
		r.cmd.Process.Signal(syscall.SIGQUIT) //nolint:errcheck // its goroutines tell why
		<-r.ended
		r.w.Fatalf("a job did not end within %v:\n%s", jobLimit, r.output.String())
	}
	if ws, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.killed = true
		return -1, r.output.String()
	}
	return r.cmd.ProcessState.ExitCode(), r.output.String()
}

func (r *running) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// pause is how long a fault point waits for the test to come.
const pause = "slow 400ms"

// at does something while the job stands still at a fault point for which it
// was given the pause; false where it has ended before it came there.
func (r *running) at(point string, act func()) bool {
	r.w.Helper()
	for r.waits(point) {
		if r.over() {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
	must(r.w, r.cmd.Process.Signal(syscall.SIGSTOP))
	act()
	must(r.w, r.cmd.Process.Signal(syscall.SIGCONT))
	return true
}

// waits tells whether the fault at a point is still to come.
func (r *running) waits(point string) bool {
	data, err := os.ReadFile(r.w.faults)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.w.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, point+" ") {
			return true
		}
	}
	return false
}

// kill is a SIGKILL from outside.
func (r *running) kill() {
	r.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-r.ended
	r.killed = true
}

// until waits for what happens by itself, false where it does not in time.
func (w *world) until(limit time.Duration, is func() bool) bool {
	for end := time.Now().Add(limit); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// unit is a unit's state.
func (w *world) unit(name string) supervise.Unit {
	w.Helper()
	u, err := w.sup.Unit(context.Background(), name)
	must(w, err)
	return u
}

// load is traffic on the port.
func (w *world) load() (end func() supervise.Tally) {
	return supervise.Traffic{Address: w.sup.Address(), Kept: 2, Fresh: 2, Uploads: 1, Pace: 5 * time.Millisecond, Limit: 20 * time.Second}.Begin()
}

// settle is what systemd does about an updater that has died in a transaction:
// it is started anew, until it ends well.
func (w *world) settle() (tries int, output string) {
	w.Helper()
	for tries = 1; ; tries++ {
		exit, output := w.do("settle")
		if exit == 0 {
			return tries, output
		}
		if tries == 5 {
			w.Errorf("recovery does not end: %d, %s", exit, output)
			return tries, output
		}
	}
}
