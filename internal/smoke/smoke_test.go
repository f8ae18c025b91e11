package smoke

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// played is a server that answers as it is told to.
type played struct {
	health     string // of /health
	updates    string // of update-status; "" = there is none
	refuses    int    // status of update-status; 0 = 200
	detailed   map[string]any
	deployment string
	heard      string            // text of the transcription; "" = it is refused
	after      map[string]string // versions once that was asked for
	late       bool              // they are seen when health was asked for twice since
	asked      int
	told       bool // it was transcribed
}

func good() *played {
	return &played{
		health: `{"status":"ok"}`,
		detailed: map[string]any{
			"status": "ok", "environment": map[string]string{"slot": "a"},
			"versions": map[string]string{"server": "1.2.3 (c0ffee)", "engine": "1.2.3 (c0ffee)"},
			"components": []map[string]any{
				{"name": "engine", "status": "ok"}, {"name": "models", "status": "ok"},
				{"name": "updater", "status": "unavailable"}, {"name": "maintenance", "status": "unavailable"},
			},
		},
		deployment: `{"status":"success","deployment_type":"lxc"}`,
		heard:      strings.TrimSpace(said),
	}
}

func (p *played) component(c map[string]any) *played {
	p.detailed["components"] = append(p.detailed["components"].([]map[string]any), c)
	return p
}

// updater has its component in a state, and its door answer.
func (p *played) updater(state map[string]any, answer string) *played {
	for _, c := range p.detailed["components"].([]map[string]any) {
		if c["name"] == "updater" {
			maps.Copy(c, state)
		}
	}
	p.updates = answer
	return p
}

// refusing has a well updater's door answer with a status.
func (p *played) refusing(status int, answer string) *played {
	p.refuses = status
	return p.updater(map[string]any{"status": "ok"}, answer)
}

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health":
		p.asked++
		io.WriteString(w, p.health)
	case "/health/detailed":
		if p.after != nil && p.told && (!p.late || p.asked > 1) {
			p.detailed["versions"] = p.after
		}
		json.NewEncoder(w).Encode(p.detailed)
	case "/api/enterprise/deployment-info":
		io.WriteString(w, p.deployment)
	case "/api/enterprise/update-status":
		if p.updates == "" {
			http.NotFound(w, r)
			return
		}
		if p.refuses != 0 {
			w.WriteHeader(p.refuses)
		}
		io.WriteString(w, p.updates)
	case "/api/v1/transcriptions":
		body, _ := io.ReadAll(r.Body)
		if p.heard == "" || !bytes.Contains(body, clip) {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":"the engine is away","code":"engine_down","hint":"wait"}`)
			return
		}
		p.asked, p.told = 0, true
		segment, _ := json.Marshal(map[string]any{"text": p.heard, "start": 0, "end": 4})
		fmt.Fprintf(w, "event: segment\ndata: %s\n\nevent: done\ndata: {\"language\":\"en\"}\n\n", segment)
	default:
		http.NotFound(w, r)
	}
}

// serve plays on a Unix socket, and on a TCP port that takes HTTP and HTTPS.
func (p *played) serve(t *testing.T) Check {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: l, Config: &http.Server{Handler: p}}
	local.Start()
	t.Cleanup(local.Close)
	return Check{Socket: socket, Address: both(t, p), Version: "1.2.3", Wait: time.Nanosecond}
}

// both is a port on which h answers over HTTP and HTTPS: the first byte tells.
func both(t *testing.T, h http.Handler) string {
	t.Helper()
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go forward(c, plain.Listener.Addr().String(), secure.Listener.Addr().String())
		}
	}()
	return l.Addr().String()
}

