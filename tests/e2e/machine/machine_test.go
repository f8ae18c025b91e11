//go:build e2e

package machine

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var checkout = filepath.Join("..", "..", "..")

func start(t *testing.T, o Options) *Machine {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	root, err := filepath.Abs(checkout)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), root, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

// TestMachine: systemd is number 1 and well, what is written stays over a
// reboot, and nothing of it stays behind.
func TestMachine(t *testing.T) {
	for _, o := range []Options{
		{Suite: "bookworm", Unprivileged: true},
		{Suite: "trixie", Unprivileged: true},
		{Suite: "bookworm", Unprivileged: true, NoNamespaces: true},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			m := start(t, o)
			ctx := t.Context()
			if m.State != "running" && !o.NoNamespaces {
				t.Errorf("systemd is %s:\n%v", m.State, m.Run(ctx, "systemctl", "--failed"))
			}
			t.Logf("up in %v", m.Booted)
			if err := m.Write(ctx, "/srv/deep/file", 0o640, strings.NewReader("it stays")); err != nil {
				t.Fatal(err)
			}
			if err := m.Reboot(ctx); err != nil {
				t.Fatal(err)
			}
			r := m.Sh(ctx, `stat -c '%a %U' /srv/deep/file; cat /srv/deep/file; exit 3`)
			if r.Out != "640 root\nit stays" || r.Code != 3 {
				t.Errorf("after a reboot: %v", r)
			}
			restricted := m.Run(ctx, "systemd-run", "--wait", "--quiet", "unshare", "--mount", "true").Code != 0
			if restricted != o.NoNamespaces {
				t.Errorf("namespaces forbidden: %v, want %v", restricted, o.NoNamespaces)
			}
		})
	}
}

// TestLook: the journal, a unit's memory, its network, and a command that is
// given up.
func TestLook(t *testing.T) {
	m := start(t, Options{Suite: "bookworm", Unprivileged: true})
	ctx := t.Context()
	r := m.Sh(ctx, `
		cd /run/systemd/system
		printf '[Socket]\nListenStream=127.0.0.1:7007\nAccept=yes\n' >e2e-echo.socket
		printf '[Service]\nExecStart=cat\nStandardInput=socket\n' >e2e-echo@.service
		systemctl daemon-reload
		systemctl start e2e-echo.socket
		printf 'MESSAGE=a part failed\nCOMPONENT=ffmpeg\n' | logger --journald`)
	if r.Code != 0 {
		t.Fatal(r)
	}
	conn, err := m.Dial(ctx, "tcp", "127.0.0.1:7007")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "who is there")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "who is there\n" {
		t.Errorf("the echo says %q, %v", line, err)
	}
	sizes, err := m.Pss("e2e-echo")
	if err != nil || len(sizes) != 1 {
		t.Fatalf("Pss: %v, %v", sizes, err)
	}
	for unit, size := range sizes {
		if size < 50<<10 || size > 10<<20 {
			t.Errorf("%s has %d bytes", unit, size)
		}
	}
	entries, err := m.Journal(ctx, "--grep=a part failed")
	if err != nil || len(entries) != 1 || entries[0]["COMPONENT"] != "ffmpeg" {
		t.Errorf("journal: %v, %v", entries, err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if r := m.Run(short, "sleep", "60"); r.Code != -1 || !strings.Contains(r.Err, "sleep 60") {
		t.Errorf("a command that was given up: %v", r)
	}
	gone, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for m.Run(ctx, "pgrep", "-x", "sleep").Code == 0 {
		if pause(gone); gone.Err() != nil {
			t.Fatal("it still runs")
		}
	}
}

// TestFiles: a difference of two lists is what was done between them.
func TestFiles(t *testing.T) {
	m := start(t, Options{Suite: "bookworm", Unprivileged: true})
	ctx := t.Context()
	before, err := m.Files(ctx, "/var/log", "/tmp")
	if err != nil {
		t.Fatal(err)
	}
	m.Sh(ctx, `mkdir /opt/new; echo text >/opt/new/file; ln -s file /opt/new/link; touch /tmp/not-looked-at`)
	after, err := m.Files(ctx, "/var/log", "/tmp")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, line := range before {
		known[line] = true
	}
	var fresh []string
	for _, line := range after {
		if !known[line] {
			fresh = append(fresh, line)
		}
	}
	want := "/opt/new d 755 root:root\n/opt/new/file f 644 root:root 5\n/opt/new/link l file"
	if got := strings.Join(fresh, "\n"); got != want {
		t.Errorf("new:\n%s\nwant:\n%s", got, want)
	}
}

// TestKilled: a machine ends with the process that booted it, however that
// ends, and the next start removes what it left.
func TestKilled(t *testing.T) {
	if os.Getenv("WA_E2E_HOLD") != "" {
		m := start(t, Options{Suite: "bookworm", Unprivileged: true})
		fmt.Printf("machine %s %d\n", m.dir, m.leader)
		<-t.Context().Done() // it is killed before
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "WA_E2E_HOLD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var leader int
	if _, err := fmt.Fscanf(out, "machine %s %d\n", &dir, &leader); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait() //nolint:errcheck // killed
	gone := func() bool { _, err := os.Stat(procFile(leader)); return err != nil }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !gone() && ctx.Err() == nil {
		pause(ctx)
	}
	if !gone() {
		t.Fatalf("process %d of the machine is still there", leader)
	}
	removeStale(filepath.Dir(dir))
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	for _, hierarchy := range hierarchies() {
		if _, err := os.Stat(filepath.Join(hierarchy, groupOf(dir))); err == nil {
			t.Errorf("its control group is still in %s", hierarchy)
		}
	}
}
