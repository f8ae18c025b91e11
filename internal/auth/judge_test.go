package auth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"whisper-appliance/internal/fault"
)

// ring is Keys for tests, by plaintext.
type ring map[string]Key

func (r ring) Find(plaintext string) (Key, bool) {
	k, ok := r[plaintext]
	return k, ok
}

const (
	yes  = "yes"
	e401 = "missing_api_key"
	bad  = "invalid_api_key"
	e403 = "insufficient_scope"
)

// verdict is yes or the code of the refusal, and holds kinds to codes.
func verdict(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return yes
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		t.Fatalf("%v is no fault", err)
	}
	want := fault.Unauthorized
	if e.Code == e403 {
		want = fault.Forbidden
	}
	if e.Kind != want || e.Hint == "" {
		t.Errorf("%s has kind %d and hint %q", e.Code, e.Kind, e.Hint)
	}
	return e.Code
}

func TestJudgeWithoutKey(t *testing.T) {
	tests := []struct {
		addr                      string
		private, loopback, nobody string
	}{
		{"127.0.0.1", yes, yes, e401},
		{"127.8.9.1", yes, yes, e401},
		{"::1", yes, yes, e401},
		{"::ffff:127.0.0.1", yes, yes, e401},
		{"10.1.2.3", yes, e401, e401},
		{"172.16.0.1", yes, e401, e401},
		{"172.31.255.255", yes, e401, e401},
		{"192.168.0.9", yes, e401, e401},
		{"::ffff:192.168.0.9", yes, e401, e401},
		{"169.254.7.7", yes, e401, e401},
		{"fe80::1%eth0", yes, e401, e401},
		{"fd12:3456::1", yes, e401, e401},
		{"fc00::1", yes, e401, e401},
		{"172.32.0.1", e401, e401, e401},
		{"11.0.0.1", e401, e401, e401},
		{"192.169.0.1", e401, e401, e401},
		{"100.64.0.1", e401, e401, e401},
		{"100.127.255.255", e401, e401, e401},
		{"8.8.8.8", e401, e401, e401},
		{"::ffff:8.8.8.8", e401, e401, e401},
		{"0.0.0.0", e401, e401, e401},
		{"::", e401, e401, e401},
		{"2001:db8::1", e401, e401, e401},
		{"fec0::1", e401, e401, e401},
		{"255.255.255.255", e401, e401, e401},
		{"", e401, e401, e401},
	}
	for _, tt := range tests {
		var addr netip.Addr
		if tt.addr != "" {
			addr = netip.MustParseAddr(tt.addr)
		}
		for open, want := range map[Openness]string{OpenPrivate: tt.private, OpenLoopback: tt.loopback, OpenNobody: tt.nobody, "": e401, "Private": e401} {
			_, err := Judge(Caller{RemoteAddr: addr}, Transcribe, Policy{OpenTo: open}, ring{})
			if got := verdict(t, err); got != want {
				t.Errorf("%s, open to %q: %s, want %s", tt.addr, open, got, want)
			}
			// The appliance is never changed without a key from an address.
			_, err = Judge(Caller{RemoteAddr: addr}, Admin, Policy{OpenTo: open}, ring{})
			if got := verdict(t, err); got != e401 {
				t.Errorf("%s, open to %q, admin: %s", tt.addr, open, got)
			}
		}
	}
}