func forward(c net.Conn, plain, secure string) {
	defer c.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	to := plain
	if first[0] == 0x16 {
		to = secure
	}
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	d.Write(first)
	go io.Copy(d, c)
	io.Copy(c, d)
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name    string
		server  *played
		change  func(*Check)
		verdict Verdict
		check   string // the one that decides
		says    string // part of what it says
	}{
		{"all well", good(), nil, Passed, "transcription", strings.TrimSpace(said)},
		{"small slips of a small model", func() *played { p := good(); p.heard = strings.ToLower(p.heard); return p }(), nil, Passed, "transcription", ""},
		{"other version", good(), func(c *Check) { c.Version = "9" }, Failed, "version", "should be 9"},
		{"version with its commit", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (abc)"}
			return p
		}(), nil, Passed, "version", "1.2.3 (abc)"},
		{"another commit", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (abc)"}
			return p
		}(), func(c *Check) { c.Version = "1.2.3 (def)" }, Failed, "version", "should be 1.2.3 (def)"},
		{"any version", good(), func(c *Check) { c.Version = "" }, Passed, "version", "1.2.3"},
		{"other engine", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (c0ffee)", "engine": "1.2.2 (c0ffee)"}
			return p
		}(), nil, Failed, "engine", "the engine is version 1.2.2"},
		{"other engine, which the recording has started", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (c0ffee)"}
			p.after = map[string]string{"server": "1.2.3 (c0ffee)", "engine": "1.2.2 (c0ffee)"}
			return p
		}(), nil, Failed, "engine", "the engine is version 1.2.2"},
		{"an engine before that has ended", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (c0ffee)", "engine": "1.2.2 (c0ffee)"}
			p.after = map[string]string{"server": "1.2.3 (c0ffee)", "engine": "1.2.3 (c0ffee)"}
			p.late = true
			return p
		}(), nil, Passed, "engine", "1.2.3"},
		{"an engine without a version", func() *played {
			p := good()
			p.detailed["versions"] = map[string]string{"server": "1.2.3 (c0ffee)"}
			return p
		}(), nil, Passed, "engine", "does not know"},
		{"broken component", good().component(map[string]any{"name": "spool", "status": "failed", "code": "spool_not_writable", "error": "read-only"}),
			nil, Failed, "components", "spool: read-only"},
		{"known weakness", good().component(map[string]any{"name": "memory", "status": "failed", "code": "low_memory", "error": "little"}),
			nil, Degraded, "components", "memory: little"},
		{"no speech detector", good().component(map[string]any{"name": "vad", "status": "failed", "code": "detector_missing", "error": "by loudness"}),
			nil, Degraded, "components", "vad: by loudness"},
		{"no components", func() *played { p := good(); p.detailed["components"] = []map[string]any{}; return p }(), nil, Failed, "components", "names no"},
		{"no model", func() *played {
			p := good()
			p.heard = ""
			p.detailed["components"] = []map[string]any{{"name": "models", "status": "failed", "code": "model_not_installed", "error": "being fetched"}}
			return p
		}(), nil, Degraded, "transcription", "no model yet: being fetched"},
		{"health without its words", func() *played { p := good(); p.health = `{"status": "fine"}`; return p }(), nil, Failed, "http", "does not say"},
		{"health is no health", func() *played { p := good(); p.health = `<html>`; return p }(), func(c *Check) { c.Wait = 0 }, Failed, "answers", ""},
		{"no deployment type", func() *played { p := good(); p.deployment = `{"status":"success"}`; return p }(), nil, Failed, "deployment-info", "type"},
		{"another text", func() *played { p := good(); p.heard = "something else entirely was heard"; return p }(), nil, Failed, "transcription", "something else"},
		{"engine away", func() *played { p := good(); p.heard = ""; return p }(), nil, Failed, "transcription", "the engine is away"},
		{"no updater", good(), nil, Passed, "check-updates", "not in this version"},
		{"updater", good().updater(map[string]any{"status": "ok"}, `{"status":"success","update_state":"idle"}`), nil, Passed, "check-updates", "idle"},
		{"updater away", good().updater(map[string]any{"status": "failed", "code": "updater_unreachable", "error": "no bus"}, ""), nil, Failed, "check-updates", "updater: no bus"},
		{"updater without its doors", good().updater(map[string]any{"status": "ok"}, ""), nil, Failed, "check-updates", "404"},
		{"updater that does not say how it is", good().updater(map[string]any{"status": "ok"}, `{"status":"success"}`), nil, Failed, "check-updates", "update_state"},
		{"updater whose record cannot be read", good().refusing(503, `{"error":"deployments.jsonl: permission denied","code":"record_unreadable","hint":"chmod it"}`),
			nil, Degraded, "check-updates", "deployments.jsonl: permission denied"},
		{"updater that was not asked yet", good().refusing(503, `{"error":"the updater has not run since this machine started","code":"no_status","hint":"x"}`),
			nil, Passed, "check-updates", "has not run since"},
		{"updater whose door breaks", good().refusing(500, `{"error":"boom","code":"internal"}`), nil, Failed, "check-updates", "500: boom"},
		{"updater behind somebody else's door", good().refusing(503, `<html>`), nil, Failed, "check-updates", "503"},
		{"updater that answers something else", good().updater(map[string]any{"status": "ok"}, `<html>`), nil, Failed, "check-updates", "update_state"},
		{"no address", good(), func(c *Check) { c.Address = "" }, Passed, "https", "no address"},
		{"nobody at the address", good(), func(c *Check) { c.Address = "127.0.0.1:1" }, Failed, "http", "does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := c.server.serve(t)
			if c.change != nil {
				c.change(&check)
			}
			var told int
			check.Tell = func(Result) { told++ }
			report := check.Run(t.Context())
			if report.Verdict != c.verdict {
				t.Errorf("verdict %s, want %s", report.Verdict, c.verdict)
			}
			if told != len(report.Results) || told == 0 {
				t.Errorf("%d results were told of %d", told, len(report.Results))
			}
			for _, r := range report.Results {
				if r.Name == c.check && !strings.Contains(r.Says, c.says) {
					t.Errorf("%s says %q, want %q in it", r.Name, r.Says, c.says)
				}
				if r.Name != c.check && r.Verdict == Failed && c.verdict != Failed {
					t.Errorf("%s failed: %s", r.Name, r.Says)
				}
			}
		})
	}
}

func TestRunAgainstNobody(t *testing.T) {
	began := time.Now()
	report := Check{Socket: filepath.Join(t.TempDir(), "none"), Wait: time.Nanosecond}.Run(t.Context())
	if report.Verdict != Failed {
		t.Errorf("verdict %s of a server that is not there", report.Verdict)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	skippedAfter(t, report)
}

// skippedAfter wants the first check failed and each one after it passed over.
func skippedAfter(t *testing.T, report Report) {
	t.Helper()
	if len(report.Results) < 10 || report.Results[0].Name != "answers" || report.Results[0].Verdict != Failed {
		t.Fatalf("the first of %d checks: %+v", len(report.Results), report.Results[0])
	}
	for _, r := range report.Results[1:] {
		if r.Verdict != Skipped || r.Says != "the server does not answer" {
			t.Errorf("%s is %s: %s", r.Name, r.Verdict, r.Says)
		}
	}
}

// TestRunWithoutHealth: a server that answers, and not with what is asked for,
// is none either.
func TestRunWithoutHealth(t *testing.T) {
	p := good()
	delete(p.detailed, "status")
	check := p.serve(t)
	skippedAfter(t, check.Run(t.Context()))
}
