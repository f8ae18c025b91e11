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

// Identity is what was measured: the commit that the running server was built
// from, with -dirty where its tree was changed, and build and engine in a line,
// "whisper-appliance 9.8.7, whisper.cpp 1.9.5 on CPU (haswell)".
type Identity struct{ Commit, Line string }

// Identify asks the server what it is. The engine's part of the line is
// missing while none runs.
func (a *Appliance) Identify(ctx context.Context) (Identity, error) {
	answer, err := clips.Do(ctx, http.MethodGet, a.URL+"/api/status", a.Key, "", nil)
	if err != nil {
		return Identity{}, fmt.Errorf("ask for the status: %w", err)
	}
	var status struct {
		Build  version.Info   `json:"build"`
		Engine *engine.Status `json:"engine"`
	}
	if err := json.Unmarshal(answer, &status); err != nil {
		return Identity{}, fmt.Errorf("ask for the status: %w", err)
	}
	line := "whisper-appliance " + status.Build.Version
	if status.Engine != nil {
		line += fmt.Sprintf(", whisper.cpp %s on %s", status.Engine.Whisper, status.Engine.Backend)
	}
	return Identity{status.Build.Commit, line}, nil
}

// Unload has the engine give the model's memory back.
func (a *Appliance) Unload(ctx context.Context) error {
	if _, err := clips.Do(ctx, http.MethodPost, a.URL+"/api/v1/engine/unload", a.AdminKey, "", nil); err != nil {
		return fmt.Errorf("unload the model: %w", err)
	}
	return nil
}
