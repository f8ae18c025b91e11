package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRaw: an answer comes as it is, whatever its status, and within bounds.
func TestRaw(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/broken":
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "half")
		case "/long":
			w.Write(bytes.Repeat([]byte("x"), mostAnswer+1))
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, r.URL.Path+" "+r.Header.Get("Authorization"))
		}
	}))
	defer srv.Close()
	c := &Client{Base: srv.URL, Key: "k"}
	if status, body, err := c.Raw(t.Context(), "/readyz"); status != 503 || string(body) != "/readyz Bearer k" || err != nil {
		t.Errorf("%d %q, %v", status, body, err)
	}
	if status, body, err := c.Raw(t.Context(), "/broken"); status != 200 || string(body) != "half" || !errors.Is(err, ErrCutOff) {
		t.Errorf("broken off: %d %q, %v", status, body, err)
	}
	if _, body, err := c.Raw(t.Context(), "/long"); len(body) != mostAnswer || err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("too long: %d bytes, %v", len(body), err)
	}
	srv.Close()
	if status, _, err := c.Raw(t.Context(), "/"); status != 0 {
		t.Errorf("nobody answers %d", status)
	} else {
		wantCode(t, err, "no_server")
	}
}
