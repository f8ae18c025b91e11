package webhook

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/outbound"
)

// secret is n bytes as a secret is written down.
func secret(n int, of byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(of)), n)))
}

// sender sends to one host with the secrets in a file.
func sender(t *testing.T, host string, secrets ...string) *Sender {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Sender{Secret: func() string { return file }, Places: &outbound.Places{
		Field: "webhook", Setting: "webhooks in [outbound]", Hosts: func() []string { return []string{host} },
		Networks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} },
	}}
}

func wantFault(t *testing.T, err error, kind fault.Kind, code string, says ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != kind || f.Code != code {
		t.Errorf("got %#v (%v), want %s", f, err, code)
		return
	}
	for _, word := range says {
		if !strings.Contains(f.Message+"\n"+fault.Hint(err), word) {
			t.Errorf("%q, %q do not say %q", f.Message, fault.Hint(err), word)
		}
	}
}

// TestSigned: an implementation that is not ours verifies what is sent, by either
// of two secrets, and by no other.
func TestSigned(t *testing.T) {
	old, fresh, other := secret(24, 'a'), secret(64, 'b'), secret(32, 'c')
	body := `{"type":"job.done","data":{"name":"Übung.wav"}}`
	got := make(chan error, 3)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil || string(data) != body || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Webhook-Id") != "msg_1" {
			t.Errorf("%s, %v, %v", data, r.Header, err)
		}
		for _, s := range []string{old, fresh, other} {
			v, err := standard.NewWebhook(s)
			if err != nil {
				t.Error(err)
				continue
			}
			got <- v.Verify(data, r.Header)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	s := sender(t, srv.Listener.Addr().String(), old, fresh)
	if err := s.Send(t.Context(), Message{ID: "msg_1", To: srv.URL + "/hook?token=1", Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	if first, second, third := <-got, <-got, <-got; first != nil || second != nil || third == nil {
		t.Errorf("verified: %v, %v; and by another secret %v", first, second, third)
	}
}

// TestAnswers: what a receiver answers, and what comes of the message.
func TestAnswers(t *testing.T) {
	answer := make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.Header().Set("Location", "/elsewhere")
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		w.WriteHeader(<-answer)
	}))
	defer srv.Close()
	s := sender(t, srv.Listener.Addr().String(), secret(24, 'a'))
	send := func(code int) error {
		answer <- code
		return s.Send(t.Context(), Message{ID: "msg_1", To: srv.URL, Body: []byte("{}")})
	}
	for _, code := range []int{200, 202, 204} {
		if err := send(code); err != nil {
			t.Errorf("%d: %v", code, err)
		}
	}
	for _, code := range []int{400, 404, 429, 500, 503} {
		err := send(code)
		wantFault(t, err, fault.Unavailable, "webhook_refused", http.StatusText(code))
		if pause, more := Again(1, err); pause != 90*time.Second || !more {
			t.Errorf("%d: again after %v, %v", code, pause, more)
		}
	}
	for _, code := range []int{301, 307} {
		wantFault(t, send(code), fault.BadInput, "too_many_redirects", "not followed")
	}
	err := send(410)
	wantFault(t, err, fault.Conflict, CodeGone)
	if _, more := Again(1, err); more {
		t.Error("who wants no more of it is asked again")
	}
	srv.Close()
	wantFault(t, s.Send(t.Context(), Message{ID: "msg_1", To: srv.URL}), fault.Unavailable, outbound.CodeUnreachable)
	wantFault(t, s.Send(t.Context(), Message{ID: "msg_1", To: "https://elsewhere.test/"}), fault.Forbidden, "host_not_allowed")
}

// TestAgain: pauses grow to about a day in all, spread, and then there are no more.
func TestAgain(t *testing.T) {
	down := fault.New(fault.Unavailable, "webhook_refused", "no")
	var sum, before time.Duration
	n := 1
	for ; ; n++ {
		pause, more := Again(n, down)
		if !more {
			break
		}
		if pause < before {
			t.Errorf("pause %d is %v, after %v", n, pause, before)
		}
		before = pauses()[n-1]
		sum += pause
	}
	if n != 10 || sum < 20*time.Hour || sum > 30*time.Hour {
		t.Errorf("%d attempts in %v", n, sum)
	}
	different := map[time.Duration]bool{}
	for range 20 {
		pause, _ := Again(1, down)
		different[pause] = true
	}
	if len(different) < 2 {
		t.Error("all come back at once")
	}
	down.After = 300 * time.Hour
	if pause, _ := Again(1, down); pause != longestWish {
		t.Errorf("a receiver wished for %v", pause)
	}
}

// TestSecrets: nothing is signed with what is not as it should be, and nobody is
// told what it is.
func TestSecrets(t *testing.T) {
	for text, says := range map[string]string{
		"":                              "empty",
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2Laa": "does not begin with",
		secretPrefix + "!!!":            "no base64",
		secret(23, 'a'):                 "it has 23 bytes",
		secret(65, 'a'):                 "it has 65 bytes",
		secret(24, 'a') + "\nwhsec_x":   "no base64",
		strings.Repeat(secret(24, 'a')+"\n", 200): "longer than",
	} {
		s := sender(t, "a.test", text)
		err := s.Check("https://a.test/")
		unsigned(t, s, err, says)
		if len(text) > 20 && err != nil && strings.Contains(err.Error()+fault.Hint(err), text[10:20]) {
			t.Errorf("the secret is told: %v", err)
		}
	}
	s := sender(t, "a.test", secret(32, 'a'))
	if err := s.Check("https://a.test/"); err != nil {
		t.Error(err)
	}
	wantFault(t, s.Check("https://b.test/"), fault.Forbidden, "host_not_allowed")
	if err := os.Chmod(s.Secret(), 0o644); err != nil {
		t.Fatal(err)
	}
	unsigned(t, s, s.Check("https://a.test/"), "everybody")
	if err := os.Remove(s.Secret()); err != nil {
		t.Fatal(err)
	}
	unsigned(t, s, s.Check("https://a.test/"), "no such file")
}

// unsigned: the log is told what is wrong with which file, and the sender neither.
func unsigned(t *testing.T, s *Sender, err error, why string) {
	t.Helper()
	wantFault(t, err, fault.Unavailable, CodeSecret, "an administrator")
	var f *fault.Error
	if !errors.As(err, &f) || strings.Contains(f.Message+f.Hint, s.Secret()) || strings.Contains(f.Message+f.Hint, why) {
		t.Errorf("the sender is told: %+v", f)
	}
	if !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), s.Secret()) {
		t.Errorf("the log is not told of %q: %v", why, err)
	}
}
