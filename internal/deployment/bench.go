package deployment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/durable"
	"whisper-appliance/internal/fault"
)

// Bench is a measurement of a version that somebody asked for, apart from any
// deployment.
type Bench struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit,omitempty"`
	Model   string    `json:"model"` // that was in use; figures of two models are not compared
	At      time.Time `json:"at"`
	Figures Figures   `json:"figures"`
}

// mostBenches is how many measurements of a version are kept, the newest.
const mostBenches = 20

// benchFile is where the measurements of a version lie in the updater's state
// directory.
func benchFile(state, version string) (string, error) {
	odd := func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".+-", r))
	}
	if version == "" || len(version) > 100 || strings.ContainsFunc(version, odd) {
		return "", fault.New(fault.BadInput, "bad_version", "%q is not a version, such as 1.4.2", fault.Short(version)).On("version").
			Try("`whisper-appliance version` shows the one that serves")
	}
	return filepath.Join(state, "bench-"+version+".json"), nil
}

// SaveBench adds b to the measurements of its version in the updater's state
// directory, durably.
func SaveBench(state string, b Bench) error {
	path, err := benchFile(state, b.Version)
	if err != nil {
		return err
	}
	all, err := Benches(state, b.Version)
	if err != nil {
		return err
	}
	all = append([]Bench{b}, all...)
	data, err := json.MarshalIndent(all[:min(len(all), mostBenches)], "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o644)
}

// Benches gives the measurements of a version, newest first. None is no error;
// a file that cannot be read is, with the code "bad_bench".
func Benches(state, version string) ([]Bench, error) {
	path, err := benchFile(state, version)
	if err != nil {
		return nil, err
	}
	data, err := durable.ReadRegular(path, mostStatus)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("measurements of %s: %w", version, err)
	}
	var all []Bench
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fault.New(fault.Internal, "bad_bench", "the measurements of %s cannot be read", version).Because(err).
			Try("remove %s: `whisper-appliance bench --save` makes it anew", path)
	}
	return all, nil
}

// FiguresOf are what is known of a version: the medians of its measurements
// with a model, or where there are none those of its deployments. false is that
// there are none either. model "" stands for any.
func FiguresOf(state, version, model string) (Figures, bool, error) {
	benches, err := Benches(state, version)
	if err != nil {
		return Figures{}, false, err
	}
	var measured []Figures
	for _, b := range benches {
		if model == "" || b.Model == model {
			measured = append(measured, b.Figures)
		}
	}
	if len(measured) > 0 {
		return medians(measured), true, nil
	}
	records, err := Records(state, 0)
	if err != nil {
		return Figures{}, false, err
	}
	for _, m := range Analyze(records).Versions {
		if m.Version == version {
			return m.Figures, true, nil
		}
	}
	return Figures{}, false, nil
}

// MeasuredVersions lists the versions that figures are known of, of
// measurements first.
func MeasuredVersions(state string) []string {
	var all []string
	entries, _ := os.ReadDir(state) // none where it cannot be read
	for _, e := range entries {
		if version, ok := strings.CutPrefix(e.Name(), "bench-"); ok {
			if version, ok = strings.CutSuffix(version, ".json"); ok {
				all = append(all, version)
			}
		}
	}
	records, _ := Records(state, 0) //nolint:errcheck // it is a list to choose from
	for _, m := range Analyze(records).Versions {
		all = append(all, m.Version)
	}
	return all
}

// Or is f with those of g in the places of figures that f has not measured.
func (f Figures) Or(g Figures) Figures {
	f.StartSeconds = cmp.Or(f.StartSeconds, g.StartSeconds)
	f.FirstSeconds = cmp.Or(f.FirstSeconds, g.FirstSeconds)
	if f.RealTime == 0 {
		f.RealTime, f.Runs = g.RealTime, g.Runs
	}
	f.MemoryBytes = cmp.Or(f.MemoryBytes, g.MemoryBytes)
	f.HealthSeconds = cmp.Or(f.HealthSeconds, g.HealthSeconds)
	f.ErrorRatio = cmp.Or(f.ErrorRatio, g.ErrorRatio)
	return f
}
