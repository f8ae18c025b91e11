//go:build e2e

package supervise

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// TestTraffic: each fifth request fails and succeeds when it is repeated, and
// all are counted.
func TestTraffic(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%5 == 0 {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		w.Write([]byte("text")) //nolint:errcheck
	}))
	defer srv.Close()
	end := Traffic{Address: srv.Listener.Addr().String(), Kept: 1, Fresh: 1, Uploads: 1, Text: "text"}.Begin()
	eventually(t, "200 requests", func() bool { return asked.Load() >= 200 })
	tally := end()
	if tally.Failed == 0 || tally.Lost() != 0 || tally.Refused != 0 || tally.Succeeded+tally.Failed != tally.Asked {
		t.Errorf("%+v", tally)
	}
	if failed := asked.Load() / 5; int64(tally.Failed) > failed || int64(tally.Failed) < failed-20 {
		t.Errorf("%d failed of %d", tally.Failed, asked.Load())
	}
}

// TestRefused: connections that nobody takes are told from requests that fail,
// and what never succeeds is lost.
func TestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	tr, c := Traffic{Address: address}, &counting{}
	if tr.one(c, httpClient(), tr.get, false) {
		t.Error("nobody listens, and it did not fail")
	}
	if tally := c.tally; tally.Refused != 1 || tally.Lost() != 1 || len(tally.First) != 1 {
		t.Errorf("%+v", tally)
	}
	tr = Traffic{Socket: filepath.Join(t.TempDir(), "none"), Kept: 1, Again: time.Millisecond}
	end := tr.Begin()
	time.Sleep(20 * time.Millisecond) // for some requests
	if tally := end(); tally.Refused < tally.Asked || tally.Asked == 0 || tally.Lost() != tally.Asked {
		t.Errorf("%+v", tally)
	}
}
