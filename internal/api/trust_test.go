package api

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func wantCode(t *testing.T, err error, code string) *fault.Error {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Code != code {
		t.Fatalf("%v, want %s", err, code)
	}
	return f
}

// tlsServer answers with a certificate of its own, as an appliance does.
func tlsServer(t *testing.T) (s *httptest.Server, print, cacert string) {
	t.Helper()
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			return
		}
		w.Write([]byte(`{"ok":true}`))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	cacert = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cacert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, fingerprint(s.Certificate()), cacert
}

func ask(t *testing.T, base, path string, trust Trust) error {
	t.Helper()
	c, err := OverNetwork(base, trust)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ OK bool }
	err = c.Get(context.Background(), path, &out)
	if err == nil && !out.OK {
		t.Error("the answer is another")
	}
	return err
}

func TestTrust(t *testing.T) {
	s, print, cacert := tlsServer(t)
	wrong := strings.Repeat("0a", 32)
	plain := strings.ToLower(strings.ReplaceAll(print, ":", ""))
	for name, tt := range map[string]struct {
		trust Trust
		code  string
	}{
		"nothing":                   {Trust{}, "unknown_certificate"},
		"fingerprint":               {Trust{Fingerprint: print}, ""},
		"fingerprint, plain":        {Trust{Fingerprint: " " + plain + "\n"}, ""},
		"other fingerprint":         {Trust{Fingerprint: wrong}, "other_certificate"},
		"authority":                 {Trust{CACert: cacert}, ""},
		"authority and fingerprint": {Trust{CACert: cacert, Fingerprint: print}, ""},
		"authority and another":     {Trust{CACert: cacert, Fingerprint: wrong}, "other_certificate"},
	} {
		err := ask(t, s.URL+"/", "/", tt.trust)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if f := wantCode(t, err, tt.code); !strings.Contains(f.Message, print) || f.Hint == "" {
			t.Errorf("%s: %v, hint %s", name, f, f.Hint)
		}
	}
	// What the hint says has to work.
	f := wantCode(t, ask(t, s.URL, "/", Trust{}), "unknown_certificate")
	if !strings.Contains(f.Hint, "--fingerprint "+print) {
		t.Errorf("hint %q", f.Hint)
	}
	if err := ask(t, s.URL, "/down", Trust{Fingerprint: print}); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("a redirect to plain HTTP: %v", err)
	}
}

func TestTrustRefusals(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	print := strings.Repeat("ab:", 31) + "ab"
	for _, tt := range []struct {
		base  string
		trust Trust
		code  string
	}{
		{"box:5001", Trust{}, "bad_url"},
		{"ftp://box", Trust{}, "bad_url"},
		{"https://", Trust{}, "bad_url"},
		{"http://box:5001", Trust{Fingerprint: print}, "needs_https"},
		{"http://box:5001", Trust{CACert: empty}, "needs_https"},
		{"https://box", Trust{Fingerprint: "abc"}, "bad_fingerprint"},
		{"https://box", Trust{Fingerprint: print + ":ab"}, "bad_fingerprint"},
		{"https://box", Trust{Fingerprint: strings.Repeat("zz", 32)}, "bad_fingerprint"},
		{"https://box", Trust{CACert: empty}, "bad_cacert"},
		{"https://box", Trust{CACert: empty + "-not"}, "bad_cacert"},
	} {
		_, err := OverNetwork(tt.base, tt.trust)
		if f := wantCode(t, err, tt.code); f.Kind != fault.BadInput || f.Field == "" || f.Hint == "" {
			t.Errorf("%s %+v: %+v", tt.base, tt.trust, f)
		}
	}
}

func TestNoServer(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	wantCode(t, ask(t, s.URL, "/", Trust{}), "no_server")
}
