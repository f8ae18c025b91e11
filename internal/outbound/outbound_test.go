package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/fault"
)

// names answers for names: each lookup of one gives its next address, and the
// last one from then on.
func names(t *testing.T, known map[string][]string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		asked := map[string]int{}
		for buf := make([]byte, 1500); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(answer(buf[:n], known, asked), from) //nolint:errcheck // the test sees that no answer comes
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// answer is the DNS message that answers a query for one name.
func answer(query []byte, known map[string][]string, asked map[string]int) []byte {
	var labels []string
	at := 12
	for query[at] != 0 {
		labels = append(labels, string(query[at+1:at+1+int(query[at])]))
		at += 1 + int(query[at])
	}
	kind, end := query[at+2], at+5
	name := strings.Join(labels, ".")
	m := append(bytes.Clone(query[:2]), 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	m = append(m, query[12:end]...)
	addresses := known[name]
	if len(addresses) == 0 {
		m[3] = 0x83 // there is no such name
		return m
	}
	if kind != 1 { // A
		return m
	}
	a := netip.MustParseAddr(addresses[min(asked[name], len(addresses)-1)]).As4()
	asked[name]++
	m[7] = 1
	return append(append(m, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), a[:]...)
}

// places may go to hosts, and to 127.0.0.1 alone of this machine.
func places(hosts ...string) *Places {
	return &Places{
		Field: "url", Setting: "recordings in [outbound]", Redirects: 2, Agent: "test",
		Hosts:    func() []string { return hosts },
		Networks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} },
	}
}

func get(t *testing.T, p *Places, address string) (string, error) {
	t.Helper()
	var b strings.Builder
	_, err := p.Download(t.Context(), address, &b, Transfer{Most: 1 << 20, Began: func(int64) error { return nil }, Got: func(int64, int64) error { return nil }})
	return b.String(), err
}

func wantFault(t *testing.T, err error, kind fault.Kind, code string, says ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Code != code || f.Field != "url" {
		t.Errorf("got %#v (%v), want %s", f, err, code)
		return
	}
	for _, word := range says {
		if !strings.Contains(f.Message+"\n"+fault.Hint(err), word) {
			t.Errorf("%q, %q do not say %q", f.Message, fault.Hint(err), word)
		}
	}
}

func TestCheck(t *testing.T) {
	p := places("Files.example.org", "*.media.example.org", "api.example.org:8443", "192.0.2.7", "[2001:db8::7]:9000")
	for address, code := range map[string]string{
		"https://files.example.org/talk.mp3":       "",
		"HTTP://FILES.example.org./talk.mp3?a=b#c": "",
		"https://files.example.org:443/":           "",
		"https://files.example.org:80/":            "host_not_allowed",
		"http://files.example.org:22/":             "host_not_allowed",
		"https://a.media.example.org/":             "",
		"https://a.b.media.example.org/":           "",
		"https://media.example.org/":               "host_not_allowed",
		"https://xmedia.example.org/":              "host_not_allowed",
		"https://files.example.org.evil.example/":  "host_not_allowed",
		"https://api.example.org:8443/x":           "",
		"https://api.example.org/x":                "host_not_allowed",
		"http://192.0.2.7/":                        "",
		"http://[2001:0db8:0:0::7]:9000/":          "",
		"http://[2001:db8::7]/":                    "host_not_allowed",
		"http://127.0.0.1/":                        "host_not_allowed",
		"http://2130706433/":                       "host_not_allowed",
		"ftp://files.example.org/":                 "bad_url",
		"file:///etc/passwd":                       "bad_url",
		"files.example.org/talk.mp3":               "bad_url",
		"https:files.example.org":                  "bad_url",
		"https://user:secret@files.example.org/":   "bad_url",
		"https://files.example.org@evil.example/":  "bad_url",
		"https:///talk.mp3":                        "bad_url",
		"https://f\u0131les.example.org/":          "bad_url",
		"http://[fe80::1%25eth0]/":                 "bad_url",
		"https://files.example.org/\n":             "bad_url",
		"https://files.example.org/" + long(3<<10): "bad_url",
		"": "bad_url",
	} {
		_, err := p.Check(address)
		switch {
		case code == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case code == "bad_url":
			wantFault(t, err, fault.BadInput, code, "https://files.example.org/talk.mp3")
		case code != "":
			wantFault(t, err, fault.Forbidden, code, "administrator", "recordings in [outbound]")
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the message tells a password: %v", err)
		}
	}
	_, err := places().Check("https://files.example.org/")
	wantFault(t, err, fault.Forbidden, "outbound_off", "no host is allowed", "recordings in [outbound]")
}

