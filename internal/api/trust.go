package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"

	"whisper-appliance/internal/cert"
	"whisper-appliance/internal/fault"
)

// Trust says which certificate an https server may show. Empty: one that an
// authority of this machine vouches for.
type Trust struct {
	// Fingerprint is the SHA-256 of the server's own certificate, 64
	// hexadecimal digits, with colons or without. That certificate is taken
	// whatever names and dates stand in it, and no other.
	Fingerprint string
	// CACert is a PEM file with authorities to trust beside this machine's.
	// Where Fingerprint is given as well, both have to hold.
	CACert string
}

// OverNetwork is a client of the server at base, "https://host:5001". Faults
// of kind BadInput: bad_url, bad_fingerprint, bad_cacert, and needs_https
// where there would be no certificate to look at.
func OverNetwork(base string, t Trust) (*Client, error) {
	base = strings.TrimRight(base, "/")
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.BadInput, "bad_url", "%q is not the address of a server", fault.Short(base)).On("--url").
			Try("it begins with http:// or https://, as in http://127.0.0.1:5001")
	}
	if t == (Trust{}) {
		return &Client{Base: base}, nil
	}
	if u.Scheme != "https" {
		return nil, fault.New(fault.BadInput, "needs_https", "%s has no certificate to check, for it is not https", base).On("--url").
			Try("write https:// instead of http://: the appliance answers both on one port")
	}
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &Client{Base: base, HTTP: &http.Client{Transport: transport, CheckRedirect: onlyHTTPS}}, nil
}

// onlyHTTPS keeps a redirect from leading away from what was checked.
func onlyHTTPS(req *http.Request, _ []*http.Request) error {
	if req.URL.Scheme != "https" {
		return errors.New("it redirects to plain HTTP")
	}
	return nil
}

func (t Trust) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CACert != "" {
		roots, err := authorities(t.CACert)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
	}
	if t.Fingerprint != "" {
		want, err := parseFingerprint(t.Fingerprint)
		if err != nil {
			return nil, err
		}
		// The fingerprint proves more than an authority could; the check is below.
		config.InsecureSkipVerify = t.CACert == ""
		config.VerifyConnection = func(s tls.ConnectionState) error { return compare(want, s.PeerCertificates[0]) }
	}
	return config, nil
}

func authorities(file string) (*x509.CertPool, error) {
	bad := fault.New(fault.BadInput, "bad_cacert", "%s holds no certificates to trust", file).On("--cacert").
		Try("it has to be a PEM file: -----BEGIN CERTIFICATE-----")
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, bad.Because(err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(data) {
		return nil, bad
	}
	return roots, nil
}

func parseFingerprint(s string) ([]byte, error) {
	sum, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if err != nil || len(sum) != sha256.Size {
		return nil, fault.New(fault.BadInput, "bad_fingerprint", "%q is not the fingerprint of a certificate", fault.Short(s)).
			On("--fingerprint").Try("it has 64 hexadecimal digits, with colons or without; the server logs it as sha256")
	}
	return sum, nil
}

func fingerprint(c *x509.Certificate) string {
	return cert.Fingerprint(&tls.Certificate{Certificate: [][]byte{c.Raw}})
}

func compare(want []byte, shown *x509.Certificate) error {
	if sum := sha256.Sum256(shown.Raw); bytes.Equal(sum[:], want) {
		return nil
	}
	return fault.New(fault.Forbidden, "other_certificate", "the server's certificate is another than was named: its fingerprint is %s", fingerprint(shown)).
		On("--fingerprint").Try("see in the server's log whether it made a new one; if it did not, somebody stands in between")
}

// distrusted gives a certificate that could not be trusted its words, nil where
// err is something else.
func distrusted(base string, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok { // compare's
		return f
	}
	bad, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(bad.UnverifiedCertificates) == 0 {
		return nil
	}
	print := fingerprint(bad.UnverifiedCertificates[0])
	return fault.New(fault.Forbidden, "unknown_certificate",
		"this machine does not trust the certificate of the server at %s, whose fingerprint is %s", base, print).
		Because(bad.Err).Try("if the server's log names the same (sha256), add --fingerprint %s; --cacert FILE trusts an authority of your own", print)
}
