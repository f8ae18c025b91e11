// Package machine boots small Debian systems, with systemd as PID 1, in which
// the packaged appliance is tested: containers of systemd-nspawn on an overlay
// over a root that tests/e2e/base.sh made. It needs root and trusts what runs
// in its machines as far as nspawn holds it. It writes build/e2e, and a control
// group for each machine; a machine dies with the process that booted it, and
// what it left is removed by the next that starts one.
package machine

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	bootLimit = 60 * time.Second // until systemd has started all it wants
	downLimit = 60 * time.Second // until a machine that was told to go has gone
	pollEvery = 20 * time.Millisecond
)

// boot.sh, given to a shell by its text, so that a program built elsewhere
// finds it.
//
//go:embed boot.sh
var bootScript string

// Options is the sort of machine. The zero value is no machine: name a suite.
type Options struct {
	Suite        string // of Debian: "bookworm", "trixie"
	Unprivileged bool   // its root is nobody on the host, as LXC has it
	NoNamespaces bool   // the host forbids new namespaces, as some LXC hosts do
}

// Machine is one that runs, or is down for a while. Its methods are for one
// goroutine, except Run, Client and what they give.
type Machine struct {
	State  string        // "running" or "degraded", as systemd said after the last boot
	Booted time.Duration // how long the last boot took, until systemd had started all

	opts   Options
	root   string // of the checkout
	dir    string // upper, work, root and console.log
	group  string // name of its control group
	cmd    *exec.Cmd
	ended  chan struct{} // closed when nspawn has gone
	leader int           // process id of its PID 1 here; 0 while it is down
}

// Available says why there can be no machine here: an error for people, nil
// where there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("machines with systemd need root: run this with sudo")
	}
	for _, program := range []string{"systemd-nspawn", "mmdebstrap", "nsenter", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: packaging/setup.sh e2e installs it", program)
		}
	}
	return nil
}

// Start boots a machine of the checkout at root, whose base it has made first
// where that is missing (a minute, and the network). It lives until Stop or
// the end of this process; ctx bounds only the start.
func Start(ctx context.Context, root string, o Options) (*Machine, error) {
	machines := machinesDir(root)
	if err := os.MkdirAll(machines, 0o755); err != nil {
		return nil, err
	}
	removeStale(machines)
	if err := makeBase(ctx, root, o.Suite); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(machines, strconv.Itoa(os.Getpid())+".")
	if err != nil {
		return nil, err
	}
	m := &Machine{opts: o, root: root, dir: dir, group: groupOf(dir)}
	if err = m.prepare(); err == nil {
		err = m.boot(ctx)
	}
	if err != nil {
		m.Stop()
		return nil, fmt.Errorf("boot %s: %w", o.Suite, err)
	}
	return m, nil
}

func machinesDir(root string) string { return filepath.Join(root, "build", "e2e", "machines") }

func makeBase(ctx context.Context, root, suite string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tests", "e2e", "base.sh"), suite)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the base of %s: %w\n%s", suite, err, out)
	}
	return nil
}

// base is the tree that the machine's changes lie over.
func (m *Machine) base() string {
	base := filepath.Join(m.root, "build", "e2e", "base-"+m.opts.Suite)
	if m.opts.Unprivileged {
		base += ".shifted"
	}
	return base
}

// prepare makes the overlay's directories. The upper one stands for the
// machine's root directory, and has its owner.
func (m *Machine) prepare() error {
	if err := os.Chmod(m.dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(m.dir, name), 0o755); err != nil {
			return err
		}
	}
	info, err := os.Stat(m.base())
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Chown(filepath.Join(m.dir, "upper"), int(owner.Uid), int(owner.Gid))
}

// boot starts systemd-nspawn and waits until systemd has started all.
func (m *Machine) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	begin := time.Now()
	if err := m.launch(); err != nil {
		return err
	}
	if err := m.wait(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, m.Console())
	}
	m.Booted = time.Since(begin)
	return nil
}