func long(n int) string { return strings.Repeat("a", n) }

// TestAddresses: each class of addresses, by itself and with its network named.
func TestAddresses(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for address, want := range map[string]string{ // open, inside, never
		"8.8.8.8": "open", "2a00:1450::1": "open", "::ffff:8.8.8.8": "open", "1.1.1.1": "open",
		"127.0.0.1": "inside", "127.9.9.9": "inside", "::1": "inside", "::ffff:127.0.0.1": "inside",
		"10.1.2.3": "inside", "172.16.0.1": "inside", "172.31.255.255": "inside", "192.168.1.1": "inside", "::ffff:10.0.0.1": "inside",
		"172.32.0.1": "open", "11.0.0.1": "open",
		"fc00::1": "inside", "fd12::1": "inside", "fec0::1": "inside", "fe80::1": "inside", "fe80::1%eth0": "inside",
		"169.254.1.1": "inside", "100.64.0.1": "inside", "100.127.255.254": "inside", "100.128.0.1": "open",
		"192.0.0.8": "inside", "198.18.0.1": "inside",
		"::7f00:1": "never", "2002:7f00:1::": "never", "2001:0:4136::1": "never", "::ffff:0:7f00:1": "never", "64:ff9b:1::a00:1": "never",
		"64:ff9b::7f00:1": "inside", "64:ff9b::808:808": "inside",
		"0.0.0.0": "never", "0.1.2.3": "never", "::": "never", "255.255.255.255": "never", "240.0.0.1": "never",
		"224.0.0.1": "never", "239.1.1.1": "never", "ff02::1": "never",
		"169.254.169.254": "never", "::ffff:169.254.169.254": "never", "fd00:ec2::254": "never", "100.100.100.200": "never", "169.254.170.2": "never",
		"168.63.129.16": "never", "169.254.170.23": "never", "192.0.0.192": "never", "fd00:ec2::23": "never", "fd20:ce::254": "never", "fd00:42::42": "never",
		"fd00:c1::a9fe:a9fe": "never", "169.254.0.23": "never", "fe80::a9fe:a9fe": "never",
		"64:ff9b::a9fe:a9fe": "never", "64:ff9b:1::a9fe:a9fe": "never", "2002:a9fe:a9fe::": "never", "::ffff:0:a9fe:a9fe": "never", "::a9fe:a9fe": "never",
	} {
		a := netip.MustParseAddr(address)
		shut, opened := refused(a, nil), refused(a, all)
		if (shut == "") != (want == "open") || (opened == "") != (want == "open" || want == "inside") {
			t.Errorf("%s is %s: %q, with every network named %q", address, want, shut, opened)
		}
		if Inside(a) != (want != "open") {
			t.Errorf("%s is %s, Inside %v", address, want, Inside(a))
		}
	}
	if why := refused(netip.MustParseAddr("10.4.0.1"), []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}); why == "" {
		t.Error("a network opens another one")
	}
	if why := refused(netip.MustParseAddr("64:ff9b::a00:1"), []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96")}); why == "" {
		t.Error("a translator leads to a private network that is not named")
	}
}

