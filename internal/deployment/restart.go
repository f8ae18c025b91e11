package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// RestartFile is in the updater's run directory.
const RestartFile = "restart.json"

const mostRestart = 64 << 10 // bytes

// Restart is how the last restart of the server ended that somebody asked the
// updater for. Whoever asks through the server is gone by then.
type Restart struct {
	Asked      time.Time `json:"asked"`
	Ended      time.Time `json:"ended"`
	Invocation string    `json:"invocation,omitempty" doc:"systemd's id of the new server's run, 32 hexadecimal digits: that process is the release that should run."`
	Error      *Problem  `json:"error,omitempty" doc:"Why there is none."`
}

// ReadRestart gives the last one of a run directory. Where there was none since
// the machine started the error is a fault of kind NotFound with the code
// "no_restart".
func ReadRestart(run string) (Restart, error) {
	var r Restart
	data, err := durable.ReadRegular(filepath.Join(run, RestartFile), mostRestart)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.NotFound, "no_restart", "no restart that was asked for has ended since this machine started").
			Try("POST /api/v1/updates/restart asks for one; look again until its time is later than yours")
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read how the last restart ended: %w", err)
	}
	return r, nil
}

// WriteRestart keeps r in the run directory for ReadRestart.
func WriteRestart(run string, r Restart) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(run, RestartFile), append(data, '\n'), 0o644)
}
