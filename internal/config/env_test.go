package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		env       string
		key       string
		want      any
		wantNotes int
	}{
		{"WHISPER_APPLIANCE_SERVER_LISTEN=:8080", "server.listen", ":8080", 0},
		{"WHISPER_APPLIANCE_SERVER_HTTP_REDIRECT=false", "server.http_redirect", false, 0},
		{"WHISPER_APPLIANCE_SERVER_MAX_UPLOAD=100MB", "server.max_upload", "100MB", 0},
		{"WHISPER_APPLIANCE_ENGINE_THREADS=3", "engine.threads", int64(3), 0},
		{"WHISPER_APPLIANCE_ENGINE_IDLE_UNLOAD=1h0m0s", "engine.idle_unload", "1h", 0},
		{"WHISPER_APPLIANCE_TLS_NAMES=a.lan, b.lan,", "tls.names", []string{"a.lan", "b.lan"}, 0},
		{"WHISPER_APPLIANCE_AUTH_TRUSTED_PROXIES=10.0.0.0/8,192.0.2.1", "auth.trusted_proxies", []string{"10.0.0.0/8", "192.0.2.1/32"}, 0},
		{"WHISPER_APPLIANCE_AUTH_TRUSTED_PROXIES=", "auth.trusted_proxies", []string{}, 0},
		{"WHISPER_APPLIANCE_MODELS_MIRROR=", "models.mirror", "", 0},
		{"WHISPER_APPLIANCE_MODELS_DIRECTORY=models", "models.directory", filepath.Join(dir, "models"), 0},
		{"WHISPER_MODEL=large-v3", "models.default", "large-v3", 0},
		{"WHISPER_MODEL=", "models.default", "base", 0},
		{"WHISPER_CACHE_DIR=" + dir, "models.directory", dir, 0},
		{"WHISPER_DEVICE=cpu", "engine.device", "cpu", 0},
		{"PRELOAD_MODEL=true", "models.preload", true, 0},
		{"MAX_UPLOAD_SIZE=104857600", "server.max_upload", "100MiB", 0},
		{"HTTPS_PORT=5443", "server.listen", ":5443", 0},
		{"HTTP_REDIRECT=False", "server.http_redirect", false, 0},
		{"DEBUG_MODE=1", "log.level", "debug", 0},
		{"DEBUG_MODE=false", "log.level", "info", 0},
		{"LOG_LEVEL=WARNING", "log.level", "warn", 0},
		{"LOG_LEVEL=CRITICAL", "log.level", "error", 0},
		{"WORKER_PROCESSES=2", "log.level", "info", 1},
		{"MODEL_CACHE_SIZE=1", "log.level", "info", 1},
		{"AUDIO_CHUNK_SIZE=1024", "log.level", "info", 1},
		{"SSL_VERIFY=false", "log.level", "info", 1},
		{"FLASK_ENV=production", "log.level", "info", 1},
		{"FLASK_DEBUG=0", "log.level", "info", 1},
		{"PYTHONPATH=src", "log.level", "info", 0},
		{"WHISPER_APPLIANCE_URL=x", "log.level", "info", 0}, // reserved below
	}
	t.Chdir(dir)
	for _, tt := range tests {
		_, r, err := Load(Sources{Environ: []string{tt.env}, Reserved: []string{"WHISPER_APPLIANCE_URL"}})
		if err != nil {
			t.Errorf("%s: %v", tt.env, err)
			continue
		}
		v, _ := r.Find(tt.key)
		if got, ok := v.Value.([]string); ok && slices.Equal(got, tt.want.([]string)) {
			continue
		} else if ok || v.Value != tt.want {
			t.Errorf("%s: %s = %#v, want %#v", tt.env, tt.key, v.Value, tt.want)
		}
		if len(r.Notes) != tt.wantNotes || tt.wantNotes > 0 && !strings.Contains(r.Notes[0], " has no effect: ") {
			t.Errorf("%s: notes %q", tt.env, r.Notes)
		}
	}
}

func TestSSLPathsTogether(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "c"), filepath.Join(t.TempDir(), "k")
	c, _, err := Load(Sources{Environ: []string{"SSL_CERT_PATH=" + cert, "SSL_KEY_PATH=" + key}})
	if err != nil || c.TLS.Certificate != cert || c.TLS.Key != key {
		t.Errorf("tls = %+v, %v", c, err)
	}
}

func TestLogLevelBeatsDebugMode(t *testing.T) {
	c, _, err := Load(Sources{Environ: []string{"LOG_LEVEL=ERROR", "DEBUG_MODE=true"}})
	if err != nil || c.Log.Level != "error" {
		t.Errorf("level = %+v, %v", c, err)
	}
}

func TestBadVariables(t *testing.T) {
	for env, want := range map[string]string{
		"WHISPER_APPLIANCE_SERVER_LISTN=:1":         "there is no variable WHISPER_APPLIANCE_SERVER_LISTN; did you mean WHISPER_APPLIANCE_SERVER_LISTEN?",
		"WHISPER_APPLIANCE_QQQQQQQQQQQ=1":           "there is no variable WHISPER_APPLIANCE_QQQQQQQQQQQ",
		"WHISPER_APPLIANCE_MODELS_PRELOAD=":         `environment WHISPER_APPLIANCE_MODELS_PRELOAD: models.preload is ""; it must be true or false`,
		"WHISPER_APPLIANCE_TRANSCRIPTION_BEST_OF=0": "it must be a whole number from 1 to 8",
		"HTTPS_PORT=https":                          `environment HTTPS_PORT: server.listen is ":https"`,
		"DEBUG_MODE=sometimes":                      `environment DEBUG_MODE: log.level is "sometimes"`,
		"WHISPER_DEVICE=cuda":                       `environment WHISPER_DEVICE: engine.device is "cuda"; it must be "cpu"`,
	} {
		_, _, err := Load(Sources{Environ: []string{env}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", env, err, want)
		}
	}
}
