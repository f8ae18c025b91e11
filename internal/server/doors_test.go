package server

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
)

const whole = "Part 0, äöü. Part 1, äöü. Part 2, äöü."

// TestFormats: every format of OpenAI's door and ours, with its media type.
func TestFormats(t *testing.T) {
	srt := "1\n00:00:00,000 --> 00:00:02,000\nPart 0, äöü.\n\n2\n00:00:17,490 --> 00:00:19,490\nPart 1"
	for format, c := range map[string]struct{ kind, says string }{
		"":             {"application/json", `{"text":"` + whole + `","usage":{"type":"duration","seconds":39}}`},
		"json":         {"application/json", `{"text":"` + whole + `"`},
		"text":         {"text/plain; charset=utf-8", whole + "\n"},
		"srt":          {"text/plain; charset=utf-8", srt},
		"vtt":          {"text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nPart 0"},
		"tsv":          {"text/tab-separated-values; charset=utf-8", "start\tend\ttext\n0\t2000\tPart 0"},
		"words":        {"text/tab-separated-values; charset=utf-8", "start\tend\tprobability\tword\n0\t1000\t0.5000\tPart 0"},
		"lrc":          {"text/plain; charset=utf-8", "[00:00.00]Part 0"},
		"verbose_json": {"application/json", `"language":"german","duration":39,"text":"` + whole + `"`},
	} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, talks)
			parts := []part{recording("file"), {name: "model", value: "whisper-1"}}
			if format != "" {
				parts = append(parts, part{name: "response_format", value: format})
			}
			a := post(t, r.start(t).URL+"/v1/audio/transcriptions", parts...)
			a.want(t, 200, c.says)
			if got := a.header.Get("Content-Type"); got != c.kind {
				t.Errorf("Content-Type %q, want %q", got, c.kind)
			}
			if a.length != int64(len(a.body)) {
				t.Errorf("Content-Length %d of %d", a.length, len(a.body))
			}
		})
	}
}

func TestFieldsReachTheEngine(t *testing.T) {
	r := newRig(t, talks)
	a := post(t, r.start(t).URL+"/v1/audio/transcriptions", part{name: "model", value: "gpt-4o-transcribe"},
		part{name: "language", value: "German"}, part{name: "prompt", value: "Öl"}, part{name: "temperature", value: "0.5"},
		part{name: "response_format", value: "verbose_json"}, part{name: "timestamp_granularities[]", value: "word"},
		part{name: "chunking_strategy", value: "auto"}, part{name: "stream", value: "false"}, recording("file"))
	a.want(t, 200, `"words":[{"word":"Part 0, äöü.","start":0,"end":1}`)
	if strings.Contains(a.body, `"segments"`) {
		t.Error("segments that nobody asked for")
	}
	want := engine.WindowRequest{Model: "ggml-tiny.bin", Language: "de", Prompt: "Öl", Temperature: 0.5, Words: true, BestOf: 5, AudioCtx: 512, OnePass: true, TemperatureInc: -1}
	if got := r.engine.request(); got != want {
		t.Errorf("the engine got %+v, want %+v", got, want)
	}
}

func TestLogprobs(t *testing.T) {
	r := newRig(t, talks)
	a := post(t, r.start(t).URL+"/v1/audio/transcriptions", recording("file"), part{name: "include[]", value: "logprobs"})
	a.want(t, 200, `"logprobs":[{"token":" Part 0, äöü.","logprob":-0.5,"bytes":[32,80,`)
}

func TestTranslations(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/v1/audio/translations"
	post(t, url, recording("file"), part{name: "response_format", value: "verbose_json"}).
		want(t, 200, `"task":"translate","language":"english"`)
	if !r.engine.request().Translate {
		t.Error("nothing was translated")
	}
	post(t, url, recording("file"), part{name: "language", value: "de"}).want(t, 400, "language")
}

