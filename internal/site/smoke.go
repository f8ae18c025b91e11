package site

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/measure"
	"whisper-appliance/internal/smoke"
)

// switchSmoke asks a server whether it serves as well as the one before it, and
// has it transcribe where nothing is missing: a release is not to blame for a
// model that is not there.
type switchSmoke struct {
	serving string // socket of the server before, which is asked how well that one serves

	// full is asked where nothing is missing; nil = nothing more is asked.
	full func(ctx context.Context, socket string) error

	known          bool // that one was asked before
	told           bool // and has answered
	lacked, failed map[string]string
}

// remember asks the server before how it does, while it alone is behind its
// socket: a candidate beside it takes questions there as well.
func (s *switchSmoke) remember() {
	ctx, cancel := context.WithTimeout(context.Background(), smokeLimit)
	defer cancel()
	var err error
	s.lacked, err = lacking(ctx, s.serving)
	s.told = err == nil                   // one that says nothing excuses nothing
	s.failed, _ = failing(ctx, s.serving) // the same
	s.known = true
}

// before is what the server before lacks, and what fails in it.
func (s *switchSmoke) before(ctx context.Context) (lacks, fails map[string]string) {
	if s.known {
		return s.lacked, s.failed
	}
	lacks, _ = lacking(ctx, s.serving) // the same
	fails, _ = failing(ctx, s.serving) // the same
	return lacks, fails
}

const (
	smokeLimit     = 10 * time.Second // for one question
	modelComponent = "models"         // the part that fails while there is no model
)

// ask is nil where the server behind socket is alive, tells its components, and
// is ready but for a model and for what the server before lacks too. Where it
// stands in that one's place, and nobody has asked that one in time, there is
// nobody to compare it with, and what it lacks may well be the machine's fault. A
// way back does not transcribe: it did so while it served.
func (s *switchSmoke) ask(ctx context.Context, socket string) error {
	if _, err := getOK(ctx, socket, "/livez"); err != nil {
		return err
	}
	lacks, err := lacking(ctx, socket)
	switch {
	case err != nil || socket == s.serving && !s.told:
		return err
	case len(lacks) == 0 && s.full != nil && socket != s.serving:
		return s.full(ctx, socket)
	}
	delete(lacks, modelComponent)
	if len(lacks) == 0 {
		return nil
	}
	before, _ := s.before(ctx)
	for name, why := range lacks {
		if _, was := before[name]; !was {
			return fmt.Errorf("%s: %s", name, why)
		}
	}
	return nil
}

// transcribes has the server at socket do all that smoke asks of it, so that a
// release whose engine does not run never gets the port.
func (s *switchSmoke) transcribes(ctx context.Context, socket string) error {
	report := smoke.Check{Socket: socket}.Run(ctx)
	for _, r := range report.Results {
		ofComponents := r.Name == "components" || r.Name == "check-updates"
		if r.Verdict != smoke.Failed || ofComponents && s.excused(ctx, socket) {
			continue
		}
		return fault.New(fault.Unavailable, "smoke_failed", "%s: %s", r.Name, r.Says).Try("%s", r.Hint)
	}
	return nil
}

// excused tells whether components fail behind socket, and all that do speak of
// the machine alone, or fail in the server before as well.
func (s *switchSmoke) excused(ctx context.Context, socket string) bool {
	fails, err := failing(ctx, socket)
	if err != nil || len(fails) == 0 {
		return false
	}
	_, before := s.before(ctx)
	for name := range fails {
		if _, was := before[name]; !was && !measure.Advisory(name) {
			return false
		}
	}
	return true
}

// lacking gives what keeps a server from being ready, with why, by component;
// those that only wait for another do not count.
func lacking(ctx context.Context, socket string) (map[string]string, error) {
	lacks, err := failing(ctx, socket)
	if err != nil {
		return nil, err
	}
	status, body, err := getLocal(ctx, socket, "/readyz")
	if err != nil || status == http.StatusOK {
		return nil, err
	}
	if len(lacks) == 0 {
		lacks["/readyz"] = fmt.Sprintf("status %d, %.200s", status, body)
	}
	return lacks, nil
}

// failing gives the components that fail by themselves, with why.
func failing(ctx context.Context, socket string) (map[string]string, error) {
	body, err := getOK(ctx, socket, "/api/v1/components")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Components []component.State `json:"components"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("/api/v1/components: %w", err)
	}
	fails := map[string]string{}
	for _, c := range answer.Components {
		if c.Status == component.Failed {
			fails[c.Name] = c.Error
		}
	}
	return fails, nil
}

func getOK(ctx context.Context, socket, path string) ([]byte, error) {
	status, body, err := getLocal(ctx, socket, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d, %.200s", path, status, body)
	}
	return body, nil
}

// getLocal asks the server behind a socket on this machine.
func getLocal(ctx context.Context, socket, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, smokeLimit)
	defer cancel()
	client := api.OverSocket(socket)
	defer client.HTTP.CloseIdleConnections()
	return client.Raw(ctx, path)
}
