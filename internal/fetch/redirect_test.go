package fetch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lookup knows the names that a test's machine knows.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	known := map[string]string{"mirror.example": "203.0.113.7", "cdn.example": "203.0.113.8", "inner.example": "10.1.2.3", "six.example": "fe80::1", "lan.example": "192.168.1.9", "localhost": "127.0.0.1"}
	if a, is := known[host]; is {
		return []netip.Addr{netip.MustParseAddr(a)}, ctx.Err()
	}
	return nil, errors.New("no such host")
}

// TestRedirectsInward: a stranger leads nobody to what only this machine and its
// neighbours reach.
func TestRedirectsInward(t *testing.T) {
	for _, tt := range []struct {
		source, to string
		refused    bool
	}{
		{"mirror.example", "http://127.0.0.1:5001/", true},
		{"mirror.example", "http://[::1]/", true},
		{"mirror.example", "http://[::ffff:127.0.0.1]/", true},
		{"mirror.example", "http://169.254.169.254/latest", true},
		{"mirror.example", "http://10.0.0.1/", true},
		{"mirror.example", "http://0.0.0.0/", true},
		{"mirror.example", "http://localhost/", true},
		{"mirror.example", "http://inner.example/", true},
		{"mirror.example", "http://six.example/", true},
		{"mirror.example", "http://cdn.example/", false},
		{"mirror.example", "http://nobody-knows.example/", false},
		{"mirror.example", "http://mirror.example/other", false},
		{"203.0.113.7", "http://192.168.1.1/", true},
		{"lan.example", "http://10.0.0.1/", false},
		{"192.168.1.9", "http://lan.example/", false},
		{"localhost", "http://127.0.0.1/", false},
	} {
		from := &http.Request{URL: &url.URL{Scheme: "http", Host: tt.source}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.to, nil)
		check(t, err)
		if err := (redirects{lookup}).check(req, []*http.Request{from}); (err != nil) != tt.refused {
			t.Errorf("%s to %s: %v", tt.source, tt.to, err)
		}
	}
}

// TestRedirectIsNotFollowed: what it leads to is never asked.
func TestRedirectIsNotFollowed(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer inner.Close()
	mirror := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusFound))
	defer mirror.Close()
	f := fetcher(t, newRepository(t))
	f.Lookup = lookup
	f.Client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "mirror.example:80" {
			address = mirror.Listener.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	_, err := f.Run(t.Context(), Request{Sources: []string{"http://token@mirror.example/r"}})
	wantCode(t, f, err, "bad_redirect")
}

// TestNoSecretIsTold of those that let somebody in at a source.
func TestNoSecretIsTold(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, user := range []string{"token@", "someone:token@"} {
		for _, address := range []string{"http://" + user + closed.Listener.Addr().String() + "/r", "ftp://" + user + "x.example/", "http://" + user + "x y/"} {
			f := fetcher(t, newRepository(t))
			_, err := f.Run(t.Context(), Request{Sources: []string{address}})
			if err == nil || strings.Contains(err.Error(), "token") {
				t.Errorf("%v", err)
			}
			if data := must(os.ReadFile(filepath.Join(f.Dir, resultName))); strings.Contains(string(data), "token") {
				t.Errorf("%s", data)
			}
		}
	}
}
