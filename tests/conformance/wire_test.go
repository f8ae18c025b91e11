//go:build e2e

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// encode writes a form by hand: the library would mend what is broken on purpose.
func encode(parts []part) (body, kind string) {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "--b\r\nContent-Disposition: form-data; name=\"%s\"", p.name)
		if p.file != "" {
			fmt.Fprintf(&b, "; filename=\"%s\"\r\nContent-Type: application/octet-stream", p.file)
		}
		fmt.Fprintf(&b, "\r\n\r\n%s\r\n", p.value)
	}
	b.WriteString("--b--\r\n")
	return b.String(), form
}

// wire is the request as it goes over the connection.
func (b bad) wire(host, key string) []byte {
	body, kind := b.body, b.kind
	if len(b.parts) > 0 {
		body, kind = encode(b.parts)
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", or(b.method, "POST"), or(b.path, transcriptions), host)
	if b.auth != "none" {
		fmt.Fprintf(&w, "Authorization: %s\r\n", or(b.auth, "Bearer "+key))
	}
	for _, h := range b.header {
		fmt.Fprintf(&w, "%s\r\n", h)
	}
	if kind != "none" {
		fmt.Fprintf(&w, "Content-Type: %s\r\n", kind)
	}
	switch b.length {
	case chunked:
		w.WriteString("Transfer-Encoding: chunked\r\n")
	case 0:
		fmt.Fprintf(&w, "Content-Length: %d\r\n", len(body))
	default:
		fmt.Fprintf(&w, "Content-Length: %d\r\n", b.length)
	}
	fmt.Fprintf(&w, "\r\n%s", body[:len(body)-b.cut])
	return w.Bytes()
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes the request on a connection of its own. It reads while it
// writes, as a server may answer before it has read everything.
func (b bad) send(address, key string) (answer, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Minute))
	go func() {
		conn.Write(b.wire(address, key)) //nolint:errcheck // the answer says why
		if b.cut > 0 {
			conn.(*net.TCPConn).CloseWrite()
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: or(b.method, "POST")})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, err
}

// refusal is an error in either dialect, in one form.
type refusal struct{ message, kind, param, code string }

// read takes an error object apart and fails where its form is wrong.
func (b bad) read(t *testing.T, a answer) refusal {
	t.Helper()
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Fatalf("Content-Type %q, want application/json: %.200s", got, a.body)
	}
	if strings.HasPrefix(or(b.path, transcriptions), "/v1/") {
		var e struct {
			Error *struct {
				Message, Type string
				Param, Code   *string
			}
		}
		if err := json.Unmarshal(a.body, &e); err != nil || e.Error == nil || e.Error.Type == "" {
			t.Fatalf("no OpenAI error object: %.300s", a.body)
		}
		for _, key := range []string{`"param"`, `"code"`} {
			if !bytes.Contains(a.body, []byte(key)) {
				t.Errorf("the error object lacks %s: %.300s", key, a.body)
			}
		}
		return refusal{e.Error.Message, e.Error.Type, deref(e.Error.Param), deref(e.Error.Code)}
	}
	var e struct {
		Error, Hint string
		Detail      any // FastAPI's
	}
	if err := json.Unmarshal(a.body, &e); err != nil {
		t.Fatalf("no error object: %.300s", a.body)
	}
	if _, list := e.Detail.([]any); b.isASR() && (e.Detail == nil || list != (a.status == 422)) {
		t.Errorf("detail is not as FastAPI has it: %.300s", a.body)
	}
	return refusal{message: strings.TrimSpace(e.Error + " " + e.Hint)}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// insides must not be seen by clients.
var insides = regexp.MustCompile(`goroutine|panic|\.go:\d|runtime error|root:x:|/proc/|/dev/fd|\x00`)

// check compares an answer with what b wants.
func (b bad) check(t *testing.T, a answer, state string) {
	t.Helper()
	if b.silent && a.status == 200 {
		var ok struct{ Text *string }
		if err := json.Unmarshal(a.body, &ok); err != nil || ok.Text == nil || *ok.Text != "" {
			t.Errorf("200 with %.200s, want an empty text", a.body)
		}
		return
	}
	if a.status != b.status {
		t.Errorf("status %d, want %d: %.300s", a.status, b.status, a.body)
	}
	r := b.read(t, a)
	if r.message == "" || len(r.message) > 1000 {
		t.Errorf("message of %d bytes: %.200q", len(r.message), r.message)
	}
	if strings.HasPrefix(or(b.path, transcriptions), "/v1/") {
		if b.param != "" && strings.TrimSuffix(r.param, "[]") != b.param {
			t.Errorf("param %.100q, want %q: %.200s", r.param, b.param, r.message)
		}
		if b.code != "" && r.code != b.code {
			t.Errorf("code %q, want %q: %.200s", r.code, b.code, r.message)
		}
		if want := "invalid_request_error"; b.status < 429 && r.kind != want {
			t.Errorf("type %q, want %q", r.kind, want)
		}
	}
	if !regexp.MustCompile("(?is)" + b.says).MatchString(r.message) {
		t.Errorf("message %.300q does not say %q", r.message, b.says)
	}
	if m := insides.FindString(string(a.body)); m != "" || strings.Contains(string(a.body), state) {
		t.Errorf("the answer shows the server's insides: %.300s", a.body)
	}
	if a.status == 405 && a.header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
}

// TestBadInputs sends every bad request twice. The first time each must get
// its answer, the second time nothing may grow.
func TestBadInputs(t *testing.T) {
	u, err := url.Parse(base(t))
	if err != nil || u.Scheme != "http" {
		t.Fatalf("WA_URL %s is no http:// address: %v", u, err)
	}
	key, state := setting(t, "WA_KEY"), setting(t, "WA_STATE")
	limit, err := strconv.Atoi(setting(t, "WA_MAX_UPLOAD"))
	if err != nil || limit > 64<<20 {
		t.Fatalf("WA_MAX_UPLOAD is %q; it must be the server's limit in bytes, at most 64 MiB here", os.Getenv("WA_MAX_UPLOAD"))
	}
	server := process(setting(t, "WA_PID"))
	ref := reference(t)
	var table []bad
	for _, part := range [][]bad{badFields(ref), badBodies(ref), badFiles(), overLimit(limit), badRoutes(ref), badDialects(ref, limit)} {
		table = append(table, part...)
	}
	if len(table) < 50 {
		t.Fatalf("only %d bad inputs", len(table))
	}
	good := bad{parts: ref.with()}
	for _, b := range append(table, good) {
		if b.status == 0 {
			b.status, b.silent = 200, false
			b.name = "and a good one"
		}
		t.Run(b.name, func(t *testing.T) {
			a, err := b.send(u.Host, key)
			switch {
			case err != nil:
				t.Fatal(err)
			case b.status != 200:
				b.check(t, a, state)
			case a.status != 200:
				t.Errorf("status %d: %s", a.status, a.body)
			}
		})
	}
	before := server.measure(t)
	for _, b := range append(table, good) {
		if _, err := b.send(u.Host, key); err != nil {
			t.Errorf("%s, again: %v", b.name, err)
		}
	}
	server.wantNoGrowth(t, before)
	wantEmpty(t, filepath.Join(state, "spool"))
	t.Logf("%d bad inputs", len(table))
}

// wantEmpty fails when dir holds anything.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("left in the spool: %s", e.Name())
	}
}