func TestLegacyDoors(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	for path, keys := range map[string][]string{
		"/transcribe":          {"language", "model_used", "text", "timestamp"},
		"/api/transcribe-live": {"language", "text", "timestamp"},
	} {
		a := post(t, srv.URL+path, recording("audio"), part{name: "language", value: "auto"})
		a.want(t, 200, whole)
		if got := slices.Sorted(maps.Keys(a.json(t))); !slices.Equal(got, keys) {
			t.Errorf("%s has the keys %q, want %q", path, got, keys)
		}
		if a.header.Get("Deprecation") == "" || !strings.Contains(a.header.Get("Link"), "successor-version") {
			t.Errorf("%s does not point to what replaces it: %v", path, a.header)
		}
		bad := post(t, srv.URL+path, part{"audio", "a.mp3", "bad"})
		bad.want(t, 400, "not sound")
		if got := bad.json(t)["field"]; got != "audio" {
			t.Errorf("%s blames the field %v", path, got)
		}
	}
}

func TestOwnDoor(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/api/v1/transcriptions"
	a := post(t, url, recording("file"), part{name: "task", value: "translate"}, part{name: "words", value: "true"})
	a.want(t, 200, "event: progress", `"phase":"recognising"`, "event: segment", `"words":[{`, "event: done", `"task":"translate"`, whole)
	post(t, url, recording("file"), part{name: "task", value: "sing"}).want(t, 400, "sing", `"field":"task"`)
	post(t, url, recording("file"), part{name: "words", value: "perhaps"}).want(t, 400, "perhaps", `"field":"words"`)
	post(t, url, part{"file", "a.wav", "bad"}).want(t, 400, `"code":"undecodable"`)
}

func TestModels(t *testing.T) {
	r := newRig(t, talks)
	writeModel(t, filepath.Join(r.Models.Dir, "ggml-mini.bin"))
	srv := r.start(t)
	list := do(t, "GET", srv.URL+"/v1/models", nil)
	list.want(t, 200, `"object":"list"`, `"id":"mini"`, `"id":"whisper-1"`, `"id":"gpt-4o-mini-transcribe"`)
	if strings.Contains(list.body, `"tiny"`) {
		t.Error("a damaged model is listed")
	}
	do(t, "GET", srv.URL+"/v1/models/mini", nil).want(t, 200, `"id":"mini"`, `"object":"model"`, `"owned_by"`)
	do(t, "GET", srv.URL+"/v1/models/whisper-1", nil).want(t, 200, `"id":"whisper-1"`)
	do(t, "GET", srv.URL+"/v1/models/nothing", nil).want(t, 404, `"code":"model_not_found"`, `"param":"model"`)
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file"), part{name: "model", value: "mini"}, part{name: "language", value: "de"}).want(t, 200, whole)
	if got := r.engine.request().Model; got != "ggml-mini.bin" {
		t.Errorf("the engine was asked for %q", got)
	}
}

func TestUseModel(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/api/v1/models/current"
	put := func(body string) answered {
		return do(t, "PUT", url, strings.NewReader(body), "Content-Type", "application/json", "Authorization", "Bearer wa_admin")
	}
	put(`{"model":"ggml-tiny.bin"}`).want(t, 200, `{"model":"tiny"}`)
	if r.saved["models.default"] != "tiny" {
		t.Errorf("saved %v", r.saved)
	}
	put(`{"model":"nothing"}`).want(t, 404, `"code":"unknown_model"`)
	put(`{"model":""}`).want(t, 422, `"code":"bad_request"`)
	put(`{"model":"tiny","colour":"blue"}`).want(t, 422, "colour")
	put(`{"model":`).want(t, 400, `"error":`)
	put(`{"model":"`+strings.Repeat("x", 2<<20)+`"}`).want(t, 413, `"error":`)
	if len(r.saved) != 1 {
		t.Errorf("saved %v", r.saved)
	}
	r.SaveSetting = func(string, string) error { return os.ErrPermission }
	a := put(`{"model":"tiny"}`)
	a.want(t, 500, `"code":"internal_error"`)
	if strings.Contains(a.body, "permission") {
		t.Error("the client sees our insides")
	}
}

