package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// box is a machine for one server: its directories are the environment's.
type box struct{ state, config string }

func newBox(t *testing.T) box {
	t.Helper()
	// The names of a test's own directories are too long for sockets.
	dir, err := os.MkdirTemp("", "wa")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := box{filepath.Join(dir, "s"), filepath.Join(dir, "c")}
	if err := errors.Join(os.Mkdir(b.state, 0o755), os.Mkdir(b.config, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STATE_DIRECTORY", b.state)
	t.Setenv("CONFIGURATION_DIRECTORY", b.config)
	t.Setenv("JOURNAL_STREAM", "")
	t.Setenv("WHISPER_APPLIANCE_LOG_FORMAT", "text") // wherever the test runs
	return b
}

func (b box) write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// inTheWay makes a directory where the certificate's lock belongs: nobody can
// open it as a file, not even root.
func (b box) inTheWay(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(b.state, "tls", ".server.lock")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestExitCodes: 78, after which no unit starts the server again, is for what
// somebody has to change. All else may pass.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, b box)
		args  []string
		code  int
		says  string
	}{
		{"unknown setting", func(t *testing.T, b box) { b.write(t, filepath.Join(b.config, "config.toml"), "[server]\nlisen = 1\n") }, nil, exitConfig, "server.listen"},
		{"bad flag value", nil, []string{"--listen", "nowhere"}, exitConfig, "--listen"},
		{"relative directory", func(t *testing.T, _ box) { t.Setenv("STATE_DIRECTORY", "state") }, nil, exitConfig, "full path"},
		{"directory not made ready", func(t *testing.T, b box) { b.write(t, filepath.Join(b.state, "spool"), "a file") }, nil, exitError, "spool"},
		{"port taken", func(t *testing.T, b box) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			t.Setenv("WHISPER_APPLIANCE_SERVER_LISTEN", l.Addr().String())
		}, nil, exitError, "cannot listen"},
		{"unknown flag", nil, []string{"--prot", "1"}, exitUsage, "prot"},
		{"argument", nil, []string{"5001"}, exitUsage, "no arguments"},
		{"version", nil, []string{"--version"}, exitOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			if c.spoil != nil {
				c.spoil(t, b)
			}
			var stderr bytes.Buffer
			err := run(t.Context(), c.args, io.Discard, &stderr)
			if code := exitCode(err, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("code %d, want %d with %q:\n%s", code, c.code, c.says, &stderr)
			}
		})
	}
}

func TestLasting(t *testing.T) {
	for code, want := range map[string]bool{"bad_config": true, "bad_path": true, "tls_mismatch": false, "no_directory": false, "cannot_listen": false, "": false} {
		if got := lasting(fault.New(fault.BadInput, code, "x")); got != want {
			t.Errorf("%q: %t", code, got)
		}
	}
	if lasting(io.EOF) || lasting(nil) {
		t.Error("what has no code lasts")
	}
}

// logged collects the log, for a server that runs beside its test.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// find waits for a line that fits, and gives its first group.
func (l *logged) find(t *testing.T, line string) string {
	t.Helper()
	text := ""
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		text = l.b.String()
		l.mu.Unlock()
		if m := regexp.MustCompile(line).FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	t.Fatalf("%s never came in\n%s", line, text)
	return ""
}

// start runs a server until the test ends, and gives its address and log.
func start(t *testing.T) (addr string, log *logged) {
	t.Helper()
	log = &logged{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"--listen", "127.0.0.1:0"}, io.Discard, log) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		log.find(t, `msg="door closed" address=127\.0\.0\.1:\d+ silent_clients=(\d+)`)
	})
	return log.find(t, `msg=serving address=(127\.0\.0\.1:\d+)`), log
}

func get(t *testing.T, url string) (int, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// TestServes: HTTP and HTTPS on one port, with a certificate made for it.
func TestServes(t *testing.T) {
	t.Setenv("WHISPER_APPLIANCE_LOG_LEVEL", "info")
	newBox(t)
	addr, log := start(t)
	log.find(t, `msg=certificate change=(created)`)
	for _, url := range []string{"http://" + addr, "https://" + addr} {
		if status, err := get(t, url+"/livez"); status != 200 {
			t.Errorf("%s: %d, %v", url, status, err)
		}
	}
	if status, err := get(t, "http://"+addr+"/health"); status != http.StatusServiceUnavailable {
		t.Errorf("health without a model: %d, %v", status, err)
	}
}

// TestServesWithoutTheirCertificate: what the administrator named and nobody
// can read is told, and plain HTTP answers.
func TestServesWithoutTheirCertificate(t *testing.T) {
	b := newBox(t)
	b.write(t, filepath.Join(b.config, "config.toml"), "[tls]\ncertificate = \"/no/cert\"\nkey = \"/no/key\"\n")
	addr, log := start(t)
	log.find(t, `msg="component failed" .*component=(tls) .*cannot be read`)
	if status, err := get(t, "http://"+addr+"/livez"); status != 200 {
		t.Errorf("%d, %v", status, err)
	}
}

// TestReload: SIGHUP takes in what was changed, and keeps what it has where
// that is wrong.
func TestReload(t *testing.T) {
	b := newBox(t)
	_, log := start(t)
	file := filepath.Join(b.config, "config.toml")
	b.write(t, file, "[server]\nmax_connections = 7\n[log]\nlevel = \"debug\"\n")
	hup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hup()
	log.find(t, `msg=(reloaded) needs_restart=server\.max_connections`)
	b.write(t, file, "[server]\nlisen = 1\n")
	hup()
	log.find(t, `msg="changed settings are not (taken) over" .*server\.lisen`)
}

// TestServesWithoutCertificate: a disk that takes none costs HTTPS and no more,
// and the page is not sent there.
func TestServesWithoutCertificate(t *testing.T) {
	newBox(t).inTheWay(t)
	addr, log := start(t)
	log.find(t, `msg="component failed" .*component=(tls) `)
	if status, err := get(t, "http://"+addr+"/livez"); status != 200 {
		t.Errorf("%d, %v", status, err)
	}
	if status, err := get(t, "https://"+addr+"/livez"); err == nil {
		t.Errorf("HTTPS answers %d without a certificate", status)
	}
}