// TestNameThatChanges: what was looked up for the first request counts for no
// other.
func TestNameThatChanges(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, "sound")
	}))
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	p := places(fmt.Sprintf("*.rebind.test:%d", port))
	p.Resolver = names(t, map[string][]string{"a.rebind.test": {"127.0.0.1", "127.0.0.2"}, "b.rebind.test": {"10.0.0.1"}, "c.rebind.test": {"169.254.169.254"}})
	at := func(name string) string { return fmt.Sprintf("http://%s.rebind.test:%d/talk.wav", name, port) }
	if text, err := get(t, p, at("a")); err != nil || text != "sound" {
		t.Fatal(text, err)
	}
	words := map[string]bool{}
	for name, why := range map[string]string{"a": "this machine itself", "b": "a private network", "c": "metadata"} {
		_, err := get(t, p, at(name))
		wantFault(t, err, fault.Forbidden, "address_not_allowed", "networks in [outbound]")
		var f *fault.Error
		if errors.As(err, &f) {
			words[f.Message+f.Hint] = true
		}
		if !strings.Contains(err.Error(), why) {
			t.Errorf("the log is not told that it is %s: %v", why, err)
		}
	}
	if len(words) != 1 {
		t.Errorf("the sender learns what is inside: %v", words)
	}
	_, err := get(t, p, at("unknown"))
	wantFault(t, err, fault.Unavailable, CodeUnreachable, "cannot be reached")
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestRedirects: host and address are judged anew at each.
func TestRedirects(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer inner.Close()
	innerPort := inner.Listener.Addr().(*net.TCPAddr).Port
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	to := func(path, where string) { mux.Handle(path, http.RedirectHandler(where, http.StatusFound)) }
	here := fmt.Sprintf("http://a.test:%d", port)
	to("/once", "/twice?token=1")
	to("/twice", "/sound")
	to("/three", "/once")
	to("/inner", inner.URL)
	to("/second", fmt.Sprintf("http://b.test:%d/", innerPort))
	to("/scheme", "ftp://a.test/")
	to("/user", "http://user@a.test/")
	mux.HandleFunc("/sound", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Referer") != "" || r.UserAgent() != "test" {
			t.Errorf("headers %v", r.Header)
		}
		io.WriteString(w, "sound")
	})
	p := places(fmt.Sprintf("a.test:%d", port), fmt.Sprintf("b.test:%d", innerPort))
	p.Resolver = names(t, map[string][]string{"a.test": {"127.0.0.1"}, "b.test": {"127.0.0.2"}})
	if text, err := get(t, p, here+"/once"); err != nil || text != "sound" {
		t.Fatal(text, err)
	}
	for path, code := range map[string]string{
		"/inner": "redirect_not_allowed", "/scheme": "redirect_not_allowed", "/user": "redirect_not_allowed", "/second": "address_not_allowed",
	} {
		_, err := get(t, p, here+path)
		wantFault(t, err, fault.Forbidden, code)
		var f *fault.Error
		if errors.As(err, &f) && strings.Contains(f.Message+f.Hint, fmt.Sprint(innerPort)) {
			t.Errorf("the sender learns where it leads to: %s", f.Message)
		}
	}
	_, err := get(t, p, here+"/three")
	wantFault(t, err, fault.BadInput, "too_many_redirects", "more than 2 times")
	step := func(address string) *http.Request {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: u, Header: http.Header{}}
	}
	wantFault(t, places("a.test").redirect(step("http://a.test/"), []*http.Request{step("https://a.test/")}), fault.Forbidden, "redirect_not_allowed", "stays with https")
}