func TestJudgeUnixSocket(t *testing.T) {
	uid := func(n uint32) *uint32 { return &n }
	const own = 990
	tests := []struct {
		name              string
		caller            Caller
		transcribe, admin string
	}{
		{"root", Caller{UnixUID: uid(0)}, yes, yes},
		{"the server", Caller{UnixUID: uid(own)}, yes, yes},
		{"anybody", Caller{UnixUID: uid(1000)}, yes, e401},
		{"root, wrong key", Caller{UnixUID: uid(0), Key: "no"}, bad, bad},
		{"root, small key", Caller{UnixUID: uid(0), Key: "small"}, yes, yes},
		{"anybody, small key", Caller{UnixUID: uid(1000), Key: "small"}, yes, e403},
		{"anybody, admin key", Caller{UnixUID: uid(1000), Key: "big"}, yes, yes},
		{"root's proxy", Caller{UnixUID: uid(0), Forwarded: true}, e401, e401},
		{"proxy for loopback", Caller{UnixUID: uid(33), Forwarded: true, ForwardedFor: "127.0.0.1"}, e401, e401},
		{"header without mark", Caller{UnixUID: uid(0), ForwardedFor: "127.0.0.1"}, e401, e401},
		{"proxy with key", Caller{UnixUID: uid(33), Forwarded: true, Key: "big"}, yes, yes},
	}
	keys := ring{"small": {Name: "s", Scopes: []Scope{Transcribe}}, "big": {Name: "b", Scopes: []Scope{Admin}}}
	for _, tt := range tests {
		// The socket does not depend on open_to: it is this machine's alone.
		p := Policy{OpenTo: OpenNobody, OwnUID: own, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
		_, err := Judge(tt.caller, Transcribe, p, keys)
		if got := verdict(t, err); got != tt.transcribe {
			t.Errorf("%s, transcribe: %s, want %s", tt.name, got, tt.transcribe)
		}
		_, err = Judge(tt.caller, Admin, p, keys)
		if got := verdict(t, err); got != tt.admin {
			t.Errorf("%s, admin: %s, want %s", tt.name, got, tt.admin)
		}
	}
}

func TestJudgeKeys(t *testing.T) {
	keys := ring{
		"small": {Name: "s", Scopes: []Scope{Transcribe}},
		"big":   {Name: "b", Scopes: []Scope{Admin}},
		"none":  {Name: "n"},
	}
	tests := []struct {
		addr, key         string
		transcribe, admin string
	}{
		{"127.0.0.1", "wrong", bad, bad},
		{"192.168.1.1", "wrong", bad, bad},
		{"8.8.8.8", "wrong", bad, bad},
		{"8.8.8.8", "small", yes, e403},
		{"127.0.0.1", "small", yes, e403},
		{"8.8.8.8", "big", yes, yes},
		{"8.8.8.8", "none", e403, e403},
		{"127.0.0.1", "none", yes, e403},
	}
	for _, tt := range tests {
		c := Caller{RemoteAddr: netip.MustParseAddr(tt.addr), Key: tt.key}
		a, err := Judge(c, Transcribe, Policy{OpenTo: OpenPrivate}, keys)
		if got := verdict(t, err); got != tt.transcribe {
			t.Errorf("%s with %s, transcribe: %s, want %s", tt.addr, tt.key, got, tt.transcribe)
		} else if err == nil && (a.Key != keys[tt.key].Name || a.Addr != c.RemoteAddr) {
			t.Errorf("access = %+v", a)
		}
		_, err = Judge(c, Admin, Policy{OpenTo: OpenPrivate}, keys)
		if got := verdict(t, err); got != tt.admin {
			t.Errorf("%s with %s, admin: %s, want %s", tt.addr, tt.key, got, tt.admin)
		}
	}
}

func TestJudgeProxies(t *testing.T) {
	tests := []struct {
		name    string
		peer    string
		headers map[string]string
		want    string
		addr    string // "" = unknown
	}{
		{"untrusted private peer, X-Forwarded-For", "10.0.0.9", map[string]string{"X-Forwarded-For": "127.0.0.1"}, e401, ""},
		{"untrusted loopback peer, Forwarded", "127.0.0.1", map[string]string{"Forwarded": "for=127.0.0.1"}, e401, ""},
		{"untrusted loopback peer, X-Real-IP", "127.0.0.1", map[string]string{"X-Real-IP": "10.0.0.1"}, e401, ""},
		{"untrusted loopback peer, empty header", "127.0.0.1", map[string]string{"X-Forwarded-Proto": ""}, e401, ""},
		{"untrusted loopback peer, X-Forwarded-Host", "127.0.0.1", map[string]string{"X-Forwarded-Host": "x"}, e401, ""},
		{"other headers", "10.0.0.9", map[string]string{"X-Forward": "8.8.8.8"}, yes, "10.0.0.9"},
		{"trusted, private client", "10.0.0.1", map[string]string{"X-Forwarded-For": "192.168.1.5"}, yes, "192.168.1.5"},
		{"trusted as mapped IPv4", "::ffff:10.0.0.1", map[string]string{"X-Forwarded-For": "::ffff:192.168.1.5"}, yes, "192.168.1.5"},
		{"trusted, remote client", "10.0.0.1", map[string]string{"X-Forwarded-For": "8.8.8.8"}, e401, "8.8.8.8"},
		{"trusted, client made up the left", "10.0.0.1", map[string]string{"X-Forwarded-For": "127.0.0.1, 8.8.8.8"}, e401, "8.8.8.8"},
		{"two trusted hops", "10.0.0.1", map[string]string{"X-Forwarded-For": "127.0.0.1, 8.8.8.8, 10.0.0.2"}, e401, "8.8.8.8"},
		{"two trusted hops, private client", "10.0.0.1", map[string]string{"X-Forwarded-For": "192.168.1.5, 10.0.0.2"}, yes, "192.168.1.5"},
		{"all trusted", "10.0.0.1", map[string]string{"X-Forwarded-For": "10.0.0.3, 10.0.0.2"}, yes, "10.0.0.2"},
		{"all trusted, as the client says", "10.0.0.1", map[string]string{"X-Forwarded-For": "10.0.0.4, 10.0.0.3, 10.0.0.2"}, yes, "10.0.0.2"},
		{"with zone", "10.0.0.1", map[string]string{"X-Forwarded-For": "fe80::5%eth0"}, yes, "fe80::5%eth0"},
		{"with port", "10.0.0.1", map[string]string{"X-Forwarded-For": "192.168.1.5:1234"}, yes, "192.168.1.5"},
		{"IPv6 with port", "10.0.0.1", map[string]string{"X-Forwarded-For": "[fd00::5]:1234"}, yes, "fd00::5"},
		{"IPv6 in brackets", "10.0.0.1", map[string]string{"X-Forwarded-For": "[fd00::5]"}, yes, "fd00::5"},
		{"not an address", "10.0.0.1", map[string]string{"X-Forwarded-For": "192.168.1.5, unknown"}, e401, ""},
		{"empty last item", "10.0.0.1", map[string]string{"X-Forwarded-For": "192.168.1.5,"}, e401, ""},
		{"trusted proxy forgets the header", "10.0.0.1", nil, e401, ""},
		{"trusted proxy with Forwarded alone", "10.0.0.1", map[string]string{"Forwarded": "for=192.168.1.5"}, e401, ""},
	}
	p := Policy{OpenTo: OpenPrivate, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(tt.peer), 1).String()
		for name, value := range tt.headers {
			r.Header.Set(name, value)
		}
		c := CallerOf(r, nil)
		_, err := Judge(c, Transcribe, p, ring{})
		if got := verdict(t, err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got := p.origin(c); got.IsValid() != (tt.addr != "") || got.IsValid() && got.String() != tt.addr {
			t.Errorf("%s: caller %s, want %s", tt.name, got, tt.addr)
		}
	}
}

// TestOwnerAndShare: what is one caller's goes by his whole address, what is
// divided by his network.
func TestOwnerAndShare(t *testing.T) {
	uid := uint32(1000)
	for _, tt := range []struct {
		access       Access
		owner, share string
	}{
		{Access{Addr: netip.MustParseAddr("192.168.1.7")}, "addr:192.168.1.7", "addr:192.168.1.7"},
		{Access{Addr: netip.MustParseAddr("fd00::a")}, "addr:fd00::a", "addr:fd00::"},
		{Access{Addr: netip.MustParseAddr("fd00::b")}, "addr:fd00::b", "addr:fd00::"},
		{Access{Addr: netip.MustParseAddr("fe80::1%eth0")}, "addr:fe80::1%eth0", "addr:fe80::"},
		{Access{Addr: netip.MustParseAddr("fe80::1%eth1")}, "addr:fe80::1%eth1", "addr:fe80::"},
		{Access{Addr: netip.MustParseAddr("fd00::a"), Key: "k"}, "key:k", "key:k"},
		{Access{UID: &uid}, "user:1000", "user:1000"},
		{Access{}, "addr:", "addr:"},
	} {
		if owner, share := tt.access.Owner(), tt.access.Share(); owner != tt.owner || share != tt.share {
			t.Errorf("%+v: owner %s and share %s, want %s and %s", tt.access, owner, share, tt.owner, tt.share)
		}
	}
}

// TestJudgeTellsWhoAdministers: whoever was let in for less is told apart from
// those who may do all.
func TestJudgeTellsWhoAdministers(t *testing.T) {
	keys := ring{"small": {Name: "s", Scopes: []Scope{Transcribe}}, "big": {Name: "b", Scopes: []Scope{Admin}}}
	root, user := uint32(0), uint32(1000)
	for name, tt := range map[string]struct {
		caller Caller
		admin  bool
	}{
		"address":            {Caller{RemoteAddr: netip.MustParseAddr("127.0.0.1")}, false},
		"small key":          {Caller{RemoteAddr: netip.MustParseAddr("8.8.8.8"), Key: "small"}, false},
		"big key":            {Caller{RemoteAddr: netip.MustParseAddr("8.8.8.8"), Key: "big"}, true},
		"root":               {Caller{UnixUID: &root}, true},
		"root's small key":   {Caller{UnixUID: &root, Key: "small"}, true},
		"somebody":           {Caller{UnixUID: &user}, false},
		"somebody's big key": {Caller{UnixUID: &user, Key: "big"}, true},
	} {
		a, err := Judge(tt.caller, Transcribe, Policy{OpenTo: OpenPrivate, OwnUID: 990}, keys)
		if err != nil || a.Admin != tt.admin {
			t.Errorf("%s: %+v, %v; want admin %v", name, a, err, tt.admin)
		}
	}
}

func TestCallerOf(t *testing.T) {
	for header, want := range map[string]string{
		"":                 "",
		"Bearer wa_x":      "wa_x",
		"bearer   wa_x":    "wa_x",
		"Bearer":           "",
		"Bearer ":          "",
		"wa_x":             "wa_x",
		"Token wa_x":       "Token wa_x",
		"Basic YW5uOnB3":   "",
		"Bearer two words": "two words",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		if got := CallerOf(r, nil).Key; got != want {
			t.Errorf("%q gives the key %q, want %q", header, got, want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header["X-Forwarded-For"] = []string{"1.1.1.1", "2.2.2.2"}
	r.RemoteAddr = "@"
	uid := uint32(7)
	c := CallerOf(r, &uid)
	if !c.Forwarded || c.ForwardedFor != "1.1.1.1,2.2.2.2" || c.RemoteAddr.IsValid() || *c.UnixUID != 7 {
		t.Errorf("caller = %+v", c)
	}
}
