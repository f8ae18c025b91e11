package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/decode"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/environment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/systemd"
	"whisper-appliance/internal/version"
	"whisper-appliance/internal/watchdog"
)

// part of the appliance that a test breaks and mends.
type breakable struct{ err atomic.Pointer[fault.Error] }

func (b *breakable) check(context.Context) (string, error) {
	if f := b.err.Load(); f != nil {
		return "", f
	}
	return "", nil
}

// withParts gives the rig components that are checked again when asked after.
// Breaking one is seen after its next check, for which breakPart waits.
func withParts(t *testing.T, r *rig, critical string, names ...string) map[string]*breakable {
	t.Helper()
	parts := map[string]*breakable{}
	list := []component.Component{{Name: "updater", Does: "brings new versions", Planned: "comes with a later version"}}
	for _, name := range names {
		parts[name] = &breakable{}
		list = append(list, component.Component{Name: name, Does: "is there", Critical: name == critical, Check: parts[name].check, Every: time.Hour})
	}
	reg, err := component.New(list, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); reg.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	r.Components = reg
	return parts
}

func (r *rig) breakPart(t *testing.T, part *breakable, name, code string) {
	t.Helper()
	part.err.Store(fault.New(fault.Unavailable, code, "the %s is broken", name).Try("mend the %s", name))
	r.Components.Recheck(name)
	r.waitFor(t, name, component.Failed)
}

func (r *rig) waitFor(t *testing.T, name string, want component.Status) {
	t.Helper()
	eventually(t, name+" "+string(want), func() bool {
		st, _ := r.Components.State(name)
		return st.Status == want
	})
}

// TestBrokenComponent: the doors that need it answer 503 with its words, the
// others work, and it is well again when mended.
func TestBrokenComponent(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	parts := withParts(t, r, "", "engine", "tls")
	srv := r.start(t)
	do(t, "GET", srv.URL+"/health", nil).want(t, 200, `"status":"ok"`)

	r.breakPart(t, parts["tls"], "tls", "no_certificate")
	do(t, "GET", srv.URL+"/health", nil).want(t, 200, `"status":"degraded"`, "tls: the tls is broken", `"system_ready":true`)
	post(t, srv.URL+"/transcribe", recording("audio")).want(t, 200)

	r.breakPart(t, parts["engine"], "engine", "engine_gone")
	do(t, "GET", srv.URL+"/health", nil).want(t, 503, `"status":"degraded"`, "engine: the engine is broken", `"system_ready":false`)
	do(t, "GET", srv.URL+"/readyz", nil).want(t, 503, "engine: the engine is broken")
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 503, "the engine is broken", "mend the engine", `"code":"engine_gone"`)
	for _, path := range []string{"/transcribe", "/api/transcribe-live", "/api/v1/transcriptions"} {
		field := "audio"
		if strings.HasPrefix(path, "/api/v1") {
			field = "file"
		}
		post(t, srv.URL+path, recording(field)).want(t, 503, "the engine is broken", `"code":"engine_gone"`, `"hint":"mend the engine"`)
	}
	for _, path := range []string{"/", "/v1/models", "/api/status", "/livez", "/openapi.json", "/metrics", "/api/v1/components"} {
		do(t, "GET", srv.URL+path, nil).want(t, 200)
	}
	parts["engine"].err.Store(nil)
	r.waitFor(t, "engine", component.OK)
	post(t, srv.URL+"/transcribe", recording("audio")).want(t, 200)
}

// brokenDecoder takes what is sound already and nothing else.
type brokenDecoder struct{ toneDecoder }

func (d brokenDecoder) Decode(ctx context.Context, f *os.File, l decode.Limits, sink io.Writer) (decode.Info, error) {
	head := make([]byte, 4)
	f.ReadAt(head, 0) //nolint:errcheck // a shorter file is good enough
	if string(head) == "opus" {
		return decode.Info{}, fault.New(fault.Internal, decode.CodeDecoderFailed, "the decoder could not do its work")
	}
	return d.toneDecoder.Decode(ctx, f, l, sink)
}

