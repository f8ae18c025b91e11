package smoke

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/component"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/score"
)

// health is what of /health/detailed is looked at.
type health struct {
	Status     component.Health  `json:"status"`
	Components []component.State `json:"components"`
	Versions   struct {
		Server string `json:"server"`
		Engine string `json:"engine"`
	} `json:"versions"`
	Environment struct {
		Slot string `json:"slot"`
	} `json:"environment"`
}

// await gives a server that is being started its time.
func (r *run) await(ctx context.Context) {
	deadline := time.Now().Add(r.Wait)
	for {
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, r.asked = r.local.Health(ask)
		cancel()
		if r.asked == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return
		}
		if !pauseFor(ctx) {
			return
		}
	}
}

// pauseFor waits between two attempts, false where ctx has ended.
func pauseFor(ctx context.Context) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (r *run) answers(ctx context.Context) (string, error) {
	if r.asked != nil {
		return "", r.asked
	}
	if r.asked = r.detail(ctx); r.asked != nil {
		return "", r.asked
	}
	r.report.Version, r.report.Slot = r.health.Versions.Server, r.health.Environment.Slot
	return "status " + string(r.health.Status), nil
}

// detail reads the long health answer. An appliance without a model gives it
// with 503, and is well apart from that.
func (r *run) detail(ctx context.Context) error {
	const path = "/health/detailed"
	status, body, err := r.local.Raw(ctx, path)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", path, err)
	}
	var h health
	if json.Unmarshal(body, &h) != nil || h.Status == "" {
		return fault.New(fault.Internal, "bad_answer", "%s answers status %d and no health", path, status)
	}
	r.health = h
	return nil
}

func (r *run) version(context.Context) (string, error) {
	have := r.health.Versions
	number, _, _ := strings.Cut(have.Server, " ") // the commit behind it need not be named
	if r.Version != "" && r.Version != number && r.Version != have.Server {
		return "", fault.New(fault.Conflict, "other_version", "the server is version %s and should be %s", have.Server, r.Version).
			Try("systemctl restart whisper-appliance; `whisper-appliance version --check` shows who is what")
	}
	return have.Server, nil
}

// engine compares versions once more: an engine runs only while it is needed,
// and what was told of one before may be of one that has ended. The server
// takes a moment to see the one that has just worked.
func (r *run) engine(ctx context.Context) (string, error) {
	if !r.heard {
		return "", skipped("nothing was transcribed")
	}
	for last := false; ; last = true {
		// The short answer has the engine asked, of which the long one tells.
		if _, err := r.local.Health(ctx); err != nil {
			return "", err
		}
		if err := r.detail(ctx); err != nil {
			return "", err
		}
		have := r.health.Versions
		if have.Engine == have.Server {
			return have.Engine, nil
		}
		switch {
		case !last && pauseFor(ctx):
		case have.Engine == "":
			return "", skipped("the server does not know the engine's version")
		default:
			return "", fault.New(fault.Conflict, "other_version", "the engine is version %s and the server %s", have.Engine, have.Server).
				Try("systemctl stop 'whisper-appliance-engine@*': the next recording starts the right one")
		}
	}
}

// expected are failures that a new or a tired machine may well have: they are
// told and are no reason to take a version back.
var expected = []string{"model_not_installed", "detector_missing", "low_memory", "disk_full"}

func (r *run) components(context.Context) (string, error) {
	if len(r.health.Components) == 0 {
		return "", fault.New(fault.Internal, "no_components", "the server names no components")
	}
	well := 0
	var known error
	for _, c := range r.health.Components {
		switch {
		case c.Status == component.OK:
			well++
		case c.Status == component.Unavailable: // not in this version
		case slices.Contains(expected, c.Code), c.Status == component.Waiting && !c.Critical:
			known = errors.Join(known, fault.New(fault.Unavailable, c.Code, "%s: %s", c.Name, c.Error).Try("%s", c.Hint))
		default:
			return "", fault.New(fault.Unavailable, c.Code, "%s: %s", c.Name, c.Error).Try("%s", c.Hint)
		}
	}
	if known != nil {
		return "", degraded(known)
	}
	return fmt.Sprintf("%d ok", well), nil
}

func (r *run) http(ctx context.Context) (string, error) { return r.over(ctx, "http") }

// https takes any certificate: that the door speaks TLS is what is asked here.
func (r *run) https(ctx context.Context) (string, error) { return r.over(ctx, "https") }