func TestUnload(t *testing.T) {
	r := newRig(t, talks)
	url := r.start(t).URL + "/api/v1/engine/unload"
	unload := func() answered { return do(t, "POST", url, nil, "Authorization", "Bearer wa_admin") }
	unload().want(t, 204) // no engine runs, and none is started for it
	r.EngineRunning = func() bool { return true }
	unload().want(t, 503, `"code":"engine_down"`)
	socket, err := net.Listen("unix", r.Engine.Socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	fake := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked <- q.Method + " " + q.URL.Path
		w.WriteHeader(http.StatusNoContent)
	})}
	go fake.Serve(socket) //nolint:errcheck // it ends by Close
	defer fake.Close()
	unload().want(t, 204)
	if got := <-asked; got != "DELETE /v1/model" {
		t.Errorf("the engine was asked %s", got)
	}
}

// paths lists keys of a JSON object with those of the objects in it.
func paths(v map[string]any) []string {
	var all []string
	for k, inner := range v {
		all = append(all, k)
		if m, ok := inner.(map[string]any); ok {
			for _, p := range paths(m) {
				all = append(all, k+"."+p)
			}
		}
	}
	return all
}

// TestOriginalKeys: what programs written for the original look for is there.
func TestOriginalKeys(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	for path, want := range map[string]string{
		"/health": `status whisper_available version uptime_seconds total_transcriptions active_connections system_ready timestamp
			model_status.whisper_available model_status.current_model_name model_status.model_loaded model_status.model_loading
			model_status.available_models_info model_status.downloaded_model_ids`,
		"/api/status": `service version status timestamp
			whisper.available whisper.model_loaded whisper.model_type whisper.model_loading
			statistics.uptime_seconds statistics.total_transcriptions statistics.active_websocket_connections statistics.system_ready
			endpoints.main_interface endpoints.health_check endpoints.upload_transcription endpoints.live_transcription
			endpoints.api_documentation endpoints.admin_panel
			architecture.framework architecture.modules architecture.features`,
		"/health/detailed": `status modules.update modules.maintenance modules.enterprise
			environment.deployment_type environment.python_path environment.app_root`,
		"/api/enterprise/deployment-info": `status deployment_type container_type application_path detected_paths strategy_description
			enterprise_features.zero_downtime_updates enterprise_features.permission_safe_operations enterprise_features.automatic_rollback
			enterprise_features.blue_green_deployment enterprise_features.deployment_aware_strategies
			enterprise_features.comprehensive_audit_logging`,
	} {
		a := do(t, "GET", srv.URL+path, nil)
		a.want(t, 200)
		got := paths(a.json(t))
		for _, key := range strings.Fields(want) {
			if !slices.Contains(got, key) {
				t.Errorf("%s lacks %s", path, key)
			}
		}
	}
	status := do(t, "GET", srv.URL+"/api/status", nil).json(t)
	for name, path := range status["endpoints"].(map[string]any) {
		if a := do(t, "GET", srv.URL+path.(string), nil); a.status == http.StatusNotFound {
			t.Errorf("the endpoint %s leads to %s, where nothing is", name, path)
		}
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	get := func(path string) answered { return do(t, "GET", srv.URL+path, nil) }
	get("/health").want(t, 200, `"status":"ok"`, `"system_ready":true`, `"active_connections":1`)
	get("/readyz").want(t, 200, "ok")
	get("/livez").want(t, 200, "ok")
	post(t, srv.URL+"/transcribe", recording("audio"))
	post(t, srv.URL+"/transcribe", part{"audio", "a.wav", "bad"})
	get("/health").want(t, 200, `"total_transcriptions":1`)
	get("/api/status").want(t, 200, `"total_transcriptions":1`, `"failed_transcriptions":1`, `"waiting_windows":0`)

	r.Programs = []string{"no such program"}
	get("/health").want(t, 503, `"status":"degraded"`, "no such program", `"whisper_available":false`)
	get("/api/status").want(t, 200, `"available":false`, `"system_ready":false`)
	get("/readyz").want(t, 503, `"code":"not_ready"`, "no such program")
	r.Programs = nil
	r.conf.Models.Default = "base"
	get("/health").want(t, 503, `"status":"degraded"`, "base", `"current_model_name":"base"`)
	get("/readyz").want(t, 503, "base")
	r.EngineDown = func() string { return "exit status 78" }
	get("/health").want(t, 503, "the engine cannot be started: exit status 78")
	r.EngineRunning = func() bool { return true }
	if why := r.engineDown(); why != "" {
		t.Errorf("an engine that runs cannot be started: %s", why)
	}
	r.EngineRunning, r.EngineDown = nil, func() string { return "" }
	r.draining.Store(true)
	get("/health").want(t, 503, "the server is stopping", "base")
	get("/readyz").want(t, 503, "the server is stopping; ")
	r.draining.Store(false)
	get("/livez").want(t, 200, "ok")
	a := post(t, srv.URL+"/v1/audio/transcriptions", recording("file"))
	a.want(t, 503, `"code":"model_not_installed"`, "models pull base", `"type":"server_error"`)
}

// TestHealthThroughClient: the CLI gets to read how a server is that is not
// well, and what is no health answer stays an error.
func TestHealthThroughClient(t *testing.T) {
	r := newRig(t, talks)
	c := &api.Client{Base: r.start(t).URL, HTTP: &http.Client{}}
	for _, want := range []string{"ok", "degraded"} {
		var h Health
		data, err := c.Health(t.Context())
		if err != nil || json.Unmarshal(data, &h) != nil || h.Status != want || h.ModelStatus.CurrentModelName == "" {
			t.Errorf("%+v, %v; want %s", h, err, want)
		}
		r.Programs = []string{"no such program"}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"a refusal": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 403, api.Error{Error: "not you", Code: "no"})
		},
		"a proxy whose server is away": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad gateway</h1>", http.StatusServiceUnavailable)
		},
		"an error with the same status": func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 503, api.Error{Error: "away"}) },
	} {
		srv := httptest.NewServer(answer)
		other := &api.Client{Base: srv.URL, HTTP: srv.Client()}
		if data, err := other.Health(t.Context()); err == nil {
			t.Errorf("%s: %s", name, data)
		} else if !errors.As(err, new(*fault.Error)) {
			t.Errorf("%s: %v has no words", name, err)
		}
		srv.Close()
	}
}