// TestBrokenDecoder: what needs no decoder is transcribed all the same, and
// what is to blame itself is told so.
func TestBrokenDecoder(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	r.Service.Decoder = brokenDecoder{toneDecoder{threeWindows()}}
	parts := withParts(t, r, "", "decoder")
	srv := r.start(t)
	opus := part{"audio", "a.opus", "opus and more"}
	post(t, srv.URL+"/transcribe", opus).want(t, 500, `"code":"decoder_failed"`)
	r.breakPart(t, parts["decoder"], "decoder", "no_ffmpeg")
	do(t, "GET", srv.URL+"/health", nil).want(t, 503, "decoder: the decoder is broken")
	post(t, srv.URL+"/transcribe", opus).want(t, 503, `"code":"no_ffmpeg"`, "decoder is not available", `"hint":"mend the decoder"`)
	post(t, srv.URL+"/transcribe", recording("audio")).want(t, 200)
	post(t, srv.URL+"/transcribe", part{"audio", "a.wav", "bad"}).want(t, 400, `"code":"undecodable"`)
}

func TestBrokenModels(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	parts := withParts(t, r, "", "models")
	srv := r.start(t)
	r.breakPart(t, parts["models"], "models", "model_damaged")
	a := do(t, "GET", srv.URL+"/health", nil)
	a.want(t, 503, "models: the models is broken")
	r.conf.Models.Default = "base"
	a = do(t, "GET", srv.URL+"/health", nil)
	a.want(t, 503, "base is not installed")
	if strings.Contains(a.body, "models: ") {
		t.Errorf("the missing model is said twice: %s", a.body)
	}
}

func TestBrokenCritical(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	parts := withParts(t, r, "state", "state")
	srv := r.start(t)
	r.breakPart(t, parts["state"], "state", "read_only")
	for _, path := range []string{"/health", "/health/detailed"} {
		do(t, "GET", srv.URL+path, nil).want(t, 503, `"status":"error"`, "state: the state is broken")
	}
	do(t, "GET", srv.URL+"/livez", nil).want(t, 200)
}

// TestRefusedBodyOverHTTP2: the refusal arrives although the body was not read.
func TestRefusedBodyOverHTTP2(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	parts := withParts(t, r, "", "engine")
	r.breakPart(t, parts["engine"], "engine", "engine_down")
	srv := r.startHTTP2(t)
	resp, err := send(t.Context(), t, srv, "/transcribe", part{"audio", "a.wav", strings.Repeat("x", 8<<20)})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // ends what the server still waits for
	said := make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, said); err != nil || resp.StatusCode != 503 || !strings.Contains(string(said), "engine_down") {
		t.Errorf("%d %s, %v", resp.StatusCode, said, err)
	}
}

// monitored is a rig with everything that health can tell of.
func monitored(t *testing.T) *rig {
	t.Helper()
	r := oneOfMany(t, talks)
	withParts(t, r, "", "engine", "decoder")
	memory := uint64(1 << 20)
	r.Units = func(context.Context) ([]systemd.Unit, error) {
		return []systemd.Unit{
			{Name: "whisper-appliance.service", Load: "loaded", Active: "active", Sub: "running", Restarts: 2, Memory: &memory},
			{Name: "whisper-appliance-engine@a.service", Active: "inactive"},
			{Name: "whisper-appliance-decode@17-4711-0.service", Active: "active"},
			{Name: "whisper-appliance-decode@18-4712-0.service", Active: "active"},
		}, nil
	}
	r.Environment = Surroundings{
		Environment: environment.Environment{Deployment: environment.LXC, Container: "lxc", Unprivileged: true, PrivilegeKnown: true, Profile: "testing"},
		SearchPaths: []string{"slot/bin"}, AppRoot: "slot", Detected: []string{"state"},
	}
	r.Slot = "a"
	r.Proc, r.Cgroup = kernel(t)
	r.Directories = []Directory{{"spool", r.Spool}, {"lost", filepath.Join(r.Spool, "lost")}}
	r.Connections = func() Connections { return Connections{Open: 3, Pending: 1, Silent: 7, Evicted: 2} }
	r.ReadyAfter = func() time.Duration { return 1500 * time.Millisecond }
	r.Watchdog = &watchdog.Guard{}
	return r
}

