package supervise

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"whisper-appliance/internal/fault"
)

// service is one unit with a process.
type service struct {
	s       *Supervisor
	name    string // as the gate calls it
	program string
	sockets []string // units, in the order in which they are handed down
	closes  string   // socket that is closed when this has ended; "" = none
	restart bool
	gate    bool
	journal journal

	mu   sync.Mutex
	unit Unit
	life *life // nil while it is inactive or failed
	off  bool  // nothing is started
}

// life is from a start to the stop, or to a failure without a restart.
type life struct {
	stop    chan struct{} // closed when somebody wants it to end
	cut     chan struct{} // closed when the power goes
	kick    chan struct{} // somebody wants the next attempt now
	ended   chan struct{}
	attempt *attempt // under the service's mu
}

// attempt is one start; done is closed when err tells how it went.
type attempt struct {
	done chan struct{}
	err  error
	told bool
}

func (v *service) now() Unit {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unit
}

func (v *service) set(change func(u *Unit)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.unit)
}

func (v *service) reset() {
	v.set(func(u *Unit) {
		u.Restarts = 0
		if u.Active == "failed" {
			u.Active, u.Sub, u.Result = "inactive", "dead", "success"
		}
	})
}

// start begins a life, or joins the attempt of the one there is.
func (v *service) start(ctx context.Context) error {
	for _, socket := range v.sockets {
		if err := v.s.sockets.open(socket); err != nil {
			return err
		}
	}
	v.mu.Lock()
	l := v.life
	switch {
	case v.off:
		v.mu.Unlock()
		return noPower(v.unit.Name)
	case l == nil:
		l = &life{stop: make(chan struct{}), cut: make(chan struct{}), kick: make(chan struct{}, 1), ended: make(chan struct{}), attempt: newAttempt()}
		v.life = l
		v.unit.Restarts, v.unit.Stopped, v.unit.Active, v.unit.Sub = 0, false, "activating", "start-pre"
		v.s.work.Go(func() { v.live(l) })
	case v.unit.Sub == "auto-restart":
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	a := l.attempt
	v.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return unfinished("start", v.unit.Name, context.Cause(ctx))
	}
}

// stop ends the life there is.
func (v *service) stop(ctx context.Context) error {
	v.mu.Lock()
	l := v.life
	v.unit.Stopped = true
	if l != nil {
		shut(l.stop)
	}
	v.mu.Unlock()
	if l == nil {
		return nil
	}
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return unfinished("stop", v.unit.Name, context.Cause(ctx))
	}
}

// power takes it away: what runs is killed without a word, and nothing starts.
// Or gives it back: the unit is as it is after a boot.
func (v *service) power(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.off = !on
	if on {
		v.unit = fresh(v.unit.Name)
	} else if v.life != nil {
		shut(v.life.cut)
		shut(v.life.stop)
	}
}

