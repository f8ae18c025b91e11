package cert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

var day0 = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a machine whose clock, names and addresses the test sets.
type world struct {
	now       time.Time
	hosts     []string
	addresses []netip.Addr
}

func newWorld() *world {
	return &world{
		now:       day0,
		hosts:     []string{"box.lan.example", "box", "box.local"},
		addresses: addrs("192.0.2.7", "2001:db8::7"),
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// manager is a new process in that world.
func (w *world) manager(dir string) *Manager {
	return &Manager{
		Dir:       dir,
		Now:       func() time.Time { return w.now },
		Hostnames: func(context.Context) []string { return w.hosts },
		Addresses: func() ([]netip.Addr, error) { return w.addresses, nil },
	}
}

// refresh is one attempt that must succeed and change what is said.
func refresh(t *testing.T, m *Manager, want Change) Event {
	t.Helper()
	event, err := m.Refresh(t.Context())
	if err != nil {
		t.Fatalf("Refresh: %v", err)
	}
	if event.Change != want {
		t.Fatalf("change %q (%s), want %q", event.Change, event.Reason, want)
	}
	return event
}

func served(t *testing.T, m *Manager) *tls.Certificate {
	t.Helper()
	c, err := m.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFirstStart(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	w.addresses = append(w.addresses, addrs("fe80::1%eth0", "fe80::2", "169.254.3.4", "224.0.0.1", "0.0.0.0", "127.0.0.1", "::ffff:192.0.2.7")...)
	m := w.manager(dir)
	m.Names = []string{"Speech.Example.org", "*.example.net", "198.51.100.9"}
	event := refresh(t, m, Created)
	want := []string{
		"*.example.net", "box", "box.lan.example", "box.local", "localhost", "speech.example.org",
		"127.0.0.1", "192.0.2.7", "198.51.100.9", "::1", "2001:db8::7",
	}
	if !slices.Equal(event.Names, want) {
		t.Errorf("names\n%q, want\n%q", event.Names, want)
	}
	leaf := served(t, m).Leaf
	key, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
	switch {
	case leaf.Subject.CommonName != "box.lan.example":
		t.Errorf("common name %q", leaf.Subject.CommonName)
	case leaf.IsCA || !leaf.BasicConstraintsValid:
		t.Error("it is a CA or does not say that it is none")
	case !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}):
		t.Errorf("extended key usage %v", leaf.ExtKeyUsage)
	case !isECDSA || key.Curve != elliptic.P256():
		t.Errorf("key %T", leaf.PublicKey)
	case leaf.NotAfter.Sub(leaf.NotBefore) > 825*24*time.Hour:
		t.Errorf("valid for %v, more than Apple's systems allow", leaf.NotAfter.Sub(leaf.NotBefore))
	case leaf.NotBefore.After(day0.Add(-time.Hour)):
		t.Errorf("valid from %v: a client whose clock lags would refuse it", leaf.NotBefore)
	}
	wantMode(t, filepath.Join(dir, keyName), 0o600)
	wantMode(t, filepath.Join(dir, certName), 0o644)
}

func wantMode(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != mode {
		t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode().Perm(), mode)
	}
}

func TestSecondStartKeepsIt(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	made := refresh(t, w.manager(dir), Created)
	m := w.manager(dir)
	if got := refresh(t, m, Loaded); got.Fingerprint != made.Fingerprint {
		t.Errorf("fingerprint %s became %s", made.Fingerprint, got.Fingerprint)
	}
	refresh(t, m, None)
}

