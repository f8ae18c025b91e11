package measure

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/trial"
)

const prefix = "whisper_appliance_"

// point is one value of /metrics.
type point struct {
	name   string // without our prefix
	labels string // as they stand: `method="POST",code="200"`
	value  float64
}

// label is the value of a label that has no quotes in it, as all that are asked for.
func (p point) label(name string) string {
	for _, pair := range strings.Split(p.labels, `",`) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(pair), name+`="`); ok {
			return strings.TrimSuffix(value, `"`)
		}
	}
	return ""
}

type points []point

// metrics asks for the server's counters.
func (c client) metrics(ctx context.Context) (points, error) {
	const path = "/metrics"
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	status, body, err := c.Raw(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	if status != http.StatusOK {
		return nil, fault.New(fault.OfStatus(status), "bad_answer", "%s answers status %d", path, status).
			Try("metrics are for those who may transcribe: use root, or a key")
	}
	return parse(body), nil
}

// parse reads Prometheus' text format as far as our own metrics need it, and
// passes over what is something else.
func parse(body []byte) points {
	var all points
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ours := strings.CutPrefix(lines.Text(), prefix)
		space := strings.LastIndexByte(rest, ' ')
		if !ours || space < 0 {
			continue
		}
		value, err := strconv.ParseFloat(rest[space+1:], 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(rest[:space], "{")
		all = append(all, point{name, strings.TrimSuffix(labels, "}"), value})
	}
	return all
}

// sum adds the values called name.
func (m points) sum(name string) float64 {
	n := 0.0
	for _, p := range m {
		if p.name == name {
			n += p.value
		}
	}
	return n
}

// idle reports whether nobody's recording is worked on.
func (m points) idle() bool { return m.sum("jobs") == 0 && m.sum("queue_windows") == 0 }

// loaded reports whether the engine held its model when it was last looked at.
func (m points) loaded() bool { return m.sum("engine_model_loaded") > 0 }

// ended counts the recordings that the server is done with.
func (m points) ended() float64 {
	return m.sum("transcriptions_total") + m.sum("transcription_failures_total")
}

// counters are requests for work: those with a body, of a door that is there.
// Failed is what the server has to answer for, a disk without room apart. A
// transcription that broke after its headers were out has status 200, so that
// failures of our own processes are counted by their codes, too.
func (m points) counters() trial.Counters {
	var answered, failed, broken float64
	for _, p := range m {
		switch {
		case p.name == "http_requests_total" && p.label("method") == http.MethodPost && p.label("route") != "other":
			answered += p.value
			if code := p.label("code"); strings.HasPrefix(code, "5") && code != "507" {
				failed += p.value
			}
		case p.name == "transcription_failures_total" && ownFault(p.label("code")):
			broken += p.value
		}
	}
	return trial.Counters{Answered: int64(answered), Failed: int64(min(answered, max(failed, broken)))}
}

// ownFault tells codes of failures that no recording and no caller can cause.
func ownFault(code string) bool {
	return slices.Contains([]string{"internal_error", "engine_failed", "engine_crashed", "engine_down", "engine_missing", "decoder_failed", "decoder_died"}, code)
}
