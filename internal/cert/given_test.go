package cert

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// given makes a pair in dir, as an administrator would, and a manager for it.
func given(t *testing.T, w *world, dir string) *Manager {
	t.Helper()
	replace(t, w, dir)
	m := w.manager("")
	m.CertFile, m.KeyFile = filepath.Join(dir, certName), filepath.Join(dir, keyName)
	return m
}

// replace puts a fresh pair in place.
func replace(t *testing.T, w *world, dir string) {
	t.Helper()
	fresh := t.TempDir()
	refresh(t, w.manager(fresh), Created)
	for _, name := range []string{certName, keyName} {
		if err := os.Rename(filepath.Join(fresh, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGivenIsReadAgainOnChange(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	first := refresh(t, m, Loaded)
	refresh(t, m, None)
	w.addresses = addrs("192.0.2.99") // no reason to touch it
	refresh(t, m, None)
	replace(t, w, dir)
	if second := refresh(t, m, Reloaded); second.Fingerprint == first.Fingerprint {
		t.Error("the old one is still served")
	}
	refresh(t, m, None)
	// Only an issuer's certificate was added.
	chain := read(t, dir, certName)
	write(t, dir, certName, append(chain, chain...))
	refresh(t, m, Reloaded)
	if got := len(served(t, m).Certificate); got != 2 {
		t.Errorf("%d certificates in the chain, want 2", got)
	}
}

// What is wrong is named, and what was served still is, until it is right again.
func TestGivenFaults(t *testing.T) {
	other, w := t.TempDir(), newWorld()
	refresh(t, w.manager(other), Created)
	for _, c := range []struct {
		name        string
		spoil       func(t *testing.T, m *Manager, dir string)
		code, field string
	}{
		{"no key named", func(t *testing.T, m *Manager, dir string) { m.KeyFile = "" }, "tls_pair_incomplete", fieldKey},
		{"no certificate named", func(t *testing.T, m *Manager, dir string) { m.CertFile = "" }, "tls_pair_incomplete", fieldCert},
		{"certificate missing", func(t *testing.T, m *Manager, dir string) { write(t, dir, certName, nil) }, "tls_unreadable", fieldCert},
		{"key missing", func(t *testing.T, m *Manager, dir string) { write(t, dir, keyName, nil) }, "tls_unreadable", fieldKey},
		{"a directory", func(t *testing.T, m *Manager, dir string) { m.KeyFile = dir }, "tls_unreadable", fieldKey},
		{"certificate empty", func(t *testing.T, m *Manager, dir string) { write(t, dir, certName, []byte{}) }, "tls_bad_certificate", fieldCert},
		{"certificate torn", func(t *testing.T, m *Manager, dir string) { write(t, dir, certName, read(t, other, certName)[:300]) }, "tls_bad_certificate", fieldCert},
		{"key is a certificate", func(t *testing.T, m *Manager, dir string) { m.KeyFile = m.CertFile }, "tls_bad_key", fieldKey},
		{"another key", func(t *testing.T, m *Manager, dir string) { write(t, dir, keyName, read(t, other, keyName)) }, "tls_mismatch", fieldKey},
		{"key torn", func(t *testing.T, m *Manager, dir string) {
			torn := bytes.Replace(read(t, dir, keyName), []byte("MIGH"), []byte("MIGG"), 1)
			write(t, dir, keyName, torn)
		}, "tls_mismatch", fieldKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			m := given(t, w, dir)
			certFile, keyFile := m.CertFile, m.KeyFile
			first := refresh(t, m, Loaded)
			c.spoil(t, m, dir)
			for range 2 {
				_, err := m.Refresh(t.Context())
				wantFault(t, err, c.code, c.field)
			}
			if m.Fingerprint() != first.Fingerprint {
				t.Error("the old one is no longer served")
			}
			m.CertFile, m.KeyFile = certFile, keyFile
			replace(t, w, dir)
			refresh(t, m, Reloaded)
		})
	}
}

func wantFault(t *testing.T, err error, code, field string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("error %v, want a fault %s", err, code)
	}
	if f.Code != code || f.Field != field || f.Kind != fault.BadInput || f.Hint == "" {
		t.Errorf("fault %+v, want %s on %s with a hint", f, code, field)
	}
}

func TestGivenExpires(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	first := refresh(t, m, Loaded)
	w.now = first.NotAfter.Add(time.Hour)
	_, err := m.Refresh(t.Context())
	wantFault(t, err, "tls_expired", fieldCert)
	if !strings.Contains(err.Error(), "2029-05-28") {
		t.Errorf("%v does not name the day", err)
	}
	replace(t, w, dir)
	refresh(t, m, Reloaded)
	refresh(t, m, None)
}

// Expired at the start: served all the same, and said.
func TestGivenExpiredAtStart(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	w.now = day0.AddDate(5, 0, 0)
	event, err := m.Refresh(t.Context())
	wantFault(t, err, "tls_expired", fieldCert)
	if event.Change != Loaded || m.Fingerprint() == "" {
		t.Errorf("%+v, want it served", event)
	}
}

func TestGivenReplacedByExpired(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	first := refresh(t, m, Loaded)
	w.now = day0.AddDate(-1, 0, 0).Add(-Lifetime)
	if w.now.Before(earliest) {
		w.now = earliest.Add(time.Hour)
	}
	replace(t, w, dir) // valid around then
	w.now = day0.Add(Lifetime - 48*time.Hour)
	_, err := m.Refresh(t.Context())
	wantFault(t, err, "tls_expired", fieldCert)
	if m.Fingerprint() != first.Fingerprint {
		t.Error("an expired certificate replaced a good one")
	}
}

func TestGivenNotYetValid(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	w.now = day0.AddDate(0, -3, 0)
	_, err := m.Refresh(t.Context())
	wantFault(t, err, "tls_not_yet_valid", fieldCert)
}

// TestUse: changed settings count at the next Refresh, and the way back too.
func TestUse(t *testing.T) {
	dir, w := t.TempDir(), newWorld()
	m := given(t, w, dir)
	cert, key := m.CertFile, m.KeyFile
	if _, err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	theirs := m.Fingerprint()
	m.Dir = t.TempDir()
	m.Use("", "", []string{"box.example"})
	if e, err := m.Refresh(t.Context()); err != nil || e.Change != Created || m.Fingerprint() == theirs {
		t.Fatalf("%+v, %v: want one of our own", e, err)
	}
	m.Use(cert, key, nil)
	if _, err := m.Refresh(t.Context()); err != nil || m.Fingerprint() != theirs {
		t.Errorf("%v, %s: want theirs again", err, m.Fingerprint())
	}
}
