package smoke

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/api"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/score"
)

// health is what of /health/detailed is looked at.
type health struct {
	Status     string      `json:"status"`
	Components []component `json:"components"`
	Versions   struct {
		Server string `json:"server"`
		Engine string `json:"engine"`
	} `json:"versions"`
	Environment struct {
		Slot string `json:"slot"`
	} `json:"environment"`
}

type component struct {
	Name     string `json:"name"`
	Status   string `json:"status"`
	Critical bool   `json:"critical"`
	Error    string `json:"error"`
	Code     string `json:"code"`
	Hint     string `json:"hint"`
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
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
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
	return "status " + r.health.Status, nil
}

// detail reads the long health answer. An appliance without a model gives it
// with 503, and is well apart from that.
func (r *run) detail(ctx context.Context) error {
	const path = "/health/detailed"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.local.Base+path, nil)
	if err != nil {
		return err
	}
	resp, err := r.local.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if json.Unmarshal(body, &r.health) != nil || r.health.Status == "" {
		return fault.New(fault.Internal, "bad_answer", "%s answers %s and no health", path, resp.Status)
	}
	return nil
}

func (r *run) version(context.Context) (string, error) {
	have := r.health.Versions
	number, _, _ := strings.Cut(have.Server, " ") // the commit behind it need not be named
	switch {
	case r.asked != nil:
		return "", skipped("the server does not answer")
	case r.Version != "" && r.Version != number && r.Version != have.Server:
		return "", fault.New(fault.Conflict, "other_version", "the server is version %s and should be %s", have.Server, r.Version).
			Try("systemctl restart whisper-appliance; `whisper-appliance version --check` shows who is what")
	case have.Engine != "" && have.Engine != have.Server:
		return "", fault.New(fault.Conflict, "other_version", "the engine is version %s and the server %s", have.Engine, have.Server).
			Try("systemctl stop 'whisper-appliance-engine@*': the next recording starts the right one")
	default:
		return have.Server, nil
	}
}

// expected are failures that a new or a tired machine may well have: they are
// told and are no reason to take a version back.
var expected = []string{"model_not_installed", "low_memory", "disk_full"}

func (r *run) components(context.Context) (string, error) {
	if r.asked != nil {
		return "", skipped("the server does not answer")
	}
	if len(r.health.Components) == 0 {
		return "", fault.New(fault.Internal, "no_components", "the server names no components")
	}
	well := 0
	var known error
	for _, c := range r.health.Components {
		switch {
		case c.Status == "ok":
			well++
		case c.Status == "unavailable": // not in this version
		case slices.Contains(expected, c.Code), c.Status == "waiting" && !c.Critical:
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
	if r.health.Status == "ok" && !bytes.Contains(answer, []byte(`"status":"ok"`)) {
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

func (r *run) checkUpdates(context.Context) (string, error) {
	return r.planned("updater")
}

func (r *run) maintenance(context.Context) (string, error) {
	return r.planned("maintenance")
}

// planned is the check of a component that may not be in this version.
func (r *run) planned(name string) (string, error) {
	i := slices.IndexFunc(r.health.Components, func(c component) bool { return c.Name == name })
	if i < 0 || r.health.Components[i].Status == "unavailable" {
		return "", skipped(name + " is not in this version")
	}
	if c := r.health.Components[i]; c.Status != "ok" {
		return "", fault.New(fault.Unavailable, c.Code, "%s: %s", name, c.Error).Try("%s", c.Hint)
	}
	return "ok", nil
}

// mostErrors is how many of the clip's words the smallest model may get wrong.
const mostErrors = 0.25

func (r *run) transcription(ctx context.Context) (string, error) {
	if r.asked != nil {
		return "", skipped("the server does not answer")
	}
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
	text := strings.TrimSpace(heard.Text())
	if rate := score.Compare("en", said, text).Rate(); rate > mostErrors {
		return "", fault.New(fault.Internal, "wrong_text", "the reference clip was heard as %q; %q is said in it", fault.Short(text), strings.TrimSpace(said)).
			Try("`whisper-appliance models verify` checks the model")
	}
	return fmt.Sprintf("%q in %v", text, time.Since(began).Round(10*time.Millisecond)), nil
}
