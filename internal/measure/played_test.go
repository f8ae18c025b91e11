package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// played is a server that answers as it is told to.
type played struct {
	mu         sync.Mutex
	components []map[string]any
	heard      string // "" = refuse answers
	refuse     string // JSON of an error
	status     int    // of refuse
	cut        bool   // the answer is broken off
	jobs       int    // of other people
	others     int    // recordings that other people have ended during a run
	loaded     bool
	ended      int
	posts      map[string]int // by code
	broken     string         // code of failures that came after the headers
	dead       bool           // nothing is answered but the connection
	noMetrics  bool
	forbid     bool // unloading
	runs       int
}

const right = "Please open the window and let the fresh air into the room."

func well() *played {
	return &played{
		heard: right, loaded: true, posts: map[string]int{},
		components: []map[string]any{{"name": "engine", "status": "ok"}, {"name": "models", "status": "ok"}, {"name": "updater", "status": "unavailable"}},
	}
}

// fails has a component fail.
func (p *played) fails(name, code string) *played {
	p.components = append(p.components, map[string]any{"name": name, "status": "failed", "code": code, "error": "it does not work"})
	return p
}

func (p *played) with(change func(*played)) *played { change(p); return p }

func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		panic(http.ErrAbortHandler)
	}
	switch r.URL.Path {
	case "/health":
		fmt.Fprintf(w, `{"status":"ok","model_status":{"current_model_name":"tiny","model_loaded":%v}}`, p.loaded)
	case "/health/detailed":
		json.NewEncoder(w).Encode(map[string]any{
			"status": "ok", "environment": map[string]string{"slot": "a"}, "startup": map[string]any{"ready_ms": 1500},
			"versions": map[string]string{"server": "1 (c)", "engine": "1 (c)"}, "components": p.components,
			"units": []map[string]any{{"name": "whisper-appliance.service", "main_pid": 10}, {"name": "whisper-appliance-engine@a.service", "main_pid": 11},
				{"name": "whisper-appliance-engine@b.service", "main_pid": 12}, {"name": "whisper-appliance.socket"}},
		})
	case "/metrics":
		p.metrics(w)
	case "/api/enterprise/deployment-info":
		io.WriteString(w, `{"status":"success","deployment_type":"lxc"}`)
	case "/api/v1/engine/unload":
		if p.forbid {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"error":"no","code":"forbidden","hint":"be root"}`)
			return
		}
		p.loaded = false
		w.WriteHeader(http.StatusNoContent)
	case "/api/v1/transcriptions":
		p.transcribe(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (p *played) metrics(w http.ResponseWriter) {
	if p.noMetrics {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "# HELP whisper_appliance_jobs x\nwhisper_appliance_jobs %d\nwhisper_appliance_queue_windows 0\n", p.jobs)
	loaded := 0
	if p.loaded {
		loaded = 1
	}
	fmt.Fprintf(w, "whisper_appliance_engine_model_loaded %d\nwhisper_appliance_transcriptions_total %d\ngo_goroutines 7\n", loaded, p.ended)
	for code, n := range p.posts {
		fmt.Fprintf(w, "whisper_appliance_http_requests_total{code=%q,method=\"POST\",route=\"/v1/audio/transcriptions\"} %d\n", code, n)
	}
	fmt.Fprintln(w, `whisper_appliance_http_requests_total{code="500",method="GET",route="/health"} 99`)
	fmt.Fprintln(w, `whisper_appliance_http_requests_total{code="500",method="POST",route="other"} 99`)
	fmt.Fprintln(w, `whisper_appliance_http_request_duration_seconds_bucket{method="POST",route="/x",le="+Inf"} 1e3`)
	fmt.Fprintln(w, "whisper_appliance_odd{ NaNx\nwhisper_appliance_alone")
	if p.broken != "" {
		fmt.Fprintf(w, "whisper_appliance_transcription_failures_total{code=%q} 3\n", p.broken)
	}
}

func (p *played) transcribe(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	p.runs++
	p.ended += 1 + p.others
	p.loaded = true
	switch {
	case p.heard == "":
		w.WriteHeader(p.status)
		io.WriteString(w, p.refuse)
	case p.cut:
		io.WriteString(w, "event: progress\ndata: {}\n\n")
	default:
		segment, _ := json.Marshal(map[string]any{"text": p.heard, "start_ns": 0, "end_ns": 4e9})
		fmt.Fprintf(w, "event: segment\ndata: %s\n\nevent: done\ndata: {\"language\":\"en\",\"duration_ns\":8000000000}\n\n", segment)
	}
}

// serve plays behind a Unix socket.
func (p *played) serve(t *testing.T) Server {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: p}}
	server.Start()
	t.Cleanup(server.Close)
	return Server{Socket: socket, Proc: processes(t, map[int]int{10: 100, 11: 50, 12: 7}), Now: func() time.Duration { return time.Hour }}
}

// processes is a /proc whose processes hold so many KiB.
func processes(t *testing.T, kib map[int]int) string {
	t.Helper()
	proc := t.TempDir()
	for pid, n := range kib {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("00400000-7fff [rollup]\nRss:   %d kB\nPss:   %d kB\nPss_Dirty: 1 kB\n", 2*n, n)
		if err := os.WriteFile(filepath.Join(dir, "smaps_rollup"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}
