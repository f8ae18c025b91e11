package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/job"
	"whisper-appliance/internal/outbound"
	"whisper-appliance/internal/webhook"
	"whisper-appliance/internal/work"
)

// TestJobsFromURL: the server fetches a recording, and tells when it is done.
func TestJobsFromURL(t *testing.T) {
	told := make(chan string, 9)
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hook":
			body, _ := io.ReadAll(r.Body) //nolint:errcheck // the test sees what came
			told <- string(body)
		case "/talks/one.mp3":
			io.WriteString(w, "sound")
		default:
			http.NotFound(w, r)
		}
	}))
	defer outside.Close()
	var named atomic.Bool
	hosts := func() []string {
		if !named.Load() {
			return nil
		}
		return []string{outside.Listener.Addr().String()}
	}
	places := func(field string) *outbound.Places {
		return &outbound.Places{Field: field, Setting: field + "s", Hosts: hosts,
			Networks: func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }}
	}
	secret := put(t, filepath.Join(t.TempDir(), "secret"), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", 0o600)
	newJobsRig(t, nil, func(d *work.Desk) {
		d.From = places("url")
		d.Webhooks = &webhook.Sender{Places: places("webhook"), Secret: func() string { return secret }}
		d.Event = func(j job.Job) ([]byte, error) { return json.Marshal(map[string]string{"id": j.ID}) }
	})
	code, _, errOut := command(t.Context(), "jobs", "add", outside.URL+"/talks/one.mp3")
	if code != exitNoPerm || !strings.Contains(errOut, "goes nowhere") {
		t.Errorf("where no host is named: exit code %d, %s", code, errOut)
	}
	named.Store(true)
	to := t.TempDir()
	code, out, errOut := command(t.Context(), "jobs", "add", "--wait", "--webhook", outside.URL+"/hook", "--output", to, outside.URL+"/talks/one.mp3?token=1")
	if code != exitOK {
		t.Fatalf("exit code %d, %s%s", code, out, errOut)
	}
	if text, err := os.ReadFile(filepath.Join(to, "one.txt")); err != nil || !strings.Contains(string(text), "Hello there.") {
		t.Errorf("%q, %v", text, err)
	}
	body := <-told
	var jobs []api.Job
	document(t, &jobs, "jobs", "list", "--json")
	if len(jobs) != 1 || !strings.Contains(body, jobs[0].ID) || jobs[0].Name != "one.mp3" {
		t.Fatalf("told %s of %+v", body, jobs)
	}
	eventually(t, "the delivery being shown", func() bool {
		_, out, _ := command(t.Context(), "jobs", "show", jobs[0].ID)
		return strings.Contains(out, "delivered") && strings.Contains(out, outside.URL+"/talks/one.mp3?…")
	})
	if code, _, errOut := command(t.Context(), "jobs", "add", "--wait", outside.URL+"/none"); code == exitOK || !strings.Contains(errOut, "404") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestNamesOf(t *testing.T) {
	files := []string{"a/b.mp3", "-", "https://a.test/talks/one.mp3?x=1", "http://a.test", "https://a.test/", "https://a.test/talks/"}
	if got := namesOf(files); !slices.Equal(got, []string{"a/b.mp3", "-", "one.mp3", "a.test", "a.test", "talks"}) {
		t.Errorf("%v", got)
	}
}

func TestProgressLine(t *testing.T) {
	for want, p := range map[string]api.Progress{
		"fetching  2 KiB of 4 KiB": {Phase: "fetching", Fetched: 2 << 10, Size: 4 << 10}, "fetching  2 KiB": {Phase: "fetching", Fetched: 2 << 10},
		"fetching": {Phase: "fetching"}, "recognising  50 %  0:01 of 0:02": {Phase: "recognising", Done: 1, Total: 2},
	} {
		if got := progressLine(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