// shut closes c once.
func shut(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

func newAttempt() *attempt { return &attempt{done: make(chan struct{})} }

// tell ends the wait of those who have started it; the first word counts.
func (v *service) tell(l *life, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a := l.attempt; !a.told {
		a.told, a.err = true, err
		close(a.done)
	}
}

// live runs the program again and again, as Restart= says.
func (v *service) live(l *life) {
	defer v.finish(l)
	for {
		end := v.once(l)
		v.tell(l, fault.New(fault.Unavailable, "job_failed", "start %s: it failed (%s)", v.now().Name, end.result))
		again := v.restart && !end.stopped && !end.prevents()
		v.set(func(u *Unit) {
			u.PID, u.Result, u.Exit = 0, end.result, end.exit
			switch {
			case again:
				u.Active, u.Sub = "activating", "auto-restart"
				l.attempt = newAttempt() // who starts it now waits for the next one
			case end.result != success:
				u.Active, u.Sub = "failed", "failed"
			default:
				u.Active, u.Sub = "inactive", "dead"
			}
		})
		if !again || !v.pause(l) {
			return
		}
	}
}

// pause waits for RestartSec, false where it is to stop.
func (v *service) pause(l *life) bool {
	timer := time.NewTimer(v.s.config.RestartPause)
	defer timer.Stop()
	select {
	case <-l.stop:
		v.set(func(u *Unit) { u.Active, u.Sub = "inactive", "dead" })
		return false
	case <-l.kick:
	case <-timer.C:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unit.Restarts++
	return true
}

func (v *service) finish(l *life) {
	v.tell(l, fault.New(fault.Unavailable, "job_failed", "start %s: it was stopped", v.now().Name))
	if v.closes != "" {
		v.s.sockets.shut(v.closes)
	}
	v.mu.Lock()
	v.life = nil
	v.mu.Unlock()
	close(l.ended)
}

// The results of a run, as systemd words them in $SERVICE_RESULT.
const (
	success   = "success"
	exitCode  = "exit-code"
	signaled  = "signal"
	coreDump  = "core-dump"
	timeout   = "timeout"
	watchdog  = "watchdog"
	protocol  = "protocol"
	resources = "resources"
)

// end is how a run ended.
type end struct {
	result  string
	exit    int
	code    string // exited, killed or dumped; "" where no process was made
	status  string // its exit status, or its signal by name
	stopped bool   // somebody wanted it to
}

// env is what systemd tells ExecStopPost= of it.
func (e end) env(invocation string) []string {
	env := []string{"SERVICE_RESULT=" + e.result, "INVOCATION_ID=" + invocation}
	if e.code != "" {
		env = append(env, "EXIT_CODE="+e.code, "EXIT_STATUS="+e.status)
	}
	return env
}

// prevents: nothing is started again by itself after exit statuses that say that
// somebody has to change something.
func (e end) prevents() bool { return e.result == exitCode && (e.exit == 64 || e.exit == 78) }

// once is one run, from the gate before to the gate after it.
func (v *service) once(l *life) end {
	v.set(func(u *Unit) {
		u.Active, u.Sub, u.Invocation, u.Status = "activating", "start-pre", newInvocation(), ""
	})
	v.runGate(l.stop, "start")
	e := end{result: success, stopped: true}
	select {
	case <-l.stop:
	default:
		e = v.process(l)
	}
	v.set(func(u *Unit) { u.PID, u.Active, u.Sub = 0, "deactivating", "stop-post" })
	v.runGate(l.cut, "ended", e.env(v.now().Invocation)...)
	return e
}

// process starts the program and follows it to its end.
func (v *service) process(l *life) end {
	p, err := v.spawn()
	if err != nil {
		v.journal.Write([]byte(err.Error() + "\n")) //nolint:errcheck // into memory
		return end{result: resources}
	}
	defer p.release()
	v.set(func(u *Unit) { u.PID, u.Sub = p.pid, "start" })
	late := time.NewTimer(v.s.config.StartTimeout)
	defer late.Stop()
	for ready := false; !ready; {
		select {
		case <-l.stop:
			return v.terminate(l, p, syscall.SIGTERM, end{result: success, stopped: true})
		case <-late.C:
			return v.terminate(l, p, syscall.SIGTERM, end{result: timeout})
		case <-p.exited:
			e := p.end()
			if e.result == success {
				e.result = protocol
			}
			return e
		case said := <-p.said:
			ready = v.heed(said, nil)
		}
	}
	v.runGate(l.stop, "ready")
	v.set(func(u *Unit) { u.Active, u.Sub = "active", "running" })
	v.tell(l, nil)
	return v.follow(l, p)
}

// follow waits for the end of a process that is up.
func (v *service) follow(l *life, p *process) end {
	dog := time.NewTimer(v.s.config.Watchdog)
	defer dog.Stop()
	for {
		select {
		case <-l.stop:
			v.set(func(u *Unit) { u.Active, u.Sub = "deactivating", "stop-sigterm" })
			return v.terminate(l, p, syscall.SIGTERM, end{result: success, stopped: true})
		case <-dog.C:
			v.set(func(u *Unit) { u.Kills++; u.Active, u.Sub = "deactivating", "stop-watchdog" })
			return v.terminate(l, p, syscall.SIGABRT, end{result: watchdog})
		case <-p.exited:
			return p.end()
		case said := <-p.said:
			v.heed(said, dog)
		}
	}
}

// heed takes what a process says of itself, true where it says that it is ready.
func (v *service) heed(said string, dog *time.Timer) (ready bool) {
	for line := range strings.Lines(said) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch {
		case key == "READY" && value == "1":
			ready = true
		case key == "STATUS":
			v.set(func(u *Unit) { u.Status = value })
		case key == "WATCHDOG" && value == "1" && dog != nil:
			dog.Reset(v.s.config.Watchdog)
		}
	}
	return ready
}

// terminate asks a process to go, and kills it where it does not. What it was
// ended for counts, unless it had to be killed at a stop.
func (v *service) terminate(l *life, p *process, sig syscall.Signal, e end) end {
	p.signal(sig)
	late := time.NewTimer(v.s.config.StopTimeout)
	defer late.Stop()
	select {
	case <-p.exited:
	case <-l.cut:
		p.kill()
	case <-late.C:
		p.kill()
		if e.result == success {
			e.result = timeout
		}
	}
	<-p.exited
	by := p.end()
	e.exit, e.code, e.status = by.exit, by.code, by.status
	return e
}

// gateLimit is how long the gate may take: its longest pause, and more.
const gateLimit = 30 * time.Second

// runGate runs the gate script, until stop.
func (v *service) runGate(stop <-chan struct{}, verb string, env ...string) {
	c := v.s.config
	if !v.gate || c.Gate == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), gateLimit)
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	cmd := exec.CommandContext(ctx, "/bin/sh", c.Gate, verb, v.name)
	cmd.Env = append([]string{"PATH=" + c.Path, "GATE_HOME=" + c.Home, "GATE_RUN=" + v.s.Path("gate")}, env...)
	if c.Package != "" {
		cmd.Env = append(cmd.Env, "GATE_PACKAGE="+c.Package)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its sleep, too
	cmd.Stdout, cmd.Stderr = &v.journal, &v.journal
	cmd.Run() //nolint:errcheck // what it says is in the journal, and nothing depends on its status
}

// newInvocation is another id for every start, 32 digits as systemd's.
func newInvocation() string {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	return hex.EncodeToString(b[:])
}
