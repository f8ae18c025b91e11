// Package cert keeps the certificate that HTTPS is served with: one that it
// signs itself for every name and address of this machine, or the pair of
// files that the administrator named. It trusts those files and the clock only
// as far as it can check them, and writes server.key (0600) and server.crt
// (0644) in one directory, never in the administrator's place.
//
// The certificate is for the key's own use only (no CA): whoever takes the key
// can pose as this machine and as no other. It is made for 820 days, as rarely
// as browsers allow: each new one breaks the exception that people stored, and
// Apple's systems refuse server certificates of more than 825 days even when
// their owner trusts them. (The 398 days that browsers ask for apply to public
// authorities.) A machine that comes and goes between networks keeps in it the
// names and addresses it had, so that going back needs no new one. A renewal
// keeps the key, so that only the first start writes two files, and a pair torn
// apart by a power cut is healed by signing again.
package cert

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"whisper-appliance/internal/fault"
)

// Lifetime is how long a certificate made here is valid, Renew how long before
// its end the next one is made.
const (
	Lifetime = 820 * 24 * time.Hour
	Renew    = 30 * 24 * time.Hour
)

// Manager keeps one certificate. Its fields are set before the first Refresh;
// Use changes some of them later.
type Manager struct {
	Dir   string   // of server.key and server.crt; it must exist
	Names []string // further names and addresses, beside the machine's own

	// The administrator's own pair, PEM. With either one set nothing is made
	// and nothing written.
	CertFile, KeyFile string

	Now       func() time.Time                   // nil = time.Now
	Addresses func() ([]netip.Addr, error)       // of the machine; nil = Addresses
	Hostnames func(ctx context.Context) []string // of the machine, the first is the main one; nil = Hostnames

	mu      sync.Mutex // one attempt at a time
	stamps  [2]stamp   // of the administrator's files when they were last read
	current atomic.Pointer[tls.Certificate]
}

// Change says what an attempt did.
type Change string

// The changes.
const (
	None     Change = ""         // what was served still is
	Loaded   Change = "loaded"   // the first one of this process, from disk
	Reloaded Change = "reloaded" // another one, from disk
	Created  Change = "created"  // the first one of this machine
	Renewed  Change = "renewed"  // signed again; browsers will ask again
)

// Event is what an attempt did, for the log. Only Change None leaves the rest empty.
type Event struct {
	Change      Change
	Reason      string   // why, for people; "" for Loaded
	Fingerprint string   // see Fingerprint
	Names       []string // DNS names, then addresses
	NotAfter    time.Time
}

// GetCertificate is for tls.Config: it gives the latest good certificate.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := m.current.Load(); c != nil {
		return c, nil
	}
	return nil, fault.New(fault.Unavailable, "tls_not_ready", "there is no certificate to serve HTTPS with").
		Try("see the log for why none could be made or read; plain HTTP works meanwhile")
}

// TLSConfig is a server's configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
func (m *Manager) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: m.GetCertificate,
	}
}

// Fingerprint is the SHA-256 of the certificate as browsers show it, in hex
// with colons: "3A:0F:…". It is "" where c holds no certificate.
func Fingerprint(c *tls.Certificate) string {
	if c == nil || len(c.Certificate) == 0 {
		return ""
	}
	sum := sha256.Sum256(c.Certificate[0])
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = strings.ToUpper(hex.EncodeToString([]byte{b}))
	}
	return strings.Join(pairs, ":")
}

// Fingerprint is that of the certificate being served, "" where there is none.
func (m *Manager) Fingerprint() string { return Fingerprint(m.current.Load()) }

// Refresh is one attempt: it reads the files, makes or renews the certificate
// where that is due, and serves the result. After an error the one served
// before, if any, still is. The error is a *fault.Error when the
// administrator's files or names are to blame.
func (m *Manager) Refresh(ctx context.Context) (Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.CertFile != "" || m.KeyFile != "" {
		return m.refreshGiven()
	}
	return m.refreshOwn(ctx)
}

// Use takes over changed settings, for the next Refresh: the administrator's own
// pair, or "" for both, and further names.
func (m *Manager) Use(certFile, keyFile string, names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if certFile != m.CertFile || keyFile != m.KeyFile {
		m.stamps = [2]stamp{}
	}
	m.CertFile, m.KeyFile, m.Names = certFile, keyFile, names
}

// serve makes c the one being served and says so.
func (m *Manager) serve(c *tls.Certificate, change Change, reason string) Event {
	m.current.Store(c)
	return Event{
		Change:      change,
		Reason:      reason,
		Fingerprint: Fingerprint(c),
		Names:       namesOf(c.Leaf),
		NotAfter:    c.Leaf.NotAfter,
	}
}

// earliest is a day before which no clock can be right: a machine without a
// battery starts in 1970 and learns the time later.
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// now is the time, and whether it can be true. Where it cannot, it is earliest.
func (m *Manager) now() (t time.Time, sane bool) {
	t = time.Now()
	if m.Now != nil {
		t = m.Now()
	}
	if t.Before(earliest) {
		return earliest, false
	}
	return t, true
}
