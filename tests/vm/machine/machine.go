// Package machine boots small Debian systems in qemu, with a kernel, a disk and
// control groups of their own, in which the packaged appliance is tested where a
// container cannot: limits of memory, and the plug that is pulled. The processor
// is emulated and slow.
//
// It needs root for the base that tests/vm/base.sh makes, and trusts what runs
// in its machines as far as qemu holds it. It writes build/vm; a machine dies
// with the process that booted it, and what it left is removed by the next that
// starts one.
package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"whisper-appliance/tests/vm/disk"
)

const (
	bootLimit = 3 * time.Minute // until systemd has started all it wants
	downLimit = 2 * time.Minute // until a machine that was told to go has gone
	pollEvery = 100 * time.Millisecond
	procDir   = "/proc"

	qemu      = "qemu-system-x86_64"
	agentPort = "7001"
	stickRoom = 64 << 20 // of the stick, beside its files
)

// Options is the sort of machine. Suite and Stick have to be there.
type Options struct {
	Suite  string // of Debian: "bookworm"
	Stick  string // a directory, which the machine finds below Stuck and cannot write; with the program "agent" in it
	Memory int    // MiB; 0 = 1024
	Seed   uint64 // decides what a power cut leaves of what was not flushed
}

// Stuck is where a machine finds what is on its stick.
const Stuck = "/srv/vm"

// Machine is one that runs, or is down for a while. Its methods are for one
// goroutine, except Run, Client and what they give.
type Machine struct {
	State  string        // "running" or "degraded", as systemd said after the last boot
	Booted time.Duration // how long the last boot took, until systemd had started all
	First  time.Duration // how long the first one took
	On     time.Time     // when the power was last switched on

	opts   Options
	root   string // of the checkout
	dir    string // disk, stick, sockets and console.log
	token  string
	disk   *disk.Disk
	plug   net.Listener // qemu's second serial line ends here
	nbd    net.Listener
	cmd    *exec.Cmd
	ended  chan struct{} // closed when qemu has gone
	pulled chan struct{} // closed when the plug was pulled by the machine's own wish
	agent  *http.Client
	port   string // on this host, that leads to the agent
}

// Available says why there can be no machine here: an error for people, nil
// where there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("the base of a virtual machine needs root: run this with sudo")
	}
	for _, program := range []string{qemu, "mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: packaging/setup.sh vm installs it", program)
		}
	}
	return nil
}

// Start boots a machine of the checkout at root, whose base it has made first
// where that is missing (three minutes, and the network). It lives until Stop or
// the end of this process; ctx bounds only the start.
func Start(ctx context.Context, root string, o Options) (*Machine, error) {
	machines := machinesDir(root)
	if err := os.MkdirAll(machines, 0o755); err != nil {
		return nil, err
	}
	removeStale(machines)
	dir, err := os.MkdirTemp(machines, strconv.Itoa(os.Getpid())+".")
	if err != nil {
		return nil, err
	}
	m := &Machine{opts: o, root: root, dir: dir, token: rand.Text()}
	if err = m.prepare(ctx); err == nil {
		err = m.Boot(ctx)
	}
	if err != nil {
		m.Stop()
		return nil, fmt.Errorf("boot %s: %w", o.Suite, err)
	}
	return m, nil
}

func machinesDir(root string) string { return filepath.Join(root, "build", "vm", "machines") }

// base is a file that base.sh made.
func (m *Machine) base(part string) string {
	return filepath.Join(m.root, "build", "vm", "base-"+m.opts.Suite+"."+part)
}

func (m *Machine) file(name string) string { return filepath.Join(m.dir, name) }

// prepare makes disk and stick, and the sockets that qemu connects to.
func (m *Machine) prepare(ctx context.Context) error {
	if err := host(ctx, filepath.Join(m.root, "tests", "vm", "base.sh"), m.opts.Suite); err != nil {
		return err
	}
	if err := host(ctx, "cp", "--sparse=always", "--reflink=auto", m.base("disk"), m.file("disk")); err != nil {
		return err
	}
	if err := makeStick(ctx, m.opts.Stick, m.file("stick")); err != nil {
		return err
	}
	var err error
	if m.disk, err = disk.Open(m.file("disk"), m.opts.Seed); err != nil {
		return err
	}
	if m.nbd, err = net.Listen("unix", m.file("disk.sock")); err != nil {
		return err
	}
	if m.plug, err = net.Listen("unix", m.file("plug.sock")); err != nil {
		return err
	}
	go m.disk.Serve(m.nbd) //nolint:errcheck // the machine's kernel tells of a disk that does not answer
	return nil
}