func (r *run) over(ctx context.Context, scheme string) (string, error) {
	if r.Address == "" {
		return "", skipped("no address was named")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	c := &api.Client{Base: scheme + "://" + r.Address, HTTP: &http.Client{Transport: transport}, Key: r.Key}
	answer, err := c.Health(ctx)
	if err != nil {
		return "", err
	}
	// The predecessor's scripts look for this.
	if r.health.Status == component.Well && !bytes.Contains(answer, []byte(`"status":"ok"`)) {
		return "", fault.New(fault.Internal, "health_differs", `%s://%s/health does not say "status":"ok"`, scheme, r.Address)
	}
	return c.Base, nil
}

func (r *run) deploymentInfo(ctx context.Context) (string, error) {
	var info struct {
		Status         string `json:"status"`
		DeploymentType string `json:"deployment_type"`
	}
	if err := r.local.Get(ctx, "/api/enterprise/deployment-info", &info); err != nil {
		return "", err
	}
	if info.Status != "success" || info.DeploymentType == "" {
		return "", fault.New(fault.Internal, "bad_answer", "deployment-info answers status %q and type %q", info.Status, info.DeploymentType)
	}
	return info.DeploymentType, nil
}

// checkUpdates asks for what the updater does, which goes nowhere else: whether
// a source is reachable does not count here. See noUpdates.
func (r *run) checkUpdates(ctx context.Context) (string, error) {
	said, err := r.planned("updater")
	if err != nil {
		return said, err
	}
	const path = "/api/enterprise/update-status"
	status, body, err := r.local.Raw(ctx, path)
	if err != nil {
		return "", fmt.Errorf("ask for %s: %w", path, err)
	}
	if status != http.StatusOK {
		return noUpdates(status, body)
	}
	var now struct {
		Status string `json:"status"`
		State  string `json:"update_state"`
	}
	if json.Unmarshal(body, &now) != nil || now.Status != "success" || now.State == "" {
		return "", fault.New(fault.Internal, "bad_answer", "update-status answers status %q and update_state %q", now.Status, now.State)
	}
	return now.State, nil
}

// noUpdates is what an answer comes to that does not tell what the updater does.
// The door is the release's. What lies behind it, as a record that cannot be read,
// is the machine's; and an updater that has not been asked yet is well.
func noUpdates(status int, body []byte) (string, error) {
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Code == "" {
		return "", fault.New(fault.Internal, "bad_answer", "update-status answers status %d and no reason", status)
	}
	switch {
	case status != http.StatusServiceUnavailable:
		return "", fault.New(fault.OfStatus(status), e.Code, "update-status answers status %d: %s", status, e.Error).Try("%s", e.Hint)
	case e.Code == "no_status":
		return e.Error, nil
	}
	return "", degraded(fault.New(fault.Unavailable, e.Code, "what the updater does cannot be told: %s", e.Error).Try("%s", e.Hint))
}

func (r *run) maintenance(context.Context) (string, error) {
	return r.planned("maintenance")
}

// planned is the check of a component that may not be in this version.
func (r *run) planned(name string) (string, error) {
	i := slices.IndexFunc(r.health.Components, func(c component.State) bool { return c.Name == name })
	if i < 0 || r.health.Components[i].Status == component.Unavailable {
		return "", skipped(name + " is not in this version")
	}
	if c := r.health.Components[i]; c.Status != component.OK {
		return "", fault.New(fault.Unavailable, c.Code, "%s: %s", name, c.Error).Try("%s", c.Hint)
	}
	return "ok", nil
}

// mostErrors is how many of the clip's words the smallest model may get wrong.
const mostErrors = 0.25

func (r *run) transcription(ctx context.Context) (string, error) {
	for _, c := range r.health.Components {
		if c.Name == "models" && c.Code == "model_not_installed" {
			return "", degraded(fault.New(fault.Unavailable, c.Code, "no model yet: %s", c.Error).Try("%s", c.Hint))
		}
	}
	began := time.Now()
	heard, err := r.local.TranscribeFrom(ctx, bytes.NewReader(clip), int64(len(clip)), api.Request{Path: "reference.wav", Language: "en"},
		func(int64) {}, func(api.Progress) {})
	if err != nil {
		return "", err
	}
	r.heard = true
	text := strings.TrimSpace(heard.Text())
	if rate := score.Compare("en", said, text).Rate(); rate > mostErrors {
		return "", fault.New(fault.Internal, "wrong_text", "the reference clip was heard as %q; %q is said in it", fault.Short(text), strings.TrimSpace(said)).
			Try("`whisper-appliance models verify` checks the model")
	}
	return fmt.Sprintf("%q in %v", text, time.Since(began).Round(10*time.Millisecond)), nil
}