func TestRenewal(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
		want   Change
		reason string
	}{
		{"nothing", func(w *world) {}, None, ""},
		{"new address", func(w *world) { w.addresses = addrs("192.0.2.99") }, Renewed, "the address 192.0.2.99"},
		{"address gone", func(w *world) { w.addresses = nil }, None, ""},
		{"new name", func(w *world) { w.hosts = []string{"Attic"} }, Renewed, "the name attic"},
		{"unusable name", func(w *world) { w.hosts = append(w.hosts, "my box", "") }, None, ""},
		{"a year later", func(w *world) { w.now = day0.AddDate(1, 0, 0) }, None, ""},
		{"31 days left", func(w *world) { w.now = day0.Add(Lifetime - 32*24*time.Hour) }, None, ""},
		{"29 days left", func(w *world) { w.now = day0.Add(Lifetime - 30*24*time.Hour) }, Renewed, "it ends on 2029-05-28"},
		{"long over", func(w *world) { w.now = day0.AddDate(20, 0, 0) }, Renewed, "it ends on"},
		{"clock was ahead", func(w *world) { w.now = day0.AddDate(0, -6, 0) }, Renewed, "the clock was ahead"},
		{"clock lost", func(w *world) { w.now = time.Unix(42, 0) }, None, ""},
		{"clock lost, new address", func(w *world) { w.now, w.addresses = time.Unix(42, 0), addrs("192.0.2.99") }, Renewed, "the address 192.0.2.99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, w := t.TempDir(), newWorld()
			m := w.manager(dir)
			refresh(t, m, Created)
			before := served(t, m)
			c.change(w)
			event := refresh(t, m, c.want)
			after := served(t, m)
			if !strings.Contains(event.Reason, c.reason) {
				t.Errorf("reason %q, want %q in it", event.Reason, c.reason)
			}
			if changed := Fingerprint(before) != Fingerprint(after); changed != (c.want == Renewed) {
				t.Errorf("another certificate is served: %t", changed)
			}
			if !before.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(after.Leaf.PublicKey) {
				t.Error("the key changed")
			}
			refresh(t, m, None)
			refresh(t, w.manager(dir), Loaded)
		})
	}
}

// A laptop between home and office needs one certificate for both, and people
// who trusted it are not asked again.
func TestGoingBackNeedsNoNewOne(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := w.manager(dir)
	refresh(t, m, Created)
	home, hosts := w.addresses, w.hosts
	w.addresses, w.hosts = addrs("198.51.100.4"), []string{"box.office.example"}
	both := refresh(t, m, Renewed)
	for _, name := range []string{"192.0.2.7", "2001:db8::7", "198.51.100.4", "box.local", "box.office.example"} {
		if !slices.Contains(both.Names, name) {
			t.Errorf("%q lacks %s", both.Names, name)
		}
	}
	if c := served(t, m).Leaf.Subject.CommonName; c != "box.office.example" {
		t.Errorf("common name %q", c)
	}
	w.addresses, w.hosts = home, hosts
	refresh(t, m, None)
	refresh(t, w.manager(dir), Loaded)
	w.now = w.now.Add(Lifetime)
	if aged := refresh(t, m, Renewed); slices.Contains(aged.Names, "198.51.100.4") || slices.Contains(aged.Names, "box.office.example") {
		t.Errorf("a renewal for age keeps what is gone: %q", aged.Names)
	}
	w.now, w.addresses = w.now.Add(Lifetime), addrs("203.0.113.1")
	if aged := refresh(t, m, Renewed); slices.Contains(aged.Names, "192.0.2.7") {
		t.Errorf("a renewal for age and address keeps what is gone: %q", aged.Names)
	}
}

// What is kept of former networks is the latest, and has an end.
func TestKeptHasAnEnd(t *testing.T) {
	w := newWorld()
	m := w.manager(t.TempDir())
	refresh(t, m, Created)
	for i := range 3 * mostKept {
		w.addresses = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}
		w.hosts = []string{fmt.Sprintf("host%d", i)}
		refresh(t, m, Renewed)
	}
	leaf := served(t, m).Leaf
	if names, addresses := len(leaf.DNSNames), len(leaf.IPAddresses); names != mostKept+2 || addresses != mostKept+3 {
		t.Errorf("%d names and %d addresses, want %d and %d", names, addresses, mostKept+2, mostKept+3)
	}
	last := 3*mostKept - 1
	for i, want := range map[int]bool{last: true, last - 1: true, last - mostKept: true, last - mostKept - 1: false} {
		address := fmt.Sprintf("198.51.100.%d", i)
		if got := slices.Contains(namesOf(leaf), address); got != want {
			t.Errorf("%s in it: %t, want %t", address, got, want)
		}
	}
}