// makeStick packs a directory into a file system.
func makeStick(ctx context.Context, from, to string) error {
	var size int64
	err := filepath.Walk(from, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	return host(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", from, to, strconv.FormatInt((size+stickRoom)>>10, 10)+"k")
}

// host runs a program on this side.
func host(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Boot switches a machine on that is down, and waits until systemd has started
// all.
func (m *Machine) Boot(ctx context.Context) error {
	if err := m.PowerOn(ctx); err != nil {
		return err
	}
	return m.Settled(ctx)
}

// PowerOn switches a machine on that is down, and waits until it can be asked:
// systemd has mounted its disks then, and started little.
func (m *Machine) PowerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	m.disk.On()
	if err := m.launch(); err != nil {
		return err
	}
	return m.poll(ctx, "the machine does not answer", func() bool { return m.Run(ctx, "true").Code == 0 })
}

// Settled waits until systemd has started all.
func (m *Machine) Settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	return m.poll(ctx, "systemd does not come up", func() bool {
		// "offline" and the like: it has only begun.
		state := strings.TrimSpace(m.Run(ctx, "systemctl", "is-system-running", "--wait").Out)
		if state != "running" && state != "degraded" {
			return false
		}
		m.State, m.Booted = state, time.Since(m.On)
		m.First = cmp.Or(m.First, m.Booted)
		return true
	})
}

// poll asks until it is so.
func (m *Machine) poll(ctx context.Context, not string, so func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !so() {
		select {
		case <-m.ended:
			return fmt.Errorf("%s: qemu has ended\n%s", not, m.Console())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w\n%s", not, ctx.Err(), m.Console())
		case <-tick.C:
		}
	}
	return nil
}

// launch starts qemu. The kernel kills it should we die; the thread that
// started it must live as long, which is why one stays with it.
func (m *Machine) launch() error {
	var err error
	if m.port, err = freePort(); err != nil {
		return err
	}
	m.agent = m.newAgent()
	console, err := os.OpenFile(m.file("console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command(qemu, m.arguments()...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	ended, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() //nolint:errcheck // killed, as a rule
			close(ended)
		}
	}()
	m.On = time.Now()
	if err := <-started; err != nil {
		return err
	}
	m.cmd, m.ended, m.pulled = cmd, ended, make(chan struct{})
	go m.holdPlug(cmd.Process, ended, m.pulled)
	return nil
}

// arguments are qemu's. Two processors that are emulated, and a disk behind
// package disk: "writeback" is what the machine is told, so that it flushes.
func (m *Machine) arguments() []string {
	memory := m.opts.Memory
	if memory == 0 {
		memory = 1024
	}
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "Nehalem", "-smp", "2", "-m", strconv.Itoa(memory),
		"-kernel", m.base("kernel"), "-initrd", m.base("initrd"),
		"-append", "root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off rcupdate.rcu_expedited=1 net.ifnames=0 panic=1 systemd.show_status=no vm.token=" + m.token,
		"-drive", "file.driver=nbd,file.server.type=unix,file.server.path=" + m.file("disk.sock") + ",format=raw,if=none,id=vda,cache=writeback",
		"-device", "virtio-blk-pci,drive=vda,write-cache=on",
		"-drive", "file=" + m.file("stick") + ",format=raw,if=none,id=vdb,readonly=on",
		"-device", "virtio-blk-pci,drive=vdb",
		"-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:" + m.port + "-10.0.2.15:" + agentPort,
		"-device", "virtio-net-pci,netdev=net,romfile=",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
		"-chardev", "file,id=console,path=" + m.file("serial.log") + ",append=on", "-serial", "chardev:console",
		"-chardev", "socket,id=plug,path=" + m.file("plug.sock"), "-serial", "chardev:plug",
	}
}

// freePort is one that nobody listens on. Who takes it before qemu does makes
// qemu end, with its reason in the console.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Reboot has the machine's systemd shut it down, and boots it again.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.PowerOff(ctx); err != nil {
		return err
	}
	return m.Boot(ctx)
}

// PowerOff has systemd shut the machine down; what it wrote stays until Stop.
func (m *Machine) PowerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	m.Run(ctx, "systemctl", "poweroff")
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("power off: the machine is still there: %w\n%s", ctx.Err(), m.Console())
	}
}

// Stop ends the machine and removes all it wrote. A second Stop does nothing
// more.
func (m *Machine) Stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill() //nolint:errcheck // it has gone already
		<-m.ended
	}
	for _, l := range []net.Listener{m.nbd, m.plug} {
		if l != nil {
			l.Close()
		}
	}
	if m.disk != nil {
		m.disk.Close() //nolint:errcheck // it goes
	}
	os.RemoveAll(m.dir) //nolint:errcheck // the next start tries again
}

// Console is what qemu, the kernel and systemd wrote.
func (m *Machine) Console() string {
	var all strings.Builder
	for _, name := range []string{"console.log", "serial.log"} {
		data, err := os.ReadFile(m.file(name))
		if err != nil {
			continue
		}
		all.Write(data)
	}
	return all.String()
}

// RemoveAll removes what the machines of this process have left below the
// checkout at root, for a test run that is broken off: qemu dies with it.
func RemoveAll(root string) {
	removeWhere(machinesDir(root), func(pid string) bool { return pid == strconv.Itoa(os.Getpid()) })
}

func removeStale(machines string) {
	removeWhere(machines, func(pid string) bool {
		_, err := os.Stat(filepath.Join(procDir, pid))
		return err != nil
	})
}

func removeWhere(machines string, holds func(pid string) bool) {
	entries, err := os.ReadDir(machines)
	if err != nil {
		return
	}
	for _, e := range entries {
		if pid, _, _ := strings.Cut(e.Name(), "."); holds(pid) {
			os.RemoveAll(filepath.Join(machines, e.Name())) //nolint:errcheck // the next start tries again
		}
	}
}