// launch starts nspawn as number 1 of a namespace of its own, so that all ends
// with it. (The machine's own processes would outlive it: a process that
// changes its user no longer dies with its parent.) The kernel kills it should
// we die; the thread that started it must live as long, which is why one stays
// with it.
func (m *Machine) launch() error {
	console, err := os.OpenFile(m.console(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", bootScript, "boot.sh", m.group, m.dir, m.base()}
	if m.opts.Unprivileged {
		args = append(args, "--private-users=524288:65536", "--private-users-ownership=chown")
	}
	if m.opts.NoNamespaces {
		args = append(args, "--system-call-filter=~unshare")
	}
	cmd := exec.Command("unshare", args...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	ended, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // 133 is a reboot, and the console has the rest
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.cmd, m.ended = cmd, ended
	return nil
}

// wait polls until systemd answers, and then until it has started all.
func (m *Machine) wait(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if m.leader == 0 {
			m.leader = initOf(m.cmd.Process.Pid)
		}
		if m.leader != 0 {
			// "offline" and the like: it has only begun.
			state := strings.TrimSpace(m.Run(ctx, "systemctl", "is-system-running", "--wait").Out)
			if state == "running" || state == "degraded" {
				m.State = state
				return nil
			}
		}
		select {
		case <-m.ended:
			return errors.New("systemd-nspawn ended at once")
		case <-ctx.Done():
			return fmt.Errorf("systemd does not come up: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// initOf is the process that is number 1 in the machine, below the process
// that unshare is; 0 while there is none. Between them is nspawn, itself
// number 1 of the namespace that unshare made.
func initOf(pid int) int {
	tasks, err := filepath.Glob(procFile(pid, "task", "*", "children"))
	if err != nil {
		return 0
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				continue
			}
			if numbers := numbersOf(child); len(numbers) == 3 && numbers[2] == "1" {
				return child
			}
			if found := initOf(child); found != 0 {
				return found
			}
		}
	}
	return 0
}

// numbersOf is what a process is called in each namespace it is in, ours first.
func numbersOf(pid int) []string {
	data, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return strings.Fields(numbers)
		}
	}
	return nil
}

// Reboot has the machine's systemd reboot it, and waits until it is up again.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.down(ctx, "reboot"); err != nil {
		return err
	}
	return m.boot(ctx)
}

// Crash ends all that runs in the machine at once, and boots it again. What was
// written is there: the host's memory was not lost.
func (m *Machine) Crash(ctx context.Context) error {
	m.cmd.Process.Kill() //nolint:errcheck // it has gone already
	<-m.ended
	m.leader = 0
	removeGroup(m.group)
	return m.boot(ctx)
}

// PowerOff has systemd shut the machine down; what it wrote stays until Stop.
func (m *Machine) PowerOff(ctx context.Context) error { return m.down(ctx, "poweroff") }

// down waits until all has gone. systemctl's own answer counts for nothing:
// systemd may be gone before it has one.
func (m *Machine) down(ctx context.Context, verb string) error {
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	m.Run(ctx, "systemctl", verb)
	select {
	case <-m.ended:
		m.leader = 0
		removeGroup(m.group)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: the machine is still there: %w\n%s", verb, ctx.Err(), m.Console())
	}
}

// Stop ends the machine as pulling the plug would, and removes all it wrote. A
// second Stop does nothing more.
func (m *Machine) Stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill() //nolint:errcheck // it has gone already
		<-m.ended
	}
	removeGroup(m.group)
	os.RemoveAll(m.dir) //nolint:errcheck // the next start tries again
}

func (m *Machine) console() string { return filepath.Join(m.dir, "console.log") }

// Console is what systemd-nspawn and systemd wrote to the console.
func (m *Machine) Console() string {
	data, err := os.ReadFile(m.console())
	if err != nil {
		return err.Error()
	}
	return string(data)
}
