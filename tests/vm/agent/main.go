// Command agent runs as root in a virtual machine and carries out what the
// tests ask for over HTTP: commands, connections, and the wish to lose the power
// at a moment that only the machine itself can see. It trusts whoever knows the
// token that the kernel's command line carries, and writes nothing of its own.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	address   = ":7001"
	lastWords = time.Second          // for the output of a command that was killed
	lookEvery = 2 * time.Millisecond // shorter than the shortest phase of an update
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run() error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	token := ""
	for word := range strings.FieldsSeq(string(line)) {
		if value, ok := strings.CutPrefix(word, "vm.token="); ok {
			token = value
		}
	}
	if token == "" {
		return errors.New("the kernel's command line carries no vm.token=")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", command)
	mux.HandleFunc("GET /dial", dial)
	mux.HandleFunc("POST /cut", cut)
	server := &http.Server{Addr: address, ReadHeaderTimeout: 30 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != token {
				http.Error(w, "who are you?", http.StatusForbidden)
				return
			}
			mux.ServeHTTP(w, r)
		})}
	return server.ListenAndServe()
}

// result is how a command went; Code is -1 where it could not run or was killed.
type result struct {
	Out, Err string
	Code     int
}

// command runs the words of the queries "arg" with the body as its input, until
// its end or the client's.
func command(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()["arg"]
	if len(args) == 0 {
		http.Error(w, "no command", http.StatusBadRequest)
		return
	}
	cmd := exec.CommandContext(r.Context(), args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8",
		"SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive"}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.Body, &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lastWords
	err := cmd.Run()
	res := result{Out: stdout.String(), Err: stderr.String(), Code: -1}
	if cmd.ProcessState != nil {
		res.Code = cmd.ProcessState.ExitCode()
	}
	if res.Code == -1 {
		res.Err += fmt.Sprintf("%s: %v\n", strings.Join(args, " "), err)
	}
	json.NewEncoder(w).Encode(res) //nolint:errcheck // the client has left
}

// dial connects the client with an address of this machine.
func dial(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	there, err := (&net.Dialer{}).DialContext(r.Context(), query.Get("network"), query.Get("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: stream\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(there, buffered) //nolint:errcheck // the one that ends first
		halfClose(there)
	}()
	io.Copy(here, there) //nolint:errcheck // likewise
	halfClose(here)
	// Whoever still sends may do so for a while, to be told of the end.
	here.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a socket has one
	<-done
}

func halfClose(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() //nolint:errcheck // it is closed already
	}
}

// cut answers when it looks at the file "path", and writes a byte to the serial
// line that means "pull the plug" when its content has matched "pattern", and
// the time "after" has passed.
func cut(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	pattern, err := regexp.Compile(query.Get("pattern"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	after, err := time.ParseDuration(query.Get("after"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	line, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	go func() {
		defer line.Close()
		if look(context.Background(), query.Get("path"), pattern) == nil {
			time.Sleep(after)       // the moment that was asked for
			line.Write([]byte{'!'}) //nolint:errcheck // whoever waits gives up
		}
	}()
	w.WriteHeader(http.StatusNoContent)
}

// look waits for the file's content. No file yet is none.
func look(ctx context.Context, path string, pattern *regexp.Regexp) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if data, err := os.ReadFile(path); err == nil && pattern.Match(data) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