// kernel is a proc and a cgroup file system.
func kernel(t *testing.T) (proc, cgroup string) {
	t.Helper()
	proc, cgroup = t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		"proc/self/status":           "Name:\tserver\nVmRSS:\t   20480 kB\n",
		"proc/self/cgroup":           "1:name=systemd:/\n0::/ours\n",
		"proc/meminfo":               "MemTotal:       4096 kB\nMemAvailable:   1024 kB\n",
		"proc/pressure/io":           "some avg10=1.50 avg60=2.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.50 avg300=0.00 total=1\n",
		"cgroup/ours/cpu.pressure":   "some avg10=12.00 avg60=3.00 avg300=0.00 total=1\n",
		"cgroup/ours/memory.current": "1048576\n",
		"cgroup/ours/memory.max":     "max\n",
	} {
		path := filepath.Join(proc, strings.TrimPrefix(name, "proc/"))
		if rest, ok := strings.CutPrefix(name, "cgroup/"); ok {
			path = filepath.Join(cgroup, rest)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, content)
	}
	return proc, cgroup
}

func TestDetailed(t *testing.T) {
	t.Parallel()
	r := monitored(t)
	srv := r.start(t)
	do(t, "GET", srv.URL+"/health/detailed", nil).want(t, 200, `"units_not_available":"not available: not looked at yet"`, `"sample_age_seconds":-1`, `"disk":[]`)
	post(t, srv.URL+"/transcribe", part{"audio", "secret.wav", "bad"}).want(t, 400)
	r.sample(t.Context())
	a := do(t, "GET", srv.URL+"/health/detailed", nil)
	a.want(t, 200, `"status":"ok"`, `"update":false`, `"enterprise":false`, `"update":"comes with a later version"`,
		`"deployment_type":"lxc"`, `"unprivileged":true`, `"python_path":["slot/bin"]`, `"app_root":"slot"`, `"slot":"a"`, `"profile":"testing"`,
		`"name":"whisper-appliance.service"`, `"restarts":2`, `"resident_bytes":20971520`, `"group_bytes":1048576`, `"machine_available_bytes":1048576`,
		`"pressure.memory":`, `"some_avg10":12`, `"full_avg10":0.25`, `"open_files.open":`, `"error":"no such file or directory"`,
		`"ready_ms":1500`, `"undecodable":1`, `"recent":[]`, `"agree":true`)
	for _, not := range []string{"limit_bytes", "secret"} {
		if strings.Contains(a.body, `"`+not) {
			t.Errorf("%s is in %s", not, a.body)
		}
	}
}

// TestDetailedWithoutAnything: nothing is made up where nothing is known.
func TestDetailedWithoutAnything(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	srv := r.start(t)
	r.sample(t.Context())
	do(t, "GET", srv.URL+"/health/detailed", nil).want(t, 200, `"status":"ok"`, `"components":[]`, `"units":[]`, "does not run under systemd",
		`"memory.resident_bytes":`, `"update":false`)
	do(t, "GET", srv.URL+"/api/v1/components", nil).want(t, 200, `"health":"ok"`, `"components":[]`)
	do(t, "GET", srv.URL+"/api/enterprise/deployment-info", nil).want(t, 200, `"deployment_type":"unknown"`, `"container_type":null`, `"blue_green_deployment":false`)
	do(t, "GET", srv.URL+"/metrics", nil).want(t, 200, "whisper_appliance_ready 1")
}

func TestComponentsDoor(t *testing.T) {
	t.Parallel()
	r := monitored(t)
	srv := r.start(t)
	do(t, "GET", srv.URL+"/api/v1/components", nil).want(t, 200, `"health":"ok"`, `"name":"updater","status":"unavailable"`, `"name":"engine","status":"ok"`)
}

func TestDeploymentInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  environment.Environment
		says []string
	}{
		"unprivileged LXC": {environment.Environment{Deployment: "lxc", Container: "lxc", Unprivileged: true, PrivilegeKnown: true},
			[]string{`"proxmox_lxc"`, `"container_type":"unprivileged_lxc"`}},
		"privileged LXC": {environment.Environment{Deployment: "lxc", Container: "lxc", PrivilegeKnown: true}, []string{`"privileged_lxc"`}},
		"LXC, hidden":    {environment.Environment{Deployment: "lxc", Container: "lxc"}, []string{`"container_type":"lxc"`}},
		"a VM":           {environment.Environment{Deployment: "vm", Systemd: true}, []string{`"deployment_type":"systemd"`, `"container_type":null`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := monitored(t)
			r.Environment.Environment = c.env
			a := do(t, "GET", r.start(t).URL+"/api/enterprise/deployment-info", nil)
			a.want(t, 200, append(c.says, `"status":"success"`, `"application_path":"slot"`, `"detected_paths":["state"]`, `"blue_green_deployment":true`,
				`"zero_downtime_updates":false`, `it needs the updater: comes with a later version`)...)
			if a.header.Get("Deprecation") == "" || !strings.Contains(a.header.Get("Link"), "/health/detailed") {
				t.Errorf("headers %v", a.header)
			}
		})
	}
}

