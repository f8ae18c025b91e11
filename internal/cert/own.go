package cert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"whisper-appliance/internal/durable"
)

const (
	keyName  = "server.key"
	certName = "server.crt"
	lockName = ".server.lock"
	badName  = ".bad" // appended to a file that made no sense
)

// lockWait bounds how long another server on the same directory is waited for.
const lockWait = 10 * time.Second

var errGone = errors.New("no such certificate yet")

// refreshOwn is Refresh for the certificate made here.
func (m *Manager) refreshOwn(ctx context.Context) (Event, error) {
	want, err := m.wanted(ctx)
	if err != nil {
		return Event{}, err
	}
	if c, err := m.read(); err == nil {
		if m.due(c.Leaf, want) == "" {
			return m.adopt(c), nil
		}
		m.current.CompareAndSwap(nil, c) // better than none, should the rest fail
	}
	// Two servers share the directory while one hands over to the other.
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	lock := flock.New(filepath.Join(m.Dir, lockName))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return Event{}, fmt.Errorf("lock %s: %w", m.Dir, err)
	}
	defer lock.Close()
	return m.renew(want)
}

// adopt serves what lies on disk.
func (m *Manager) adopt(c *tls.Certificate) Event {
	served := m.current.Load()
	switch {
	case served == nil:
		return m.serve(c, Loaded, "")
	case !same(served, c):
		return m.serve(c, Reloaded, "the files were replaced")
	}
	return Event{}
}

// renew looks again, now that nobody else writes, and signs where it is due.
func (m *Manager) renew(want identity) (Event, error) {
	change, reason := Renewed, ""
	var unread *fs.PathError
	switch c, err := m.read(); {
	case errors.Is(err, errGone):
		change, reason = Created, "there was none"
	case errors.As(err, &unread):
		return Event{}, err // the disk's fault, not the file's
	case err != nil:
		reason = "the one on disk was of no use: " + err.Error()
		if err := m.setAside(); err != nil {
			return Event{}, err
		}
	default:
		if reason = m.due(c.Leaf, want); reason == "" {
			return m.adopt(c), nil
		}
		if m.aged(c.Leaf) == "" {
			want.keep(c.Leaf)
		}
	}
	key, err := m.key()
	if err != nil {
		return Event{}, err
	}
	c, err := m.sign(key, want)
	if err != nil {
		return Event{}, err
	}
	return m.serve(c, change, reason), nil
}

// read gives the pair on disk: errGone where a part is missing, another error
// where it makes no sense.
func (m *Manager) read() (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(filepath.Join(m.Dir, certName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := m.readKeyFile()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("its key is missing")
	}
	if err != nil {
		return nil, err
	}
	return parsePair(certPEM, keyPEM)
}

// setAside renames a certificate and a key that make no sense, so that somebody
// can look at them. A good key stays: a certificate that is not its own may be
// half of a pair whose other half a power cut took.
func (m *Manager) setAside() error {
	names := []string{certName}
	if _, err := m.readKey(); err != nil {
		names = append(names, keyName)
	}
	for _, name := range names {
		path := filepath.Join(m.Dir, name)
		if err := os.Rename(path, path+badName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set a damaged file aside: %w", err)
		}
	}
	return durable.SyncDir(m.Dir)
}

// due says why a certificate must be replaced, "" where it need not.
func (m *Manager) due(leaf *x509.Certificate, want identity) string {
	if missing := want.missing(leaf); missing != "" {
		return missing + " was not in it"
	}
	return m.aged(leaf)
}

// aged says what the clock has against a certificate, "" where nothing.
func (m *Manager) aged(leaf *x509.Certificate) string {
	now, sane := m.now()
	switch {
	case !sane: // no reason to replace a good one
	case now.Before(leaf.NotBefore):
		return "it was made while the clock was ahead"
	case leaf.NotAfter.Sub(now) < Renew:
		return "it ends on " + leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	return ""
}

// key gives the key on disk, or writes a new one where there is none.
func (m *Manager) key() (*ecdsa.PrivateKey, error) {
	key, err := m.readKey()
	if err == nil {
		return key, nil
	}
	path := filepath.Join(m.Dir, keyName)
	if !errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(path, path+badName); err != nil {
			return nil, fmt.Errorf("set a damaged key aside: %w", err)
		}
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key: %w", err)
	}
	if err := durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return key, nil
}

// readKey gives the key on disk.
func (m *Manager) readKey() (*ecdsa.PrivateKey, error) {
	data, err := m.readKeyFile()
	if err != nil {
		return nil, err
	}
	return parseKey(data)
}

// readKeyFile also takes back rights that others were given on the file.
func (m *Manager) readKeyFile() ([]byte, error) {
	path := filepath.Join(m.Dir, keyName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(path)
}

// sign makes a certificate for key and writes it.
func (m *Manager) sign(key *ecdsa.PrivateKey, want identity) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	now, _ := m.now()
	// A client's clock may lag: a day of the past costs nothing.
	start := now.Add(-24 * time.Hour).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: want.common, Organization: []string{"whisper-appliance"}},
		NotBefore:             start,
		NotAfter:              start.Add(Lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              want.names,
	}
	for _, a := range want.addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
	if err := durable.WriteFile(filepath.Join(m.Dir, certName), data, 0o644); err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
