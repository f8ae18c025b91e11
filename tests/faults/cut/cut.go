// Package cut runs a command and stops it at a chosen mutating system call on
// given directories, as a power cut or a SIGKILL would: the call is not made,
// a hook does what it wants to the disks, and everything that the command has
// started is killed. Run once with At 0 to learn how many such calls there are,
// and then for every one of them.
//
// The kernel's seccomp user notification does the work: the calls of the command
// and of its children wait until this process lets them go on. It needs no root,
// unless the command becomes another user. The command is not trusted further
// than a test trusts what it tests: one that maps files into memory, or hands
// its writes to another process, changes them unseen. Nothing is written but
// what the command writes itself.
package cut

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what is run, and where it is stopped.
type Command struct {
	Args  []string // the program and its arguments; the program is looked for in PATH
	Env   []string // nil = this process's
	Dir   string   // "" = this process's
	Watch []string // calls on these directories and below count; they must exist
	At    int      // the call, from 1, that is not made any more; 0 = none
	Hook  func()   // called in its place, while the command stands still; nil = nothing
}

// Result is how a run went.
type Result struct {
	Calls    int           // mutating calls on the directories, the one that was not made included
	Log      []string      // a line for each: "fsync /x/y"
	Cut      bool          // call At was reached
	ExitCode int           // of the command; -1 where a signal ended it
	Output   []byte        // stdout and stderr
	Took     time.Duration // until everything was gone
}

// Points are the calls, from 1, at which a cut can make a difference: of a row
// of equal ones, such as the writes of a long file, the first and the last.
func (r Result) Points() (list []int) {
	for i, line := range r.Log {
		inside := i > 0 && r.Log[i-1] == line && i+1 < len(r.Log) && r.Log[i+1] == line
		if !inside {
			list = append(list, i+1)
		}
	}
	return list
}

// lingers is how long output may be held open by what the command has left
// behind, before it is killed.
const lingers = time.Second

// through is what executes the command. It stands between so that the thread
// that starts it, which holds one of Go's processors meanwhile, never waits for a
// call of its child: a child that cannot execute reports that by a write, and the
// shell can always be executed.
const through = `exec "$@"`

