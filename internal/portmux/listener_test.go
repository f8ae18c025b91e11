package portmux

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listen opens a socket on loopback.
func listen(t *testing.T) net.Listener {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

// serverTLS makes a configuration with a certificate for loopback, and a pool
// that trusts it.
func serverTLS(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// noLeak fails the test when goroutines of this package are left at its end.
func noLeak(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if after := runtime.NumGoroutine(); after > before {
			stacks := make([]byte, 1<<16)
			t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// serve runs an HTTP server on mux and ends it in the order that loses nothing.
func serve(t *testing.T, mux *Listener, handler http.HandlerFunc) (stop func()) {
	t.Helper()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(mux) }()
	return func() {
		mux.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v, want net.ErrClosed", err)
		}
		server.SetKeepAlivesEnabled(false)
		// Shutdown hangs up on requests that it sees arriving: let them end first.
		for grace := time.Now().Add(DefaultDrainTimeout); mux.Stats().Open > 0 && time.Now().Before(grace); {
			time.Sleep(time.Millisecond)
		}
		if err := server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

// proto answers with the protocol and whether TLS carried it.
func proto(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s tls=%t", r.Proto, r.TLS != nil)
}

func TestBothProtocolsOnOnePort(t *testing.T) {
	noLeak(t)
	config, pool := serverTLS(t)
	mux := New(listen(t), config)
	defer serve(t, mux, proto)()
	for _, c := range []struct {
		name, scheme string
		h2           bool
		want         string
	}{
		{"plain", "http", false, "HTTP/1.1 tls=false"},
		{"TLS", "https", false, "HTTP/1.1 tls=true"},
		{"HTTP/2", "https", true, "HTTP/2.0 tls=true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: c.h2}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(c.scheme + "://" + mux.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := readAll(t, resp.Body); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestWithoutTLSAllBytesPass(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	defer mux.Close()
	client := dial(t, mux)
	io.WriteString(client, "\x16rest")
	server, err := mux.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	if got := readAll(t, server); got != "\x16rest" {
		t.Errorf("got %q, want %q", got, "\x16rest")
	}
	server.Close()
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSilentClientsDelayNobody(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	defer serve(t, mux, proto)()
	for range 20 {
		dial(t, mux)
	}
	start := time.Now()
	if got := get(mux.Addr().String()); got != "HTTP/1.1 tls=false" {
		t.Errorf("got %q", got)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a request beside silent clients took %v", took)
	}
}

// get makes one request on a connection of its own; it returns the body, or
// the error as text.
func get(address string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + address)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestSilentClientIsClosed(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	mux.ClassifyTimeout = 50 * time.Millisecond
	defer serve(t, mux, proto)()
	client := dial(t, mux)
	client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want the connection closed", err)
	}
	eventually(t, "one silent client counted", func() bool { return mux.Stats().Silent == 1 })
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// The deadline for the first byte must not stay on the connection.
func TestSlowAfterTheFirstByteIsNotClosed(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	mux.ClassifyTimeout = 60 * time.Millisecond
	defer serve(t, mux, proto)()
	client := dial(t, mux)
	io.WriteString(client, "G")
	eventually(t, "classified", func() bool { s := mux.Stats(); return s.Open == 1 && s.Pending == 0 })
	<-time.After(2 * mux.ClassifyTimeout)
	io.WriteString(client, "ET / HTTP/1.0\r\n\r\n")
	if got := readAll(t, client); !strings.HasPrefix(got, "HTTP/1.0 200") {
		t.Errorf("answer %q", got)
	}
}

func TestNothingSentThenClosed(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	defer serve(t, mux, proto)()
	for range 50 {
		dial(t, mux).Close()
	}
	eventually(t, "all counted and closed", func() bool {
		s := mux.Stats()
		return s.Silent == 50 && s.Open == 0 && s.Pending == 0
	})
	if got := get(mux.Addr().String()); got != "HTTP/1.1 tls=false" {
		t.Errorf("after them: %q", got)
	}
}

func TestFloodOfSilentClients(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	mux.MaxPending, mux.MaxConns = 16, 64
	defer serve(t, mux, proto)()
	for i := range 90 {
		dial(t, mux)
		if i%30 == 29 {
			if got := get(mux.Addr().String()); got != "HTTP/1.1 tls=false" {
				t.Fatalf("after %d silent clients: %q", i+1, got)
			}
		}
	}
	eventually(t, "the oldest evicted", func() bool { return mux.Stats().Evicted >= 90-16 })
	if s := mux.Stats(); s.Pending > 16 || s.Open > 64 {
		t.Errorf("%+v, want at most 16 pending and 64 open", s)
	}
}

func TestMaxConnsWaitsForRoom(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	mux.MaxConns = 2
	defer mux.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := mux.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		io.WriteString(dial(t, mux), "x")
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection came though two are open")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // a second Close gives back nothing more
	third := <-accepted
	if got := mux.Stats().Open; got != 2 {
		t.Errorf("%d open, want 2", got)
	}
	second.Close()
	third.Close()
	mux.Close()
	if _, more := <-accepted; more {
		t.Error("a connection after Close")
	}
}

func TestUnixSocketPassesThrough(t *testing.T) {
	noLeak(t)
	config, _ := serverTLS(t)
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	mux := New(inner, config)
	client, err := net.Dial("unix", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := mux.Accept() // before any byte was sent
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, ok := server.(*net.UnixConn); !ok {
		t.Errorf("Accept gave %T, want *net.UnixConn for its peer credentials", server)
	}
	mux.Close()
	if _, err := mux.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// An answer given before the body was read must reach the client.
func TestRefusalOfAnUnreadBodyArrives(t *testing.T) {
	noLeak(t)
	mux := New(listen(t), nil)
	defer serve(t, mux, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})()
	client := dial(t, mux)
	const size = 8 << 20
	fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
	go client.Write(make([]byte, size))
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body := readAll(t, resp.Body); resp.StatusCode != 413 || !strings.Contains(body, "too large") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// scripted is a listener whose Accept returns errors one after another.
type scripted struct {
	net.Listener
	errs []error
}

func (s *scripted) Accept() (net.Conn, error) {
	if len(s.errs) == 0 {
		return s.Listener.Accept()
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return nil, err
}

func TestPassingErrorsAreHandedOn(t *testing.T) {
	noLeak(t)
	full := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	mux := New(&scripted{listen(t), []error{full, full}}, nil)
	for range 2 {
		if _, err := mux.Accept(); !errors.Is(err, syscall.EMFILE) {
			t.Fatalf("Accept: %v, want EMFILE", err)
		}
	}
	io.WriteString(dial(t, mux), "x")
	c, err := mux.Accept()
	if err != nil {
		t.Fatalf("Accept after passing errors: %v", err)
	}
	c.Close()
	mux.Close()
}

func TestLastingErrorEndsIt(t *testing.T) {
	noLeak(t)
	gone := errors.New("the interface is gone")
	mux := New(&scripted{listen(t), []error{gone}}, nil)
	for range 2 {
		if _, err := mux.Accept(); !errors.Is(err, gone) {
			t.Errorf("Accept: %v, want %v", err, gone)
		}
	}
	mux.Close()
}

func TestTLSConfigIsNotChanged(t *testing.T) {
	config, _ := serverTLS(t)
	inner := listen(t)
	defer inner.Close()
	New(inner, config)
	if len(config.NextProtos) != 0 {
		t.Errorf("NextProtos of the caller's configuration became %q", config.NextProtos)
	}
}
