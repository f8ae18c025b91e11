package machine

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const runLimit = 10 * time.Minute // for a command, whatever its context says

// Result is how a command in a machine went.
type Result struct {
	Out, Err string
	Code     int // its exit code; -1 where it could not run or was killed
}

// String is the result in one piece, for the words of a failing test.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.Code, r.Out, r.Err)
}

func (m *Machine) newAgent() *http.Client {
	address := net.JoinHostPort("127.0.0.1", m.port)
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		DisableKeepAlives: true, // a connection may lead to a machine that is no more
	}}
}

// ask sends the agent a request.
func (m *Machine) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://machine"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", m.token)
	return m.agent.Do(req)
}

// Run runs a command in the machine as its root, with an environment of its
// own, and waits for it until the end of ctx, ten minutes at most.
func (m *Machine) Run(ctx context.Context, args ...string) Result { return m.run(ctx, nil, args) }

// Sh runs a script of POSIX sh there, which ends at the first failing command.
func (m *Machine) Sh(ctx context.Context, script string, args ...string) Result {
	return m.run(ctx, nil, append([]string{"sh", "-euc", script, "sh"}, args...))
}

func (m *Machine) run(ctx context.Context, in io.Reader, args []string) Result {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	lost := func(err error) Result {
		return Result{Code: -1, Err: fmt.Sprintf("%s: %v\n", strings.Join(args, " "), err)}
	}
	res, err := m.ask(ctx, http.MethodPost, "/run?"+url.Values{"arg": args}.Encode(), in)
	if err != nil {
		return lost(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return lost(fmt.Errorf("the machine says %s", res.Status))
	}
	var r Result
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		return lost(err)
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

// Read gives a file of the machine.
func (m *Machine) Read(ctx context.Context, path string) (string, error) {
	r := m.Run(ctx, "cat", path)
	if r.Code != 0 {
		return "", fmt.Errorf("read %s in the machine: %v", path, r)
	}
	return r.Out, nil
}

// Dial connects to an address in the machine, as a program there would.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", m.port))
	if err != nil {
		return nil, fmt.Errorf("the machine is down: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	query := url.Values{"network": {network}, "address": {address}}
	fmt.Fprintf(conn, "GET /dial?%s HTTP/1.1\r\nHost: machine\r\nAuthorization: %s\r\nConnection: Upgrade\r\nUpgrade: stream\r\n\r\n", query.Encode(), m.token)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) //nolint:errcheck // what there is
		err = fmt.Errorf("the machine says %s: %s", res.Status, strings.TrimSpace(string(said)))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial %s in the machine: %w", address, err)
	}
	return &stream{conn, in}, nil
}

// stream is a connection of which the first bytes may have been read already.
type stream struct {
	net.Conn
	in *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.in.Read(p) }

// Client speaks HTTP and HTTPS with servers in the machine, whose certificates
// it takes as they come.
func (m *Machine) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       m.Dial,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
}
