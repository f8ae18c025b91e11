package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"whisper-appliance/internal/decode"
)

// confined as first argument makes this test binary confine itself and say
// what it can still do.
const confined = "confined"

// attempt is what a confined process found: "" for what worked, else the error.
type attempt struct {
	Sandbox decode.Sandbox
	Outcome map[string]string
}

func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == confined {
		if err := tryAll(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tryAll confines this process to input and then tries what it must not.
func tryAll(input, secret, listener string) error {
	cat, err := exec.LookPath("cat")
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", listener) // what is open stays
	if err != nil {
		return err
	}
	in, err := os.OpenFile(input, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	system := Linux()
	limits := decode.Limits{Timeout: 10 * time.Second}
	ro, got, err := system.Confine(in, cat, limits)
	if err != nil {
		return err
	}
	say := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	run := func(args ...string) string {
		cmd := exec.Command(cat, args...)
		cmd.ExtraFiles = []*os.File{ro}
		out, err := cmd.CombinedOutput()
		if err == nil && string(out) != "the input" {
			err = fmt.Errorf("read %q", out)
		}
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return ""
	}
	var other error // of a second thread: the rules have to hold for all
	done := make(chan struct{})
	go func() { defer close(done); _, other = os.ReadFile(secret) }()
	<-done
	_, read := os.ReadFile(secret)
	_, again := os.OpenFile(input, os.O_WRONLY, 0)
	_, list := os.ReadDir(filepath.Dir(secret))
	_, write := ro.WriteAt([]byte("x"), 0)
	create := os.WriteFile(filepath.Join(filepath.Dir(input), "new"), nil, 0o600)
	_, tcp := net.Dial("tcp", listener)
	_, udp := net.Dial("udp", listener)
	_, local := net.Dial("unix", filepath.Join(filepath.Dir(input), "sock"))
	_, passwd := os.Open("/etc/passwd")
	signal := syscall.Kill(os.Getppid(), 0)
	_, sent := io.WriteString(conn, "x")
	out := attempt{got, map[string]string{
		"child reads input": run(filepath.Join(system.FDDir, "3")), "child reads secret": run(secret), "child reads passwd": run("/etc/passwd"),
		"read secret": say(read), "read secret on another thread": say(other), "open input for writing": say(again), "list directory": say(list),
		"write input": say(write), "create file": say(create), "read passwd": say(passwd),
		"dial tcp": say(tcp), "dial udp": say(udp), "dial unix": say(local), "signal parent": say(signal), "use open connection": say(sent),
		"limits": say(checkLimits()),
	}}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func checkLimits() error {
	for which, want := range map[int]uint64{unix.RLIMIT_AS: decode.DefaultMemory, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: openFiles, unix.RLIMIT_CPU: 13} {
		var got syscall.Rlimit
		if err := syscall.Getrlimit(which, &got); err != nil {
			return err
		}
		if got.Cur != want {
			return fmt.Errorf("limit %d is %d, want %d", which, got.Cur, want)
		}
	}
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); on != 1 {
		return fmt.Errorf("no_new_privs is %d, %v", on, err)
	}
	return nil
}

func TestConfine(t *testing.T) {
	got := runConfined(t)
	denied := func(what string) {
		if got.Outcome[what] == "" {
			t.Errorf("%s worked", what)
		}
	}
	works := func(what string) {
		if e := got.Outcome[what]; e != "" {
			t.Errorf("%s: %s", what, e)
		}
	}
	works("child reads input")
	works("use open connection")
	works("limits")
	denied("write input")
	t.Run("seccomp", func(t *testing.T) {
		if !got.Sandbox.Seccomp {
			t.Skip("this kernel has no seccomp filters")
		}
		for _, what := range []string{"dial tcp", "dial udp", "dial unix"} {
			if e := got.Outcome[what]; !strings.Contains(e, "operation not permitted") {
				t.Errorf("%s: %q, want it not permitted", what, e)
			}
		}
	})
	t.Run("landlock", func(t *testing.T) {
		if got.Sandbox.Landlock == 0 {
			t.Skip("this kernel has no landlock")
		}
		for _, what := range []string{"read secret", "read secret on another thread", "open input for writing", "list directory",
			"create file", "read passwd", "child reads secret", "child reads passwd"} {
			if e := got.Outcome[what]; !strings.Contains(strings.ToLower(e), "permission denied") {
				t.Errorf("%s: %q, want permission denied", what, e)
			}
		}
		if got.Sandbox.Landlock >= 6 {
			denied("signal parent")
		}
	})
}

// runConfined starts the confined process in a directory with an input, a
// secret and a socket, beside a TCP listener.
func runConfined(t *testing.T) attempt {
	t.Helper()
	dir := t.TempDir()
	input, secret := filepath.Join(dir, "input"), filepath.Join(dir, "secret")
	for name, content := range map[string]string{input: "the input", secret: "the secret"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	local, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	out, err := exec.Command(os.Args[0], confined, input, secret, tcp.Addr().String()).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	var got attempt
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if content, _ := os.ReadFile(input); string(content) != "the input" {
		t.Errorf("the input is now %q", content)
	}
	t.Logf("landlock %d, seccomp %v, %s", got.Sandbox.Landlock, got.Sandbox.Seccomp, got.Sandbox.Level())
	return got
}

// TestFilter runs the filter's few instructions by hand.
func TestFilter(t *testing.T) {
	filter := denyFilter(7, []uint32{41, 101})
	for _, tt := range []struct {
		arch, call uint32
		allowed    bool
	}{{7, 0, true}, {7, 41, false}, {7, 101, false}, {7, 102, true}, {8, 0, false}, {7, x32 + 1, false}, {7, x32 + 41, false}} {
		got := interpret(t, filter, map[uint32]uint32{offsetArch: tt.arch, offsetCall: tt.call})
		if (got == unix.SECCOMP_RET_ALLOW) != tt.allowed {
			t.Errorf("architecture %d, call %d: %#x", tt.arch, tt.call, got)
		}
	}
}

func interpret(t *testing.T, program []unix.SockFilter, data map[uint32]uint32) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		in := program[pc]
		yes := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[in.K]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= in.K
		default:
			t.Fatalf("instruction %#x", in.Code)
		}
		if yes {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("the filter ran out")
	return 0
}