// TestHealthDoesNotWait: an engine that does not answer costs no time.
func TestHealthDoesNotWait(t *testing.T) {
	r := newRig(t, talks)
	r.EngineRunning = nil
	silent, err := net.Listen("unix", r.Engine.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	srv := r.start(t)
	for _, path := range []string{"/health", "/api/status"} {
		began := time.Now()
		do(t, "GET", srv.URL+path, nil).want(t, 200, `"model_loaded":false`)
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s took %v", path, took)
		}
	}
}

func TestEngineStatus(t *testing.T) {
	r := newRig(t, talks)
	socket, err := net.Listen("unix", r.Engine.Socket)
	if err != nil {
		t.Fatal(err)
	}
	fake := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(engine.Status{Whisper: "1.9.5", Model: &engine.Model{File: "ggml-tiny.bin"}}) //nolint:errcheck // a test
	})}
	go fake.Serve(socket) //nolint:errcheck // it ends by Close
	defer fake.Close()
	r.EngineRunning = func() bool { return true }
	srv := r.start(t)
	do(t, "GET", srv.URL+"/health", nil).want(t, 200, `"model_loaded":true`)
	do(t, "GET", srv.URL+"/api/status", nil).want(t, 200, `"model_loaded":true`, `"whisper":"1.9.5"`)
}

