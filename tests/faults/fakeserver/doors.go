package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is an answer in JSON.
type object map[string]any

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /{$}": s.page, "GET /livez": s.livez, "GET /readyz": s.readyz,
		"GET /health": s.health, "GET /health/detailed": s.detailed, "GET /metrics": s.metrics,
		"GET /api/v1/components":              s.api(s.components),
		"GET /api/status":                     s.api(s.status),
		"GET /api/enterprise/deployment-info": s.api(s.deploymentInfo),
		"GET /api/enterprise/update-status":   s.api(func() object { return object{"status": "success", "update_state": "idle"} }),
		"POST /v1/audio/transcriptions":       s.openAI,
		"POST /api/v1/transcriptions":         s.events,
	} {
		mux.HandleFunc(pattern, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.is(noWatchdog) || s.is(hang) {
			<-s.stuck
		}
		s.active.Add(1)
		defer s.active.Add(-1)
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		noted := &noting{w, http.StatusOK}
		mux.ServeHTTP(noted, r)
		s.count(r, noted.code)
	})
}

// noting is an answer whose status is remembered.
type noting struct {
	http.ResponseWriter
	code int
}

// WriteHeader is http.ResponseWriter's.
func (n *noting) WriteHeader(code int) {
	n.code = code
	n.ResponseWriter.WriteHeader(code)
}

// count counts a request as the server's metrics do.
func (s *server) count(r *http.Request, code int) {
	route := "other"
	if _, path, known := strings.Cut(r.Pattern, " "); known {
		route = strings.TrimSuffix(path, "{$}")
	}
	labels := fmt.Sprintf(`{code="%d",method=%q,route=%q}`, code, r.Method, route)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[labels]++
}

func write(w http.ResponseWriter, code int, v object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(v) //nolint:errcheck // the client has left
}

// unlucky tells whether this call is one of those that fail: of a hundred just
// as many as the mode says, evenly spread.
func (s *server) unlucky() bool {
	m := s.mode.Load()
	if m.name != failing {
		return false
	}
	n := float64(s.calls.Add(1))
	return int(n*m.value/100) != int((n-1)*m.value/100)
}

// api is a door that may fail as the mode says.
func (s *server) api(answer func() object) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if s.unlucky() {
			s.failed.Add(1)
			write(w, http.StatusInternalServerError, object{"error": "something went wrong inside the appliance", "code": "internal_error", "hint": "see its log"})
			return
		}
		write(w, http.StatusOK, answer())
	}
}

func (s *server) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!doctype html><title>whisper-appliance</title><p>version %s\n", s.own.Version)
}

func (s *server) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// missing is why a recording sent now would not be transcribed, "" where it would.
func (s *server) missing() string {
	if s.is(notReady) {
		return "engine: the engine does not start"
	}
	return ""
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if why := s.missing(); why != "" {
		write(w, http.StatusServiceUnavailable, object{"error": "not ready: " + why, "code": "not_ready", "hint": "/health says more"})
		return
	}
	s.livez(w, r)
}

// wellness is the status, its reasons and the HTTP status of the health answers.
func (s *server) wellness() (status string, reasons []string, code int) {
	if why := s.missing(); why != "" {
		return "degraded", []string{why}, http.StatusServiceUnavailable
	}
	return "ok", []string{}, http.StatusOK
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	status, reasons, code := s.wellness()
	ready := code == http.StatusOK
	answer := object{
		"status": status, "whisper_available": ready, "version": s.own.Version, "uptime_seconds": time.Since(s.started).Seconds(),
		"total_transcriptions": s.transcribed.Load(), "active_connections": s.active.Load(), "system_ready": ready,
		"timestamp": time.Now().UTC().Format(time.RFC3339),
		"model_status": object{"whisper_available": ready, "current_model_name": "fake", "model_loaded": ready, "model_loading": false,
			"available_models_info": object{}, "downloaded_model_ids": []string{"fake"}},
	}
	if !ready {
		answer["reasons"] = reasons
	}
	write(w, code, answer)
}

func (s *server) detailed(w http.ResponseWriter, _ *http.Request) {
	status, reasons, code := s.wellness()
	name := s.own.Version + " (" + s.own.Commit + ")"
	write(w, code, object{
		"status": status, "reasons": reasons, "components": s.states(),
		"modules":        object{"update": true, "maintenance": false, "enterprise": false},
		"module_reasons": object{"maintenance": "there is no such component in this version"},
		"environment":    object{"deployment_type": "testing", "app_root": s.own.dir, "slot": s.own.slot},
		"units":          []object{}, "resources": object{},
		"versions": object{"server": name, "engine": name, "agree": true},
		"errors":   object{}, "sample_age_seconds": -1,
		"uptime_seconds": time.Since(s.started).Seconds(), "timestamp": time.Now().UTC().Format(time.RFC3339),
	})
}

