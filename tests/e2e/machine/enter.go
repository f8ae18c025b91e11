package machine

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lastWords = time.Second     // for the output of a command that was killed
	runLimit  = 3 * time.Minute // for a command, whatever its context says
)

// Result is how a command in a machine went.
type Result struct {
	Out, Err string
	Code     int // its exit code; -1 where it could not run or was killed
}

// String is the result in one piece, for the words of a failing test.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.Code, r.Out, r.Err)
}

// Run runs a command in the machine as its root, with an environment of its
// own, and waits for it until the end of ctx, three minutes at most.
func (m *Machine) Run(ctx context.Context, args ...string) Result { return m.run(ctx, nil, args) }

// Sh runs a script of POSIX sh there, which ends at the first failing command.
func (m *Machine) Sh(ctx context.Context, script string, args ...string) Result {
	return m.run(ctx, nil, append([]string{"sh", "-euc", script, "sh"}, args...))
}

// Feed is Sh with something to read for the script.
func (m *Machine) Feed(ctx context.Context, in io.Reader, script string, args ...string) Result {
	return m.run(ctx, in, append([]string{"sh", "-euc", script, "sh"}, args...))
}

func (m *Machine) run(ctx context.Context, in io.Reader, args []string) Result {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	enter := []string{"--target", strconv.Itoa(m.leader), "--all", "--", "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8",
		"SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &stdout, &stderr
	// nsenter is the parent of what it runs: both are ended, as one group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lastWords
	err := cmd.Run()
	r := Result{Out: stdout.String(), Err: stderr.String(), Code: -1}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	if r.Code == -1 {
		r.Err += fmt.Sprintf("%s: %v\n", strings.Join(args, " "), err)
	}
	return r
}

// Write makes a file of the machine, and the directories above it.
func (m *Machine) Write(ctx context.Context, path string, mode os.FileMode, content io.Reader) error {
	const script = `mkdir -p "$(dirname "$1")"; cat >"$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"`
	r := m.run(ctx, content, []string{"sh", "-euc", script, "sh", path, fmt.Sprintf("%o", mode.Perm())})
	if r.Code != 0 {
		return fmt.Errorf("write %s in the machine: %v", path, r)
	}
	return nil
}

// CopyIn makes path a copy of a file of the host.
func (m *Machine) CopyIn(ctx context.Context, host, path string, mode os.FileMode) error {
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.Write(ctx, path, mode, f)
}

// Dial connects to an address in the machine, whose network is its own.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	// An address of numbers is dialled by the very thread that asks.
	return within(m, func() (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, network, address) })
}

// Listen listens at an address of the machine.
func (m *Machine) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return within(m, func() (net.Listener, error) { return (&net.ListenConfig{}).Listen(ctx, network, address) })
}

// within calls do on a thread in the machine's network.
func within[T any](m *Machine, do func() (T, error)) (T, error) {
	type result struct {
		made T
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: a thread in another network must not be used again,
		// and ends with this goroutine.
		runtime.LockOSThread()
		var r result
		if r.err = enterNetwork(m.leader); r.err == nil {
			r.made, r.err = do()
		}
		done <- r
	}()
	r := <-done
	return r.made, r.err
}

func enterNetwork(leader int) error {
	namespace, err := os.Open(procFile(leader, "ns", "net"))
	if err != nil {
		return fmt.Errorf("the machine is down: %w", err)
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the machine's network: %w", err)
	}
	return nil
}

// Client speaks HTTP and HTTPS with servers in the machine, whose certificates
// it takes as they come.
func (m *Machine) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         m.Dial,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true},
		MaxIdleConnsPerHost: 64,
	}}
}

// Entry is one of the journal, its text fields by name: MESSAGE, _PID.
type Entry map[string]string

// Journal reads the machine's journal as journalctl selects with args.
func (m *Machine) Journal(ctx context.Context, args ...string) ([]Entry, error) {
	r := m.Run(ctx, append([]string{"journalctl", "--no-pager", "--quiet", "--all", "--output=json"}, args...)...)
	if r.Code != 0 {
		return nil, fmt.Errorf("read the journal: %v", r)
	}
	var entries []Entry
	for line := range strings.Lines(r.Out) {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		entry := Entry{}
		for name, value := range fields {
			var text string
			if json.Unmarshal(value, &text) == nil { // lists and bytes are nothing for a test
				entry[name] = text
			}
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Files lists what the machine's root file system holds, except below the
// directories named: for each a line "path type mode owner:group size",
// of a link "path l target". Only files have a size.
func (m *Machine) Files(ctx context.Context, except ...string) ([]string, error) {
	args := []string{"find", "/", "-xdev"}
	for _, dir := range except {
		args = append(args, "-path", filepath.Clean(dir), "-prune", "-o")
	}
	args = append(args,
		"-type", "f", "-printf", `%p f %m %u:%g %s\n`, "-o",
		"-type", "l", "-printf", `%p l %l\n`, "-o",
		"-printf", `%p %y %m %u:%g\n`)
	r := m.Run(ctx, args...)
	if r.Code != 0 {
		return nil, fmt.Errorf("list the machine's files: %v", r)
	}
	files := strings.Split(strings.TrimSpace(r.Out), "\n")
	slices.Sort(files)
	return files, nil
}