func TestNoSuchDoor(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	for _, c := range []struct {
		method, path string
		status       int
		openAI       bool
	}{
		{"GET", "/v1/nothing", 404, true}, {"GET", "/v1/audio/transcriptions", 405, true}, {"DELETE", "/v1/models/tiny", 405, true},
		{"GET", "/nothing", 404, false}, {"GET", "/transcribe", 405, false}, {"PUT", "/health", 405, false},
		{"GET", "/api/v1/models/current", 405, false}, {"POST", "/", 405, false}, {"GET", "/assets/nothing.js", 404, false},
		{"GET", "/assets/", 404, false}, {"GET", "/assets/.", 404, false}, {"GET", "/assets/%2e%2e", 404, false},
		{"GET", "/assets/%2e%2e/page.go", 404, false}, {"GET", "/assets/x/page.js", 404, false}, {"GET", "/" + strings.Repeat("x", 5000), 404, false},
	} {
		a := do(t, c.method, srv.URL+c.path, nil)
		a.want(t, c.status)
		var shape map[string]any
		if err := json.Unmarshal([]byte(a.body), &shape); err != nil {
			t.Errorf("%s %s: %v: %.200s", c.method, c.path, err, a.body)
			continue
		}
		if _, isObject := shape["error"].(map[string]any); isObject != c.openAI {
			t.Errorf("%s %.50s answers in the wrong dialect: %s", c.method, c.path, a.body)
		}
		if c.status == 405 && (a.header.Get("Allow") == "" || !strings.Contains(a.body, "not possible")) {
			t.Errorf("%s %s: Allow %q, %s", c.method, c.path, a.header.Get("Allow"), a.body)
		}
		if len(a.body) > 500 {
			t.Errorf("%s %.50s: %d bytes of error", c.method, c.path, len(a.body))
		}
	}
}

// TestHead: whoever may GET may HEAD, and gets the same headers.
func TestHead(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	for _, path := range []string{"/", "/assets/page.js", "/health", "/health/detailed", "/livez", "/metrics", "/v1/models", "/openapi.json"} {
		head, get := do(t, "HEAD", srv.URL+path, nil), do(t, "GET", srv.URL+path, nil)
		head.want(t, 200)
		if head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("HEAD %s: %v, %q", path, head.header, head.body)
		}
	}
	do(t, "HEAD", srv.URL+"/transcribe", nil).want(t, 405)
	do(t, "HEAD", srv.URL+"/nothing", nil).want(t, 404)
}

func TestPage(t *testing.T) {
	r := newRig(t, talks)
	srv := r.start(t)
	page := do(t, "GET", srv.URL+"/", nil)
	page.want(t, 200, "<form")
	if strings.Contains(page.body, "://") {
		t.Error("the page names another host")
	}
	for _, inline := range []string{`<script[^>]*>[^<]`, `<style`, `\sstyle=`, `\son[a-z]+=`, `javascript:`} {
		if found := regexp.MustCompile(inline).FindString(page.body); found != "" {
			t.Errorf("the page holds %q, which its policy forbids", found)
		}
	}
	assets := regexp.MustCompile(`/assets/[^"]+`).FindAllString(page.body, -1)
	if len(assets) < 2 {
		t.Errorf("assets %q", assets)
	}
	for _, path := range append(assets, "/", "/assets/page.html") {
		a := do(t, "GET", srv.URL+path, nil)
		a.want(t, 200)
		policy := a.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, a.header)
		}
	}
	if kind := do(t, "GET", srv.URL+"/assets/page.js", nil).header.Get("Content-Type"); !strings.HasPrefix(kind, "text/javascript") {
		t.Errorf("the script is %q", kind)
	}
}