// TestVersionMismatch: an engine of another build degrades.
func TestVersionMismatch(t *testing.T) {
	t.Parallel()
	r := monitored(t)
	h := r.Handler()
	r.seen.sampling.Store(true)
	saw := func(v, commit string) {
		<-r.seen.engine.take(t.Context(), func(context.Context) (*engine.Status, error) {
			return &engine.Status{Version: v, Commit: commit, Windows: 5}, nil
		})
	}
	b := version.Build()
	saw(b.Version, b.Commit)
	if w := ask(h, here, "GET", "/health"); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"ok"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	saw(b.Version, "another")
	for _, path := range []string{"/health", "/health/detailed"} {
		if w := ask(h, here, "GET", path); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"degraded"`) || !strings.Contains(w.Body.String(), "another build") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(h, here, "GET", "/metrics"); !strings.Contains(w.Body.String(), "version_mismatch 1") {
		t.Error("the metrics do not say so")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := monitored(t)
	srv := r.start(t)
	post(t, srv.URL+"/transcribe", recording("audio")).want(t, 200)
	post(t, srv.URL+"/transcribe", part{"audio", "a.wav", "bad"}).want(t, 400)
	for i := range 50 {
		do(t, "GET", fmt.Sprintf("%s/made/up/%d", srv.URL, i), nil)
		do(t, fmt.Sprintf("MADE%d", i), srv.URL+"/health", nil)
	}
	do(t, "GET", srv.URL+"/v1/models/nothing", nil).want(t, 404)
	r.sample(t.Context())
	a := do(t, "GET", srv.URL+"/metrics", nil)
	for _, says := range []string{
		`http_requests_total{code="200",method="POST",route="/transcribe"} 1`, `http_requests_total{code="400",method="POST",route="/transcribe"} 1`,
		`http_requests_total{code="404",method="GET",route="other"} 50`, `http_requests_total{code="404",method="GET",route="/v1/models/{model}"} 1`,
		`http_requests_total{code="405",method="other",route="other"} 50`, `http_request_duration_seconds_count{method="POST",route="/transcribe"} 2`,
		`upload_bytes_total 14`, `transcriptions_total 1`, `audio_seconds_total 39`, `realtime_factor_count 1`,
		`transcription_failures_total{code="undecodable"} 1`, `errors_total{code="undecodable"} 1`,
		`build_info{commit="unknown"`, `slot="a"`, `jobs 0`, `queue_windows 0`, `engine_running 0`, `ready 1`,
		`component_state{component="engine",state="ok"} 1`, `component_state{component="updater",state="unavailable"} 1`,
		`unit_active{unit="whisper-appliance-decode@.service"} 2`, `unit_active{unit="whisper-appliance-engine@a.service"} 0`,
		`unit_restarts_total{unit="whisper-appliance.service"} 2`, `unit_memory_bytes{unit="whisper-appliance.service"} 1.048576e+06`,
		`connections_open 3`, `connections_evicted_total 2`, `startup_ready_seconds 1.5`, `watchdog_overdue_calls 0`, `disk_free_bytes{directory="spool"}`,
		`pressure_some_ratio{resource="cpu"} 0.12`,
	} {
		if !strings.Contains(a.body, says) {
			t.Errorf("the metrics do not say %s", says)
		}
	}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("Content-Type %q", a.header.Get("Content-Type"))
	}
	for _, made := range []string{"MADE", "/made/up", "-4711-"} {
		if strings.Contains(a.body, made) {
			t.Errorf("a label holds %s", made)
		}
	}
}

// TestWhoMayMonitor: what tells of the machine needs a key from afar.
func TestWhoMayMonitor(t *testing.T) {
	t.Parallel()
	h := oneOfMany(t, talks).Handler()
	for _, path := range []string{"/health/detailed", "/metrics", "/api/v1/components", "/api/enterprise/deployment-info"} {
		for from, want := range map[string]int{here: 200, lan: 200, remote: 401} {
			if w := ask(h, from, "GET", path); w.Code != want {
				t.Errorf("%s from %s: %d, want %d", path, from, w.Code, want)
			}
		}
		if w := ask(h, remote, "GET", path, "Authorization", "Bearer wa_user"); w.Code != 200 {
			t.Errorf("%s with a key: %d", path, w.Code)
		}
	}
}

// TestHealthUnderLoad: health answers at once while every core is busy and
// D-Bus, the engine and the disk hang.
func TestHealthUnderLoad(t *testing.T) {
	r := monitored(t)
	release := make(chan struct{})
	hang := func(context.Context) ([]systemd.Unit, error) { <-release; return nil, errors.New("too late") }
	r.Units = hang
	r.EngineRunning = func() bool { <-release; return false }
	// Those who transcribe are other processes: they take the cores' time, not
	// the scheduler's places in this one.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * runtime.NumCPU()))
	s := serve(t, r, time.Second)
	ctx, idle := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for range runtime.NumCPU() {
		busy.Go(func() {
			for ctx.Err() == nil {
				bytes.Count(make([]byte, 1<<16), []byte("x"))
			}
		})
	}
	c := s.dial(t)
	var took []time.Duration
	for i := range 200 {
		path := []string{"/health", "/health/detailed", "/metrics", "/livez"}[i%4]
		began := time.Now()
		if a, ok := c.get(t, path); a.status != 200 {
			t.Fatalf("%s: %t, %d %s", path, ok, a.status, a.body)
		}
		took = append(took, time.Since(began))
	}
	idle()
	busy.Wait()
	close(release)
	slices.Sort(took)
	t.Logf("p50 %v, p99 %v", took[len(took)/2], took[len(took)*99/100])
	if p99 := took[len(took)*99/100]; p99 > 100*time.Millisecond {
		t.Errorf("p99 is %v", p99)
	}
	s.stop()
	<-s.ended
}

// TestSampleThatHangs is not begun a second time, and its age is said.
func TestSampleThatHangs(t *testing.T) {
	t.Parallel()
	r := monitored(t)
	good := r.Units
	r.sample(t.Context())
	var calls atomic.Int64
	release := make(chan struct{})
	r.Units = func(ctx context.Context) ([]systemd.Unit, error) { calls.Add(1); <-release; return good(ctx) }
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	for range 3 {
		r.sample(ctx)
	}
	eventually(t, "the call", func() bool { return calls.Load() == 1 })
	units, _, err := r.seen.units.get()
	if len(units) != 4 || err != nil {
		t.Errorf("what was seen is forgotten: %v, %v", units, err)
	}
	r.seen.units.mu.Lock()
	r.seen.units.at = time.Now().Add(-time.Minute)
	r.seen.units.mu.Unlock()
	if w := ask(r.Handler(), here, "GET", "/health/detailed"); !strings.Contains(w.Body.String(), "systemd has not answered for 1m") {
		t.Errorf("%s", w.Body)
	}
	close(release)
	eventually(t, "the end of the call", func() bool { r.seen.units.mu.Lock(); defer r.seen.units.mu.Unlock(); return !r.seen.units.busy })
}

// TestProbe: the server answers itself, through everything a request passes.
func TestProbe(t *testing.T) {
	t.Parallel()
	r := oneOfMany(t, talks)
	p := r.Probe(time.Second)
	p.Ask(t.Context()) // before the doors are open
	r.Handler()
	p.Ask(t.Context())
	inner := *r.inside.Load()
	asked := 0
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked++
		inner.ServeHTTP(w, req)
		if req.URL.Path != "/livez" {
			t.Errorf("asked for %s", req.URL)
		}
	})
	r.inside.Store(&h)
	p.Ask(t.Context())
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}
