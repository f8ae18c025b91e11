package cert

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
)

// Configuration keys that faults name.
const (
	fieldCert  = "tls.certificate"
	fieldKey   = "tls.key"
	fieldNames = "tls.names"
)

// stamp tells one version of a file from another.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo // of the same inode, for os.SameFile
}

func (s stamp) same(t stamp) bool {
	return s.info != nil && t.info != nil && os.SameFile(s.info, t.info) &&
		s.modified.Equal(t.modified) && s.size == t.size
}

// refreshGiven is Refresh for the administrator's pair: it reads the files
// again when they changed.
func (m *Manager) refreshGiven() (Event, error) {
	if m.CertFile == "" || m.KeyFile == "" {
		return Event{}, incomplete(m.CertFile == "")
	}
	stamps, err := m.stat()
	if err != nil {
		return Event{}, err
	}
	served := m.current.Load()
	if served != nil && stamps[0].same(m.stamps[0]) && stamps[1].same(m.stamps[1]) {
		return Event{}, m.usable(served.Leaf)
	}
	c, err := m.readGiven()
	if err != nil {
		return Event{}, err // and looked at again next time: the second file may be on its way
	}
	expired := m.usable(c.Leaf)
	switch {
	case served == nil:
		// An expired one can be clicked away in a browser, none at all cannot.
		m.stamps = stamps
		return m.serve(c, Loaded, ""), expired
	case expired != nil:
		return Event{}, expired
	case same(served, c):
		m.stamps = stamps
		return Event{}, nil
	}
	m.stamps = stamps
	return m.serve(c, Reloaded, "the files changed"), nil
}

// stat looks at both files.
func (m *Manager) stat() (stamps [2]stamp, err error) {
	for i, path := range []string{m.CertFile, m.KeyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return stamps, unreadable(i == 0, path, err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size(), info}
	}
	return stamps, nil
}

// readGiven reads the pair and says which file is to blame when it is no good.
func (m *Manager) readGiven() (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(m.CertFile)
	if err != nil {
		return nil, unreadable(true, m.CertFile, err)
	}
	keyPEM, err := os.ReadFile(m.KeyFile)
	if err != nil {
		return nil, unreadable(false, m.KeyFile, err)
	}
	if err := checkCert(certPEM); err != nil {
		return nil, fault.New(fault.BadInput, "tls_bad_certificate", "%s holds no certificate in PEM form", m.CertFile).
			On(fieldCert).Because(err).
			Try("it must begin with -----BEGIN CERTIFICATE-----, this machine's certificate first, then those of its issuers")
	}
	if !hasKey(keyPEM) {
		return nil, fault.New(fault.BadInput, "tls_bad_key", "%s holds no private key in PEM form", m.KeyFile).
			On(fieldKey).
			Try("it must hold a -----BEGIN PRIVATE KEY----- block (RSA and EC forms work too) and no passphrase")
	}
	c, err := parsePair(certPEM, keyPEM)
	if err != nil {
		return nil, fault.New(fault.BadInput, "tls_mismatch", "%s and %s do not make a pair", m.CertFile, m.KeyFile).
			On(fieldKey).Because(err).
			Try("name the key that this certificate was requested with, without a passphrase; the machine's own certificate must come first in its file")
	}
	return c, nil
}

func checkCert(data []byte) error {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemCert {
		return errors.New("no CERTIFICATE block")
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return err
}

// hasKey looks for any block that may be a key; parsePair knows the forms.
func hasKey(data []byte) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, pemKey) {
			return true
		}
	}
	return false
}

// usable says whether the clock allows the administrator's certificate.
func (m *Manager) usable(leaf *x509.Certificate) error {
	now, sane := m.now()
	switch {
	case !sane:
		return nil
	case now.After(leaf.NotAfter):
		return fault.New(fault.BadInput, "tls_expired", "the certificate in %s ended on %s", m.CertFile, day(leaf.NotAfter)).
			On(fieldCert).Try("put a renewed certificate in its place; it is read again within a minute")
	case now.Before(leaf.NotBefore):
		return fault.New(fault.BadInput, "tls_not_yet_valid", "the certificate in %s is valid from %s only", m.CertFile, day(leaf.NotBefore)).
			On(fieldCert).Try("check this machine's clock (it says %s), or use a certificate that is valid now", day(now))
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func incomplete(cert bool) error {
	missing, given := fieldKey, fieldCert
	if cert {
		missing, given = fieldCert, fieldKey
	}
	return fault.New(fault.BadInput, "tls_pair_incomplete", "%s is set but %s is not", given, missing).
		On(missing).Try("set both to use your own certificate, or neither to have one made")
}

func unreadable(cert bool, path string, err error) error {
	field := fieldKey
	if cert {
		field = fieldCert
	}
	hint := "the file must be readable by the user that the server runs as"
	if errors.Is(err, fs.ErrNotExist) {
		hint = "there is no such file; check the path"
	}
	return fault.New(fault.BadInput, "tls_unreadable", "%s cannot be read", path).On(field).Because(err).Try("%s", hint)
}