// TestRefusals: what OpenAI's door refuses, by name. The many kinds of bad
// input are tested on the whole appliance.
func TestRefusals(t *testing.T) {
	r := newRig(t, func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		t.Error("the engine was asked")
		return engine.Done{}, nil
	})
	url := r.start(t).URL + "/v1/audio/transcriptions"
	field := func(name, value string) []part { return []part{recording("file"), {name: name, value: value}} }
	for name, c := range map[string]struct {
		parts  []part
		status int
		param  string
		says   string
	}{
		"unknown field":       {field("langauge", "en"), 400, "langauge", "did you mean language"},
		"no field":            {field("", "en"), 400, "", "no field"},
		"field twice":         {append(field("language", "en"), part{name: "language", value: "en"}), 400, "language", "twice"},
		"field as file":       {[]part{recording("file"), {"model", "m.txt", "tiny"}}, 400, "model", "must be text"},
		"long field":          {field("prompt", strings.Repeat("x", maxField+1)), 400, "prompt", "longer"},
		"two files":           {[]part{recording("file"), recording("file")}, 400, "file", "two"},
		"no file":             {field("model", "tiny")[1:], 400, "file", "no recording"},
		"empty file":          {[]part{{"file", "a.wav", ""}}, 400, "file", "is empty"},
		"file of no sound":    {[]part{{"file", "a.wav", "bad"}}, 400, "file", "not sound"},
		"format":              {field("response_format", "yaml"), 400, "response_format", "yaml"},
		"granularity":         {append(field("timestamp_granularities[]", "letter"), part{name: "response_format", value: "verbose_json"}), 400, "timestamp_granularities[]", "letter"},
		"granularity of json": {field("timestamp_granularities", "word"), 400, "timestamp_granularities[]", "verbose_json"},
		"include":             {field("include[]", "waveform"), 400, "include[]", "waveform"},
		"logprobs in text":    {append(field("include[]", "logprobs"), part{name: "response_format", value: "text"}), 400, "include[]", "json"},
		"stream":              {field("stream", "perhaps"), 400, "stream", "true or false"},
		"stream of srt":       {append(field("stream", "true"), part{name: "response_format", value: "srt"}), 400, "response_format", "json"},
		"chunking":            {field("chunking_strategy", `{"type":"server_vad","threshold":0.5}`), 400, "chunking_strategy", "server_vad"},
		"temperature":         {field("temperature", "hot"), 400, "temperature", "0 to 1"},
		"model":               {field("model", "nothing"), 404, "model", "nothing"},
		"streamed no sound":   {[]part{{"file", "a.wav", "bad"}, {name: "stream", value: "true"}}, 400, "file", "not sound"},
	} {
		t.Run(name, func(t *testing.T) {
			a := post(t, url, c.parts...)
			a.want(t, c.status, c.says)
			var e openAIError
			if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Error.Message == "" || e.Error.Code == nil {
				t.Fatalf("%v in %s", err, a.body)
			}
			param := ""
			if e.Error.Param != nil {
				param = *e.Error.Param
			}
			if param != c.param || e.Error.Type != "invalid_request_error" {
				t.Errorf("param %q, type %q", param, e.Error.Type)
			}
		})
	}
}

// TestEngineFailure: the engine's failures keep their words and status.
func TestEngineFailure(t *testing.T) {
	r := newRig(t, func(context.Context, int, engine.WindowRequest, func(engine.Event)) (engine.Done, error) {
		return engine.Done{}, &engine.Failure{Code: engine.CodeBadModel, Message: "wrong magic"}
	})
	srv := r.start(t)
	post(t, srv.URL+"/v1/audio/transcriptions", recording("file")).want(t, 503, `"code":"model_damaged"`, `"type":"server_error"`, "models verify tiny")
	post(t, srv.URL+"/transcribe", recording("audio")).want(t, 503, `"code":"model_damaged"`, `"hint":`)
}