// Run runs the command until it ends, is cut, or ctx ends. It is for one
// goroutine of a process at a time. Nothing of it is
// left afterwards. That the command fails, or cannot be found (127), is no
// error; errors.ErrUnsupported is a kernel that cannot do this.
func Run(ctx context.Context, c Command) (Result, error) {
	if len(c.Args) == 0 {
		return Result{}, errors.New("cut: no command")
	}
	began := time.Now()
	list := calls()
	w, err := newWatch(c.Watch, list)
	if err != nil {
		return Result{}, fmt.Errorf("cut: %w", err)
	}
	if _, err := os.ReadDir(cmp.Or(c.Dir, ".")); err != nil { // see through
		return Result{}, fmt.Errorf("cut: %w", err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", through, "sh"}, c.Args...)...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = c.Env, c.Dir, lingers
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	f := &follower{command: c, watch: w, pids: map[int]bool{}}
	if err := f.start(cmd, program(list)); err != nil {
		return Result{}, fmt.Errorf("cut: %w", err)
	}
	stop := context.AfterFunc(ctx, f.kill)
	err = cmd.Wait()
	stop()
	f.kill()
	if lost := f.end(); lost != nil {
		return f.result, fmt.Errorf("cut: %w", lost)
	}
	f.result.ExitCode, f.result.Output, f.result.Took = cmd.ProcessState.ExitCode(), output.Bytes(), time.Since(began)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return f.result, fmt.Errorf("cut: %w", context.Cause(ctx))
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return f.result, fmt.Errorf("cut: %w", err)
	}
	return f.result, nil
}

// follower answers the calls of one run.
type follower struct {
	command  Command
	watch    *watch
	listener int
	wake     *os.File // closed to end the following
	woken    *os.File
	thread   uint32     // that has the filter, and starts the command
	followed chan error // gives the error of the following, once

	result Result // the following goroutine's until followed has given

	mu    sync.Mutex
	group int          // process group of the command
	pids  map[int]bool // processes that were seen
}

// start starts cmd from a thread of its own, which has the filter and ends.
func (f *follower) start(cmd *exec.Cmd, p []unix.SockFilter) (err error) {
	if f.woken, f.wake, err = os.Pipe(); err != nil {
		return err
	}
	defer noCollection()()
	installed, started := make(chan error), make(chan error)
	defer f.gone()
	go func() {
		// Never unlocked: the thread, and the filter with it, ends with the goroutine.
		runtime.LockOSThread()
		f.thread = uint32(unix.Gettid())
		var err error
		f.listener, err = install(p)
		installed <- err
		if err == nil {
			// The calls of this thread wait as well, so that somebody must
			// answer before anything is started.
			<-installed
			started <- cmd.Start()
		}
	}()
	if err := <-installed; err != nil {
		f.wake.Close()
		f.woken.Close()
		return err
	}
	f.followed = make(chan error, 1)
	go func() { f.followed <- f.follow() }()
	installed <- nil
	if err := <-started; err != nil {
		return errors.Join(err, f.end())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.group = cmd.Process.Pid
	return nil
}

// noCollection keeps the garbage collector away until it is told otherwise. To
// stop the world it waits for the thread with the filter, which in a call of the
// runtime's own waits for an answer, which nobody gives while the world stands
// still.
func noCollection() (again func()) {
	was := debug.SetGCPercent(-1)
	runtime.GC() // the end of one that runs
	return func() { debug.SetGCPercent(was) }
}

// gone waits until the thread with the filter has ended. The main one never
// does: it sleeps from then on.
func (f *follower) gone() {
	task := filepath.Join(proc, "self", "task", strconv.Itoa(int(f.thread)))
	for end := time.Now().Add(lingers); int(f.thread) != os.Getpid() && time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if _, err := os.Stat(task); f.thread == 0 || err != nil {
			return
		}
	}
}

// end waits until nothing is followed any more.
func (f *follower) end() error {
	f.wake.Close()
	err := <-f.followed
	f.woken.Close()
	unix.Close(f.listener) //nolint:errcheck // nobody waits there any more
	return err
}

// follow answers call after call until it is woken.
func (f *follower) follow() error {
	on := []unix.PollFd{{Fd: int32(f.listener), Events: unix.POLLIN}, {Fd: int32(f.woken.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(on, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			f.kill()
			return fmt.Errorf("wait for a call: %w", err)
		case on[0].Revents&unix.POLLIN != 0:
			if err := f.next(); err != nil {
				f.kill() // or it would wait for us for ever
				return err
			}
		case on[1].Revents != 0:
			return nil
		case on[0].Revents != 0: // nobody is left that could call
			on[0].Fd = -1
		}
	}
}

func (f *follower) next() error {
	n, err := receive(f.listener)
	if errors.Is(err, unix.ENOENT) { // it was interrupted before we came
		return nil
	}
	if err != nil {
		return fmt.Errorf("receive a call: %w", err)
	}
	if n.tid == f.thread { // it may hold what we would need to look: package testing logs what is opened
		return reply(f.listener, n, 0)
	}
	f.see(int(n.tid))
	line, ours := f.watch.concerns(n)
	if !ours {
		return reply(f.listener, n, 0)
	}
	if f.result.Cut { // it was under way to us when everything was killed
		return reply(f.listener, n, unix.EIO)
	}
	f.result.Calls++
	f.result.Log = append(f.result.Log, line)
	if f.result.Calls != f.command.At {
		return reply(f.listener, n, 0)
	}
	f.result.Cut = true
	if f.command.Hook != nil {
		f.command.Hook()
	}
	f.kill()
	return nil
}

// see remembers the process of a thread: it may have left the group.
func (f *follower) see(tid int) {
	f.mu.Lock()
	known := f.pids[tid]
	f.mu.Unlock()
	if known {
		return
	}
	pid, _ := strconv.Atoi(status(tid, "Tgid")) //nolint:errcheck // 0 for one that has gone
	f.mu.Lock()
	defer f.mu.Unlock()
	if pid != os.Getpid() {
		f.pids[tid] = true
		f.pids[pid] = true
	}
}

// kill ends whatever the command has started, as far as it was seen.
func (f *follower) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.group != 0 {
		unix.Kill(-f.group, unix.SIGKILL) //nolint:errcheck // there may be nobody left
	}
	for pid := range f.pids {
		// A thread's number is none of a process's own; and one that was given
		// to somebody else meanwhile has no filter.
		if status(pid, "Tgid") == strconv.Itoa(pid) && status(pid, "Seccomp") == "2" {
			unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // the same
		}
	}
}

// status is a field of a process's /proc/PID/status, "" where it has gone.
func status(pid int, field string) string {
	data, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status")) //nolint:errcheck // "" says so
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
