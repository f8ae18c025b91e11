package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"whisper-appliance/internal/api"
)

// ask has the handler answer a request that comes from addr.
func ask(h http.Handler, addr, method, path string, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	req.RemoteAddr = addr
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

const (
	here   = "127.0.0.1:4711"
	lan    = "192.168.1.7:4711"
	remote = "203.0.113.9:4711"
)

// TestWrongKeyEverywhere: whoever shows a wrong key learns it, at any door, on
// any page, and where nothing is.
func TestWrongKeyEverywhere(t *testing.T) {
	r := newRig(t, talks)
	h := r.Handler()
	doors := doorList()
	for _, path := range []string{"/", "/assets/page.js", "/openapi.json", "/nothing", "/v1/nothing"} {
		doors[path] = []string{"GET"}
	}
	for path, methods := range doors {
		for _, from := range []string{here, lan, remote} {
			w := ask(h, from, methods[0], strings.ReplaceAll(path, "{model}", "tiny"), "Authorization", "Bearer wa_wrong")
			if w.Code != 401 || !strings.Contains(w.Body.String(), "invalid_api_key") || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s from %s: %d %s", methods[0], path, from, w.Code, w.Body)
			}
		}
	}
}

// TestWhoMay asks a door of each kind: free, transcription, administration.
func TestWhoMay(t *testing.T) {
	const free, transcribe, admin = "GET /health", "GET /v1/models", "POST /api/v1/engine/unload"
	for name, c := range map[string]struct {
		openTo  string
		proxies []netip.Prefix
		from    string
		headers []string
		want    map[string]int
	}{
		"this machine":           {from: here, want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"this machine, IPv6":     {from: "[::1]:4711", want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"private address":        {from: lan, want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"mapped private address": {from: "[::ffff:10.0.0.1]:4711", want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"remote":                 {from: remote, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"remote, user's key":     {from: remote, headers: []string{"Authorization", "Bearer wa_user"}, want: map[string]int{free: 200, transcribe: 200, admin: 403}},
		"remote, admin's key":    {from: remote, headers: []string{"Authorization", "Bearer wa_admin"}, want: map[string]int{free: 200, transcribe: 200, admin: 204}},
		"here, user's key":       {from: here, headers: []string{"Authorization", "Bearer wa_user"}, want: map[string]int{free: 200, transcribe: 200, admin: 403}},
		"X-Forwarded-For":        {from: here, headers: []string{"X-Forwarded-For", "127.0.0.1"}, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"Forwarded":              {from: lan, headers: []string{"Forwarded", "for=10.0.0.1"}, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"X-Real-IP":              {from: here, headers: []string{"X-Real-Ip", "127.0.0.1"}, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"trusted proxy, private": {from: here, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, headers: []string{"X-Forwarded-For", "10.0.0.5"},
			want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"trusted proxy, remote": {from: here, proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, headers: []string{"X-Forwarded-For", "203.0.113.9"},
			want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"open to loopback, here":     {openTo: "loopback", from: here, want: map[string]int{free: 200, transcribe: 200, admin: 401}},
		"open to loopback, private":  {openTo: "loopback", from: lan, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"open to nobody, here":       {openTo: "nobody", from: here, want: map[string]int{free: 200, transcribe: 401, admin: 401}},
		"open to nobody, with a key": {openTo: "nobody", from: here, headers: []string{"Authorization", "Bearer wa_user"}, want: map[string]int{free: 200, transcribe: 200, admin: 403}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, talks)
			if c.openTo != "" {
				r.conf.Auth.OpenTo = c.openTo
			}
			r.conf.Auth.TrustedProxies = c.proxies
			h := r.Handler()
			for door, status := range c.want {
				method, path, _ := strings.Cut(door, " ")
				if w := ask(h, c.from, method, path, c.headers...); w.Code != status {
					t.Errorf("%s: %d, want %d: %s", door, w.Code, status, w.Body)
				}
			}
		})
	}
}

// TestRefusedUploadIsNotRead: nothing is spooled for somebody who may not.
func TestRefusedUploadIsNotRead(t *testing.T) {
	r := newRig(t, talks)
	r.conf.Auth.OpenTo = "nobody"
	h := r.Handler()
	for _, path := range []string{"/v1/audio/transcriptions", "/v1/audio/translations", "/transcribe", "/api/transcribe-live", "/api/v1/transcriptions", asrDoor, detectDoor, inferenceDoor} {
		req := httptest.NewRequest("POST", path, unreadable{t})
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != 401 || !strings.Contains(w.Body.String(), "missing_api_key") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, os.ErrInvalid
}

// TestUnixSocket: there the kernel says who asks. This test runs as the
// server's own user, who may administer it, and as anybody else may not.
func TestUnixSocket(t *testing.T) {
	r := newRig(t, talks)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: r.Handler(), ConnContext: connContext}
	go srv.Serve(l) //nolint:errcheck // it ends by Close
	defer srv.Close()
	c := api.OverSocket(path)
	defer c.HTTP.CloseIdleConnections()
	unload := func(headers ...string) int {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", c.Base+"/api/v1/engine/unload", nil)
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := c.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for name, got := range map[string]struct{ status, want int }{
		"own user":     {unload(), 204},
		"user's key":   {unload("Authorization", "Bearer wa_user"), 204},
		"wrong key":    {unload("Authorization", "Bearer wa_wrong"), 401},
		"behind proxy": {unload("X-Forwarded-For", "10.0.0.1"), 401},
	} {
		if got.status != got.want {
			t.Errorf("%s: %d, want %d", name, got.status, got.want)
		}
	}
	var health map[string]any
	if err := c.Get(t.Context(), "/", &health); err == nil {
		t.Error("the page is JSON") // and no redirect to HTTPS, which is not spoken here
	} else if strings.Contains(err.Error(), "https") {
		t.Errorf("redirected: %v", err)
	}
}

// TestOtherUnixUser: another user of the machine may transcribe, no more.
func TestOtherUnixUser(t *testing.T) {
	r := newRig(t, talks)
	h := r.Handler()
	for uid, admin := range map[uint32]int{0: 204, uint32(os.Getuid()): 204, 65534: 401} {
		for door, want := range map[string]int{"GET /v1/models": 200, "POST /api/v1/engine/unload": admin} {
			method, path, _ := strings.Cut(door, " ")
			req := httptest.NewRequest(method, path, nil)
			req.RemoteAddr = "@"
			req = req.WithContext(context.WithValue(req.Context(), peerKey, &uid))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("uid %d, %s: %d, want %d", uid, door, w.Code, want)
			}
		}
	}
}

// TestChangesAreNoted: the log has who changed something, by his key's name or
// as a user of this machine, and nothing of who only looked or was refused.
func TestChangesAreNoted(t *testing.T) {
	r, _ := updating(t)
	var log bytes.Buffer
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	h := r.Handler()
	root := uint32(0)
	for _, c := range []struct {
		door, key string
		uid       *uint32
		want      string // "" = nothing
	}{
		{"PUT /api/v1/updates/policy", adminKey, nil, "method=PUT path=/api/v1/updates/policy key=admin\n"},
		{"POST /api/updates/rollback", adminKey, nil, "method=POST path=/api/updates/rollback key=admin\n"},
		{"PUT /api/v1/updates/policy", "", &root, `uid=0 from=@ method=PUT path=/api/v1/updates/policy key=""` + "\n"},
		{"GET /api/v1/updates", adminKey, nil, ""},
		{"PUT /api/v1/updates/policy", "", nil, ""},
	} {
		log.Reset()
		method, path, _ := strings.Cut(c.door, " ")
		req := httptest.NewRequest(method, path, strings.NewReader(`{"channel":"beta"}`))
		req.RemoteAddr = here
		req.Header.Set("Content-Type", "application/json")
		if c.key != "" {
			req.Header.Set("Authorization", c.key)
		}
		if c.uid != nil {
			req.RemoteAddr = "@"
			req = req.WithContext(context.WithValue(req.Context(), peerKey, c.uid))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		_, noted, _ := strings.Cut(log.String(), `msg="access granted"`)
		if noted == "" != (c.want == "") || !strings.HasSuffix(noted, c.want) || noted != "" && !strings.Contains(noted, w.Header().Get(requestHeader)) {
			t.Errorf("%s gives %d and is noted as %q, want %q", c.door, w.Code, noted, c.want)
		}
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		name, from, path string
		tls, plainAPI    bool
		noRedirect       bool
		noTLS            bool // no certificate yet
		headers          []string
		status           int
	}{
		{name: "page from afar", from: lan, path: "/?a=b", plainAPI: true, status: 307},
		{name: "asset from afar", from: lan, path: "/assets/page.js", plainAPI: true, status: 307},
		{name: "page from here", from: here, path: "/", plainAPI: true, status: 200},
		{name: "page by TLS", from: lan, path: "/", tls: true, plainAPI: true, status: 200},
		{name: "page, not redirected by setting", from: lan, path: "/", plainAPI: true, noRedirect: true, status: 200},
		{name: "page through a proxy here", from: here, path: "/", plainAPI: true, headers: []string{"X-Forwarded-For", "203.0.113.9"}, status: 307},
		{name: "page through a proxy by TLS", from: here, path: "/", plainAPI: true, headers: []string{"X-Forwarded-Proto", "https"}, status: 200},
		{name: "API from afar", from: lan, path: "/v1/models", plainAPI: true, status: 200},
		{name: "API refused", from: lan, path: "/v1/models", status: 403},
		{name: "API refused, not there either", from: lan, path: "/nothing", status: 403},
		{name: "API from here", from: here, path: "/v1/models", status: 200},
		{name: "API by TLS", from: lan, path: "/v1/models", tls: true, status: 200},
		{name: "API by a key", from: lan, path: "/v1/models", headers: []string{"Authorization", "Bearer wa_user"}, status: 403},
		{name: "page, no plain API", from: lan, path: "/", status: 307},
		{name: "page, no certificate yet", from: lan, path: "/", plainAPI: true, noTLS: true, status: 200},
		{name: "API refused, no certificate yet", from: lan, path: "/v1/models", noTLS: true, status: 403},
		{name: "health from afar", from: lan, path: "/health", status: 200},
		{name: "livez from afar", from: lan, path: "/livez", status: 200},
		{name: "readyz from afar", from: lan, path: "/readyz", status: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, talks)
			r.conf.Server.PlainAPI, r.conf.Server.HTTPRedirect = c.plainAPI, !c.noRedirect
			r.TLSReady = func() bool { return !c.noTLS }
			req := httptest.NewRequest("GET", "http://box.local:5001"+c.path, nil)
			req.RemoteAddr = c.from
			if c.tls {
				req.TLS = &tls.ConnectionState{}
			}
			for i := 0; i < len(c.headers); i += 2 {
				req.Header.Set(c.headers[i], c.headers[i+1])
			}
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, req)
			if w.Code != c.status {
				t.Errorf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if want := "https://box.local:5001" + c.path; c.status == 307 && w.Header().Get("Location") != want {
				t.Errorf("to %q, want %q", w.Header().Get("Location"), want)
			}
			if c.status == 403 && !strings.Contains(w.Body.String(), "https_required") {
				t.Errorf("%s", w.Body)
			}
			if h := w.Header().Get("Strict-Transport-Security"); h != "" {
				t.Errorf("HSTS %q: the certificate is not one that browsers know", h)
			}
		})
	}
}

// TestNoCrossOrigin: pages of others get no permission to read or to send.
func TestNoCrossOrigin(t *testing.T) {
	r := newRig(t, talks)
	h := r.Handler()
	for _, method := range []string{"OPTIONS", "PUT"} {
		w := ask(h, here, method, "/api/v1/models/current", "Origin", "http://evil.example", "Access-Control-Request-Method", "PUT")
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s %s", method, name, fmt.Sprint(w.Header()[name]))
			}
		}
		if method == "PUT" && w.Code != 401 {
			t.Errorf("PUT: %d", w.Code)
		}
	}
}
