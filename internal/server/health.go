package server

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/component"
	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/version"
)

// Health is the small health answer. Its keys are the original's; status is
// "ok" where all is well, "degraded" where some part fails and "error" where
// one does without which the appliance does not serve.
type Health struct {
	Status              string      `json:"status" enum:"ok,degraded,error"`
	Reasons             []string    `json:"reasons,omitempty" doc:"What is missing or fails, where status is not ok."`
	WhisperAvailable    bool        `json:"whisper_available" doc:"A recording sent now would be transcribed."`
	Version             string      `json:"version"`
	UptimeSeconds       float64     `json:"uptime_seconds"`
	TotalTranscriptions int64       `json:"total_transcriptions" doc:"Since start."`
	ActiveConnections   int64       `json:"active_connections" doc:"Requests under way."`
	SystemReady         bool        `json:"system_ready"`
	Timestamp           string      `json:"timestamp" format:"date-time"`
	ModelStatus         ModelStatus `json:"model_status"`
}

// ModelStatus is the original's view of the models.
type ModelStatus struct {
	WhisperAvailable    bool                 `json:"whisper_available"`
	CurrentModelName    string               `json:"current_model_name"`
	ModelLoaded         bool                 `json:"model_loaded" doc:"It is in memory; if not, the next recording loads it."`
	ModelLoading        bool                 `json:"model_loading"`
	AvailableModelsInfo map[string]ModelInfo `json:"available_models_info" doc:"The catalogue."`
	DownloadedModelIDs  []string             `json:"downloaded_model_ids"`
}

// ModelInfo is a model of the catalogue.
type ModelInfo struct {
	Size         int64 `json:"size" doc:"Bytes."`
	MemoryNeeded int64 `json:"memory_needed" doc:"Bytes."`
	Multilingual bool  `json:"multilingual"`
	Downloaded   bool  `json:"downloaded"`
}

// healthAnswer is Health with its status: 503 where a recording sent now would
// not be transcribed, so that a monitor which looks no further is told the truth.
type healthAnswer struct {
	Status int
	Body   Health
}

func (s *Server) health(ctx context.Context, _ *struct{}) (*healthAnswer, error) {
	reasons := s.missing()
	ready := len(reasons) == 0
	status, also := s.overall(reasons)
	h := Health{
		Status: string(status), Reasons: append(slices.Clone(reasons), also...), WhisperAvailable: ready, SystemReady: ready,
		Version: version.Build().Version, UptimeSeconds: time.Since(s.started).Seconds(),
		TotalTranscriptions: s.transcribed.Load(), ActiveConnections: s.active.Load(),
		Timestamp: time.Now().UTC().Format(time.RFC3339), ModelStatus: s.modelStatus(ctx, ready),
	}
	return &healthAnswer{statusFor(status, reasons), h}, nil
}

// missing lists what keeps a recording that is sent now from being transcribed.
func (s *Server) missing() []string {
	var reasons []string
	if s.draining.Load() {
		reasons = append(reasons, "the server is stopping")
	}
	_, noModel := s.modelName("")
	if noModel != nil {
		reasons = append(reasons, noModel.Error())
	}
	if s.Components != nil {
		down := s.failing(essential()...)
		if noModel != nil { // said already, and newer
			down = slices.DeleteFunc(down, func(st component.State) bool { return st.Name == partModels })
		}
		return append(reasons, why(down)...)
	}
	if why := s.engineDown(); why != "" {
		reasons = append(reasons, "the engine cannot be started: "+why)
	}
	for _, program := range s.Programs {
		if _, err := os.Stat(program); err != nil {
			reasons = append(reasons, "a program is missing: "+err.Error())
		}
	}
	return reasons
}

// engineDown is why no engine can be had, "" where one runs or may be started.
func (s *Server) engineDown() string {
	if s.EngineDown == nil || s.EngineRunning != nil && s.EngineRunning() {
		return ""
	}
	return s.EngineDown()
}

func (s *Server) modelStatus(ctx context.Context, ready bool) ModelStatus {
	m := ModelStatus{
		WhisperAvailable: ready, CurrentModelName: s.Config().Models.Default, DownloadedModelIDs: []string{},
		AvailableModelsInfo: map[string]ModelInfo{},
	}
	es := s.engineStatus(ctx)
	m.ModelLoaded = es != nil && es.Model != nil
	all, err := s.Models.List()
	if err != nil {
		return m
	}
	for _, l := range all {
		if l.Kind != model.Speech {
			continue
		}
		here := l.State == model.Installed
		m.AvailableModelsInfo[l.Name] = ModelInfo{Size: l.Size, MemoryNeeded: l.MemoryNeeded, Multilingual: l.Multilingual(), Downloaded: here}
		if here {
			m.DownloadedModelIDs = append(m.DownloadedModelIDs, l.Name)
		}
	}
	return m
}