func (s *server) components() object {
	status, _, _ := s.wellness()
	return object{"health": status, "total_ms": 1, "components": s.states()}
}

// states are the components; the engine is the one that can fail.
func (s *server) states() []object {
	list := []object{}
	for _, c := range []struct {
		name     string
		critical bool
	}{{"state", true}, {"doors", true}, {"engine", false}, {"models", false}, {"decoder", false}, {"updater", false}} {
		o := object{"name": c.name, "status": "ok", "critical": c.critical, "does": "stands in for the server's", "failures": 0,
			"since": s.started.UTC(), "checked": time.Now().UTC(), "start_ns": 1000}
		if c.name == "engine" && s.missing() != "" {
			o["status"], o["error"], o["code"], o["hint"], o["failures"] = "failed", "the engine does not start", "engine_down", "see its log", 3
		}
		list = append(list, o)
	}
	return list
}

func (s *server) status() object {
	ready := s.missing() == ""
	return object{
		"service": "whisper-appliance", "version": s.own.Version, "status": "running",
		"build":   object{"version": s.own.Version, "commit": s.own.Commit, "date": s.own.date()},
		"whisper": object{"available": ready, "model_loaded": ready, "model_type": "fake", "model_loading": false},
		"statistics": object{"uptime_seconds": time.Since(s.started).Seconds(), "total_transcriptions": s.transcribed.Load(),
			"failed_transcriptions": s.failed.Load(), "waiting_windows": 0, "active_websocket_connections": 0, "system_ready": ready},
		"endpoints": object{}, "architecture": object{"framework": "fake", "modules": []string{}, "features": []string{}},
		"timestamp": time.Now().UTC().Format(time.RFC3339),
	}
}

func (s *server) deploymentInfo() object {
	return object{"status": "success", "deployment_type": "testing", "container_type": nil, "application_path": s.own.dir,
		"detected_paths": []string{}, "enterprise_features": object{}, "strategy_description": "none", "feature_reasons": object{}}
}

// metrics are those of the server's that a trial looks at, by the same names.
func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	gauge := func(name string, v float64) {
		fmt.Fprintf(&b, "%s %s\n", name, strconv.FormatFloat(v, 'g', -1, 64))
	}
	ready := 1.0
	if s.missing() != "" {
		ready = 0
	}
	const prefix = "whisper_appliance_"
	gauge(fmt.Sprintf(`%sbuild_info{commit=%q,goversion=%q,slot=%q,version=%q}`, prefix, s.own.Commit, runtime.Version(), s.own.slot, s.own.Version), 1)
	gauge(prefix+"ready", ready)
	gauge(prefix+"engine_model_loaded", ready)
	gauge(prefix+"jobs", 0)
	gauge(prefix+"queue_windows", 0)
	gauge(prefix+"http_requests_in_flight", float64(s.active.Load()))
	done, failed := float64(s.transcribed.Load()), float64(s.failed.Load())
	s.mu.Lock()
	for _, labels := range slices.Sorted(maps.Keys(s.requests)) {
		gauge(prefix+"http_requests_total"+labels, float64(s.requests[labels]))
	}
	s.mu.Unlock()
	gauge(prefix+"transcriptions_total", done)
	gauge(prefix+`transcription_failures_total{code="internal_error"}`, failed)
	gauge(prefix+`errors_total{code="internal_error"}`, failed)
	work, sound := float64(s.workNanos.Load())/1e9, float64(s.soundNanos.Load())/1e9
	gauge(prefix+"transcription_seconds_total", work)
	gauge(prefix+"audio_seconds_total", sound)
	if sound > 0 {
		gauge(prefix+"realtime_factor_sum", work/sound*done)
		gauge(prefix+"realtime_factor_count", done)
	}
	gauge("process_resident_memory_bytes", resident())
	for _, c := range s.states() {
		for _, state := range []string{"ok", "failed", "waiting", "unavailable"} {
			v := 0.0
			if c["status"] == state {
				v = 1
			}
			gauge(fmt.Sprintf(`%scomponent_state{component=%q,state=%q}`, prefix, c["name"], state), v)
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write([]byte(b.String())) //nolint:errcheck // the client has left
}

// resident is this process's memory in bytes, 0 where the kernel does not say.
func resident() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	words := strings.Fields(string(data))
	if err != nil || len(words) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(words[1], 64) //nolint:errcheck // 0 says so
	return pages * float64(os.Getpagesize())
}
