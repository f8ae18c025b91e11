//go:build e2e

package programs

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/tests/appliance"
)

// makeRun is the script of make run with the built slot and its models.
func makeRun(t *testing.T, state, port string) (cmd *exec.Cmd, errOut *bytes.Buffer) {
	t.Helper()
	build := filepath.Join(root(t), "build")
	errOut = &bytes.Buffer{}
	cmd = exec.CommandContext(t.Context(), filepath.Join(root(t), "tests", "run.sh"),
		filepath.Join(build, "slot"), filepath.Join(build, "models"), state, port)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = errOut
	return cmd, errOut
}

func freePort(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	_, port, _ := net.SplitHostPort(free.Addr().String())
	return port
}

// TestMakeRun: the reference clip's text, then Ctrl-C. State directories may
// be called anything.
func TestMakeRun(t *testing.T) {
	_, want := reference(t)
	for name, state := range map[string]string{
		"usual":    filepath.Join(t.TempDir(), "state"),
		"spaces":   filepath.Join(t.TempDir(), "my own state"),
		"too long": filepath.Join(t.TempDir(), strings.Repeat("s", 100)), // for a socket
	} {
		t.Run(name, func(t *testing.T) {
			cmd, errOut := makeRun(t, state, freePort(t))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, len(want))
			if _, err := io.ReadFull(out, line); err != nil || string(line) != want {
				t.Errorf("printed %q, %v; want %q\n%s", line, err, want, errOut)
			}
			if name == "usual" {
				refusesASecond(t, state)
			}
			cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Errorf("after Ctrl-C: %v\n%s", err, errOut)
			}
		})
	}
}

// refusesASecond: one that runs with the same state is not taken for ours.
func refusesASecond(t *testing.T, state string) {
	t.Helper()
	cmd, errOut := makeRun(t, state, freePort(t))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 75 || len(out) > 0 || !strings.Contains(errOut.String(), "STATE=") {
		t.Errorf("a second with the same state: %v, printed %q\n%s", err, out, errOut)
	}
}

// TestMakeRunOnAPortInUse: another appliance's answers are not ours.
func TestMakeRunOnAPortInUse(t *testing.T) {
	a := start(t, appliance.Options{})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(a.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	cmd, errOut := makeRun(t, t.TempDir(), port)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() <= 0 || len(out) > 0 || !strings.Contains(errOut.String(), port) {
		t.Errorf("%v, printed %q\n%s", err, out, errOut)
	}
}
