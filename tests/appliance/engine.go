package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"whisper-appliance/internal/engine"
	"whisper-appliance/internal/version"
	"whisper-appliance/tests/clips"
)

// Engine describes the build and its engine in a line, "whisper-appliance
// 9.8.7 (e6e80422e2b1), whisper.cpp 1.9.5 on CPU (haswell)". The engine's part is missing
// while none runs.
func (a *Appliance) Engine(ctx context.Context) (string, error) {
	answer, err := clips.Do(ctx, http.MethodGet, a.URL+"/api/status", a.Key, "", nil)
	if err != nil {
		return "", fmt.Errorf("ask for the status: %w", err)
	}
	var status struct {
		Build  version.Info   `json:"build"`
		Engine *engine.Status `json:"engine"`
	}
	if err := json.Unmarshal(answer, &status); err != nil {
		return "", fmt.Errorf("ask for the status: %w", err)
	}
	line := fmt.Sprintf("whisper-appliance %s (%s)", status.Build.Version, status.Build.Commit)
	if status.Engine != nil {
		line += fmt.Sprintf(", whisper.cpp %s on %s", status.Engine.Whisper, status.Engine.Backend)
	}
	return line, nil
}

// Unload has the engine give the model's memory back.
func (a *Appliance) Unload(ctx context.Context) error {
	if _, err := clips.Do(ctx, http.MethodPost, a.URL+"/api/v1/engine/unload", a.AdminKey, "", nil); err != nil {
		return fmt.Errorf("unload the model: %w", err)
	}
	return nil
}
