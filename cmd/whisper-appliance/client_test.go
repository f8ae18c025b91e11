package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/paths"
)

func TestClientOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	if len(dir) > 80 {
		t.Skip("TMPDIR is too long for a socket")
	}
	file := put(t, filepath.Join(dir, "file"), "", 0o600)
	left, live := filepath.Join(dir, "left.sock"), filepath.Join(dir, "live.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: live, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for socket, want := range map[string]string{
		filepath.Join(dir, "none.sock"):    "none",
		left:                               "none",
		live:                               "one",
		filepath.Join(file, "api.sock"):    "socket_unreachable",
		"/" + strings.Repeat("long/", 100): "socket_unreachable",
	} {
		a := &app{paths: paths.Paths{APISocket: socket}}
		c, ok, err := a.client(context.Background())
		got := map[bool]string{true: "one", false: "none"}[ok]
		if f, is := errors.AsType[*fault.Error](err); is {
			got = f.Code
		}
		if got != want || (c != nil) != ok {
			t.Errorf("%s: %s, want %s (%v)", socket, got, want, err)
		}
	}
}

// TestClosedSocketIsNoAbsence: what may not be reached may well run.
func TestClosedSocketIsNoAbsence(t *testing.T) {
	err := unreachable("api.sock", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)})
	if fault.KindOf(err) != fault.Forbidden || !strings.Contains(fault.Hint(err), "--alone") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
	if os.Geteuid() == 0 {
		t.Skip("root is let in everywhere")
	}
	dir := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(dir, 0); err != nil {
		t.Fatal(err)
	}
	a := &app{paths: paths.Paths{APISocket: filepath.Join(dir, "api.sock")}}
	if _, ok, err := a.client(context.Background()); ok || fault.KindOf(err) != fault.Forbidden {
		t.Errorf("%v, %v", ok, err)
	}
}

// TestStatusOverHTTPS: an appliance's own certificate is taken by its
// fingerprint, from the flag or from the variable.
func TestStatusOverHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"status":"ok","version":"9.9","whisper_available":true}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	sum := sha256.Sum256(s.Certificate().Raw)
	print := hex.EncodeToString(sum[:])
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	t.Setenv("CONFIGURATION_DIRECTORY", t.TempDir())
	t.Setenv("CACHE_DIRECTORY", t.TempDir())
	for _, tt := range []struct {
		variable, args string
		code           int
		says           string
	}{
		{"", "--url " + s.URL, exitNoPerm, "--fingerprint"},
		{"", "--fingerprint " + print + " --url " + s.URL, exitOK, "version 9.9"},
		{print, "--url " + s.URL, exitOK, "version 9.9"},
		{print, "--fingerprint " + strings.Repeat("00", 32) + " --url " + s.URL, exitNoPerm, "another"},
		{"", "--fingerprint " + print, exitUsage, "--url"},
		{"", "--url ftp://x", exitData, "http://"},
	} {
		t.Setenv(fingerprintVariable, tt.variable)
		var out bytes.Buffer
		code := run(context.Background(), append([]string{"status"}, strings.Fields(tt.args)...), &out, &out)
		if code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("%q status %s: exit code %d, want %d with %s\n%s", tt.variable, tt.args, code, tt.code, tt.says, out.String())
		}
	}
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	p := paths.Paths{Kind: paths.Standalone, State: filepath.Join(dir, "s"), Models: filepath.Join(dir, "s/models"),
		Spool: filepath.Join(dir, "s/spool"), TLS: filepath.Join(dir, "s/tls"), Run: filepath.Join(dir, "s/run")}
	if got := (&app{paths: p}).spool("temporary"); got != p.Spool {
		t.Errorf("%s, want %s", got, p.Spool)
	}
	if left, err := os.ReadDir(p.Spool); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	p.State = filepath.Join(dir, "installed")
	p.Kind, p.Spool = paths.Installed, filepath.Join(p.State, "spool")
	if got := (&app{paths: p}).spool("temporary"); got != "temporary" {
		t.Errorf("%s where there is no spool", got)
	}
	if _, err := os.Stat(p.State); err == nil {
		t.Error("the installed appliance's directory was made")
	}
}