// TestAnswers: what a place answers with, and what comes of it.
func TestAnswers(t *testing.T) {
	release := make(chan bool)
	mux := http.NewServeMux()
	for _, code := range []int{204, 206, 400, 401, 403, 404, 410, 408, 425, 429, 500, 503} {
		mux.HandleFunc(fmt.Sprintf("/%d", code), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
		})
	}
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long(1<<20+1)) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, long(64<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/silent", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/stalls", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		<-release
	})
	mux.HandleFunc("/trickle", func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			io.WriteString(w, "b")
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "begin")
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(release)
	p := places(srv.Listener.Addr().String())
	p.Wait, p.Stall = 100*time.Millisecond, 100*time.Millisecond
	for path, want := range map[string]struct {
		kind fault.Kind
		code string
	}{
		"/204": {fault.BadInput, "url_refused"}, "/206": {fault.BadInput, "url_refused"}, "/400": {fault.BadInput, "url_refused"}, "/401": {fault.BadInput, "url_refused"},
		"/403": {fault.BadInput, "url_refused"}, "/404": {fault.BadInput, "url_refused"}, "/410": {fault.BadInput, "url_refused"},
		"/408": {fault.Unavailable, CodeUnreachable}, "/425": {fault.Unavailable, CodeUnreachable}, "/429": {fault.Unavailable, CodeUnreachable},
		"/500": {fault.Unavailable, CodeUnreachable}, "/503": {fault.Unavailable, CodeUnreachable},
		"/empty": {fault.BadInput, "empty_url"}, "/large": {fault.TooLarge, "url_too_large"}, "/endless": {fault.TooLarge, "url_too_large"},
		"/silent": {fault.Unavailable, CodeUnreachable}, "/stalls": {fault.Unavailable, CodeUnreachable}, "/short": {fault.Unavailable, CodeUnreachable},
	} {
		_, err := get(t, p, srv.URL+path)
		wantFault(t, err, want.kind, want.code)
		var f *fault.Error
		if errors.As(err, &f) && path == "/503" && f.After != 7*time.Second {
			t.Errorf("to come again after %v", f.After)
		}
	}
	var b strings.Builder
	began := errors.New("no room")
	_, err := p.Download(t.Context(), srv.URL+"/large", &b, Transfer{Most: 2 << 20, Began: func(size int64) error { return began }})
	if !errors.Is(err, began) || b.Len() > 0 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
	p.Stall = time.Minute
	none := func(int64, int64) error { return nil }
	p.Longest = 50 * time.Millisecond
	within, end := p.Within(t.Context())
	defer end()
	for range 2 { // any number of tries have one time
		_, err = p.Download(within, srv.URL+"/stalls", &b, Transfer{Most: 9, Began: func(int64) error { return nil }, Got: none})
		wantFault(t, err, fault.BadInput, "url_too_slow")
	}
	p.Pace = time.Nanosecond
	_, err = p.Download(t.Context(), srv.URL+"/trickle", &b, Transfer{Most: 9, Began: func(int64) error { return nil }, Got: none})
	wantFault(t, err, fault.BadInput, "url_too_slow")
	p.Pace = 0
	_, err = p.Download(t.Context(), srv.URL+"/trickle", &b, Transfer{Most: 9, Began: func(int64) error { return nil }, Got: func(int64, int64) error { return began }})
	if !errors.Is(err, began) {
		t.Errorf("after there was no room: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("canceled")
	_, err = p.Download(ctx, srv.URL+"/stalls", &b, Transfer{Most: 9, Began: func(int64) error { return nil }, Got: func(int64, int64) error { cancel(stop); return nil }})
	if !errors.Is(err, stop) {
		t.Errorf("after a cancel: %v", err)
	}
	srv.CloseClientConnections()
}

// TestCertificate: one that nobody vouches for is not accepted.
func TestCertificate(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	_, err := get(t, places(srv.Listener.Addr().String()), srv.URL)
	wantFault(t, err, fault.Unavailable, CodeUnreachable, "certificate")
}

// TestNoProxy: the environment leads nobody around the check.
func TestNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	p := places("a.test")
	p.Resolver = names(t, map[string][]string{"a.test": {"10.0.0.1"}})
	_, err := get(t, p, "http://a.test/")
	wantFault(t, err, fault.Forbidden, "address_not_allowed")
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0, "1e3": 0, "999999999": time.Hour, "99999999999999999999": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0, time.Now().Add(9 * time.Hour).UTC().Format(http.TimeFormat): time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {value}}, time.Hour); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestShown(t *testing.T) {
	for address, want := range map[string]string{
		"": "", "https://a.test/b.mp3": "https://a.test/b.mp3", "https://a.test:8/b": "https://a.test:8/b", "https://a.test/b?token=x#y": "https://a.test/b?…", "https://u:p@a.test/": "https://a.test/", "http://a b/": "",
	} {
		if got := Shown(address); got != want {
			t.Errorf("%q is shown as %q, want %q", address, got, want)
		}
	}
}