// engineStatus is what the engine says of itself, nil where none runs. It never
// starts one: asking how it is must not wake it, nor wait for one that is frozen.
// Where it was sampled a moment ago nobody is asked.
func (s *Server) engineStatus(ctx context.Context) *engine.Status {
	if !s.seen.sampling.Load() || !s.seen.engine.fresh() {
		patience := time.NewTimer(50 * time.Millisecond)
		defer patience.Stop()
		select {
		case <-s.seen.engine.take(context.WithoutCancel(ctx), s.askEngine):
		case <-patience.C:
		}
	}
	st, at, err := s.seen.engine.get()
	if err != nil || time.Since(at) > 3*sampleEvery {
		return nil
	}
	return st
}

// ApplianceStatus is the original's /api/status.
type ApplianceStatus struct {
	Service      string            `json:"service"`
	Version      string            `json:"version"`
	Status       string            `json:"status" enum:"running"`
	Whisper      WhisperStatus     `json:"whisper"`
	Statistics   Statistics        `json:"statistics"`
	Endpoints    map[string]string `json:"endpoints"`
	Architecture Architecture      `json:"architecture"`
	Build        version.Info      `json:"build"`
	Engine       *engine.Status    `json:"engine,omitempty" doc:"Absent while no engine runs."`
	Timestamp    string            `json:"timestamp" format:"date-time"`
}

// WhisperStatus says whether speech is understood.
type WhisperStatus struct {
	Available    bool   `json:"available"`
	ModelLoaded  bool   `json:"model_loaded"`
	ModelType    string `json:"model_type" doc:"Name of the model in use."`
	ModelLoading bool   `json:"model_loading"`
}

// Statistics count since start.
type Statistics struct {
	UptimeSeconds              float64 `json:"uptime_seconds"`
	TotalTranscriptions        int64   `json:"total_transcriptions"`
	FailedTranscriptions       int64   `json:"failed_transcriptions"`
	WaitingWindows             int     `json:"waiting_windows" doc:"Windows in line for the engine."`
	ActiveWebsocketConnections int     `json:"active_websocket_connections" doc:"Always 0: there are none."`
	SystemReady                bool    `json:"system_ready"`
}

// Architecture says how the appliance is built.
type Architecture struct {
	Framework string   `json:"framework"`
	Modules   []string `json:"modules"`
	Features  []string `json:"features"`
}

func (s *Server) status(ctx context.Context, _ *struct{}) (*body[ApplianceStatus], error) {
	ready := len(s.missing()) == 0
	st := ApplianceStatus{
		Service: "whisper-appliance", Version: version.Build().Version, Status: "running", Build: version.Build(),
		Whisper: WhisperStatus{Available: ready, ModelType: s.Config().Models.Default},
		Statistics: Statistics{
			UptimeSeconds: time.Since(s.started).Seconds(), TotalTranscriptions: s.transcribed.Load(),
			FailedTranscriptions: s.failed.Load(), WaitingWindows: s.Service.Waiting(), SystemReady: ready,
		},
		Endpoints: map[string]string{
			"main_interface": "/", "health_check": "/health", "upload_transcription": "/transcribe",
			"live_transcription": "/api/transcribe-live", "api_documentation": "/openapi.json", "admin_panel": "/",
			"openai_transcriptions": "/v1/audio/transcriptions", "openai_translations": "/v1/audio/translations",
		},
		Architecture: Architecture{
			Framework: "Go, whisper.cpp",
			Modules:   []string{"server", "engine", "decoder"},
			Features:  []string{"openai-api", "sandboxed-decoder", "https-on-one-port"},
		},
		Timestamp: time.Now().UTC().Format(time.RFC3339),
	}
	if st.Engine = s.engineStatus(ctx); st.Engine != nil {
		st.Whisper.ModelLoaded = st.Engine.Model != nil
	}
	return answerWith(st), nil
}

// livez: the process answers.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n")) //nolint:errcheck // the client has left
	return nil
}

// readyz: a recording sent now would be transcribed.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	if reasons := s.missing(); len(reasons) > 0 {
		return fault.New(fault.Unavailable, "not_ready", "not ready: %s", strings.Join(reasons, "; ")).
			Try("/health says more")
	}
	return s.livez(w, r)
}
