package deployment

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"whisper-appliance/internal/durable"
)

// Outcomes of a transaction.
const (
	Committed  = "committed"
	Kept       = "kept"        // committed without proof: the trial stayed inconclusive to its end
	RolledBack = "rolled_back" // it had taken over, and what was there before serves again
	Aborted    = "aborted"     // it never took over
	Canceled   = "canceled"    // likewise, because somebody said so
	Failed     = "failed"      // nothing serves, or nobody can say what
)

// Whom a failure is blamed on.
const (
	Candidate     = "candidate"
	Environment   = "environment"
	Configuration = "configuration"
	Operator      = "operator" // somebody asked for it
)

// PhaseTime is how long a phase took.
type PhaseTime struct {
	Phase   Phase   `json:"phase"`
	Seconds float64 `json:"seconds"`
}

// Record is one attempt, as it ended.
type Record struct {
	Transaction string      `json:"transaction"`
	Door        Door        `json:"door"`
	Kind        string      `json:"kind"` // "update", "rollback", "switch", "deploy"
	From        Release     `json:"from,omitzero"`
	To          Release     `json:"to,omitzero"`
	Started     time.Time   `json:"started"`
	Ended       time.Time   `json:"ended"`
	Phases      []PhaseTime `json:"phases"`
	Outcome     string      `json:"outcome"`
	At          Phase       `json:"at,omitempty"`     // the phase that failed
	Reason      string      `json:"reason,omitempty"` // stable code
	Says        string      `json:"says,omitempty"`
	Hint        string      `json:"hint,omitempty"`
	Blame       string      `json:"blame,omitempty"`    // candidate, environment, configuration, operator
	Evidence    []string    `json:"evidence,omitempty"` // a line each
	Bundle      string      `json:"bundle,omitempty"`   // directory with more of it
	Requests    Requests    `json:"requests"`
	Figures     Figures     `json:"figures,omitzero"`
	Interrupted int         `json:"interrupted,omitempty"` // how often it was cut off, and taken up again
}

// Requests is what those who used the appliance met with during a deployment,
// as the servers counted it.
type Requests struct {
	Answered int64   `json:"answered"`
	Failed   int64   `json:"failed"`       // status 500 and above
	Gap      float64 `json:"gap_seconds"`  // the longest time without a server that answered
	Known    bool    `json:"known"`        // false where nobody could be asked
	Swap     float64 `json:"swap_seconds"` // from the first touch of the link until the new server was attested
}

// Figures are measured of a release, for the releases after it to be compared
// with. 0 is not measured.
type Figures struct {
	StartSeconds  float64 `json:"start_seconds,omitempty"`  // until READY
	FirstSeconds  float64 `json:"first_seconds,omitempty"`  // first transcription of the reference clip, the engine's start included
	RealTime      float64 `json:"real_time,omitempty"`      // seconds of work for a second of sound, median
	MemoryBytes   int64   `json:"memory_bytes,omitempty"`   // resident, server and engine
	HealthSeconds float64 `json:"health_seconds,omitempty"` // 99th percentile of /health
	ErrorRatio    float64 `json:"error_ratio,omitempty"`    // failed by answered requests
	Runs          int     `json:"runs,omitempty"`           // transcriptions measured
}

// Append adds r to the record in the updater's state directory, durably.
func Append(state string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(state, RecordFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err = errors.Join(f.Chmod(0o644), endLine(f)); err == nil { // the server reads it, whatever the umask
		_, err = f.Write(append(line, '\n'))
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = durable.SyncDir(state)
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// endLine ends a line that a power cut has left half.
func endLine(f *os.File) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, end-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.Write([]byte{'\n'})
	return err
}

// Records gives the newest records of the updater's state directory, newest
// first, most of them at most (0 = all). Lines that cannot be read are passed
// over. No record is no error.
func Records(state string, most int) ([]Record, error) {
	f, err := os.Open(filepath.Join(state, RecordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	defer f.Close()
	var all []Record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Record
		if len(bytes.TrimSpace(lines.Bytes())) > 0 && json.Unmarshal(lines.Bytes(), &r) == nil && r.Transaction != "" {
			all = append(all, r)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	newest := make([]Record, 0, len(all))
	for i := len(all) - 1; i >= 0 && (most == 0 || len(newest) < most); i-- {
		newest = append(newest, all[i])
	}
	return newest, nil
}