// A machine that starts in 1970 makes a certificate that is good once it
// learns the time.
func TestMadeWithoutAClock(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	w.now = time.Unix(7, 0)
	m := w.manager(dir)
	refresh(t, m, Created)
	w.now = day0
	refresh(t, m, None)
}

// What a power cut, an editor or a bad disk leaves is healed, and what made no
// sense is kept to be looked at.
func TestDamage(t *testing.T) {
	other, w := t.TempDir(), newWorld()
	refresh(t, w.manager(other), Created)
	foreign := func(name string) []byte { return read(t, other, name) }
	for _, c := range []struct {
		name    string
		damage  map[string][]byte // nil removes
		want    Change
		keepKey bool
		aside   []string
	}{
		{"cut between key and certificate at the first start", map[string][]byte{certName: nil}, Created, true, nil},
		{"both gone", map[string][]byte{certName: nil, keyName: nil}, Created, false, nil},
		{"key gone", map[string][]byte{keyName: nil}, Renewed, false, []string{certName}},
		{"another certificate", map[string][]byte{certName: foreign(certName)}, Renewed, true, []string{certName}},
		{"another key", map[string][]byte{keyName: foreign(keyName)}, Renewed, false, []string{certName}},
		{"certificate empty", map[string][]byte{certName: {}}, Renewed, true, []string{certName}},
		{"certificate torn", map[string][]byte{certName: foreign(certName)[:200]}, Renewed, true, []string{certName}},
		{"key torn", map[string][]byte{keyName: foreign(keyName)[:60]}, Renewed, false, []string{certName, keyName}},
		{"both nonsense", map[string][]byte{certName: []byte("x"), keyName: []byte("y")}, Renewed, false, []string{certName, keyName}},
		{"key nonsense, no certificate", map[string][]byte{certName: nil, keyName: []byte("y")}, Created, false, []string{keyName}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			first := w.manager(dir)
			refresh(t, first, Created)
			for name, data := range c.damage {
				write(t, dir, name, data)
			}
			m := w.manager(dir)
			refresh(t, m, c.want)
			same := served(t, first).Leaf.PublicKey.(*ecdsa.PublicKey).Equal(served(t, m).Leaf.PublicKey)
			if same != c.keepKey {
				t.Errorf("the key stayed: %t, want %t", same, c.keepKey)
			}
			wantFiles(t, dir, c.aside)
			wantMode(t, filepath.Join(dir, keyName), 0o600)
			refresh(t, w.manager(dir), Loaded)
		})
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	err := os.Remove(filepath.Join(dir, name))
	if data != nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks that nothing lies in dir but the pair, the lock and what was set aside.
func wantFiles(t *testing.T, dir string, aside []string) {
	t.Helper()
	want := []string{lockName, certName, keyName}
	for _, name := range aside {
		want = append(want, name+badName)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestKeyThatOthersCouldReadIsClosed(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	refresh(t, w.manager(dir), Created)
	if err := os.Chmod(filepath.Join(dir, keyName), 0o644); err != nil {
		t.Fatal(err)
	}
	refresh(t, w.manager(dir), Loaded)
	wantMode(t, filepath.Join(dir, keyName), 0o600)
}

// A renewal that cannot be written leaves the old certificate in service, in a
// process that served it and in one that starts.
func TestUnwritable(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := w.manager(dir)
	made := refresh(t, m, Created)
	w.addresses = addrs("192.0.2.99")
	lock := filepath.Join(dir, lockName)
	os.Remove(lock)
	if err := os.Mkdir(lock, 0o700); err != nil { // fails for root too
		t.Fatal(err)
	}
	for _, m := range []*Manager{m, w.manager(dir)} {
		if _, err := m.Refresh(t.Context()); err == nil {
			t.Fatal("no error")
		}
		if got := m.Fingerprint(); got != made.Fingerprint {
			t.Errorf("serves %q, want the old one", got)
		}
	}
}

func TestNothingToServe(t *testing.T) {
	w := newWorld()
	m := w.manager(filepath.Join(t.TempDir(), "missing"))
	if _, err := m.Refresh(t.Context()); err == nil {
		t.Error("Refresh in a missing directory gave no error")
	}
	if _, err := m.GetCertificate(nil); fault.KindOf(err) != fault.Unavailable || fault.Hint(err) == "" {
		t.Errorf("GetCertificate: %v, want Unavailable with a hint", err)
	}
	if m.Fingerprint() != "" {
		t.Error("a fingerprint of nothing")
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", " ", "a b", "http://x", "x:5001", "-x", "x-", "a..b", "x.", "*", "a.*.b", "192.0.2.256", "fe80::1%eth0", strings.Repeat("x", 64), "büro"} {
		w := newWorld()
		m := w.manager(t.TempDir())
		m.Names = []string{name}
		_, err := m.Refresh(t.Context())
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != "tls_bad_name" || f.Field != fieldNames || f.Hint == "" {
			t.Errorf("%q: %v, want tls_bad_name", name, err)
		}
	}
}

// Two servers overlap while one hands over; both must end with one pair.
func TestTwoServersAtOnce(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	managers := []*Manager{w.manager(dir), w.manager(dir), w.manager(dir)}
	var wg sync.WaitGroup
	for _, m := range managers {
		wg.Go(func() {
			if _, err := m.Refresh(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range managers[1:] {
		if m.Fingerprint() != managers[0].Fingerprint() {
			t.Error("they serve different certificates")
		}
	}
	wantFiles(t, dir, nil)
	// A renewal by one is taken over by the others.
	w.addresses = addrs("192.0.2.99")
	refresh(t, managers[0], Renewed)
	refresh(t, managers[1], Reloaded)
}

func TestHandshakesDuringRefresh(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := w.manager(dir)
	refresh(t, m, Created)
	l, err := tls.Listen("tcp", "127.0.0.1:0", m.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); c.(*tls.Conn).Handshake() }()
		}
	}()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 15 {
				c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.ConnectionState().PeerCertificates[0].VerifyHostname("127.0.0.1"); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	for i := range 20 {
		w.addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)})}
		refresh(t, m, Renewed)
	}
	wg.Wait()
}

// Real verification, by every kind of name.
func TestClientsAcceptIt(t *testing.T) {
	w := newWorld()
	m := w.manager(t.TempDir())
	refresh(t, m, Created)
	leaf := served(t, m).Leaf
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for _, name := range []string{"box", "box.local", "localhost", "127.0.0.1", "[::1]", "192.0.2.7"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: day0}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := leaf.VerifyHostname("elsewhere"); err == nil {
		t.Error("it covers another machine")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := newWorld()
	m := w.manager(t.TempDir())
	refresh(t, m, Created)
	client, server := net.Pipe()
	defer client.Close()
	go tls.Server(server, m.TLSConfig()).Handshake()
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if err := tls.Client(client, old).Handshake(); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestFingerprint(t *testing.T) {
	got := Fingerprint(&tls.Certificate{Certificate: [][]byte{[]byte("abc")}})
	want := "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The machine the test runs on: whatever it has, it must give a certificate.
func TestThisMachine(t *testing.T) {
	m := &Manager{Dir: t.TempDir()}
	event := refresh(t, m, Created)
	for _, want := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(event.Names, want) {
			t.Errorf("%q lacks %s", event.Names, want)
		}
	}
	refresh(t, m, None)
}
